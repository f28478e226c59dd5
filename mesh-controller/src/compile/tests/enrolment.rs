//! Who is in the mesh, and why not.

use super::*;

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
