//! Roles and bindings: who may do what.

use serde_json::{Value, json};

use crate::{
    auth::User,
    error::{About, ApiError},
    selector,
    store::{Key, Locked},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        /// Empty: the whole cluster.
        namespace: &'a str,
        name: &'a str,
    },
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

/// Whether some role lets the user do it.
pub fn is_allowed(store: &Locked<'_>, user: &User, action: &Action<'_>) -> bool {
    if user.is_master() || is_for_everybody(action) {
        return true;
    }
    let cluster = store.list(&format!("clusterrolebindings.{GROUP}"), None);
    let mut bindings: Vec<_> = cluster.into_iter().map(|(_, binding)| binding).collect();
    if let Action::Resource { namespace, .. } = action
        && !namespace.is_empty()
    {
        let local = store.list(&format!("rolebindings.{GROUP}"), Some(namespace));
        bindings.extend(local.into_iter().map(|(_, binding)| binding));
    }
    bindings
        .iter()
        .filter(|binding| items(&binding["subjects"]).any(|subject| is_of(user, subject, binding)))
        .any(|binding| rules(store, binding).iter().any(|rule| permits(rule, action)))
}

/// The error for what is not allowed, worded as the real server does.
pub fn forbidden(user: &User, action: &Action<'_>) -> ApiError {
    match action {
        Action::Path { verb, path } => ApiError::forbidden_path(&user.name, verb, path),
        Action::Resource { group, resource, name, .. } => {
            let why = format!("User \"{}\" cannot {}", user.name, describe(action));
            ApiError::forbidden(About { group, resource, name }, &why)
        }
    }
}

fn describe(action: &Action<'_>) -> String {
    match action {
        Action::Path { verb, path } => format!("{verb} path \"{path}\""),
        Action::Resource { verb, group, namespace, .. } => {
            let scope = match *namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            format!("{verb} resource \"{}\" in API group \"{group}\" {scope}", full_name(action))
        }
    }
}

/// `pods`, `pods/status`.
fn full_name(action: &Action<'_>) -> String {
    match action {
        Action::Resource { resource, subresource: "", .. } => (*resource).to_owned(),
        Action::Resource { resource, subresource, .. } => format!("{resource}/{subresource}"),
        Action::Path { path, .. } => (*path).to_owned(),
    }
}

/// What `system:discovery` and `system:basic-user` let everybody with credentials do.
fn is_for_everybody(action: &Action<'_>) -> bool {
    match action {
        Action::Path { path, .. } => {
            let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            matches!(first, "api" | "apis" | "openapi" | "version" | "healthz" | "livez" | "readyz")
        }
        Action::Resource { verb, resource, .. } => {
            let own = ["selfsubjectaccessreviews", "selfsubjectreviews"];
            *verb == "create" && own.contains(resource)
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_of(user: &User, subject: &Value, binding: &Value) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => user.name == name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str();
            let namespace = namespace.or(binding["metadata"]["namespace"].as_str());
            user.name == format!("system:serviceaccount:{}:{name}", namespace.unwrap_or_default())
        }
        _ => false,
    }
}

