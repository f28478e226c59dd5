//! Who calls: the join token says which node.

use std::{net::SocketAddr, sync::Arc};

use tonic::{
    Request, Status,
    service::Interceptor,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

use super::Shared;

/// The node that a verified token names.
#[derive(Clone, Debug)]
struct CallingNode(Arc<str>);

/// Lets a request in where its token is good.
#[derive(Clone)]
pub(super) struct Authenticator {
    shared: Arc<Shared>,
}

impl Authenticator {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Interceptor for Authenticator {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let (node, refused) = match token(&request) {
            Ok(token) => match self.shared.secret.verify(token) {
                Ok(node) => (Arc::from(node), None),
                Err(error) => (claimed(token).into(), Some(error.to_string())),
            },
            Err(reason) => (Arc::from("none"), Some(reason.to_owned())),
        };
        let Some(reason) = refused else {
            request.extensions_mut().insert(CallingNode(node));
            return Ok(request);
        };
        let peer = peer(&request);
        let peer_ip = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        if self.shared.refusals.is_new(format!("{peer_ip} {node} {reason}")) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(peer, claimed_node = %node, "agent refused: {reason}");
        }
        Err(Status::unauthenticated(reason))
    }
}

/// The node that called; the interceptor has verified it.
pub(super) fn node<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    let node = request.extensions().get::<CallingNode>();
    node.map(|node| node.0.clone()).ok_or_else(|| Status::unauthenticated("no join token"))
}

fn token(request: &Request<()>) -> Result<&str, &'static str> {
    let value = request
        .metadata()
        .get("authorization")
        .ok_or("no join token: metadata `authorization: Bearer <token>` is missing")?;
    let value = value.to_str().map_err(|_| InvalidTokenText)?;
    Ok(value.strip_prefix("Bearer ").ok_or(InvalidTokenText)?.trim())
}

struct InvalidTokenText;

impl From<InvalidTokenText> for &'static str {
    fn from(_: InvalidTokenText) -> Self {
        "no join token: metadata `authorization` is not `Bearer <token>`"
    }
}

/// The node that a refused token claims, as far as it may be shown.
fn claimed(token: &str) -> String {
    match token.rsplit_once('.') {
        Some((node, _)) => node.chars().take(253).collect(),
        // Without the dot it may be the secret part alone, which logs must not hold.
        None => "unknown".to_owned(),
    }
}

fn peer(request: &Request<()>) -> Option<SocketAddr> {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    connection.get_ref().remote_addr()
}
