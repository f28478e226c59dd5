use mesh_common::{SYSTEM_NAMESPACE, names, ports};
use mesh_controller::{kubernetes::Resource, object::Kind};

use super::*;

fn all() -> Vec<Manifest> {
    objects(Profile::Secure, IMAGE).expect("the manifests are YAML")
}

fn find(kind: &str, name: &str) -> Manifest {
    let found = all().into_iter().find(|it| it.kind() == kind && it.name() == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn paths_are_those_of_the_api() {
    let path = |kind, name| find(kind, name).path();
    assert_eq!(path("Namespace", SYSTEM_NAMESPACE), "/api/v1/namespaces/nodemesh-system");
    assert_eq!(
        path("DaemonSet", names::AGENT),
        "/apis/apps/v1/namespaces/nodemesh-system/daemonsets/mesh-agent"
    );
    assert_eq!(
        path("ClusterRole", "nodemesh-controller"),
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/nodemesh-controller"
    );
    assert_eq!(path("MeshConfig", "default"), "/apis/nodemesh.dev/v1alpha1/meshconfigs/default");
}

#[test]
fn another_image_is_used_everywhere() {
    let text = text(Profile::Default, "registry.example/mesh@sha256:00").expect("a name");
    assert_eq!(text.matches("image: registry.example/mesh@sha256:00\n").count(), 2);
    assert!(!text.contains(IMAGE));
    super::text(Profile::Default, "a\nb: c").expect_err("two lines");
}

#[test]
fn names_are_those_of_the_code() {
    let agent = find("DaemonSet", names::AGENT);
    let pod = &agent.object["spec"]["template"]["spec"];
    let volume = |name: &str| {
        let volumes = pod["volumes"].as_array().expect("volumes");
        volumes.iter().find(|it| it["name"] == name).expect("a volume").clone()
    };
    assert_eq!(volume("root")["configMap"]["name"], names::TRUST_BUNDLE);
    let token = &volume("token")["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], names::TOKEN_AUDIENCE);
    assert_eq!(
        find("Service", names::CONTROLLER).object["spec"]["ports"][0]["port"],
        ports::CONTROLLER
    );
    let role = find("Role", names::CONTROLLER);
    let rules = role.object["rules"].to_string();
    for name in [names::CA_SECRET, names::CONTROLLER] {
        assert!(rules.contains(&format!("\"{name}\"")), "{name}: {rules}");
    }
}

#[test]
fn the_controller_may_read_what_it_follows() {
    let role = find("ClusterRole", "nodemesh-controller").object;
    let rules = role["rules"].as_array().expect("rules");
    let has = |rule: &Value, field: &str, wanted: &str| {
        rule[field].as_array().is_some_and(|list| list.iter().any(|it| it == wanted))
    };
    for kind in Kind::ALL {
        let name = Resource::of(kind).name;
        let (resource, group) = name.split_once('.').unwrap_or((name.as_str(), ""));
        let may = |verb: &str| {
            rules.iter().any(|rule| {
                has(rule, "apiGroups", group)
                    && has(rule, "resources", resource)
                    && has(rule, "verbs", verb)
            })
        };
        assert!(may("list") && may("watch"), "{name}");
    }
}

#[test]
fn every_object_says_that_it_is_ours_and_lives_where_it_should() {
    for manifest in all() {
        let title = manifest.title();
        assert_eq!(
            manifest.object["metadata"]["labels"]["app.kubernetes.io/part-of"], "nodemesh",
            "{title}"
        );
        assert!(manifest.namespace().is_none_or(|it| it == SYSTEM_NAMESPACE), "{title}");
    }
}

#[test]
fn nothing_runs_privileged() {
    for (kind, name) in [("DaemonSet", names::AGENT), ("Deployment", names::CONTROLLER)] {
        let object = find(kind, name).object;
        let context = &object["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
        assert!(context["privileged"].is_null(), "{name}");
    }
}
