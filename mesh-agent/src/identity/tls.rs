//! TLS as the mesh speaks it: version 1.3 alone, both sides with a certificate, ALPN `h2`.

use std::sync::{Arc, LazyLock};

use mesh_common::identity::SpiffeId;
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider,
        ring::{self, cipher_suite},
    },
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::TLS13,
};

use super::{
    certificate::Svid,
    verify::{ClientVerifier, ServerVerifier},
};

/// HTTP/2, the only protocol within the mesh's TLS.
const ALPN: &[u8] = b"h2";

/// The primitives in use: ring's, with AES-128 first, which is the fastest with the processor's
/// help and as strong as the P-256 keys.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..ring::default_provider()
        })
    });
    &PROVIDER
}

pub(super) fn server_config(
    svid: &Svid,
    roots: Arc<RootCertStore>,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = ClientVerifier::new(svid.identity().clone(), roots)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver(svid)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

pub(super) fn client_config(
    svid: &Svid,
    expected: &SpiffeId,
    roots: Arc<RootCertStore>,
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = ServerVerifier::new(svid.identity().clone(), expected.clone(), roots);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(resolver(svid)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // A peer is a SPIFFE identity, not a DNS name.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn resolver(svid: &Svid) -> SingleCertAndKey {
    SingleCertAndKey::from(Arc::clone(svid.certified()))
}