/// The rules of the role that a binding names.
fn rules(store: &Locked<'_>, binding: &Value) -> Vec<Value> {
    let role = &binding["roleRef"];
    let name = role["name"].as_str().unwrap_or_default();
    let namespace = match role["kind"].as_str() {
        Some("Role") => binding["metadata"]["namespace"].as_str().unwrap_or_default(),
        _ => "",
    };
    let plural = if namespace.is_empty() { "clusterroles" } else { "roles" };
    let key = Key {
        resource: format!("{plural}.{GROUP}"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let Some(role) = store.get(&key) else { return Vec::new() };
    let mut rules: Vec<_> = items(&role["rules"]).cloned().collect();
    let selectors: Vec<_> = items(&role["aggregationRule"]["clusterRoleSelectors"]).collect();
    if !selectors.is_empty() {
        for (_, other) in store.list(&format!("clusterroles.{GROUP}"), None) {
            if selectors.iter().any(|wanted| selector::has_labels(&other, &wanted["matchLabels"])) {
                rules.extend(items(&other["rules"]).cloned());
            }
        }
    }
    rules
}

fn permits(rule: &Value, action: &Action<'_>) -> bool {
    let has = |list: &str, wanted: &str| items(&rule[list]).any(|one| one == "*" || one == wanted);
    match action {
        Action::Path { verb, path } => {
            let fits = |pattern: &Value| {
                let pattern = pattern.as_str().unwrap_or_default();
                match pattern.strip_suffix('*') {
                    Some(start) => path.starts_with(start),
                    None => pattern == *path,
                }
            };
            has("verbs", verb) && items(&rule["nonResourceURLs"]).any(fits)
        }
        Action::Resource { verb, group, subresource, name, .. } => {
            let any_of_sub = format!("*/{subresource}");
            let names = &rule["resourceNames"];
            let named = items(names).next().is_none() || items(names).any(|one| one == name);
            let of_resource = has("resources", &full_name(action))
                || (!subresource.is_empty()
                    && items(&rule["resources"]).any(|one| *one == any_of_sub));
            has("verbs", verb) && has("apiGroups", group) && of_resource && named
        }
    }
}

/// The roles of every cluster that others refer to.
pub fn builtin() -> Vec<Value> {
    let role = |name: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name }, "rules": rules,
        })
    };
    let everything = json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] },
        { "nonResourceURLs": ["*"], "verbs": ["*"] },
    ]);
    let reviews = json!([
        {
            "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"],
            "verbs": ["create"],
        },
        {
            "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"],
            "verbs": ["create"],
        },
    ]);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "cluster-admin" },
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": GROUP, "kind": "Group", "name": "system:masters" }],
    });
    vec![role("cluster-admin", everything), role("system:auth-delegator", reviews), binding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn action<'a>(verb: &'a str, resource: &'a str, namespace: &'a str) -> Action<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Action::Resource { verb, group: "", resource, subresource, namespace, name: "n" }
    }

    fn put(store: &Store, plural: &str, namespace: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let resource = format!("{plural}.{GROUP}");
        store.lock().put(Key { resource, namespace: namespace.into(), name }, object);
    }

    #[test]
    fn roles_bindings_and_their_reach() {
        let store = Store::new(10);
        let rules = json!([
            { "apiGroups": [""], "resources": ["pods", "*/status"], "verbs": ["get", "list"] },
            { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["n"], "verbs": ["*"] },
        ]);
        let account = json!([{ "kind": "ServiceAccount", "name": "a", "namespace": "home" }]);
        put(&store, "clusterroles", "", json!({ "metadata": { "name": "r" }, "rules": rules }));
        let binding = json!({
            "metadata": { "name": "b", "namespace": "shop" },
            "roleRef": { "kind": "ClusterRole", "name": "r" }, "subjects": account,
        });
        put(&store, "rolebindings", "shop", binding);
        let user = User { name: "system:serviceaccount:home:a".into(), ..User::default() };
        for (verb, resource, namespace, expected) in [
            ("get", "pods", "shop", true),
            ("get", "pods", "other", false),
            ("list", "pods", "", false),
            ("delete", "pods", "shop", false),
            ("get", "pods/log", "shop", false),
            ("get", "nodes/status", "shop", true),
            ("delete", "secrets", "shop", true),
            ("get", "configmaps", "shop", false),
        ] {
            let action = action(verb, resource, namespace);
            assert_eq!(is_allowed(&store.lock(), &user, &action), expected, "{action:?}");
        }
        let error = forbidden(&user, &action("list", "nodes", ""));
        assert!(error.status()["message"].as_str().is_some_and(|message| message.ends_with(
            "is forbidden: User \"system:serviceaccount:home:a\" cannot list resource \"nodes\" in \
             API group \"\" at the cluster scope"
        )));
    }
}
