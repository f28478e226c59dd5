//! A request on its way to one of a Service's endpoints, in as many tries as it may take.

use std::{future::poll_fn, net::SocketAddr, task::Poll, time::Duration};

use http::StatusCode;
use mesh_common::model::{NamespacedName, Retry, Timeouts};
use tokio::time;

use super::{
    exchange::{After, Seen},
    filters,
    message::{Client, Request, Version},
    mirror::Mirrors,
    network::{Dialled, Network},
    pool::Key,
    replay::Replay,
    retries::{Retries, is_idempotent},
    transfer::{Deadline, Deadlines, Lost, Transfer},
    trouble::Trouble,
    upgrade,
    upstream::Upstream,
    upstream1::Upstream1,
    upstream2::Upstream2,
    websocket::Opening,
};
use crate::proxy::{failure::Failure, route::Upstream as Place};

/// How often a request is sent anew because its connection had ended before: a server that refuses
/// every stream would be asked without end.
const RENEWALS: u32 = 3;

/// Where a request goes, and within which bounds.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    pub(super) service: &'t NamespacedName,
    /// The port of the Service.
    pub(super) port: u16,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<&'t Retry>,
}

impl<'t> Target<'t> {
    /// A port of a Service, as long as it takes.
    pub(super) fn of(service: &'t NamespacedName, port: u16) -> Self {
        Self { service, port, timeouts: Timeouts::default(), retry: None }
    }
}

/// One request.
pub(super) struct Forward<'f, C> {
    network: &'f dyn Network,
    client: &'f mut C,
    request: &'f Request,
    target: Target<'f>,
    version: Version,
    seen: &'f mut Seen,
    deadlines: Deadlines,
    replay: Replay,
    /// Endpoints that could not be connected to.
    tried: Vec<SocketAddr>,
}

/// A try that led to no response for the client.
struct Failed {
    trouble: Trouble,
    again: Again,
}

/// Whether there may be another try.
enum Again {
    Never,
    /// Nothing was sent: elsewhere.
    NotConnected,
    /// A connection that was used before had ended: at once, on a new one.
    OnNewConnection,
    /// If the rule says so.
    AsTheRuleSays,
}

impl<'f, C: Client> Forward<'f, C> {
    pub(super) fn new(
        network: &'f dyn Network,
        client: &'f mut C,
        request: &'f Request,
        target: Target<'f>,
        seen: &'f mut Seen,
    ) -> Self {
        let version = match network.version_of(target.service, target.port) {
            Some(asked_for) => asked_for,
            // What tunnels lead to, and WebSockets, speaks HTTP/1.1 almost everywhere.
            None if request.is_connect() || request.is_extended_connect() => Version::Http1,
            None => request.version,
        };
        seen.flow.backend = Some(target.service.clone());
        let request_deadline = Deadline::after(target.timeouts.request);
        let deadlines = Deadlines { request: request_deadline, ..Deadlines::default() };
        let (replay, tried) = (Replay::default(), Vec::new());
        Self { network, client, request, target, version, seen, deadlines, replay, tried }
    }

