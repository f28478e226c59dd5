//! Certificates that the mesh has not issued: of strangers, or with the mesh's own stolen key.

use std::fs;

use anyhow::{Context, Result};
use mesh_harness::Mesh;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Current,
    /// In 2001 only.
    Expired,
}

/// A chain, leaf first, and the key of the leaf.
#[derive(Debug)]
pub struct Credentials {
    /// The chain without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// Credentials signed by the mesh's own intermediate, whatever they say.
pub fn signed_by_mesh(mesh: &Mesh, spiffe_id: &str, validity: Validity) -> Result<Credentials> {
    let ca = mesh.layout().controller_state().join("ca");
    let read = |file: &str| {
        fs::read_to_string(ca.join(file)).with_context(|| format!("reading {file} of the CA"))
    };
    let intermediate = read("intermediate.crt")?;
    let key = KeyPair::from_pem(&read("intermediate.key")?)?;
    let issuer = Issuer::from_ca_cert_pem(&intermediate, key)?;
    let intermediate = CertificateDer::from_pem_slice(intermediate.as_bytes())?;
    leaf(&issuer, intermediate, spiffe_id, validity)
}

/// Credentials signed by an authority that nobody trusts.
pub fn signed_by_stranger(spiffe_id: &str) -> Result<Credentials> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let certificate = authority.der().clone();
    leaf(&authority, certificate, spiffe_id, Validity::Current)
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    intermediate: CertificateDer<'static>,
    spiffe_id: &str,
    validity: Validity,
) -> Result<Credentials> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
    ];
    if validity == Validity::Expired {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 2);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(Credentials { chain: vec![certificate.der().clone(), intermediate], key })
}
