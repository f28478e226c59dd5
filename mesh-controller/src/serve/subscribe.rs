//! `Subscribe`: deltas of what the calling node needs.
//!
//! A stream remembers what it sent and nothing else: when the mesh changes, the newest picture is
//! compared with it. An agent that reads slowly gets fewer and larger steps, and costs no queue.

use std::sync::Arc;

use mesh_common::{api::v1, model::ResourceKey};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Shared;
use crate::{
    captured::{Report, Stamp},
    delta::Held,
    view::Picture,
};

/// The responses of one stream.
pub(super) type Responses = ReceiverStream<Result<v1::SubscribeResponse, Status>>;

type Sender = mpsc::Sender<Result<v1::SubscribeResponse, Status>>;

pub(super) fn subscribe(
    shared: Arc<Shared>,
    node: Arc<str>,
    requests: Streaming<v1::SubscribeRequest>,
) -> Result<Responses, Status> {
    // One response waits while another is on its way; HTTP/2 holds back the rest.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut closing = shared.closing.subscribe();
        let result = tokio::select! {
            result = converse(&shared, &node, requests, &sender) => result,
            _ = closing.changed() => {
                Err(Status::unavailable("the controller restarts; connect again"))
            }
        };
        if let Err(status) = result {
            // The agent may be gone already: then nobody needs to know.
            let _ = sender.try_send(Err(status));
        }
        tracing::info!(node = %node, "agent unsubscribed");
    });
    Ok(ReceiverStream::new(receiver))
}

async fn converse(
    shared: &Shared,
    node: &str,
    mut requests: Streaming<v1::SubscribeRequest>,
    sender: &Sender,
) -> Result<(), Status> {
    use v1::subscribe_request::Message;

    let hello = match requests.message().await?.and_then(|request| request.message) {
        Some(Message::Hello(hello)) => hello,
        _ => return Err(Status::invalid_argument("the first message of a stream is Hello")),
    };
    shared.nacks.forget(node);
    let mut pictures = shared.mesh.pictures();
    let held = hello.resources.len();
    tracing::info!(node, version = hello.agent_version, held, "agent subscribed");
    if !pictures.borrow_and_update().knows(node) {
        tracing::warn!(node, "there is no Node object of this name: its agent sees nothing");
    }
    tokio::select! {
        result = listen(shared, node, requests) => result,
        result = tell(node, &mut pictures, Held::from_hello(hello.resources), sender) => result,
    }
}

/// Takes what the agent says until it hangs up.
async fn listen(
    shared: &Shared,
    node: &str,
    mut requests: Streaming<v1::SubscribeRequest>,
) -> Result<(), Status> {
    use v1::subscribe_request::Message;

    let mut stamp = Stamp::now();
    while let Some(request) = requests.message().await? {
        match request.message {
            Some(Message::Ack(ack)) => {
                for nack in ack.nacks {
                    note(shared, node, nack);
                }
            }
            Some(Message::Captures(report)) => {
                let report = Report::new(stamp, report.workload_uids);
                stamp = stamp.next();
                if let Some(ledger) = &shared.ledger {
                    ledger.save(node, &report).await;
                }
                shared.mesh.report_captures(node, report);
            }
            Some(Message::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "Hello is the first message of a stream only",
                ));
            }
            // A message of a newer agent.
            None => {}
        }
    }
    Ok(())
}

fn note(shared: &Shared, node: &str, nack: v1::Nack) {
    let Some(Ok(key)) = nack.key.map(ResourceKey::try_from) else { return };
    let version = shared.mesh.pictures().borrow().version(node, &key).unwrap_or_default();
    if shared.nacks.add(node, key.clone(), version, nack.reason.clone()) {
        tracing::warn!(node, resource = %key, "agent refused a resource: {}", nack.reason);
    }
}

/// Sends what the node needs and goes on with every change.
async fn tell(
    node: &str,
    pictures: &mut watch::Receiver<Arc<Picture>>,
    mut held: Held,
    sender: &Sender,
) -> Result<(), Status> {
    let mut nonce = 0;
    loop {
        let view = pictures.borrow_and_update().view(node);
        let mut responses = held.advance(&view);
        if nonce == 0 {
            if responses.is_empty() {
                responses.push(v1::SubscribeResponse::default());
            }
            if let Some(last) = responses.last_mut() {
                last.synced = true;
            }
        }
        for mut response in responses {
            nonce += 1;
            response.nonce = nonce;
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        if pictures.changed().await.is_err() {
            return Ok(());
        }
    }
}
