//! The control API, `mesh.v1`, over TLS.

use std::{net::TcpListener, sync::Arc, time::Duration};

use mesh_common::api::v1::{self, controller_server};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig},
};

use crate::{
    ca::{Authority, CaError},
    kubernetes::captures::Ledger,
    mesh::Mesh,
};

mod auth;
mod log_once;
mod nacks;
mod sign;
mod subscribe;

pub use auth::Verifier;
use log_once::LogOnce;
pub use nacks::{Nacks, Refused};

/// An agent that answers no ping for this long is gone, whatever TCP thinks.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long connections may take to end when the server does.
const GRACE: Duration = Duration::from_secs(3);
/// Hello names every resource that an agent holds: about 100 bytes each, for 500,000 of them.
const REQUEST_BYTES: usize = 64 << 20;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It has no certificate.
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// The socket is of no use.
    #[error("the listening socket is of no use: {0}")]
    Listen(#[from] std::io::Error),
    /// The server failed.
    #[error("the gRPC server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// What the server answers from.
#[derive(Clone, Debug)]
pub struct Controller {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Arc<Mesh>,
    authority: Arc<Authority>,
    verifier: Verifier,
    /// Where captures are kept for other controllers; `None` where there are none.
    ledger: Option<Ledger>,
    refusals: LogOnce,
    nacks: Nacks,
    /// Changes when streams shall end; open streams would keep the server from ending.
    closing: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("mesh", &self.mesh).finish_non_exhaustive()
    }
}

impl Controller {
    /// A controller of `mesh` that signs with `authority`, believes whom `verifier` does, and
    /// keeps captures in `ledger`.
    pub fn new(
        mesh: Arc<Mesh>,
        authority: Arc<Authority>,
        verifier: Verifier,
        ledger: Option<Ledger>,
    ) -> Self {
        let shared = Shared {
            mesh,
            authority,
            verifier,
            ledger,
            refusals: LogOnce::default(),
            nacks: Nacks::default(),
            closing: watch::Sender::new(0),
        };
        Self { shared: shared.into() }
    }

    /// What agents refused.
    pub fn nacks(&self) -> &Nacks {
        &self.shared.nacks
    }

    /// Serves on `listener` until `shutdown` ends.
    ///
    /// The server's certificate is replaced in time by a new server on the same socket; agents
    /// connect again and lose nothing, since deltas resume.
    ///
    /// # Errors
    /// Where there is no certificate, or the socket fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        listener.set_nonblocking(true)?;
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let certificate = self.shared.authority.issue_server_certificate()?;
            let identity = Identity::from_pem(certificate.chain_pem, certificate.key_pem);
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            let connections = TcpListenerStream::new(listener);
            let mut closing = self.shared.closing.subscribe();
            let service = controller_server::ControllerServer::new(self.clone())
                .max_decoding_message_size(REQUEST_BYTES);
            let service = auth::Authenticated::new(service, self.shared.clone());
            let server = Server::builder()
                .tls_config(ServerTlsConfig::new().identity(identity))?
                .http2_keepalive_interval(Some(KEEPALIVE))
                .http2_keepalive_timeout(Some(KEEPALIVE))
                .serve_with_incoming_shutdown(service, connections, async move {
                    // An error means that the controller is gone: then, too, the server ends.
                    let _ = closing.changed().await;
                });
            let mut server = std::pin::pin!(server);
            let is_over = tokio::select! {
                result = &mut server => return Ok(result?),
                () = &mut shutdown => true,
                () = tokio::time::sleep(certificate.renew_after) => false,
            };
            self.shared.closing.send_modify(|round| *round += 1);
            match tokio::time::timeout(GRACE, server).await {
                Ok(result) => result?,
                Err(_) => tracing::info!("connections that did not end in time were closed"),
            }
            if is_over {
                return Ok(());
            }
        }
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    type SubscribeStream = subscribe::Responses;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let node = auth::node(&request)?;
        subscribe::subscribe(self.shared.clone(), node, request.into_inner()).map(Response::new)
    }

    async fn sign_certificate(
        &self,
        request: Request<v1::SignCertificateRequest>,
    ) -> Result<Response<v1::SignCertificateResponse>, Status> {
        let node = auth::node(&request)?;
        sign::sign(&self.shared, &node, &request.into_inner().csr).map(Response::new)
    }
}

#[cfg(test)]
mod tests;
