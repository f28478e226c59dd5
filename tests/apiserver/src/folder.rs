//! Objects from YAML files, for a cluster that is not empty at its start.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    api::{FieldValidation, Options, insert},
    cluster::Cluster,
    meta,
    route::Target,
};

/// Stores every object of the YAML files in a folder, their status included.
pub fn load(cluster: &Cluster, folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .with_context(|| format!("{} is not YAML", file.display()))?;
        objects.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    // What others need comes first, as kubectl orders nothing either but people expect it.
    objects.sort_by_key(|object| match object["kind"].as_str() {
        Some("CustomResourceDefinition") => 0,
        Some("Namespace") => 1,
        _ => 2,
    });
    objects.into_iter().try_for_each(|object| add(cluster, object))
}

/// Stores one object as it is, its status included.
pub fn add(cluster: &Cluster, object: Value) -> Result<()> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let Some(resource) = cluster.registry.of_kind(version, kind) else {
        bail!("no resource is served for {version} {kind}: create its CustomResourceDefinition");
    };
    let namespace = match meta::text(&object, "namespace") {
        "" => "default",
        namespace => namespace,
    };
    let target = Target {
        namespace: resource.namespaced.then(|| namespace.to_owned()),
        resource,
        name: None,
        subresource: None,
    };
    let options = Options {
        dry_run: false,
        manager: "folder".to_owned(),
        validation: FieldValidation::Strict,
        force: false,
        applies: false,
    };
    let mut store = cluster.store.lock();
    let status = object.get("status").cloned();
    let what = format!("{kind} {}", meta::text(&object, "name"));
    let new = insert(cluster, &mut store, &target, object, &options)
        .map_err(|error| anyhow::anyhow!("{what}: {}", error.status()["message"]))?;
    if let Some(status) = status {
        let mut new = Value::clone(&new);
        new["status"] = status;
        let key =
            meta::key(&target.resource, target.namespace.as_deref(), meta::text(&new, "name"));
        store.put(key, new);
    }
    Ok(())
}
