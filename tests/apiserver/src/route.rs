//! What a path means: a resource, an object, a subresource.

use std::sync::Arc;

use crate::registry::{Registry, Resource};

/// A path below `/api/v1` or `/apis/<group>/<version>`.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Arc<Resource>,
    /// None: all namespaces, or a resource of the cluster.
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Target {
    /// Finds the resource that `path` (decoded, without a query) is about.
    pub fn find(path: &str, registry: &Registry) -> Option<Self> {
        let segments: Vec<_> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match &segments[..] {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let find = |plural: &str| registry.find(group, version, plural);
        let target = |resource: Arc<Resource>, namespace: Option<&str>, rest: &[&str]| {
            let mut rest = rest.iter().map(|&segment| segment.to_owned());
            let (name, subresource) = (rest.next(), rest.next());
            let namespace = namespace.map(str::to_owned);
            rest.next().is_none().then_some(Self { resource, namespace, name, subresource })
        };
        match rest {
            // `namespaces/<name>/status` is a subresource of the namespace itself.
            ["namespaces", namespace, plural, rest @ ..]
                if !matches!(*plural, "status" | "finalize") =>
            {
                let resource = find(plural).filter(|resource| resource.namespaced)?;
                target(resource, Some(namespace), rest)
            }
            [plural, rest @ ..] => {
                let resource = find(plural)?;
                if resource.namespaced && !rest.is_empty() {
                    return None;
                }
                target(resource, None, rest)
            }
            [] => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let registry = Registry::new();
        let found = |path| {
            let target = Target::find(path, &registry)?;
            let part = |part: Option<String>| part.unwrap_or_else(|| "-".into());
            Some(format!(
                "{} {} {} {}",
                target.resource.storage,
                part(target.namespace),
                part(target.name),
                part(target.subresource)
            ))
        };
        for (path, expected) in [
            ("/api/v1/pods", Some("pods - - -")),
            ("/api/v1/namespaces/a/pods/b/status", Some("pods a b status")),
            ("/api/v1/namespaces/a", Some("namespaces - a -")),
            ("/api/v1/namespaces/a/status", Some("namespaces - a status")),
            ("/apis/apps/v1/namespaces/a/deployments", Some("deployments.apps a - -")),
            ("/apis/events.k8s.io/v1/events", Some("events - - -")),
            ("/api/v1/nodes/n", Some("nodes - n -")),
            ("/api/v1/namespaces/a/nodes", None),
            ("/api/v1/pods/b", None),
            ("/api/v2/pods", None),
            ("/apis/apps/v1", None),
            ("/api/v1/namespaces/a/pods/b/status/c", None),
        ] {
            assert_eq!(found(path).as_deref(), expected, "{path}");
        }
    }
}
