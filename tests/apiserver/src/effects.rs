//! What follows from a write: the little that controllers of the real control plane would do.

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    meta,
    store::{Key, Locked, Object},
};

/// After an object was created or changed.
pub fn written(cluster: &Cluster, store: &mut Locked<'_>, key: &Key) {
    if key.resource == "namespaces" {
        furnish(cluster, store, &key.name);
    }
}

/// After an object was removed.
pub fn removed(_cluster: &Cluster, _store: &mut Locked<'_>, _key: &Key, _last: &Object) {}

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
