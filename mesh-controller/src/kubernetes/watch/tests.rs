//! Watchers of a server that answers as it is told.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request as HttpRequest, Response};
use kube::client::Body;
use serde_json::json;
use tokio::{sync::mpsc, time};

use super::*;
use crate::object::Kind;

/// What is asked for, and when.
type Asked = mpsc::UnboundedReceiver<(Verb, time::Instant)>;

/// A client of a server that gives these answers.
fn server(answers: Vec<(u16, Value)>) -> (Client, Asked) {
    let (tell, asked) = mpsc::unbounded_channel();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let service = tower::service_fn(move |request: HttpRequest<Body>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let verb = if is_watch { Verb::Watch } else { Verb::List };
        let _ = tell.send((verb, time::Instant::now()));
        let mut answers = answers.lock().expect("lock");
        let answer = answers.next().expect("no more is asked");
        async move {
            let (code, body) = answer;
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).expect("an answer"))
        }
    });
    (Client::new(service, "default"), asked)
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "no", "reason": reason, "code": code,
    });
    (code, status)
}

/// Whoever hears nothing.
struct Deaf;

impl Observer for Deaf {
    type Item = ();

    fn decode(&self, _object: Value) {}

    async fn changed(&mut self, _change: Change<()>) -> bool {
        true
    }

    fn is_well(&mut self, _trouble: Option<&ApiError>) {}
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_late_is_followed_at_once() {
    let missing = refusal(404, "NotFound");
    let there = (200, json!({"metadata": {"resourceVersion": "7"}, "items": []}));
    let beginning = refusal(429, "TooManyRequests");
    let resource = Resource::of(Kind::AuthorizationPolicy);
    let mut answers = vec![missing; 12];
    answers.push(there);
    answers.extend(vec![beginning; 9]);
    let (client, mut asked) = server(answers);
    tokio::spawn(async move { Watcher::new(client, &resource).follow(Deaf).await });

    let mut waits = Vec::new();
    let mut last = time::Instant::now();
    for _ in 0..15 {
        let (verb, at) = asked.recv().await.expect("the watcher asks");
        waits.push((verb, at - last));
        last = at;
    }
    let lists = waits.iter().filter(|(verb, _)| *verb == Verb::List);
    assert_eq!(lists.count(), 13, "{waits:?}");
    assert!(
        waits[12].1 >= Duration::from_secs(15),
        "a kind that is missing costs little: {waits:?}"
    );
    assert!(waits[13].1 < Duration::from_secs(1), "its watch: {waits:?}");
    assert!(waits[14].1 < Duration::from_secs(2), "and again: {waits:?}");
}
