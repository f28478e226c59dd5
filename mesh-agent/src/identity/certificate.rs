//! SVIDs: a key, the certificate chain that names its owner, and what can be read from it.
//!
//! Rules: the X.509-SVID standard, sections 2 and 5
//! (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_common::identity::{InvalidIdentity, SpiffeId};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
    string::Ia5String,
};
use rustls::{
    RootCertStore,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::tls;

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// The chain is empty.
    #[error("it holds no certificate")]
    Empty,
    /// Not X.509.
    #[error("it is no X.509 certificate")]
    Malformed,
    /// The leaf names nobody.
    #[error("the certificate has no URI name, where a SPIFFE identity has to be")]
    NoIdentity,
    /// The leaf names several; a SPIFFE identity must be the only URI.
    #[error("the certificate has {0} URI names; a SPIFFE identity has to be the only one")]
    ManyIdentities(usize),
    /// The URI is not a SPIFFE identity.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// It names someone else.
    #[error("it is for {presented}, but {expected} was asked for")]
    OtherIdentity {
        /// Who was asked for.
        expected: SpiffeId,
        /// Whom the certificate names.
        presented: SpiffeId,
    },
    /// It is expired, or not valid yet.
    #[error("it is not valid now; look at the clocks of this node and of the controller")]
    NotValidNow,
    /// Key and certificate do not belong together, or the key is of another kind.
    #[error("the key does not fit the certificate: {0}")]
    Key(rustls::Error),
    /// The trust bundle does not vouch for it.
    #[error("the trust bundle does not vouch for it: {0}")]
    Untrusted(rustls::Error),
    /// The trust bundle is empty or holds what is no certificate.
    #[error("the trust bundle holds no usable root certificate")]
    NoRoots,
}

/// The identity that the leaf of `chain` names: its one URI name.
///
/// # Errors
/// Where there is no leaf, or it names nobody, several, or what is no SPIFFE identity.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, CertificateProblem> {
    let leaf = chain.first().ok_or(CertificateProblem::Empty)?;
    identity_of(&parse(leaf)?)
}

/// When the first certificate of `chain` ends: nobody vouches for the peer any longer then.
///
/// # Errors
/// Where the chain is empty or holds what is no certificate.
pub fn trusted_until(chain: &[CertificateDer<'_>]) -> Result<SystemTime, CertificateProblem> {
    let ends = chain.iter().map(|certificate| {
        parse(certificate).map(|parsed| time_of(parsed.validity().not_after.timestamp()))
    });
    let ends = ends.collect::<Result<Vec<_>, _>>()?;
    ends.into_iter().min().ok_or(CertificateProblem::Empty)
}

/// A key and the certificate chain that says whose it is.
#[derive(Clone)]
pub struct Svid {
    identity: SpiffeId,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// The SVID of `key` (PKCS #8) and `chain`, leaf first.
    ///
    /// # Errors
    /// Where the chain names nobody or the key is not the leaf's.
    pub fn new(
        key: PrivatePkcs8KeyDer<'static>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CertificateProblem> {
        let leaf = chain.first().ok_or(CertificateProblem::Empty)?;
        let parsed = parse(leaf)?;
        let identity = identity_of(&parsed)?;
        let serial = hex(parsed.raw_serial());
        let validity = parsed.validity();
        let not_before = time_of(validity.not_before.timestamp());
        let not_after = time_of(validity.not_after.timestamp());
        let signing = any_ecdsa_type(&PrivateKeyDer::Pkcs8(key.clone_key()))
            .map_err(CertificateProblem::Key)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(CertificateProblem::Key)?;
        Ok(Self {
            identity,
            serial,
            not_before,
            not_after,
            key: Arc::new(key),
            certified: Arc::new(certified),
        })
    }

    /// Whose it is.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The serial number, hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Whether `now` is within its life.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The moment at which `fraction` of its life is over.
    pub fn at_fraction_of_life(&self, fraction: f64) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life.mul_f64(fraction)
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    pub(super) fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    /// Whether it is valid at `now` and `roots` vouch for it.
    pub(super) fn check(
        &self,
        roots: &RootCertStore,
        now: SystemTime,
    ) -> Result<(), CertificateProblem> {
        if !self.is_valid_at(now) {
            return Err(CertificateProblem::NotValidNow);
        }
        let (leaf, intermediates) = self.chain().split_first().ok_or(CertificateProblem::Empty)?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let parsed = ParsedCertificate::try_from(leaf).map_err(CertificateProblem::Untrusted)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            roots,
            intermediates,
            UnixTime::since_unix_epoch(since_epoch),
            tls::provider().signature_verification_algorithms.all,
        )
        .map_err(CertificateProblem::Untrusted)
    }
}

impl std::fmt::Debug for Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key.
        f.debug_struct("Svid")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A new key and the request to have it signed.
pub(super) struct SigningRequest {
    key: KeyPair,
    /// PKCS #10, DER.
    pub(super) csr: Vec<u8>,
}

impl SigningRequest {
    /// A request for `identity`, which is all that it says.
    pub(super) fn new(identity: &SpiffeId) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The SVID of this request's key and the chain that came back for it.
    pub(super) fn complete(
        self,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Svid, CertificateProblem> {
        Svid::new(PrivatePkcs8KeyDer::from(self.key.serialize_der()), chain)
    }
}

/// The roots that `certificates` are.
pub(super) fn roots(
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, CertificateProblem> {
    let mut roots = RootCertStore::empty();
    let (_, refused) = roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() || refused > 0 {
        return Err(CertificateProblem::NoRoots);
    }
    Ok(roots)
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateProblem> {
    match X509Certificate::from_der(leaf) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateProblem::Malformed),
    }
}

fn identity_of(leaf: &X509Certificate<'_>) -> Result<SpiffeId, CertificateProblem> {
    // An error here is a name extension that occurs twice.
    let names = leaf.subject_alternative_name().map_err(|_| CertificateProblem::Malformed)?;
    let uris: Vec<_> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [] => Err(CertificateProblem::NoIdentity),
        [uri] => Ok(uri.parse()?),
        _ => Err(CertificateProblem::ManyIdentities(uris.len())),
    }
}

fn time_of(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
