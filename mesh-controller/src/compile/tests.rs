//! Every rule and every problem of the compiler, in tables.

use std::{path::Path, sync::Arc};

use mesh_common::model::{PortMapping, Service, Workload};

use super::*;
use crate::captured::{Report, Stamp};
use crate::source::{Merger, Objects, Origin, yaml};

mod order;
mod routes;
mod turnover;

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {nodemesh.dev/mesh: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: legacy}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system, labels: {nodemesh.dev/mesh: enabled}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
";

fn pod(name: &str, address: &str, more: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let more = more.replace("; ", "\n");
    let (labels, spec, status) =
        (part(&more, "labels"), part(&more, "spec"), part(&more, "status"));
    let metadata = part(&more, "metadata");
    format!(
        "\n---\napiVersion: v1\nkind: Pod\n\
         metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}{labels}}}{metadata}}}\n\
         spec: {{nodeName: node-1, containers: []{spec}}}\n\
         status: {{podIP: \"{address}\"{status}}}\n"
    )
}

/// The flow mapping entries that `more` has for `section`, with a comma before them.
fn part(more: &str, section: &str) -> String {
    let line = more.lines().find_map(|line| line.strip_prefix(section)?.strip_prefix(' '));
    line.map(|entries| format!(", {entries}")).unwrap_or_default()
}

fn service(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

fn slice(name: &str, service: &str, ports: &str, endpoints: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: {namespace}, \
         labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{ports}]\nendpoints: [{endpoints}]\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "\n---\napiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn compiled_with(yaml: &str, captures: &Captures) -> Compiled {
    let file: Arc<Path> = Path::new("objects.yaml").into();
    let parsed = yaml::parse(&file, yaml);
    let bad: Vec<_> = parsed.iter().filter_map(|parsed| parsed.object.as_ref().err()).collect();
    assert!(bad.is_empty(), "{bad:?}\n{yaml}");
    let objects = Merger::default().merge(&BTreeMap::from([(Origin::File(file), Ok(parsed))]));
    let index = objects.in_use.values().map(|(object, _)| object).collect();
    compile(&index, captures, &"cluster.local".parse().expect("a literal"))
}

fn compiled(yaml: &str) -> Compiled {
    compiled_with(yaml, &Captures::default())
}

/// `namespace/name`.
fn named(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').expect("both");
    NamespacedName::new(namespace, name)
}

impl Compiled {
    fn workload_called(&self, name: &str) -> Option<&Workload> {
        self.workload(&named(name))
    }

    fn service_called(&self, name: &str) -> Option<&Service> {
        self.service(&named(name))
    }

    fn problems(&self) -> Vec<String> {
        let text = |problem: &Problem| format!("{}: {}", problem.object, problem.reason);
        self.problems.iter().map(text).collect()
    }
}

#[test]
fn labels_decide_who_is_in_the_mesh() {
    for (name, more, expected) in [
        ("shop/a", "", Some(true)),
        ("legacy/a", "", Some(false)),
        ("unknown/a", "", Some(false)),
        ("legacy/a", "labels nodemesh.dev/mesh: enabled", Some(true)),
        ("shop/a", "labels nodemesh.dev/mesh: disabled", Some(false)),
        ("kube-system/a", "", Some(false)),
        ("kube-system/a", "labels nodemesh.dev/mesh: enabled", Some(false)),
        ("nodemesh-system/a", "labels nodemesh.dev/mesh: enabled", Some(false)),
        ("shop/a", "spec hostNetwork: true", Some(false)),
        ("shop/a", "status phase: Running", Some(true)),
        ("shop/a", "status phase: Succeeded", None),
        ("shop/a", "status phase: Failed", None),
    ] {
        let compiled = compiled(&format!("{NAMESPACES}{}", pod(name, "10.0.0.1", more)));
        let found = compiled.workload_called(name).map(|workload| workload.enrolled);
        assert_eq!(found, expected, "{name} {more}");
        assert_eq!(compiled.problems(), [] as [&str; 0], "{name} {more}");
    }
}

