//! Who may be at the other end: a certificate that the trust bundle vouches for and that names
//! whom we expect.
//!
//! rustls' own verifiers check the chain, the dates and the usage; what they cannot know is that a
//! name is a SPIFFE identity.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use mesh_common::identity::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{certificate::peer_identity, tls::provider};

/// That the peer of a handshake was refused: who refused whom, and why.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{local} expected {expected} but was presented {presented}: {reason}")]
pub struct PeerRefused {
    /// Our side.
    pub local: SpiffeId,
    /// Whom our side would have accepted.
    pub expected: String,
    /// Whom the peer's certificate names, believed or not.
    pub presented: String,
    /// Why that is not enough.
    pub reason: String,
}

// rustls prints errors of others by Debug.
impl fmt::Debug for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The refusal of a peer behind a failed handshake, where that is what it was.
pub fn peer_refused<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e PeerRefused> {
    if let Some(refused) = error.downcast_ref::<PeerRefused>() {
        return Some(refused);
    }
    if let Some(Error::InvalidCertificate(CertificateError::Other(other))) = error.downcast_ref() {
        return peer_refused(other.0.as_ref());
    }
    // io::Error does not name what it wraps as its source.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => peer_refused(inner),
        None => error.source().and_then(peer_refused),
    }
}

/// The client's view of a server: it is `expected`.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    local: SpiffeId,
    expected: SpiffeId,
    roots: Arc<RootCertStore>,
}

impl ServerVerifier {
    pub(super) fn new(local: SpiffeId, expected: SpiffeId, roots: Arc<RootCertStore>) -> Self {
        Self { local, expected, roots }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused =
            |reason: String| refuse(&self.local, self.expected.to_string(), end_entity, reason);
        let parsed =
            ParsedCertificate::try_from(end_entity).map_err(|error| refused(explain(&error)))?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )
        .map_err(|error| refused(explain(&error)))?;
        match peer_identity(std::slice::from_ref(end_entity)) {
            Ok(presented) if presented == self.expected => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(refused("the address is served by someone else".to_owned())),
            Err(problem) => Err(refused(problem.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The server's view of a client: anyone of its own trust domain.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    local: SpiffeId,
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    pub(super) fn new(local: SpiffeId, roots: Arc<RootCertStore>) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider()))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { local, chain })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients have one certificate to choose from.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = |reason: String| {
            let expected = format!("anyone of trust domain {}", self.local.trust_domain());
            refuse(&self.local, expected, end_entity, reason)
        };
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| refused(explain(&error)))?;
        match peer_identity(std::slice::from_ref(end_entity)) {
            Ok(presented) if presented.trust_domain() == self.local.trust_domain() => Ok(verified),
            Ok(_) => Err(refused("it is of another trust domain".to_owned())),
            Err(problem) => Err(refused(problem.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn refuse(
    local: &SpiffeId,
    expected: String,
    end_entity: &CertificateDer<'_>,
    reason: String,
) -> Error {
    let presented = match peer_identity(std::slice::from_ref(end_entity)) {
        Ok(identity) => identity.to_string(),
        Err(problem) => format!("no identity ({problem})"),
    };
    let refused = PeerRefused { local: local.clone(), expected, presented, reason };
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
}

/// Why a chain does not hold, in words.
fn explain(error: &Error) -> String {
    match error {
        // A root of the same name but another key shows as a bad signature.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "no root of this mesh has signed it".to_owned(),
        Error::InvalidCertificate(reason) => reason.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
