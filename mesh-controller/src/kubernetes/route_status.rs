//! The status of routes, which several controllers write: an entry a parent, each its controller's
//! own. Pure.

use serde_json::{Value, json};

use crate::compile::{ParentCondition, ParentStatus};

/// Whose entries are ours.
pub const CONTROLLER: &str = "nodemesh.dev/controller";

/// Whether agents have a route in use.
pub const PROGRAMMED: &str = "nodemesh.dev/Programmed";

/// The entries that a route carries now.
pub fn parents(object: &Value) -> Vec<Value> {
    let parents = object.pointer("/status/parents").and_then(Value::as_array);
    parents.cloned().unwrap_or_default()
}

/// `parents` with a condition that says whether agents have the route in use, where they refused it
/// for these reasons. The Gateway API has no such condition for routes, hence the prefix.
pub fn programmed(parents: &[ParentStatus], refusals: &[(String, String)]) -> Vec<ParentStatus> {
    let programmed = |parent: &ParentStatus| {
        let is = |it: &ParentCondition| it.type_ == "Accepted" && it.status;
        let (status, reason, message) = match (parent.conditions.iter().any(is), refusals) {
            (false, _) => (false, "Invalid", "it is not in use: see Accepted".to_owned()),
            (true, []) => (true, "Programmed", String::new()),
            (true, refusals) => (false, "RefusedByAgents", super::status::refused(refusals)),
        };
        let mut parent = parent.clone();
        parent.conditions.push(ParentCondition { type_: PROGRAMMED, status, reason, message });
        parent
    };
    parents.iter().map(programmed).collect()
}

/// Whether an entry is ours.
pub fn is_ours(entry: &Value) -> bool {
    entry["controllerName"] == CONTROLLER
}

/// `current` with our entries as they should be, where the route has this generation. Those of
/// others stay as and where they are, and so does what did not change: nobody writes in turns.
pub fn merged(
    current: &[Value],
    ours: &[ParentStatus],
    generation: Option<i64>,
    now: &str,
) -> Vec<Value> {
    let entry = |wanted: &ParentStatus, before: Option<&Value>| {
        let condition = |it: &ParentCondition| condition(it, before, generation, now);
        json!({
            "parentRef": wanted.parent_ref,
            "controllerName": CONTROLLER,
            "conditions": wanted.conditions.iter().map(condition).collect::<Vec<_>>(),
        })
    };
    let mut missing: Vec<&ParentStatus> = ours.iter().collect();
    let mut merged = Vec::new();
    for before in current {
        if !is_ours(before) {
            merged.push(before.clone());
            continue;
        }
        let is_it = |it: &&ParentStatus| json!(it.parent_ref) == before["parentRef"];
        if let Some(at) = missing.iter().position(is_it) {
            merged.push(entry(missing.remove(at), Some(before)));
        }
    }
    merged.extend(missing.into_iter().map(|wanted| entry(wanted, None)));
    merged
}

/// The patch that writes `parents`, unless the object is another by now.
pub fn patch(object: &Value, parents: &[Value]) -> Value {
    let version = &object["metadata"]["resourceVersion"];
    json!({"metadata": {"resourceVersion": version}, "status": {"parents": parents}})
}

fn condition(
    wanted: &ParentCondition,
    before: Option<&Value>,
    generation: Option<i64>,
    now: &str,
) -> Value {
    let status = if wanted.status { "True" } else { "False" };
    let before = before.and_then(|entry| entry["conditions"].as_array());
    let before = before.into_iter().flatten().find(|it| it["type"] == wanted.type_);
    let since = before.filter(|before| before["status"] == status);
    let since = since.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(now);
    let mut condition = json!({
        "type": wanted.type_,
        "status": status,
        "reason": wanted.reason,
        "message": super::status::bounded(wanted.message.clone()),
        "lastTransitionTime": since,
    });
    if let Some(generation) = generation {
        condition["observedGeneration"] = generation.into();
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ParentRef;

    fn wanted(port: Option<i32>, is_accepted: bool) -> ParentStatus {
        let reason = if is_accepted { "Accepted" } else { "Conflicted" };
        let accepted = ParentCondition {
            type_: "Accepted",
            status: is_accepted,
            reason,
            message: String::new(),
        };
        let parent_ref = ParentRef {
            group: Some(String::new()),
            kind: Some("Service".into()),
            namespace: None,
            name: "web".into(),
            section_name: None,
            port,
        };
        ParentStatus { parent_ref, conditions: vec![accepted] }
    }

    fn other(name: &str) -> Value {
        json!({"parentRef": {"name": name}, "controllerName": "example.com/it", "conditions": [{}]})
    }

    #[test]
    fn entries_of_others_stay_as_and_where_they_are() {
        let first = merged(&[other("a")], &[wanted(None, true)], Some(3), "T1");
        assert_eq!(first[0], other("a"));
        let expected = json!({
            "parentRef": {"group": "", "kind": "Service", "name": "web"},
            "controllerName": "nodemesh.dev/controller",
            "conditions": [{
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "T1", "observedGeneration": 3,
            }],
        });
        assert_eq!(first[1], expected);
        let reordered = [first[1].clone(), other("b"), other("a")];
        assert_eq!(merged(&reordered, &[wanted(None, true)], Some(3), "T2"), reordered);
        assert_eq!(merged(&reordered, &[], Some(3), "T2"), [other("b"), other("a")]);
    }

    #[test]
    fn what_agents_refuse_is_not_programmed() {
        let said = |is_accepted, refusals: &[(String, String)]| {
            let parents = programmed(&[wanted(None, is_accepted)], refusals);
            let condition = parents[0].conditions[1].clone();
            assert_eq!((parents[0].conditions.len(), condition.type_), (2, PROGRAMMED));
            (condition.status, condition.reason, condition.message)
        };
        assert_eq!(said(true, &[]), (true, "Programmed", String::new()));
        let refused = said(true, &[("node-1".into(), "too long".into())]);
        assert_eq!(refused, (false, "RefusedByAgents", "node node-1: too long".into()));
        assert_eq!(said(false, &[]).1, "Invalid");
    }

    #[test]
    fn times_are_of_the_last_change_of_a_status() {
        let before = merged(&[], &[wanted(Some(80), true), wanted(None, true)], Some(3), "T1");
        let after = merged(&before, &[wanted(None, true), wanted(Some(80), false)], Some(4), "T2");
        let times = |at: usize| {
            let condition = &after[at]["conditions"][0];
            (condition["lastTransitionTime"].clone(), condition["observedGeneration"].clone())
        };
        assert_eq!(times(0), ("T2".into(), 4.into()), "port 80");
        assert_eq!(times(1), ("T1".into(), 4.into()), "every port");
    }
}
