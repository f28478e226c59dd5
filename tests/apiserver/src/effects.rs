//! What follows from a write: the little that controllers of the real control plane would do.

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    crd, meta,
    store::{Key, Locked, Object},
};

/// After an object was created or changed.
pub fn written(cluster: &Cluster, store: &mut Locked<'_>, key: &Key) {
    if key.resource == "namespaces" {
        furnish(cluster, store, &key.name);
    }
    if key.resource == DEFINITIONS {
        establish(store, key);
        serve(cluster, store);
    }
}

/// After an object was removed.
pub fn removed(cluster: &Cluster, store: &mut Locked<'_>, key: &Key, last: &Object) {
    if key.resource != DEFINITIONS {
        return;
    }
    // Their objects have nothing to be shown as any more, and no finalizer can hold them.
    for resource in crd::resources(last) {
        for (key, _) in store.list(&resource.storage, None) {
            store.remove(&key);
        }
    }
    serve(cluster, store);
}

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Gives a definition the status that says that it is served.
fn establish(store: &mut Locked<'_>, key: &Key) {
    let Some(definition) = store.get(key) else { return };
    let status = crd::status(&definition);
    if definition["status"]["acceptedNames"] != status["acceptedNames"] {
        let mut definition = Value::clone(&definition);
        definition["status"] = status;
        store.put(key.clone(), definition);
    }
}

/// Serves what the definitions of now say.
fn serve(cluster: &Cluster, store: &Locked<'_>) {
    let definitions = store.list(DEFINITIONS, None);
    let resources = definitions.iter().flat_map(|(_, definition)| crd::resources(definition));
    cluster.registry.set_custom(resources.collect());
}

/// Every namespace has an account for its pods, and the certificate to trust the API server by.
fn furnish(cluster: &Cluster, store: &mut Locked<'_>, namespace: &str) {
    let furniture = [
        ("serviceaccounts", "ServiceAccount", "default", Value::Null),
        ("configmaps", "ConfigMap", "kube-root-ca.crt", json!({ "ca.crt": cluster.certificate })),
    ];
    for (resource, kind, name, data) in furniture {
        let key = Key {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        if store.get(&key).is_some() {
            continue;
        }
        let mut object = json!({
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": meta::uid(),
                "creationTimestamp": meta::now(),
            },
        });
        if !data.is_null() {
            object["data"] = data;
        }
        store.put(key, object);
    }
}
