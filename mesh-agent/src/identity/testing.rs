//! Certificates of every kind, for tests.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::{Svid, renewal::Signed};

const HOUR: Duration = Duration::from_secs(3600);

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Leaf {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

/// How long before and after now a certificate holds; negative hours are on the other side.
#[derive(Clone, Copy)]
pub(crate) struct Hours {
    pub(crate) since: i32,
    pub(crate) until: i32,
}

impl Hours {
    pub(crate) const CURRENT: Self = Self { since: -1, until: 1 };
    pub(crate) const PAST: Self = Self { since: -2, until: -1 };
    pub(crate) const FUTURE: Self = Self { since: 1, until: 2 };
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).expect("a root");
        roots
    }

    /// A certificate that names `uris`.
    pub(crate) fn leaf(&self, uris: &[&str], hours: Hours) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI(Ia5String::try_from(*uri).expect("ASCII")))
            .collect();
        self.issue(params, hours)
    }

    /// A certificate for a DNS name, as the controller has one.
    pub(crate) fn server(&self, name: &str) -> Leaf {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        self.issue(params, Hours::CURRENT)
    }

    /// An SVID for `uri`.
    pub(crate) fn svid(&self, uri: &str, hours: Hours) -> Svid {
        let leaf = self.leaf(&[uri], hours);
        Svid::new(leaf.key.into(), vec![leaf.certificate]).expect("an SVID")
    }

    /// Signs what an agent asks for.
    pub(crate) fn sign(&self, csr: Vec<u8>, hours: Hours) -> Signed {
        let csr = CertificateSigningRequestDer::from(csr);
        let mut request = CertificateSigningRequestParams::from_der(&csr).expect("a request");
        request.params.not_before = at(hours.since).into();
        request.params.not_after = at(hours.until).into();
        request.params.extended_key_usages = both_usages();
        let certificate = request.signed_by(&self.0).expect("a certificate");
        Signed { chain: vec![certificate.der().clone()], trust_bundle: vec![self.der()] }
    }

    fn issue(&self, mut params: CertificateParams, hours: Hours) -> Leaf {
        params.not_before = at(hours.since).into();
        params.not_after = at(hours.until).into();
        params.extended_key_usages = both_usages();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").der().clone();
        Leaf { certificate, key: key.serialize_der() }
    }
}

impl Leaf {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// Certificate and key as PEM.
    pub(crate) fn pem(&self) -> (String, String) {
        let encode = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
        (encode("CERTIFICATE", &self.certificate), encode("PRIVATE KEY", &self.key))
    }
}

fn both_usages() -> Vec<ExtendedKeyUsagePurpose> {
    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
}

fn at(hours: i32) -> SystemTime {
    let distance = HOUR * hours.unsigned_abs();
    if hours < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}
