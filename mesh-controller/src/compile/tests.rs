//! Every rule and every problem of the compiler, in tables.

use std::{path::Path, sync::Arc};

use mesh_common::model::{PortMapping, Service, Workload};

use super::*;
use crate::captured::{Report, Stamp};
use crate::source::{Merger, Objects, Origin, yaml};

mod enrolment;
mod order;
mod policies;
mod routes;
mod services;
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
fn a_pod_without_an_address_is_no_workload() {
    let compiled = compiled(&format!("{NAMESPACES}{}", pod("shop/a", "", "")));
    assert_eq!(compiled.workload_called("shop/a"), None);
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
