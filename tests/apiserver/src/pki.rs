//! The cluster's certificates: its authority, the server's, and those of administrators.

use std::net::IpAddr;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

/// Clocks of machines differ.
const SKEW: Duration = Duration::minutes(5);
const LIFETIME: Duration = Duration::days(365);

/// What signs the certificates of the cluster.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
pub struct Credentials {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut params = params("kubernetes")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for the server at these addresses, and at the names that pods know it by.
    pub fn server(&self, addresses: &[IpAddr]) -> Result<Credentials> {
        let mut params = params("kube-apiserver")?;
        for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate for a user.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Credentials> {
        let mut params = params(user)?;
        for &group in groups {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0).context("signing a certificate")?;
        Ok(Credentials { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + LIFETIME;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// Who a kubeconfig is for.
pub enum Identity<'i> {
    Certificate(&'i Credentials),
    Token(&'i str),
}

/// A kubeconfig (JSON, which is YAML) for a server at `address`.
pub fn kubeconfig(address: &str, authority: &str, user: &Identity<'_>) -> String {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let user = match user {
        Identity::Certificate(credentials) => json!({
            "client-certificate-data": encode(&credentials.certificate),
            "client-key-data": encode(&credentials.key),
        }),
        Identity::Token(token) => json!({ "token": token }),
    };
    let cluster = json!({
        "server": format!("https://{address}"),
        "certificate-authority-data": encode(authority),
    });
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "mesh", "cluster": cluster }],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "mesh", "context": { "cluster": "mesh", "user": "user" } }],
        "current-context": "mesh",
    });
    format!("{config:#}\n")
}
