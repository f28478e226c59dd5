//! An object with its status in a server that is nobody's to look into.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{GroupVersionKind, TypeMeta},
    discovery::{ApiResource, pinned_kind},
};
use serde_json::{Value, json};

/// Until kinds are served that have just been defined, and accounts have followed their namespace.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Makes an object as a controller or a person would; a definition of nodemesh's own kinds may be
/// there before.
///
/// # Errors
/// Where the server refuses.
pub async fn create(client: &Client, mut object: Value) -> Result<()> {
    let may_be_there = is_own_definition(&object);
    let types: TypeMeta = serde_json::from_value(object.clone())?;
    let gvk = GroupVersionKind::try_from(types)?;
    let status = object["status"].take();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let object: DynamicObject = serde_json::from_value(object)?;
    let name = object.name_any();
    let what = format!("{} {name}", gvk.kind);
    let resource = served(client, &gvk).await.with_context(|| what.clone())?;
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    if may_be_there {
        let parameters = PatchParams::apply("nodemesh-test").force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.context(what.clone())?;
    } else {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = api.create(&PostParams::default(), &object).await {
            let text = error.to_string();
            let is_early = text.contains("serviceaccount") || text.contains("404");
            ensure!(is_early && Instant::now() < end, "{what}: {text}");
            tokio::time::sleep(LOOK).await;
        }
    }
    if !status.is_null() {
        let patch = Patch::Merge(json!({ "status": status }));
        let patched = api.patch_status(&name, &PatchParams::default(), &patch).await;
        patched.with_context(|| format!("status of {what}"))?;
    }
    Ok(())
}

/// Whether an object defines one of nodemesh's own kinds.
pub fn is_own_definition(object: &Value) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    object["kind"] == "CustomResourceDefinition" && name.ends_with(".nodemesh.dev")
}

async fn served(client: &Client, gvk: &GroupVersionKind) -> Result<ApiResource> {
    let end = Instant::now() + PATIENCE;
    loop {
        match pinned_kind(client, gvk).await {
            Ok((resource, _)) => return Ok(resource),
            Err(error) if Instant::now() >= end => return Err(error.into()),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
