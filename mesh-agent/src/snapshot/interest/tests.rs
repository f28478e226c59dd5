//! What connections may take for granted, and what the controller is told.

use std::sync::Arc;

use tokio::{task::JoinSet, time::timeout};

use super::*;

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn octets(list: &[u8]) -> Vec<bytes::Bytes> {
    list.iter().map(|last| api::octets(address(*last))).collect()
}

/// With a controller that has answered the first message.
fn connected() -> Arc<Interest> {
    let interest = Interest::default();
    let hello = interest.hello();
    assert_eq!((hello.number, hello.added.len()), (1, 0));
    interest.answer(1, true);
    Arc::new(interest)
}

/// What the controller is told next.
async fn told(interest: &Interest) -> v1::Interest {
    loop {
        if let Some(changes) = interest.changes() {
            return changes;
        }
        timeout(PATIENCE, interest.changed()).await.expect("something to tell");
    }
}

fn ask(interest: &Arc<Interest>, last: u8) -> tokio::task::JoinHandle<bool> {
    let interest = Arc::clone(interest);
    tokio::spawn(async move { interest.ask(address(last)).await })
}

#[tokio::test]
async fn a_burst_asks_once_and_all_of_it_waits_for_the_answer() {
    let interest = connected();
    let mut burst = JoinSet::new();
    for _ in 0..100 {
        let interest = Arc::clone(&interest);
        burst.spawn(async move { interest.ask(address(7)).await });
    }
    let question = told(&interest).await;
    assert_eq!((question.number, question.added, question.removed.len()), (2, octets(&[7]), 0));
    assert!(timeout(Duration::from_millis(50), burst.join_next()).await.is_err(), "nobody goes");
    assert_eq!(interest.changes(), None, "nobody asks again");
    // Another change of the mesh, before the question was read.
    interest.answer(1, false);
    assert!(timeout(Duration::from_millis(50), burst.join_next()).await.is_err(), "nobody goes");
    interest.answer(2, false);
    let answers = burst.join_all().await;
    assert_eq!(answers, [true; 100]);
    assert!(interest.ask(address(7)).await, "also where nothing has the address");
    assert!(interest.ask("::ffff:10.0.0.7".parse().expect("an address")).await);
    assert_eq!(interest.changes(), None);
}

#[tokio::test]
async fn the_wait_has_an_end() {
    let interest = connected();
    assert!(!timeout(2 * PATIENCE, interest.ask(address(7))).await.expect("in time"));
    interest.away();
    assert!(interest.reply.borrow().away.is_some());
    // Of a controller that is being replaced an answer may still come.
    let waiting = ask(&interest, 8);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let hello = interest.hello();
    assert_eq!(hello.added, octets(&[7, 8]));
    interest.answer(hello.number, true);
    assert!(waiting.await.expect("no panic"));

    let long_ago = Instant::now().checked_sub(2 * OUTAGE);
    interest.reply.send_modify(|reply| reply.away = long_ago);
    let at_once = timeout(PATIENCE / 2, interest.ask(address(9)));
    assert!(!at_once.await.expect("no wait"), "a controller that is away is not waited for");
    assert!(interest.ask(address(8)).await, "what it said goes on");
}

#[tokio::test]
async fn what_nobody_calls_is_given_up_unless_the_controller_is_away() {
    let interest = connected();
    let (old, new) = (ask(&interest, 1), ask(&interest, 2));
    told(&interest).await;
    interest.answer(2, false);
    assert!(old.await.expect("no panic") && new.await.expect("no panic"));
    let later = interest.started + IDLE + Duration::from_secs(5);
    interest.read().called[&address(2)].used.store(10_000, Ordering::Relaxed);
    interest.away();
    interest.expire(later);
    assert_eq!(interest.changes(), None);
    let hello = interest.hello();
    interest.answer(hello.number, true);
    interest.expire(later);
    let question = told(&interest).await;
    assert_eq!((question.removed, question.added.len()), (octets(&[1]), 0));

    let again = ask(&interest, 1);
    let question = told(&interest).await;
    assert_eq!(question.added, octets(&[1]));
    assert!(!again.is_finished(), "what was known of it may be gone");
    interest.answer(question.number, false);
    assert!(again.await.expect("no panic"));
}

#[tokio::test]
async fn who_waits_is_not_taken_for_answered_when_room_is_made() {
    let interest = connected();
    let waiting = ask(&interest, 1);
    while interest.read().called.is_empty() {
        tokio::task::yield_now().await;
    }
    interest.write().give_up(u64::MAX);
    let question = interest.changes().expect("a change");
    assert_eq!((question.removed, question.added.len()), (octets(&[1]), 0));
    interest.answer(question.number, false);
    let question = told(&interest).await;
    assert_eq!(question.added, octets(&[1]), "it asks again");
    assert!(!waiting.is_finished());
    interest.answer(question.number, false);
    assert!(waiting.await.expect("no panic"));
}

#[test]
fn there_is_an_end_to_how_many_addresses_are_of_interest() {
    let interest = connected();
    let number = |at: usize| IpAddr::from((at as u32).to_be_bytes());
    for at in 0..MOST_INTEREST {
        interest.note(number(at));
        let used = AtomicU64::new(at as u64);
        interest.write().called.get_mut(&number(at)).expect("noted").used = used;
    }
    interest.note(number(MOST_INTEREST));
    let addresses = interest.read();
    assert_eq!(addresses.called.len(), MOST_INTEREST - MOST_INTEREST / EVICTED);
    assert!(!addresses.called.contains_key(&number(0)), "the one called longest ago");
    assert!(addresses.called.contains_key(&number(MOST_INTEREST - 1)));
}

#[tokio::test]
async fn what_was_stored_is_known_and_told_again() {
    let interest = connected();
    let known = ask(&interest, 1);
    let question = told(&interest).await;
    interest.answer(question.number, false);
    known.await.expect("no panic");
    let _unanswered = ask(&interest, 2);
    told(&interest).await;
    assert_eq!(interest.stored(), octets(&[1]), "no more than was answered");

    let restarted = Interest::default();
    restarted.restore(&interest.stored());
    assert!(restarted.ask(address(1)).await, "though no controller is there");
    assert_eq!(restarted.hello().added, octets(&[1]));
}

#[tokio::test]
async fn an_older_controller_sends_everything_and_is_not_asked() {
    let interest = Arc::new(Interest::default());
    interest.hello();
    interest.answer(0, true);
    assert!(interest.ask(address(1)).await);
    // It is upgraded.
    interest.away();
    assert!(interest.ask(address(2)).await, "everything is still here");
    let hello = interest.hello();
    interest.answer(hello.number, true);
    assert!(interest.ask(address(2)).await);
    let asked = ask(&interest, 3);
    told(&interest).await;
    assert!(!asked.is_finished());
}
