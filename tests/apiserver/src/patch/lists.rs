//! Which lists and maps of built-in kinds are merged item by item, and by which keys.
//!
//! The real server has this in its OpenAPI schema: `x-kubernetes-patch-merge-key` for strategic
//! merge patches, `x-kubernetes-list-type` and `-list-map-keys` for server-side apply.

/// How a list is merged.
struct List {
    /// Only in these kinds; all if empty.
    kinds: &'static [&'static str],
    /// The last fields of the path.
    path: &'static [&'static str],
    /// Of a strategic merge patch; empty: a set of plain values.
    merge_key: &'static str,
    /// Of server-side apply; empty: a set.
    keys: &'static [&'static str],
}

const fn list(path: &'static [&'static str], merge_key: &'static str) -> List {
    List { kinds: &[], path, merge_key, keys: &[] }
}

const LISTS: &[List] = &[
    list(&["metadata", "finalizers"], ""),
    list(&["metadata", "ownerReferences"], "uid"),
    list(&["spec", "containers"], "name"),
    list(&["spec", "initContainers"], "name"),
    list(&["spec", "ephemeralContainers"], "name"),
    List {
        keys: &["containerPort", "protocol"],
        ..list(&["containers", "ports"], "containerPort")
    },
    List {
        keys: &["containerPort", "protocol"],
        ..list(&["initContainers", "ports"], "containerPort")
    },
    list(&["containers", "env"], "name"),
    list(&["initContainers", "env"], "name"),
    list(&["containers", "volumeMounts"], "mountPath"),
    list(&["initContainers", "volumeMounts"], "mountPath"),
    list(&["spec", "volumes"], "name"),
    list(&["spec", "imagePullSecrets"], "name"),
    list(&["spec", "hostAliases"], "ip"),
    List {
        keys: &["topologyKey", "whenUnsatisfiable"],
        ..list(&["spec", "topologySpreadConstraints"], "topologyKey")
    },
    list(&["status", "podIPs"], "ip"),
    list(&["status", "hostIPs"], "ip"),
    list(&["status", "conditions"], "type"),
    List { kinds: &["Service"], keys: &["port", "protocol"], ..list(&["spec", "ports"], "port") },
    List { kinds: &["Node"], ..list(&["status", "addresses"], "type") },
    List { kinds: &["Node"], ..list(&["spec", "taints"], "key") },
    List { kinds: &["Node"], ..list(&["spec", "podCIDRs"], "") },
    List { kinds: &["Namespace"], ..list(&["spec", "finalizers"], "") },
    List { kinds: &["ServiceAccount"], ..list(&["secrets"], "name") },
    List { kinds: &["ServiceAccount"], ..list(&["imagePullSecrets"], "name") },
    List {
        kinds: &["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"],
        ..list(&["webhooks"], "name")
    },
];

/// Maps that are replaced as a whole by server-side apply; everything else is merged.
const ATOMIC_MAPS: &[(&[&str], &[&str])] = &[
    (&["Service"], &["spec", "selector"]),
    (&[], &["spec", "nodeSelector"]),
    (&["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job"], &["spec", "selector"]),
    (&["NetworkPolicy"], &["podSelector"]),
    (&[], &["namespaceSelector"]),
    (&[], &["objectSelector"]),
    (&[], &["labelSelector"]),
    (&["ClusterRole", "Role", "RoleBinding", "ClusterRoleBinding"], &["roleRef"]),
    (&["ClusterRole"], &["aggregationRule"]),
    (&[], &["involvedObject"]),
    (&[], &["regarding"]),
    (&[], &["configMapKeyRef"]),
    (&[], &["secretKeyRef"]),
    (&[], &["fieldRef"]),
    (&[], &["resourceFieldRef"]),
];

/// The key that a strategic merge patch merges a list by; `Some("")` for plain values, None for
/// a list that is replaced. `path` has fields alone, no items.
pub fn merge_key(kind: &str, path: &[&str]) -> Option<&'static str> {
    find(kind, path).map(|list| list.merge_key)
}

/// The keys that tell items apart for server-side apply; empty for a set, None if atomic.
pub fn apply_keys(kind: &str, path: &[&str]) -> Option<Vec<&'static str>> {
    let list = find(kind, path)?;
    Some(match (list.keys, list.merge_key) {
        ([], "") => Vec::new(),
        ([], key) => vec![key],
        (keys, _) => keys.to_vec(),
    })
}

/// Whether a map is replaced as a whole by server-side apply.
pub fn is_atomic_map(kind: &str, path: &[&str]) -> bool {
    let fits = |(kinds, end): &(&[&str], &[&str])| {
        (kinds.is_empty() || kinds.contains(&kind)) && path.ends_with(end)
    };
    ATOMIC_MAPS.iter().any(fits)
}

/// The value that a key of an item has when it is absent.
pub fn default_of_key(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}

fn find(kind: &str, path: &[&str]) -> Option<&'static List> {
    LISTS.iter().find(|list| {
        (list.kinds.is_empty() || list.kinds.contains(&kind)) && path.ends_with(list.path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_containers_and_services_have_keys_of_their_own() {
        let of_template = ["spec", "template", "spec", "containers", "ports"];
        assert_eq!(merge_key("Deployment", &of_template), Some("containerPort"));
        assert_eq!(apply_keys("Service", &["spec", "ports"]), Some(vec!["port", "protocol"]));
        assert_eq!(merge_key("NetworkPolicy", &["spec", "ingress", "ports"]), None);
        assert_eq!(merge_key("Pod", &["metadata", "finalizers"]), Some(""));
        assert!(is_atomic_map("Service", &["spec", "selector"]));
        assert!(!is_atomic_map("Service", &["metadata", "labels"]));
    }
}
