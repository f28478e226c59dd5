//! When a notice is said, and when it is not.

use mesh_common::model::NamespacedName;

use super::*;
use crate::object::Kind;

const NOTHING: [i32; 0] = [];

fn notice(name: &str) -> Notice {
    let object = ObjectKey { kind: Kind::Pod, name: NamespacedName::new("shop", name) };
    Notice { object, uid: "u".into(), reason: "Problem", note: "it is bad".into() }
}

fn say(events: &mut Events, notices: &BTreeSet<Notice>, now: Instant) -> Vec<i32> {
    let due = events.due(notices, now);
    due.into_iter()
        .map(|(notice, count)| {
            events.said(notice, count, now);
            count
        })
        .collect()
}

#[test]
fn what_goes_on_is_said_once_and_now_and_then() {
    let start = Instant::now();
    let mut events = Events::new(start);
    let notices = BTreeSet::from([notice("a")]);
    assert_eq!(say(&mut events, &notices, start), [1]);
    assert_eq!(say(&mut events, &notices, start + SOON), NOTHING);
    assert_eq!(say(&mut events, &notices, start + AGAIN), [2]);
}

#[test]
fn what_comes_and_goes_is_not_said_each_time() {
    let start = Instant::now();
    let mut events = Events::new(start);
    let (some, none) = (BTreeSet::from([notice("a")]), BTreeSet::new());
    assert_eq!(say(&mut events, &some, start), [1]);
    for second in 1..10 {
        let now = start + Duration::from_secs(second);
        assert_eq!(say(&mut events, &none, now), NOTHING);
        assert_eq!(say(&mut events, &some, now), NOTHING);
    }
    assert_eq!(say(&mut events, &some, start + SOON), [2]);
}

#[test]
fn a_flood_is_spread_and_nothing_of_it_lost() {
    let start = Instant::now();
    let mut events = Events::new(start);
    let flood: BTreeSet<_> = (0..100).map(|at| notice(&format!("p{at}"))).collect();
    let mut said = say(&mut events, &flood, start).len();
    assert_eq!(said, BURST as usize);
    for second in 1..=150 {
        said += say(&mut events, &flood, start + Duration::from_secs(second)).len();
    }
    assert_eq!(said, 100);
}

#[test]
fn an_event_is_what_the_api_wants() {
    let long = Notice { note: "ä".repeat(NOTE_BYTES), ..notice(&"n".repeat(253)) };
    let event = long.event("controller-1");
    assert!(event.note.as_ref().is_some_and(|note| note.len() <= NOTE_BYTES));
    assert!(long.name().len() <= 253);
    assert_ne!(notice("a").name(), Notice { reason: "Refused", ..notice("a") }.name());
    let node = ObjectKey { kind: Kind::Node, name: NamespacedName::new("", "n") };
    let event = Notice { object: node, ..notice("a") }.event("controller-1");
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(event.regarding.and_then(|it| it.namespace), None);
}
