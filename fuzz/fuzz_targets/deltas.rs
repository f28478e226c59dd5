//! What a controller sends, and what is kept of it on disk: whatever arrives is applied or refused,
//! one resource at a time, and what is held says the same a second time.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use mesh_agent::snapshot::Snapshot;
use mesh_common::{
    api::v1,
    matching::{authorization, route::Request},
    model::{Resource, Service, Workload},
};
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(response) = v1::SubscribeResponse::decode(bytes) else { return };
    let snapshot = Snapshot::new();
    snapshot.apply(response.updated.clone(), response.removed);
    let is_route =
        |it: &v1::Resource| matches!(it.resource, Some(v1::resource::Resource::Route(_)));
    let has_routes = snapshot.resources().iter().any(is_route);
    for wire in response.updated {
        let Some(resource) = wire.resource else { continue };
        let Ok(resource) = Resource::try_from(resource) else { continue };
        let again = Resource::try_from(v1::resource::Resource::from(&resource));
        assert_eq!(again.as_ref(), Ok(&resource), "it is not what it was");
        match resource {
            Resource::Workload(workload) => ask(&snapshot, &workload),
            Resource::Service(service) => call(&snapshot, &service, has_routes),
            _ => {}
        }
    }

    // An agent that starts again.
    let held = snapshot.resources();
    let restarted = Snapshot::new();
    let refused = restarted.apply(held.clone(), Vec::new());
    assert_eq!(refused, [], "what was good is refused after a restart");
    assert_eq!(restarted.len(), snapshot.len());

    let keys = snapshot.versions().into_iter().filter_map(|it| it.key).collect();
    let refused = snapshot.apply(Vec::new(), keys);
    assert_eq!(refused, []);
    assert!(snapshot.is_empty(), "something is left: {:?}", snapshot.versions());
    for address in held.iter().filter_map(|it| Resource::try_from(it.resource.clone()?).ok()) {
        if let Resource::Workload(workload) = address {
            let left = workload.addresses.iter().find(|ip| snapshot.workload_at(**ip).is_some());
            assert_eq!(left, None, "an address is left");
        }
    }
});

/// Judges a caller of `workload`.
fn ask(snapshot: &Snapshot, workload: &Workload) {
    for address in &workload.addresses {
        let source = workload.identity.as_ref();
        let request = authorization::Request { source, address: *address, port: 80 };
        let _ = snapshot.authorize(workload, request).to_string();
    }
}

/// Calls every port of `service`.
fn call(snapshot: &Snapshot, service: &Service, has_routes: bool) {
    let unserved = snapshot.unserved();
    for port in &service.ports {
        let endpoints = snapshot.endpoints(&service.name, port.port);
        for address in &service.addresses {
            let is_alike = |ip: &IpAddr| ip.is_ipv4() == address.to_canonical().is_ipv4();
            let is_served = endpoints.iter().any(|(it, _)| it.addresses.iter().any(is_alike));
            let called = SocketAddr::new(IpAddr::to_canonical(address), port.port);
            let held = snapshot.service_at(*address);
            if held.is_some_and(|held| *held == *service) {
                // Where a route is attached it may lead to others.
                let is_unserved = unserved.contains(&called);
                assert!(is_unserved != is_served || has_routes && !is_served, "{called}");
            }
            if let Some(routes) = snapshot.routes_for(called, &service.name.namespace) {
                let (method, headers) = (&http::Method::GET, &http::HeaderMap::new());
                routes.find(Request { method, path: "/a/b", query: Some("a=b"), headers });
            }
        }
    }
}
