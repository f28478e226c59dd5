//! Custom resources: served as soon as they are defined, and checked.

use anyhow::Result;
use serde_json::json;

use crate::cluster::Cluster;

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: routes.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: routes, kind: Route, shortNames: [rt]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Host, type: string, jsonPath: .spec.host}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type==\"Ready\")].status'}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [host]
            x-kubernetes-validations:
            - {rule: 'self.weight < 5 || self.host == \"a\"', message: too heavy}
            properties:
              host: {type: string, pattern: '^[a-z]+$'}
              weight: {type: integer, default: 1}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
";

fn route(spec: &str) -> String {
    format!("apiVersion: example.org/v1\nkind: Route\nmetadata: {{name: r}}\nspec: {spec}\n")
}

#[test]
fn a_definition_makes_a_resource() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let definition = cluster.file("definition.yaml", DEFINITION)?;
    kubectl.run(&["apply", "-f", &definition])?;
    kubectl.run(&["wait", "--for=condition=Established", "crd/routes.example.org"])?;
    kubectl.run(&["apply", "-f", &cluster.file("route.yaml", &route("{host: b}"))?])?;
    let route = kubectl.json(&["get", "rt", "r"])?;
    assert_eq!(route["spec"], json!({ "host": "b", "weight": 1 }));
    let table = kubectl.run(&["get", "routes"])?;
    let heading: Vec<_> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heading, ["NAME", "HOST", "READY"]);

    kubectl.run(&["delete", "-f", &definition])?;
    assert!(kubectl.fails(&["get", "--raw", "/apis/example.org/v1"])?.contains("NotFound"));
    Ok(())
}

#[test]
fn its_schema_is_enforced() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    kubectl.run(&["apply", "-f", &cluster.file("definition.yaml", DEFINITION)?])?;
    for (spec, expected) in [
        ("{}", "spec.host: Required value"),
        ("{host: A}", "spec.host in body should match '^[a-z]+$'"),
        ("{host: b, weight: x}", "spec.weight in body must be of type integer: \"string\""),
        ("{host: b, weight: 7}", "too heavy"),
    ] {
        let file = cluster.file("route.yaml", &route(spec))?;
        let error = kubectl.fails(&["create", "--validate=false", "-f", &file])?;
        assert!(error.contains(expected), "{spec}: {error}");
    }
    let unknown = cluster.file("route.yaml", &route("{host: a, weight: 7, more: 1}"))?;
    kubectl.run(&["create", "--validate=false", "-f", &unknown])?;
    assert_eq!(kubectl.json(&["get", "routes", "r"])?["spec"], json!({ "host": "a", "weight": 7 }));
    Ok(())
}

#[test]
fn the_definitions_of_nodemesh_are_served() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds");
    kubectl.run(&["apply", "-k", folder])?;
    let resources = kubectl.run(&["api-resources", "--api-group=nodemesh.dev", "-o", "name"])?;
    assert!(resources.contains("peerpolicies.nodemesh.dev"), "{resources}");
    Ok(())
}
