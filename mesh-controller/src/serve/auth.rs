//! Who calls: a token says which node.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::Extensions;
use tonic::{
    Request, Status,
    body::Body,
    server::NamedService,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::Service;

use super::Shared;
use crate::{
    kubernetes::review::{ReviewError, Reviewer},
    token::JoinSecret,
};

/// Whose tokens are believed.
#[derive(Debug)]
pub enum Verifier {
    /// Join tokens made with this secret: there is no cluster.
    Join(JoinSecret),
    /// Tokens of the agents' service account that the API server vouches for.
    Review(Reviewer),
}

/// Why a token is refused, and which node it claims, as far as it may be shown.
struct Refused {
    claimed: String,
    status: Status,
}

impl Verifier {
    async fn node(&self, token: &str) -> Result<Arc<str>, Refused> {
        match self {
            Self::Join(secret) => secret.verify(token).map(Arc::from).map_err(|error| Refused {
                claimed: claimed(token),
                status: Status::unauthenticated(error.to_string()),
            }),
            Self::Review(reviewer) => reviewer.node(token).await.map_err(|error| Refused {
                claimed: "unknown".to_owned(),
                status: match &error {
                    ReviewError::Token(_) => Status::unauthenticated(error.to_string()),
                    // The agent tries again, and does not take its token for a bad one.
                    ReviewError::Api(_) | ReviewError::Busy | ReviewError::UnknownPod(_) => {
                        Status::unavailable(error.to_string())
                    }
                },
            }),
        }
    }
}

/// The node that a verified token names.
#[derive(Clone, Debug)]
struct CallingNode(Arc<str>);

/// Lets a request in where its token is good, before anything of its body is read.
#[derive(Clone)]
pub(super) struct Authenticated<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Authenticated<S> {
    pub fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Authenticated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // What was polled ready is what is called.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let shared = self.shared.clone();
        Box::pin(async move {
            match authenticate(&shared, request.headers(), request.extensions()).await {
                Ok(node) => {
                    request.extensions_mut().insert(CallingNode(node));
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

async fn authenticate(
    shared: &Shared,
    headers: &http::HeaderMap,
    extensions: &Extensions,
) -> Result<Arc<str>, Status> {
    let result = match token(headers) {
        Ok(token) => shared.verifier.node(token).await,
        Err(reason) => {
            Err(Refused { claimed: "none".to_owned(), status: Status::unauthenticated(reason) })
        }
    };
    result.map_err(|Refused { claimed, status }| {
        let peer = peer(extensions);
        let peer_ip = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        let reason = status.message();
        if shared.refusals.is_new(format!("{peer_ip} {claimed} {reason}")) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(peer, claimed_node = %claimed, "agent refused: {reason}");
        }
        status
    })
}

/// The node that called, whose token has been verified.
pub(super) fn node<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    let node = request.extensions().get::<CallingNode>();
    node.map(|node| node.0.clone()).ok_or_else(|| Status::unauthenticated("no token"))
}

fn token(headers: &http::HeaderMap) -> Result<&str, &'static str> {
    let value = headers
        .get(http::header::AUTHORIZATION)
        .ok_or("no token: metadata `authorization: Bearer <token>` is missing")?;
    let bearer = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    bearer.map(str::trim).ok_or("no token: metadata `authorization` is not `Bearer <token>`")
}

/// The node that a refused join token claims, as far as it may be shown.
fn claimed(token: &str) -> String {
    match token.rsplit_once('.') {
        Some((node, _)) => node.chars().take(253).collect(),
        // Without the dot it may be the secret part alone, which logs must not hold.
        None => "unknown".to_owned(),
    }
}

fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let mut peer = connection.get_ref().remote_addr()?;
    // A socket of both families shows IPv4 inside IPv6.
    peer.set_ip(peer.ip().to_canonical());
    Some(peer)
}
