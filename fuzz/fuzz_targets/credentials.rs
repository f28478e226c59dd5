//! What strangers prove who they are with: certificates, signing requests and tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_agent::identity::certificate::{peer_identity, trusted_until};
use mesh_controller::{ca, kubernetes::review, token::JoinSecret};
use rustls_pki_types::CertificateDer;

/// 2026, where every token of the seeds is good.
const NOW: u64 = 1_790_000_000;

fuzz_target!(|bytes: &[u8]| {
    let chain = [CertificateDer::from(bytes)];
    let _ = (peer_identity(&chain), trusted_until(&chain));
    if let Ok(request) = ca::Request::parse(bytes) {
        let text = request.identity().to_string();
        assert_eq!(text.parse().as_ref(), Ok(request.identity()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(expires) = review::precheck(text, NOW) {
        assert!(expires > NOW, "{text} has expired");
    }
    let secret = JoinSecret::new(&[7; 32]);
    if let Ok(node) = secret.verify(text) {
        assert_eq!(secret.token(node).ok().map(|it| it.to_lowercase()), Some(text.to_lowercase()));
    }
});
