//! What objects say of themselves, and when it is written.

use super::*;

fn status(accepted: bool, workloads: usize) -> ObjectStatus {
    ObjectStatus {
        kind: "PeerPolicy",
        namespace: "shop".into(),
        name: "p".into(),
        accepted,
        reason: if accepted { "Accepted" } else { "Invalid" },
        message: if accepted { String::new() } else { "spec.mode: no".into() },
        observed_generation: Some(3),
        workloads,
        parents: Vec::new(),
    }
}

fn said(written: &Status) -> Vec<(&str, &str, &str)> {
    written.conditions.iter().map(|it| (&*it.type_, &*it.status, &*it.reason)).collect()
}

#[test]
fn conditions_say_what_became_of_an_object() {
    let refused = |count| -> Vec<(String, String)> {
        (0..count).map(|at| (format!("n{at}"), "too new".into())).collect()
    };
    let good = wanted(&status(true, 2), &[]);
    assert_eq!(
        said(&good),
        [("Accepted", "True", "Accepted"), ("Programmed", "True", "Programmed")]
    );
    let idle = wanted(&status(true, 0), &[]);
    assert_eq!(said(&idle)[1], ("Programmed", "True", "NoWorkloads"));
    let bad = wanted(&status(false, 2), &[]);
    assert_eq!(said(&bad), [("Accepted", "False", "Invalid"), ("Programmed", "False", "Invalid")]);
    let nacked = wanted(&status(true, 2), &refused(5));
    assert_eq!(said(&nacked)[1], ("Programmed", "False", "RefusedByAgents"));
    let message = &nacked.conditions[1].message;
    assert_eq!(message, "node n0: too new; node n1: too new; node n2: too new; and 2 more nodes");
    assert_eq!(nacked.conditions[1].observed_generation, Some(3));
}

#[test]
fn times_change_with_the_status_and_nothing_else_is_a_difference() {
    let first = since(wanted(&status(true, 2), &[]), &Status::default(), "t1");
    let stored = of(&json!({"status": serde_json::to_value(&first).expect("JSON")}));
    assert_eq!(stored, first, "as it comes back");
    assert_eq!(difference(&wanted(&status(true, 2), &[]), &stored), Difference::None);
    assert_eq!(difference(&wanted(&status(true, 3), &[]), &stored), Difference::Numbers);
    let bad = wanted(&status(false, 2), &[]);
    assert_eq!(difference(&bad, &stored), Difference::Conditions);
    let second = since(bad, &stored, "t2");
    assert!(second.conditions.iter().all(|it| it.last_transition_time == "t2"));
    let third = since(wanted(&status(true, 0), &[]), &first, "t3");
    assert!(third.conditions.iter().all(|it| it.last_transition_time == "t1"));
    assert_eq!(of(&json!({"status": {"conditions": 7}})), Status::default());
}
