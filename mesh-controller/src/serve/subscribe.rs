//! `Subscribe`: deltas of what the calling node needs.
//!
//! A stream remembers what it sent and nothing else: when the mesh changes, the newest picture is
//! compared with it. An agent that reads slowly gets fewer and larger steps, and costs no queue.

use std::{collections::BTreeSet, sync::Arc};

use mesh_common::{
    api::{self, v1},
    model::ResourceKey,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Shared;
use crate::{
    captured::{Report, Stamp},
    delta::Held,
    view::{Picture, Scope},
};

/// What an agent is interested in.
struct Interest {
    /// The number of the last message about it; 0 where there was none.
    number: u64,
    scope: Scope,
}

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
    let interest = match hello.interest {
        None => Interest { number: 0, scope: Scope::Whole },
        Some(wire) => {
            let mut interest = Interest { number: 0, scope: Scope::Addresses(BTreeSet::new()) };
            interest.change(wire)?;
            interest
        }
    };
    let (interest, mut interests) = watch::channel(interest);
    let held = Held::from_hello(hello.resources);
    tokio::select! {
        result = listen(shared, node, requests, &interest, &hello.agent_version) => result,
        result = tell(node, &mut pictures, &mut interests, held, sender) => result,
    }
}

/// Takes what the agent says until it hangs up.
async fn listen(
    shared: &Shared,
    node: &str,
    mut requests: Streaming<v1::SubscribeRequest>,
    interest: &watch::Sender<Interest>,
    agent_version: &str,
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
                let report = Report::from_wire(stamp, agent_version, report);
                stamp = stamp.next();
                if let Some(ledger) = &shared.ledger {
                    ledger.save(node, &report).await;
                }
                shared.mesh.report_captures(node, report);
            }
            Some(Message::Interest(wire)) => {
                let mut result = Ok(());
                interest.send_modify(|interest| result = interest.change(wire));
                result?;
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

impl Interest {
    fn change(&mut self, wire: v1::Interest) -> Result<(), Status> {
        let Scope::Addresses(addresses) = &mut self.scope else {
            return Err(Status::invalid_argument("an Interest, but none in Hello"));
        };
        let parse = |octets: &prost::bytes::Bytes| {
            let address = api::address(octets);
            address.map_err(|error| Status::invalid_argument(error.to_string()))
        };
        for octets in &wire.removed {
            addresses.remove(&parse(octets)?);
        }
        for octets in &wire.added {
            addresses.insert(parse(octets)?);
        }
        if addresses.len() > api::MOST_INTEREST {
            let most = api::MOST_INTEREST;
            return Err(Status::resource_exhausted(format!("more than {most} addresses")));
        }
        self.number = wire.number;
        Ok(())
    }
}

/// Sends what the node needs and goes on with every change of the mesh and of `interests`.
async fn tell(
    node: &str,
    pictures: &mut watch::Receiver<Arc<Picture>>,
    interests: &mut watch::Receiver<Interest>,
    mut held: Held,
    sender: &Sender,
) -> Result<(), Status> {
    let (mut nonce, mut answered) = (0, 0);
    loop {
        let (view, number) = {
            let interest = interests.borrow_and_update();
            (pictures.borrow_and_update().view(node, &interest.scope), interest.number)
        };
        let mut responses = held.advance(&view);
        // That nothing has an address is an answer, too.
        if responses.is_empty() && (nonce == 0 || answered != number) {
            responses.push(v1::SubscribeResponse::default());
        }
        if let Some(last) = responses.last_mut() {
            last.synced = nonce == 0;
            last.answered = number;
            answered = number;
        }
        for mut response in responses {
            nonce += 1;
            response.nonce = nonce;
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        let changed = tokio::select! {
            changed = pictures.changed() => changed,
            changed = interests.changed() => changed,
        };
        if changed.is_err() {
            return Ok(());
        }
    }
}
