//! One request of a client and its response: which way it goes, and what becomes of it.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use mesh_common::{
    matching::route::{self, Met, Routes},
    model::BackendTarget,
};

use super::{
    filters,
    forward::{Forward, Target},
    message::{Client, Gone, Request, Response, Version},
    mirror::Mirrors,
    network::Network,
    transfer::Moved,
    trouble::{RequestKind, Trouble},
    upstream::Upstream,
    websocket,
};
use crate::{
    http1::{Frame, Malformed},
    observe::flow::{HttpFlow, HttpProtocol},
    proxy::record::Record,
};

/// How the client's connection goes on.
pub(in crate::proxy) enum After {
    /// The response is whole.
    Responded,
    /// The client must not take what it got for a whole response.
    Aborted,
    /// Both sides go on with another protocol.
    Upgraded(Upstream, Box<Record>),
}

/// What is learnt of a request on its way.
pub(super) struct Seen {
    pub(super) record: Record,
    pub(super) flow: HttpFlow,
    pub(super) moved: Moved,
    /// Whether the head of the response was given to the client.
    pub(super) has_responded: bool,
}

/// Carries one request.
pub(in crate::proxy) async fn exchange<C: Client>(
    network: &Arc<dyn Network>,
    client: &mut C,
    request: Request,
) -> After {
    let kind = RequestKind::from(&request);
    let mut seen = Seen::new(network.record(), flow_of(&request));
    match carry(network, client, request, &mut seen).await {
        Ok(after) => {
            seen.end(None);
            after
        }
        Err(trouble) => {
            let is_told = !seen.has_responded && !matches!(trouble, Trouble::ClientLeft);
            let after = if is_told {
                answer(client, trouble.answer(Some(&kind)), &mut seen).await
            } else {
                After::Aborted
            };
            seen.end(Some(&trouble));
            after
        }
    }
}

/// Answers what is no request.
pub(in crate::proxy) async fn refuse<C: Client>(
    network: &dyn Network,
    client: &mut C,
    protocol: HttpProtocol,
    malformed: Malformed,
) {
    let mut seen = Seen::new(network.record(), HttpFlow::new(protocol));
    let trouble = Trouble::MalformedRequest(malformed);
    answer(client, trouble.answer(None), &mut seen).await;
    seen.end(Some(&trouble));
}

async fn carry<C: Client>(
    network: &Arc<dyn Network>,
    client: &mut C,
    mut request: Request,
    seen: &mut Seen,
) -> Result<After, Trouble> {
    if let Some(protocol) = &request.upgrade
        && request.is_extended_connect()
        && !websocket::is_websocket(protocol)
    {
        return Err(Trouble::NoProtocol(format!("{protocol:?} is not WebSocket")));
    }
    filters::identify(&mut request);
    let (service, called_port) = network.called();
    let routes = network.routes().filter(|routes| !routes.is_empty());
    let Some(routes) = &routes else {
        // Nobody says otherwise: its own endpoints.
        let target = Target::of(service, called_port);
        let forward = Forward::new(&**network, client, &request, target, seen);
        return forward.run(&[], Mirrors::default()).await;
    };
    let Met { route, rule, by } = find(routes, &request).ok_or(Trouble::NoRoute)?;
    seen.flow.route = Some(route.name.clone());
    seen.flow.rule = Some(rule.name.clone());
    let origin = filters::origin(&request);
    let change = |filters, request: &mut Request| {
        filters::change_request(filters, request, &by.path, called_port)
    };
    if let Some(mut response) = change(&rule.filters, &mut request) {
        filters::change_response((&rule.filters, &origin), &mut response);
        return Ok(answer(client, response, seen).await);
    }
    let backend = route::backend::choose(&rule.backends, fastrand::u64(..));
    let backend = backend.ok_or_else(|| Trouble::NoBackend("none has a weight".to_owned()))?;
    let (service, port) = match &backend.target {
        BackendTarget::Service { name, port } => (name, *port),
        BackendTarget::Invalid(reason) => return Err(Trouble::NoBackend(reason.to_string())),
    };
    let mut mirrors = Mirrors::default();
    mirrors.start(network, &rule.filters, &request);
    if let Some(response) = change(&backend.filters, &mut request) {
        return Ok(answer(client, response, seen).await);
    }
    mirrors.start(network, &backend.filters, &request);
    let target = Target { service, port, timeouts: rule.timeouts, retry: rule.retry.as_ref() };
    let response_filters = [(&*backend.filters, &origin), (&*rule.filters, &origin)];
    Forward::new(&**network, client, &request, target, seen).run(&response_filters, mirrors).await
}

fn find<'r>(routes: &'r Routes, request: &Request) -> Option<Met<'r>> {
    routes.find(route::Request {
        method: &request.method,
        path: request.target.path(),
        query: request.target.query(),
        headers: &request.headers,
    })
}

/// Gives the client a response of ours, which has no body.
async fn answer<C: Client>(client: &mut C, response: Response, seen: &mut Seen) -> After {
    seen.respond(&response);
    client.respond(response);
    client.send(Frame::End(None));
    match std::future::poll_fn(|cx| client.poll_flush(cx)).await {
        Ok(()) => After::Responded,
        Err(Gone::Left | Gone::Malformed(_)) => After::Aborted,
    }
}

fn flow_of(request: &Request) -> HttpFlow {
    let protocol = match request.version {
        _ if request.is_grpc() => HttpProtocol::Grpc,
        Version::Http1 => HttpProtocol::Http1,
        Version::Http2 => HttpProtocol::Http2,
    };
    HttpFlow {
        method: Some(Method::clone(&request.method)),
        path: match request.is_connect() {
            true => String::from_utf8_lossy(&request.authority).into(),
            false => request.target.path().into(),
        },
        ..HttpFlow::new(protocol)
    }
}

impl Seen {
    pub(super) fn new(record: Record, flow: HttpFlow) -> Self {
        Self { record, flow, moved: Moved::default(), has_responded: false }
    }

    /// The head of `response` is given to the client.
    pub(super) fn respond(&mut self, response: &Response) {
        self.has_responded = true;
        self.flow.status = Some(StatusCode::clone(&response.status));
        self.end_call(&response.headers);
    }

    /// The last fields of a response have come, trailers or, without a body, the head: they tell the
    /// status of a gRPC call.
    pub(super) fn end_call(&mut self, fields: &HeaderMap) {
        let status = fields.get("grpc-status").filter(|_| self.flow.protocol == HttpProtocol::Grpc);
        let status = status.and_then(|it| it.to_str().ok()?.parse().ok());
        self.flow.grpc_status = status.or(self.flow.grpc_status);
    }

    fn end(mut self, trouble: Option<&Trouble>) {
        self.flow.code = trouble.map(Trouble::code);
        self.record.end_request(self.flow, self.moved, trouble);
    }
}