    /// Carries it to its end.
    pub(super) async fn run(
        mut self,
        response_filters: &[filters::OfResponse<'_>],
        mut mirrors: Mirrors,
    ) -> Result<After, Trouble> {
        let mut retries = Retries::new(self.target.retry);
        let mut renewals = 0;
        loop {
            let wants_new = renewals > 0;
            let tried = self.attempt(response_filters, &mut mirrors, &retries, wants_new).await;
            let Failed { trouble, again } = match tried {
                Ok(after) => return Ok(after),
                Err(failed) => failed,
            };
            let pause = match again {
                Again::Never => None,
                Again::OnNewConnection => {
                    renewals += 1;
                    (renewals <= RENEWALS).then_some(Duration::ZERO)
                }
                Again::NotConnected => retries.after_connect(fastrand::f64()),
                Again::AsTheRuleSays => retries.next(fastrand::f64()),
            };
            self.seen.flow.retries = retries.made();
            match pause {
                Some(pause) if self.replay.is_whole() => self.wait(pause).await?,
                _ => return Err(trouble),
            }
        }
    }

    async fn attempt(
        &mut self,
        response_filters: &[filters::OfResponse<'_>],
        mirrors: &mut Mirrors,
        retries: &Retries<'_>,
        wants_new: bool,
    ) -> Result<After, Failed> {
        self.deadlines.backend = Deadline::after(self.target.timeouts.backend_request);
        let place = self.endpoint(retries.are_asked_for())?;
        self.seen.record.upstream(&place);
        let key = self.network.key(&place);
        let mut upstream = self.connect(&place, &key, wants_new).await?;
        self.seen.record.audit(upstream.audit());
        if self.request.is_extended_connect() && !upstream.takes_extended_connect() {
            let trouble = Trouble::NoProtocol("the endpoint takes no extended CONNECT".to_owned());
            return Err(Failed::finally(trouble));
        }
        let opens_websocket = self.version == Version::Http1 && self.request.is_extended_connect();
        let opening = opens_websocket.then(|| Opening::of(self.request));
        let asked = opening.as_ref().map_or(self.request, |opening| &opening.request);
        let is_kept = retries.are_asked_for() || upstream.is_reused();
        let mut transfer = Transfer::new(
            self.client,
            &mut upstream,
            &mut self.replay,
            &mut self.deadlines,
            self.seen,
            mirrors,
            is_kept,
        );
        let mut response = match transfer.begin(asked).await {
            Ok(response) => response,
            Err(lost) => return Err(self.failed(lost, &upstream)),
        };
        if retries.wants_status(response.status) && transfer.replay.is_whole() {
            let again = Again::AsTheRuleSays;
            return Err(Failed { trouble: status_of_try(response.status), again });
        }
        let is_upgrade =
            upgrade::begins(self.request, opening.as_ref(), self.version, &mut response)
                .map_err(Failed::finally)?;
        if is_upgrade && !transfer.is_request_whole() {
            return Err(Failed::finally(upgrade::unasked()));
        }
        for filters in response_filters {
            filters::change_response(*filters, &mut response);
        }
        transfer.seen.respond(&response);
        if is_upgrade {
            transfer.client.switch(response);
        } else {
            transfer.client.respond(response);
        }
        transfer.body(is_upgrade).await.map_err(|lost| Failed::finally(lost.into_trouble(true)))?;
        if is_upgrade {
            return Ok(After::Upgraded(upstream, Box::new(self.seen.record.continued())));
        }
        match upstream {
            Upstream::Http1(upstream) => self.network.pool().put(key, upstream),
            Upstream::Http2(_) => {}
        }
        Ok(After::Responded)
    }

    /// The next endpoint; where a rule asks for retries, one that failed may be it.
    fn endpoint(&self, may_repeat: bool) -> Result<Place, Failed> {
        let Target { service, port, .. } = self.target;
        let other = self.network.endpoint(service, port, &self.tried);
        let any = || if may_repeat { self.network.endpoint(service, port, &[]) } else { None };
        let no_endpoint = || Failed::finally(Trouble::NoConnection(Failure::NoEndpoint));
        other.or_else(any).ok_or_else(no_endpoint)
    }

    /// A connection to `place`: one that waits, or a new one.
    async fn connect(
        &mut self,
        place: &Place,
        key: &Key,
        wants_new: bool,
    ) -> Result<Upstream, Failed> {
        let is_http1 = self.version == Version::Http1;
        if is_http1
            && !wants_new
            && let Some(upstream) = self.network.pool().take(key)
        {
            return Ok(Upstream::Http1(upstream));
        }
        let (client, deadlines) = (&mut *self.client, &mut self.deadlines);
        let mut opened = std::pin::pin!(open(self.network, place, key, self.version));
        let opened = poll_fn(|cx| {
            if let Poll::Ready(opened) = opened.as_mut().poll(cx) {
                return Poll::Ready(Ok(opened));
            }
            if let Poll::Ready(gone) = client.poll_gone(cx) {
                return Poll::Ready(Err(Lost::Client(gone)));
            }
            deadlines.poll(cx).map(Err)
        });
        match opened.await {
            Ok(Ok(upstream)) => Ok(upstream),
            Ok(Err(failure)) => {
                let again = if failure.is_retriable() { Again::NotConnected } else { Again::Never };
                self.tried.push(place.address);
                Err(Failed { trouble: Trouble::NoConnection(failure), again })
            }
            Err(lost) => Err(Failed::finally(lost.into_trouble(false))),
        }
    }

    /// Waits before the next try.
    async fn wait(&mut self, pause: Duration) -> Result<(), Trouble> {
        if pause.is_zero() {
            return Ok(());
        }
        let mut pause = std::pin::pin!(time::sleep(pause));
        let waited = poll_fn(|cx| {
            if pause.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(gone) = self.client.poll_gone(cx) {
                return Poll::Ready(Err(Lost::Client(gone)));
            }
            self.deadlines.request.poll(cx).map(|after| Err(Lost::RequestTimeout(after)))
        });
        waited.await.map_err(|lost| lost.into_trouble(false))
    }

    /// What follows from a try that got no response.
    fn failed(&self, lost: Lost, upstream: &Upstream) -> Failed {
        let again = match &lost {
            Lost::Upstream(_) if upstream.was_refused() => Again::OnNewConnection,
            Lost::Upstream(_)
                if upstream.is_reused()
                    && !upstream.has_answered()
                    && is_idempotent(&self.request.method) =>
            {
                Again::OnNewConnection
            }
            Lost::Upstream(_) => Again::AsTheRuleSays,
            Lost::BackendTimeout(_) if self.retries_timeouts() => Again::AsTheRuleSays,
            Lost::BackendTimeout(_) | Lost::RequestTimeout(_) => Again::Never,
            Lost::Client(_) | Lost::Revoked(_) => Again::Never,
        };
        Failed { trouble: lost.into_trouble(false), again }
    }

    /// Whether a try that takes too long counts as one that is answered with 504 and sent again.
    fn retries_timeouts(&self) -> bool {
        let timeout = StatusCode::GATEWAY_TIMEOUT.as_u16();
        self.target.retry.is_some_and(|retry| retry.codes.contains(&timeout))
    }
}

/// A new connection, or a stream of one.
async fn open(
    network: &dyn Network,
    place: &Place,
    key: &Key,
    version: Version,
) -> Result<Upstream, Failure> {
    match version {
        Version::Http1 => {
            let Dialled { transport, leash, audit } = network.dial(place).await?;
            Ok(Upstream::Http1(Box::new(Upstream1::new(transport, leash, audit))))
        }
        Version::Http2 => {
            Ok(Upstream::Http2(Box::new(Upstream2::open(network, place, key).await?)))
        }
    }
}

impl Failed {
    fn finally(trouble: Trouble) -> Self {
        Self { trouble, again: Again::Never }
    }
}

/// Never told: another try follows.
fn status_of_try(status: StatusCode) -> Trouble {
    Trouble::NoResponse(format!("answered {status}, after which the rule asks for another try"))
}
