//! Discovery: which groups, versions and resources there are, one by one or all at once.

use serde_json::{Value, json};

use crate::registry::{Registry, Resource, api_version};

/// The answer at `/version`.
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": "v1.33.0-nodemesh",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// `/api`: the versions of the core group.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

/// `/apis`: every other group.
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<_> = registry
        .groups()
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| group_body(&name, &versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (_, versions) = registry.groups().into_iter().find(|(known, _)| known == name)?;
    let mut body = group_body(name, &versions);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

fn group_body(name: &str, versions: &[String]) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| json!({ "groupVersion": api_version(name, version), "version": version }))
        .collect();
    json!({ "name": name, "preferredVersion": versions.first(), "versions": versions })
}

/// `/api/v1` and `/apis/<group>/<version>`: the resources of one version.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let of_version: Vec<_> = registry
        .all()
        .into_iter()
        .filter(|resource| resource.group == group && resource.version == version)
        .collect();
    if of_version.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for resource in &of_version {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs(),
        });
        add_names(&mut entry, resource);
        resources.push(entry);
        for sub in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": sub.kind,
                "verbs": sub.verbs,
            });
            if let Some((group, version)) = sub.foreign {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(group, version),
        "resources": resources,
    }))
}

/// `/api` or `/apis` in the aggregated form: everything in one answer.
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<_> = registry
        .groups()
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<_> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<_> = registry
                        .all()
                        .iter()
                        .filter(|resource| resource.group == name && resource.version == *version)
                        .map(|resource| aggregated_resource(resource))
                        .collect();
                    json!({ "version": version, "freshness": "Current", "resources": resources })
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({ "name": name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |kind: &str, foreign: Option<(&str, &str)>| {
        let (group, version) = foreign.unwrap_or((&resource.group, &resource.version));
        json!({ "group": group, "version": version, "kind": kind })
    };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.kind, None),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    add_names(&mut entry, resource);
    let subresources: Vec<_> = subresources(resource)
        .into_iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": kind(sub.kind, sub.foreign),
                "verbs": sub.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn add_names(entry: &mut Value, resource: &Resource) {
    for (field, names) in
        [("shortNames", &resource.short_names), ("categories", &resource.categories)]
    {
        if !names.is_empty() {
            entry[field] = names.clone().into();
        }
    }
}

struct Subresource<'r> {
    name: &'static str,
    kind: &'r str,
    verbs: &'static [&'static str],
    /// Group and version of the kind, where they are not those of the resource.
    foreign: Option<(&'static str, &'static str)>,
}

fn subresources(resource: &Resource) -> Vec<Subresource<'_>> {
    let mut all = Vec::new();
    let mut add = |name, kind, verbs, foreign| all.push(Subresource { name, kind, verbs, foreign });
    const CHANGED: &[&str] = &["get", "patch", "update"];
    if resource.is("", "namespaces") {
        add("finalize", "Namespace", &["update"], None);
    }
    if resource.scale.is_some() {
        add("scale", "Scale", CHANGED, Some(("autoscaling", "v1")));
    }
    if resource.status {
        add("status", &resource.kind, CHANGED, None);
    }
    if resource.is("", "serviceaccounts") {
        let token = Some(("authentication.k8s.io", "v1"));
        add("token", "TokenRequest", &["create"], token);
    }
    all
}
