//! The certificates that are signed: of workloads, and of the controller's own server.

use mesh_common::identity::{InvalidIdentity, SpiffeId};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::Duration;

use super::{CaError, Certified, SERVER_NAME, ServerCertificate, Signer, root::lasting};

/// A signing request has a key and a name: a few hundred bytes.
const REQUEST_BYTES: usize = 16 * 1024;
/// Agents connect anew for the controller's new certificate; once in two months is often enough.
const SERVER_LIFETIME: Duration = Duration::days(90);

/// Why a signing request is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// Not a request, or its signature is not by its key.
    #[error("no PKCS #10 request that is signed by its own key: {0}")]
    Unverified(String),
    /// A key of another kind.
    #[error("its key is neither ECDSA P-256 nor Ed25519")]
    Key,
    /// Not exactly one name, of the right kind.
    #[error("it asks for {0} names; exactly one URI name is signed")]
    Names(usize),
    /// A name that is no identity.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
}

/// A verified signing request: the caller holds the key, and asks for this identity.
#[derive(Debug)]
pub struct Request {
    identity: SpiffeId,
    public_key: rcgen::PublicKey,
}

impl Request {
    /// Parses and verifies a PKCS #10 request, DER.
    ///
    /// # Errors
    /// Where it is none, is not signed by its own key, or asks for anything but one identity.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRequest> {
        if der.len() > REQUEST_BYTES {
            let reason = format!("it is larger than {REQUEST_BYTES} bytes");
            return Err(InvalidRequest::Unverified(reason));
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
                .map_err(|error| InvalidRequest::Unverified(error.to_string()))?;
        // rcgen takes the kind of key from the signature; the length tells P-256 (an uncompressed
        // point) from its larger sisters, which can sign with the same hash.
        let algorithm = request.public_key.algorithm();
        let length = request.public_key.der_bytes().len();
        let is_p256 = *algorithm == PKCS_ECDSA_P256_SHA256 && length == 65;
        let is_ed25519 = *algorithm == PKCS_ED25519 && length == 32;
        if !is_p256 && !is_ed25519 {
            return Err(InvalidRequest::Key);
        }
        match request.params.subject_alt_names.as_slice() {
            [SanType::URI(uri)] => {
                Ok(Self { identity: uri.as_str().parse()?, public_key: request.public_key })
            }
            names => Err(InvalidRequest::Names(names.len())),
        }
    }

    /// The identity asked for.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }
}

/// A leaf as the X.509-SVID standard wants it, section 3 and 4: one URI name, no subject, not a CA,
/// digital signatures only.
pub(super) fn svid(
    identity: &SpiffeId,
    request: &Request,
    signer: &Certified,
    lifetime: std::time::Duration,
) -> Result<CertificateDer<'static>, CaError> {
    let lifetime = Duration::try_from(lifetime).unwrap_or(Duration::MAX);
    let mut params = leaf(lifetime.min(Duration::days(365)), signer)?;
    let uri = identity.to_string().try_into().map_err(CaError::Generate)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate =
        params.signed_by(&request.public_key, &signer.issuer).map_err(CaError::Generate)?;
    Ok(certificate.der().clone())
}

/// A certificate that proves to agents that they speak with the controller. It has a DNS name and
/// no URI, so it is no identity of a workload.
pub(super) fn server(signer: &Signer) -> Result<ServerCertificate, CaError> {
    let Signer { certified: signer, above } = signer;
    let mut params = leaf(SERVER_LIFETIME, signer)?;
    let name = SERVER_NAME.try_into().map_err(CaError::Generate)?;
    params.subject_alt_names = vec![SanType::DnsName(name)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(CaError::Generate)?;
    let certificate = params.signed_by(&key, &signer.issuer).map_err(CaError::Generate)?;
    let life: Duration = params.not_after - params.not_before;
    Ok(ServerCertificate {
        chain_pem: above.iter().fold(certificate.pem(), |chain, upper| {
            chain + &pem::encode(&pem::Pem::new("CERTIFICATE", upper.to_vec()))
        }),
        key_pem: key.serialize_pem(),
        renew_after: life.unsigned_abs() * 2 / 3,
    })
}

fn leaf(lifetime: Duration, signer: &Certified) -> Result<CertificateParams, CaError> {
    let mut params = lasting(lifetime)?;
    params.not_after = params.not_after.min(signer.not_after);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}
