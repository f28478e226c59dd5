//! Handshakes with good and bad certificates, without a network.

use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, ServerConfig, ServerConnection, WantsVerifier,
    client::WantsClientCert, version::TLS13,
};

use super::*;
use crate::identity::testing::{Ca, Hours, Leaf};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const FOREIGN: &str = "spiffe://elsewhere.example/ns/shop/sa/frontend";

fn id(text: &str) -> SpiffeId {
    text.parse().expect("an identity")
}

/// What comes of a call to a server that presents `server`, where both trust `ca` and the client
/// expects WEB.
fn call(ca: &Ca, client: Option<&Leaf>, server: &Leaf) -> Result<(), Error> {
    let roots = Arc::new(ca.roots());
    let verifier = ServerVerifier::new(id(FRONTEND), id(WEB), Arc::clone(&roots));
    let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
        ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13])?;
    let builder: ConfigBuilder<ClientConfig, WantsClientCert> =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let client = match client {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain(), leaf.key())?,
        None => builder.with_no_client_auth(),
    };
    let server = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(ClientVerifier::new(id(WEB), roots)?))
        .with_single_cert(server.chain(), server.key())?;
    let name = ServerName::try_from("unused").expect("a name");
    let client = ClientConnection::new(Arc::new(client), name)?;
    shake(client, ServerConnection::new(Arc::new(server))?)
}

/// Moves records between the two until nobody has more to say; the first error.
fn shake(mut client: ClientConnection, mut server: ServerConnection) -> Result<(), Error> {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).expect("memory");
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).expect("memory");
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn refused(result: Result<(), Error>) -> PeerRefused {
    let error = result.expect_err("to be refused");
    // As it comes out of tokio-rustls.
    let error = io::Error::new(io::ErrorKind::InvalidData, error);
    let refused = peer_refused(&error).unwrap_or_else(|| panic!("another error: {error}"));
    assert!(error.to_string().contains(&refused.presented), "the plain text says it too: {error}");
    refused.clone()
}

#[test]
fn those_who_are_expected_meet() {
    let ca = Ca::new();
    let (client, server) = (ca.leaf(&[FRONTEND], Hours::CURRENT), ca.leaf(&[WEB], Hours::CURRENT));
    call(&ca, Some(&client), &server).expect("both are who they have to be");
}

#[test]
fn a_server_that_is_not_the_expected_one_is_refused_with_both_names() {
    let (ca, other) = (Ca::new(), Ca::new());
    let client = ca.leaf(&[FRONTEND], Hours::CURRENT);
    for (server, presented, reason) in [
        (ca.leaf(&[FRONTEND], Hours::CURRENT), FRONTEND, "someone else"),
        (ca.leaf(&[WEB], Hours::PAST), WEB, "expired"),
        (ca.leaf(&[WEB], Hours::FUTURE), WEB, "not valid yet"),
        (other.leaf(&[WEB], Hours::CURRENT), WEB, "no root of this mesh"),
        (ca.leaf(&[], Hours::CURRENT), "no identity", "no URI name"),
        (ca.leaf(&[WEB, FRONTEND], Hours::CURRENT), "no identity", "2 URI names"),
        (ca.leaf(&["https://web"], Hours::CURRENT), "no identity", "scheme"),
        (ca.server("web"), "no identity", "no URI name"),
    ] {
        let refused = refused(call(&ca, Some(&client), &server));
        assert_eq!((refused.local.to_string().as_str(), &*refused.expected), (FRONTEND, WEB));
        assert!(refused.presented.contains(presented), "{refused}");
        assert!(refused.reason.contains(reason), "{refused}");
    }
}

#[test]
fn a_client_that_is_nobody_of_ours_is_refused_with_both_names() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = ca.leaf(&[WEB], Hours::CURRENT);
    for (client, presented, reason) in [
        (ca.leaf(&[FOREIGN], Hours::CURRENT), FOREIGN, "another trust domain"),
        (ca.leaf(&[FRONTEND], Hours::PAST), FRONTEND, "expired"),
        (other.leaf(&[FRONTEND], Hours::CURRENT), FRONTEND, "no root of this mesh"),
        (ca.leaf(&[], Hours::CURRENT), "no identity", "no URI name"),
        (ca.leaf(&[FRONTEND, WEB], Hours::CURRENT), "no identity", "2 URI names"),
    ] {
        let refused = refused(call(&ca, Some(&client), &server));
        assert_eq!(refused.local.to_string(), WEB);
        assert_eq!(refused.expected, "anyone of trust domain cluster.local");
        assert!(refused.presented.contains(presented), "{refused}");
        assert!(refused.reason.contains(reason), "{refused}");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new();
    let server = ca.leaf(&[WEB], Hours::CURRENT);
    let error = call(&ca, None, &server).expect_err("to be refused");
    assert_eq!(error, Error::NoCertificatesPresented);
}
