//! What the two ends of a tunnel read of each other: the authority of a CONNECT, and the reason of a
//! refusal in `Proxy-Status`.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use http::{HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use mesh_agent::proxy::fuzzing::{behind_service, denial, refusal};
use mesh_common::model::{Membership, NamespacedName, PortMapping, Workload};

const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const TARGET: u16 = 8080;

fuzz_target!(|text: &str| {
    if let Some(to) = behind_service(&workload(), OWN, text) {
        assert_eq!(to, SocketAddr::new(OWN, TARGET), "a port that no Service leads to");
    }
    let from = SocketAddr::new(OWN, 15008);
    if let Ok(field) = HeaderValue::from_str(text) {
        let (is_denied, _) = refusal(StatusCode::FORBIDDEN, field.clone(), from);
        // Inside of a text it is no parameter.
        assert!(!is_denied || text.contains("error=http_request_denied"));
        let (is_denied, _) = refusal(StatusCode::SERVICE_UNAVAILABLE, field, from);
        assert!(!is_denied, "only 403 is a policy's word");
    }
    let (is_denied, reason) = denial(text.to_owned(), from);
    assert!(is_denied, "what we say of a denial is one: {reason}");
    let is_plain = text.len() <= 512 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    assert!(!is_plain || reason == text, "{reason:?} of {text:?}");
});

fn workload() -> Workload {
    Workload {
        name: NamespacedName::new("shop", "web-1"),
        uid: "uid".into(),
        node: None,
        addresses: vec![OWN],
        identity: None,
        enrolled: true,
        captured: true,
        memberships: vec![Membership {
            service: NamespacedName::new("shop", "web"),
            ports: vec![PortMapping { service_port: 80, target_port: TARGET }],
            ready: true,
        }],
        authorization_policies: Vec::new(),
        admission: Default::default(),
    }
}
