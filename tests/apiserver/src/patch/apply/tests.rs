use serde_json::json;

use super::*;
use crate::registry::Registry;

fn who(name: &str, applies: bool) -> Who {
    Who { name: name.into(), applies, api_version: "v1".into(), subresource: String::new() }
}

/// The object after an apply, with its managers.
fn applied(live: &Value, name: &str, wanted: &Value, force: bool) -> Result<Value, String> {
    let registry = Registry::new();
    let plural = if live["kind"] == "Pod" { "pods" } else { "configmaps" };
    let resource = registry.find("", "v1", plural).expect("built in");
    let types = Types::of(&resource);
    let applied = apply(&types, &who(name, true), live, wanted, force);
    let applied = applied.map_err(|error| error.status()["message"].to_string())?;
    let mut object = applied.object;
    applied.managed.write(&mut object);
    Ok(object)
}

fn map(data: Value) -> Value {
    json!({ "kind": "ConfigMap", "data": data })
}

#[test]
fn what_a_manager_no_longer_wants_goes() {
    let live = map(json!({}));
    let live =
        applied(&live, "a", &map(json!({ "x": "1", "y": "1" })), false).expect("no conflict");
    let live =
        applied(&live, "b", &map(json!({ "y": "1", "z": "1" })), false).expect("no conflict");
    let live = applied(&live, "a", &map(json!({ "x": "2" })), false).expect("no conflict");
    // `y` stays: it is b's too.
    assert_eq!(live["data"], json!({ "x": "2", "y": "1", "z": "1" }));
    let live = applied(&live, "b", &map(json!({ "z": "1" })), false).expect("no conflict");
    assert_eq!(live["data"], json!({ "x": "2", "z": "1" }));
    assert_eq!(
        live["metadata"]["managedFields"][0]["fieldsV1"],
        json!({ "f:data": { "f:x": {} } })
    );
}

#[test]
fn a_field_of_another_is_a_conflict_unless_forced() {
    let live = applied(&map(json!({})), "a", &map(json!({ "x": "1" })), false).expect("first");
    let error = applied(&live, "b", &map(json!({ "x": "2" })), false).expect_err("it is a's");
    assert_eq!(error, r#""Apply failed with 1 conflict: conflict with \"a\": .data.x""#);
    let live = applied(&live, "b", &map(json!({ "x": "2" })), true).expect("by force");
    assert_eq!(live["data"]["x"], "2");
    let managers = live["metadata"]["managedFields"].as_array().expect("b is left");
    assert_eq!(managers.len(), 1);
    assert_eq!(managers[0]["manager"], "b");
}

#[test]
fn an_update_takes_fields_and_gives_up_what_it_removes() {
    let registry = Registry::new();
    let resource = registry.find("", "v1", "configmaps").expect("built in");
    let types = Types::of(&resource);
    let old = applied(&map(json!({})), "a", &map(json!({ "x": "1", "y": "1" })), false);
    let old = old.expect("first");
    let mut new = old.clone();
    new["data"] = json!({ "x": "2" });
    let managed = written(&types, &who("edit", false), &old, &new);
    managed.write(&mut new);
    assert_eq!(new["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
    assert_eq!(new["metadata"]["managedFields"][0]["manager"], "edit");
    assert_eq!(new["metadata"]["managedFields"][0]["fieldsV1"], json!({ "f:data": { "f:x": {} } }));
}

#[test]
fn lists_with_keys_are_owned_item_by_item() {
    let pod = |containers: Value| json!({ "kind": "Pod", "spec": { "containers": containers } });
    let one = json!({ "name": "one", "image": "1", "ports": [{ "containerPort": 80 }] });
    let two = json!({ "name": "two", "image": "2" });
    let live = json!({ "kind": "Pod" });
    let live = applied(&live, "a", &pod(json!([one])), false).expect("first");
    let live = applied(&live, "b", &pod(json!([two])), false).expect("another container");
    assert_eq!(live["spec"]["containers"], json!([one, two]));
    assert_eq!(
        live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"],
        json!({ "k:{\"name\":\"one\"}": {
            ".": {}, "f:image": {}, "f:name": {},
            "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } },
        } })
    );
    let live = applied(&live, "a", &json!({ "kind": "Pod" }), false).expect("gives up");
    assert_eq!(live["spec"]["containers"], json!([two]));
}
