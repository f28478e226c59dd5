//! Policies, and what is odd with them.

use super::*;

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