#[test]
fn what_cannot_be_captured_is_not_in_the_mesh_and_says_why() {
    for (more, expected) in [
        ("labels nodemesh.dev/mesh: enabled; spec hostNetwork: true", "(hostNetwork)"),
        ("spec initContainers: [{name: istio-proxy}]", "a sidecar of Istio"),
        ("spec initContainers: [{name: linkerd-proxy}]", "a sidecar of Linkerd"),
        ("metadata annotations: {ambient.istio.io/redirection: enabled}", "ambient"),
        ("spec runtimeClassName: kata-qemu", "runs in Kata"),
    ] {
        let compiled = compiled(&format!("{NAMESPACES}{}", pod("shop/a", "10.0.0.1", more)));
        let workload = compiled.workload_called("shop/a").expect("it is there all the same");
        assert!(!workload.enrolled, "{more}");
        let problems = compiled.problems();
        assert_eq!(problems.len(), 1, "{more}");
        assert!(problems[0].starts_with("Pod shop/a: is not in the mesh: it "), "{problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
        let statuses = statuses(&Objects::default(), &compiled);
        assert_eq!((statuses[0].kind, statuses[0].reason), ("Pod", "NotEnrolled"));
        assert!(!statuses[0].accepted && !statuses[0].message.is_empty());
        // Where nobody asked for it, it is nobody's problem.
        let elsewhere = more.replace("nodemesh.dev/mesh: enabled", "a: b");
        let yaml = format!("{NAMESPACES}{}", pod("legacy/a", "10.0.0.1", &elsewhere));
        assert_eq!(self::compiled(&yaml).problems(), [] as [&str; 0], "{more}");
    }
}

#[test]
fn a_policy_that_names_an_account_nobody_has_is_a_problem() {
    let accounts = "\n---\napiVersion: v1\nkind: ServiceAccount\n\
                    metadata: {name: web, namespace: shop}\n";
    let rules = "rules: [{from: [{serviceAccounts: [shop/web, shop/wep, legacy/x]}]}]";
    let with = compiled(&format!("{NAMESPACES}{accounts}{}", policy("shop/p", rules)));
    assert_eq!(
        with.problems(),
        [
            "AuthorizationPolicy shop/p: rule 0 names service account shop/wep, which does not exist: \
          it matches nobody until it does"
        ]
    );
    let without = compiled(&format!("{NAMESPACES}{}", policy("shop/p", rules)));
    assert_eq!(without.problems(), [] as [&str; 0], "a folder need not have them");
}

#[test]
fn a_pod_without_an_address_is_no_workload() {
    let compiled = compiled(&format!("{NAMESPACES}{}", pod("shop/a", "", "")));
    assert_eq!(compiled.workload_called("shop/a"), None);
}

#[test]
fn a_label_that_means_nothing_is_a_problem() {
    let yaml = format!(
        "{NAMESPACES}{}\n---\napiVersion: v1\nkind: Namespace\n\
         metadata: {{name: other, labels: {{nodemesh.dev/mesh: yes}}}}\n",
        pod("shop/a", "10.0.0.1", "labels nodemesh.dev/mesh: off")
    );
    let compiled = compiled(&yaml);
    assert_eq!(
        compiled.problems(),
        [
            "Namespace other: label nodemesh.dev/mesh=yes is neither `enabled` nor `disabled`: \
             not in the mesh",
            "Pod shop/a: label nodemesh.dev/mesh=off is neither `enabled` nor `disabled`: the \
             namespace's label decides",
        ]
    );
    assert!(compiled.workload_called("shop/a").is_some_and(|workload| workload.enrolled));
}

#[test]
fn identity_is_the_account_and_uid_falls_back_to_the_name() {
    let compiled = compiled(&format!(
        "{NAMESPACES}{}{}{}",
        pod("shop/a", "10.0.0.1", ""),
        pod("shop/b", "10.0.0.2", "spec serviceAccountName: web; metadata uid: u-1"),
        pod("shop/c", "10.0.0.3", "spec hostNetwork: true"),
    ));
    let seen = |name: &str| {
        let workload = compiled.workload_called(name).expect(name);
        (workload.identity.as_ref().map(ToString::to_string), workload.uid.to_string())
    };
    let id = |account: &str| Some(format!("spiffe://cluster.local/ns/shop/sa/{account}"));
    assert_eq!(seen("shop/a"), (id("default"), "shop/a".into()));
    assert_eq!(seen("shop/b"), (id("web"), "u-1".into()));
    assert_eq!(seen("shop/c"), (None, "shop/c".into()));
}

#[test]
fn captured_is_what_the_pods_own_node_says() {
    let yaml = format!(
        "{NAMESPACES}{}{}{}",
        pod("shop/a", "10.0.0.1", ""),
        pod("shop/b", "10.0.0.2", ""),
        pod("legacy/c", "10.0.0.3", "")
    );
    let mut captures = Captures::default();
    let report = |uids: &[&str]| Report::new(Stamp::now(), uids.iter().map(ToString::to_string));
    captures.report("node-1", report(&["shop/a", "legacy/c"]));
    captures.report("node-2", report(&["shop/b"]));
    let compiled = compiled_with(&yaml, &captures);
    let captured =
        |name: &str| compiled.workload_called(name).is_some_and(|workload| workload.captured);
    assert!(captured("shop/a"));
    assert!(!captured("shop/b"), "another node's word does not count");
    assert!(!captured("legacy/c"), "not in the mesh");
}

#[test]
fn a_pod_of_another_mesh_says_that_it_takes_hbone() {
    let redirected =
        |value: &str| format!("metadata annotations: {{ambient.istio.io/redirection: {value}}}");
    let compiled = compiled(&format!(
        "{NAMESPACES}{}{}{}{}{}",
        pod("legacy/a", "10.0.0.1", &redirected("enabled")),
        pod("legacy/b", "10.0.0.2", "labels networking.istio.io/tunnel: http"),
        pod("legacy/c", "10.0.0.3", &redirected("pending")),
        pod("legacy/d", "10.0.0.4", &format!("{}; spec hostNetwork: true", redirected("enabled"))),
        pod("shop/e", "10.0.0.5", "labels networking.istio.io/tunnel: http"),
    ));
    let captured =
        |name: &str| compiled.workload_called(name).is_some_and(|workload| workload.captured);
    assert!(captured("legacy/a"), "annotated");
    assert!(captured("legacy/b"), "labelled");
    assert!(!captured("legacy/c"), "Istio has not got that far");
    assert!(!captured("legacy/d"), "has no identity");
    assert!(!captured("shop/e"), "ours, and its agent has not captured it");
}

#[test]
fn an_address_belongs_to_one_pod() {
    let yaml = format!(
        "{}{}{}{}{}",
        pod("shop/b", "10.0.0.1", "metadata creationTimestamp: 2026-01-02T00:00:00Z"),
        pod("shop/a", "10.0.0.1", "metadata creationTimestamp: 2026-01-03T00:00:00Z"),
        pod("shop/unknown-age", "10.0.0.1", ""),
        pod("shop/done", "10.0.0.1", "status phase: Succeeded"),
        pod("shop/other", "10.0.0.2", ""),
    );
    let compiled = compiled(&yaml);
    let complaint =
        "address 10.0.0.1 is that of Pod shop/b, which keeps it: an address is one pod's";
    assert_eq!(
        compiled.problems(),
        [format!("Pod shop/a: {complaint}"), format!("Pod shop/unknown-age: {complaint}")]
    );
    assert!(compiled.workload_called("shop/b").is_some());
    assert!(compiled.workload_called("shop/a").is_none());
    assert!(compiled.workload_called("shop/other").is_some());
}

#[test]
fn a_uid_belongs_to_one_pod() {
    let yaml = format!(
        "{}{}{}",
        pod("shop/a", "10.0.0.1", "metadata uid: u"),
        pod("shop/b", "10.0.0.2", "metadata uid: u"),
        pod("shop/c", "10.0.0.3", "metadata uid: u"),
    );
    let compiled = compiled(&yaml);
    let complaint = "has the uid of Pod shop/a, and is left out: uids are unique";
    assert_eq!(
        compiled.problems(),
        [format!("Pod shop/b: {complaint}"), format!("Pod shop/c: {complaint}")]
    );
    assert!(compiled.workload_called("shop/a").is_some());
}

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
fn the_runtime_class_of_a_pod_decides_by_its_handler() {
    let class = |name: &str, handler: &str| {
        format!(
            "\n---\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\n\
             handler: {handler}\n"
        )
    };
    let yaml = [
        NAMESPACES.to_owned(),
        class("secure", "runsc"),
        class("kata-like", "runc"),
        pod("shop/in-a-sandbox", "10.0.0.1", "spec runtimeClassName: secure"),
        pod("shop/by-name-alone", "10.0.0.2", "spec runtimeClassName: kata-qemu"),
        pod("shop/not", "10.0.0.3", "spec runtimeClassName: kata-like"),
    ]
    .concat();
    let compiled = compiled(&yaml);
    let enrolled = |name: &str| compiled.workload_called(name).is_some_and(|it| it.enrolled);
    assert!(!enrolled("shop/in-a-sandbox") && !enrolled("shop/by-name-alone"));
    assert!(enrolled("shop/not"));
    let problems = compiled.problems();
    assert!(
        problems[1].starts_with("Pod shop/in-a-sandbox: is not in the mesh: it runs in gVisor")
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
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

#[test]
fn policies_apply_by_namespace_and_labels() {
    let yaml = [
        NAMESPACES.to_owned(),
        pod("shop/web", "10.0.0.1", ""),
        pod("shop/redis", "10.0.0.2", ""),
        pod("legacy/web", "10.0.0.3", "labels nodemesh.dev/mesh: enabled"),
        pod("legacy/out", "10.0.0.4", ""),
        policy("shop/web", "selector: {matchLabels: {app: web}}"),
        policy("shop/all", "action: DENY"),
        policy("nodemesh-system/mesh", "rules: [{}]"),
        policy("nodemesh-system/webs", "selector: {matchLabels: {app: web}}"),
        policy("other/none", ""),
    ]
    .concat();
    let compiled = compiled(&yaml);
    for (pod, expected) in [
        (
            "shop/web",
            &["nodemesh-system/mesh", "nodemesh-system/webs", "shop/all", "shop/web"] as &[&str],
        ),
        ("shop/redis", &["nodemesh-system/mesh", "shop/all"]),
        ("legacy/web", &["nodemesh-system/mesh", "nodemesh-system/webs"]),
        ("legacy/out", &[]),
    ] {
        let workload = compiled.workload_called(pod).expect(pod);
        let names: Vec<_> =
            workload.authorization_policies.iter().map(ToString::to_string).collect();
        assert_eq!(names, expected, "{pod}");
    }
}

/// Objects of one kind, in flow style.
fn ours(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let namespace =
        if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    format!(
        "\n---\napiVersion: nodemesh.dev/v1alpha1\nkind: {kind}\n\
         metadata: {{name: {name}{namespace}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn the_most_telling_peer_policy_holds() {
    use mesh_common::model::{Action, PeerMode, PortMode};
    let pods = pod("shop/a", "10.0.0.1", "") + &pod("shop/b", "10.0.0.2", "");
    let config =
        ours("MeshConfig", "/default", "authorization: {default: DENY}, peer: {mode: STRICT}");
    let admission = |yaml: &str, name: &str| {
        let all = compiled_with(&format!("{NAMESPACES}{pods}{yaml}"), &Captures::default());
        all.workload(&NamespacedName::new("shop", name)).expect("a workload").admission.clone()
    };
    assert_eq!(admission("", "a"), Default::default());
    let by_config = admission(&config, "a");
    assert_eq!(by_config.default_action, Action::Deny);
    assert_eq!((by_config.peer_mode, by_config.peer_policy), (PeerMode::Strict, None));

    let of_mesh = ours("PeerPolicy", "nodemesh-system/mesh", "mode: STRICT");
    let of_namespace = ours("PeerPolicy", "shop/all", "mode: PERMISSIVE");
    let of_pod = ours(
        "PeerPolicy",
        "shop/a",
        "selector: {matchLabels: {app: a}}, mode: STRICT, ports: [{port: 80, mode: PERMISSIVE}]",
    );
    let policies = of_mesh.clone() + &of_namespace + &of_pod;
    assert_eq!(admission(&of_mesh, "a").peer_mode, PeerMode::Strict);
    assert_eq!(admission(&policies, "b").peer_policy, Some(NamespacedName::new("shop", "all")));
    let a = admission(&policies, "a");
    assert_eq!(a.peer_mode, PeerMode::Strict);
    assert_eq!(a.port_modes, [PortMode { port: 80, mode: PeerMode::Permissive }]);
}

#[test]
fn a_policy_for_a_service_is_for_the_pods_behind_it() {
    let yaml = NAMESPACES.to_owned()
        + &pod("shop/a", "10.0.0.1", "")
        + &pod("shop/b", "10.0.0.2", "")
        + &service("shop/web", "clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: 8080}]")
        + &slice("shop/web-1", "web", "{port: 8080}", "{addresses: [10.0.0.1]}")
        + &policy("shop/web", "targetRef: {kind: Service, name: web}")
        + &policy("shop/lost", "targetRef: {kind: Service, name: lost}");
    let compiled = compiled_with(&yaml, &Captures::default());
    let policies = |name: &str| {
        let workloads = compiled.workloads().filter(|it| &*it.name.name == name);
        workloads.flat_map(|it| it.authorization_policies.clone()).collect::<Vec<_>>()
    };
    assert_eq!(policies("a"), [NamespacedName::new("shop", "web")]);
    assert_eq!(policies("b"), []);
    let reasons: Vec<_> = compiled.problems.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["Service shop/lost does not exist, so it is for no pod"]);
}

#[test]
fn a_name_that_no_pod_calls_a_port_by_is_a_problem_of_the_service() {
    let pods = |name: &str| {
        format!(
            "\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: shop, labels: {{app: \
             a}}}}\nspec: {{containers: [{{name: a, ports: [{{name: {name}, containerPort: 8080}}]}}]}}\n\
             status: {{podIP: 10.0.0.1}}\n"
        )
    };
    let to = |selector: &str| {
        let ports =
            "ports: [{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: 9}]";
        service("shop/web", &format!("clusterIP: 10.96.0.1, selector: {selector}, {ports}"))
    };
    let reasons = |yaml: &str| {
        let compiled = compiled_with(yaml, &Captures::default());
        compiled.problems.into_iter().map(|it| it.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&(pods("web") + &to("{app: a}"))), [] as [&str; 0]);
    assert_eq!(reasons(&(pods("other") + &to("{app: b}"))), [] as [&str; 0], "no pods yet");
    assert_eq!(
        reasons(&(pods("other") + &to("{app: a}"))),
        [
            "port 80 leads to the targetPort `web`, a name that no container port of its 1 pods has: \
          nothing is behind it"
        ]
    );
}

#[test]
fn ports_that_no_pod_declares_are_noted_on_the_policy() {
    let declares = |ports: &str| {
        format!(
            "\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: shop, labels: {{app: \
             a}}}}\nspec: {{containers: [{{name: a, ports: [{ports}]}}]}}\nstatus: {{podIP: 10.0.0.1}}\n"
        )
    };
    let policies = policy("shop/one", "rules: [{to: [{ports: [8080, 8081]}]}]")
        + &policy(
            "shop/elsewhere",
            "selector: {matchLabels: {app: b}}, rules: [{to: [{ports: [1]}]}]",
        )
        + &ours(
            "PeerPolicy",
            "shop/peers",
            "mode: STRICT, ports: [{port: 9090, mode: PERMISSIVE}]",
        );
    let notes = |pod: &str| {
        let yaml = NAMESPACES.to_owned() + pod + &policies;
        let compiled = compiled_with(&yaml, &Captures::default());
        assert_eq!(compiled.problems, []);
        let note = |it: &Problem| format!("{}: {}", it.object, it.reason);
        compiled.notes.iter().map(note).collect::<Vec<_>>()
    };
    let end = "if that is meant, there is nothing to do";
    assert_eq!(
        notes(&declares("{containerPort: 8080}")),
        [
            format!(
                "AuthorizationPolicy shop/one: no pod that it is for declares port 8081; {end}"
            ),
            format!("PeerPolicy shop/peers: no pod that it is for declares port 9090; {end}"),
        ]
    );
    assert_eq!(notes(&declares("")), [] as [&str; 0], "declaring is optional");
    let all = "{containerPort: 8080}, {containerPort: 8081}, {containerPort: 9090}";
    assert_eq!(notes(&declares(all)), [] as [&str; 0]);
}

#[test]
fn our_own_objects_have_a_status() {
    let file: Arc<Path> = Path::new("objects.yaml").into();
    let yaml = NAMESPACES.to_owned()
        + &pod("shop/a", "10.0.0.1", "")
        + &policy("shop/all", "")
        + &policy("shop/lost", "targetRef: {kind: Service, name: lost}")
        + &policy("shop/bad", "rules: [{from: [{ipBlocks: [10.1.0.0/8]}]}]")
        + &ours("PeerPolicy", "shop/strict", "mode: STRICT")
        + &ours("MeshConfig", "/default", "peer: {mode: STRICT}");
    let documents = Ok(yaml::parse(&file, &yaml));
    let files = BTreeMap::from([(Origin::File(file), documents)]);
    let objects = Merger::default().merge(&files);
    let index = objects.in_use.values().map(|(object, _)| object).collect();
    let trust_domain = TrustDomain::DEFAULT.parse().expect("a literal");
    let compiled = compile(&index, &Captures::default(), &trust_domain);
    let statuses = statuses(&objects, &compiled);
    let short: Vec<_> =
        statuses.iter().map(|it| (&*it.name, it.accepted, it.reason, it.workloads)).collect();
    assert_eq!(
        short,
        [
            ("all", true, "Accepted", 1),
            ("bad", false, "Invalid", 0),
            ("lost", true, "Problem", 0),
            ("strict", true, "Accepted", 1),
            ("default", true, "Accepted", 1),
        ]
    );
    assert!(statuses[1].message.contains("write 10.0.0.0/8"), "{}", statuses[1].message);
}

#[test]
fn what_policies_cannot_mean_is_refused() {
    let file: Arc<Path> = Path::new("objects.yaml").into();
    for (yaml, reason) in [
        (
            policy(
                "shop/a",
                "selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: w}",
            ),
            "beside",
        ),
        (policy("shop/a", "targetRef: {kind: Pod, name: w}"), "write Service"),
        (policy("shop/a", "targetRef: {kind: Service, name: w, namespace: x}"), "namespace"),
        (policy("shop/a", "enforcement: MAYBE"), "MAYBE"),
        (
            policy("shop/a", "rules: [{from: [{principals: [\"cluster.local/ns/sh*\"]}]}]"),
            "whole parts",
        ),
        (policy("shop/a", "rules: [{from: [{serviceAccounts: [web]}]}]"), "namespace/name"),
        (policy("shop/a", "rules: [{from: [{notNamespaces: []}]}]"), "empty list"),
        (policy("shop/a", "rules: [{to: [{notPorts: [0]}]}]"), "65535"),
        (ours("PeerPolicy", "shop/a", "mode: DISABLE"), "DISABLE"),
        (ours("PeerPolicy", "shop/a", ""), "mode"),
        (
            ours(
                "PeerPolicy",
                "shop/a",
                "mode: STRICT, ports: [{port: 1, mode: STRICT}, {port: 1, mode: STRICT}]",
            ),
            "twice",
        ),
        (ours("MeshConfig", "/other", ""), "default"),
        (ours("MeshConfig", "/default", "peer: {strict: true}"), "strict"),
    ] {
        let parsed = yaml::parse(&file, &yaml);
        let errors: Vec<_> = parsed.iter().filter_map(|it| it.object.as_ref().err()).collect();
        assert!(errors.len() == 1 && errors[0].contains(reason), "{yaml}: {errors:?}");
    }
}
