//! Services, and what is behind them.

use super::*;

#[test]
fn services_have_virtual_addresses_and_tcp_ports() {
    let yaml = [
        service(
            "shop/web",
            "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1'], ports: [{name: http, port: \
             80, appProtocol: http}, {name: dns, port: 53, protocol: UDP}]",
        ),
        service("shop/headless", "clusterIP: None, ports: [{port: 6379}]"),
        service("shop/elsewhere", "type: ExternalName, externalName: example.com"),
        service("shop/x-double", "clusterIP: 10.96.0.1"),
    ]
    .concat();
    let compiled = compiled(&yaml);
    let web = compiled.service_called("shop/web").expect("compiled");
    assert_eq!(web.addresses.len(), 2);
    let ports: Vec<_> = web.ports.iter().map(|port| (port.port, &*port.name)).collect();
    assert_eq!(ports, [(80, "http")]);
    assert_eq!(web.ports[0].app_protocol.as_deref(), Some("http"));
    assert!(compiled.service_called("shop/headless").is_some_and(|it| it.addresses.is_empty()));
    assert_eq!(compiled.service_called("shop/elsewhere"), None);
    assert_eq!(
        compiled.problems(),
        ["Service shop/x-double: cluster IP 10.96.0.1 is that of Service shop/web, which keeps it"]
    );
}

#[test]
fn slices_put_pods_and_others_behind_services() {
    let yaml = [
        pod("shop/web-0", "10.0.0.1", ""),
        pod("shop/web-1", "10.0.0.2", ""),
        service(
            "shop/web",
            "clusterIP: 10.96.0.1, ports: [{name: a, port: 80}, {name: b, port: 81}]",
        ),
        slice(
            "shop/web-x",
            "web",
            "{name: a, port: 8080}, {name: c, port: 1}",
            "{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-0}}, \
             {addresses: [10.0.0.2], conditions: {ready: false}}, \
             {addresses: [192.0.2.1], nodeName: node-1}",
        ),
        slice("shop/web-y", "web", "{name: b, port: 8081}", "{addresses: [10.0.0.1]}"),
    ]
    .concat();
    let compiled = compiled(&yaml);
    assert_eq!(compiled.problems(), [] as [&str; 0]);
    let memberships = |name: &str| {
        let workload = compiled.workload_called(name).expect(name);
        let ports = |membership: &Membership| {
            let pair = |port: &PortMapping| (port.service_port, port.target_port);
            (membership.ready, membership.ports.iter().map(pair).collect::<Vec<_>>())
        };
        workload.memberships.iter().map(ports).collect::<Vec<_>>()
    };
    assert_eq!(memberships("shop/web-0"), [(true, vec![(80, 8080), (81, 8081)])]);
    assert_eq!(memberships("shop/web-1"), [(false, vec![(80, 8080)])]);
    assert_eq!(memberships("shop/web-x/192.0.2.1"), [(true, vec![(80, 8080)])]);
    let other = compiled.workload_called("shop/web-x/192.0.2.1").expect("synthesized");
    assert_eq!((other.identity.as_ref(), other.enrolled), (None, false));
    assert_eq!(other.node.as_deref(), Some("node-1"));
}

#[test]
fn an_endpoint_in_two_slices_is_there_once() {
    let endpoints = |ready: bool| {
        format!(
            "{{addresses: [10.0.0.1], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: web-0}}}}, \
             {{addresses: [192.0.2.1], conditions: {{ready: {ready}}}}}"
        )
    };
    let yaml = [
        pod("shop/web-0", "10.0.0.1", ""),
        service("shop/web", "clusterIP: 10.96.0.1, ports: [{port: 80}]"),
        slice("shop/web-x", "web", "{port: 8080}", &endpoints(false)),
        slice("shop/web-y", "web", "{port: 8080}", &endpoints(true)),
    ]
    .concat();
    let compiled = compiled(&yaml);
    let workloads = compiled.resources.values().filter_map(|it| match it {
        Resource::Workload(workload) => Some((workload.name.to_string(), &workload.memberships)),
        _ => None,
    });
    let shown: Vec<_> = workloads
        .map(|(name, memberships)| (name, memberships.len(), memberships[0].ready))
        .collect();
    assert_eq!(
        shown,
        [("shop/web-0".to_owned(), 1, true), ("shop/web-x/192.0.2.1".to_owned(), 1, true)]
    );
}

#[test]
fn stale_endpoints_never_lead_to_another_pod() {
    let yaml = [
        pod("shop/new", "10.0.0.1", ""),
        pod("shop/done", "10.0.0.9", "status phase: Succeeded"),
        service("shop/web", "clusterIP: 10.96.0.1, ports: [{port: 80}]"),
        slice(
            "shop/web-x",
            "web",
            "{port: 8080}",
            "{addresses: [10.0.0.1], targetRef: {kind: Pod, name: old}}, \
             {addresses: [10.0.0.7], targetRef: {kind: Pod, name: new}}, \
             {addresses: [10.0.0.9], targetRef: {kind: Pod, name: done}}, \
             {addresses: [10.0.0.8], targetRef: {kind: Pod, name: unseen}}",
        ),
    ]
    .concat();
    let compiled = compiled(&yaml);
    assert_eq!(
        compiled.problems(),
        [
            "EndpointSlice shop/web-x: endpoint 10.0.0.1 says it is Pod shop/old, which does not \
             exist, but the address is that of Pod shop/new; it is left out",
            "EndpointSlice shop/web-x: endpoint 10.0.0.7 says it is Pod shop/new, which has another \
             address; it is left out",
        ]
    );
    assert!(compiled.workload_called("shop/new").is_some_and(|it| it.memberships.is_empty()));
    assert!(compiled.workload_called("shop/web-x/10.0.0.8").is_some());
    assert!(compiled.workload_called("shop/web-x/10.0.0.9").is_none());
}

#[test]
fn slices_that_lead_nowhere_are_problems() {
    let unlabelled = "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                      metadata: {name: c, namespace: shop}\naddressType: IPv4\nendpoints: []\n";
    let yaml = [
        service("shop/web", "clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]"),
        slice("shop/a", "missing", "", ""),
        slice("shop/b", "web", "{name: https, port: 8443}", ""),
        unlabelled.to_owned(),
    ]
    .concat();
    assert_eq!(
        compiled(&yaml).problems(),
        [
            "EndpointSlice shop/a: Service shop/missing does not exist",
            "EndpointSlice shop/b: no port has the name of a TCP port of Service shop/web",
            "EndpointSlice shop/c: has no label kubernetes.io/service-name, so it stands behind no \
             Service",
        ]
    );
}
