//! `validate` on manifests as people keep them.

use super::Folder;

const APPLICATION: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {nodemesh.dev/mesh: enabled}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: next, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: all, namespace: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

#[test]
fn manifests_that_are_yet_to_be_applied_are_good() {
    let ended = Folder::of(&[("all.yaml", APPLICATION)]).run(&["validate"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in [
        "HTTPRoute shop/web: Accepted, 1 Service\n",
        "skipped, not read by the mesh: 1 ConfigMap, 2 Deployment, 1 ReferenceGrant\n",
        "needs written: Service shop/web\n",
        "3 objects, 0 problems: 0 workloads, 1 service, 0 policies\n",
    ] {
        assert!(ended.out.contains(line), "{line:?} in {ended:?}");
    }
    assert_eq!(ended.err, "");
}

#[test]
fn what_is_meant_for_the_mesh_and_misspelt_is_a_problem() {
    for (wrong, kind, api_version) in [
        ("`HTTPRout` is not understood", "HTTPRout", "gateway.networking.k8s.io/v1"),
        ("`Policy` is not understood", "Policy", "nodemesh.dev/v1alpha1"),
        ("`apps/v1` is not understood for Service", "Service", "apps/v1"),
        ("`Servcie` is not understood", "Servcie", "v1"),
    ] {
        let object = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n");
        let folder = Folder::of(&[("all.yaml", APPLICATION), ("wrong.yaml", &object)]);
        let ended = folder.run(&["validate"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out.contains(wrong), "{wrong} in {ended:?}");
        assert!(ended.out.contains("3 objects, 1 problem"), "{ended:?}");
    }
}
