//! `/metrics` for Prometheus, `/readyz` and `/livez` for probes, over plain HTTP/1.1.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_common::listen::{Sharing, listen};
use tokio::net::{TcpListener, TcpStream};

use crate::{liveness::Liveness, observe::metrics::Metrics, status::Status};

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// What Prometheus wants to be told, see
/// <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#protocol-negotiation>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Answer = (StatusCode, &'static str, String);

/// A page: a path, and what is found there.
pub struct Page {
    path: &'static str,
    answer: Box<dyn Fn() -> Answer + Send + Sync>,
}

impl Page {
    /// `/metrics`.
    pub fn metrics(metrics: Arc<Metrics>) -> Self {
        let answer = move || (StatusCode::OK, OPEN_METRICS, metrics.encode());
        Self { path: "/metrics", answer: Box::new(answer) }
    }

    /// `/readyz`: 200 when pods are served, else 503 and the reasons, one a line.
    pub fn readiness(status: Arc<Status>) -> Self {
        Self { path: "/readyz", answer: Box::new(move || probed("ready", &status.not_ready())) }
    }

    /// `/livez`: 200 as long as nothing is stuck, else 503 and what is, one a line.
    pub fn liveness(liveness: Arc<Liveness>) -> Self {
        Self { path: "/livez", answer: Box::new(move || probed("alive", &liveness.stuck())) }
    }
}

fn probed(good: &str, problems: &[String]) -> Answer {
    if problems.is_empty() {
        return (StatusCode::OK, TEXT, format!("{good}\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, TEXT, problems.join("\n") + "\n")
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Serves `pages` at `address`, where another agent of the node may listen too: during an upgrade
/// there are two.
///
/// # Errors
/// Where the address cannot be listened on.
pub fn serve(address: SocketAddr, pages: Vec<Page>) -> io::Result<()> {
    let listener = TcpListener::from_std(listen(address, Sharing::Shared)?)?;
    tokio::spawn(accept(listener, pages.into()));
    Ok(())
}

async fn accept(listener: TcpListener, pages: Arc<[Page]>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, Arc::clone(&pages)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for {}", paths(&pages));
                // Out of descriptors: trying at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, pages: Arc<[Page]>) {
    let service = service_fn(move |request| {
        let response = respond(&request, &pages);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an HTTP client went away");
    }
}

fn respond(request: &Request<Incoming>, pages: &[Page]) -> Response<Full<Bytes>> {
    let page = pages.iter().find(|page| page.path == request.uri().path());
    let (status, content_type, body) = match (request.method(), page) {
        (&Method::GET | &Method::HEAD, Some(page)) => (page.answer)(),
        (&Method::GET | &Method::HEAD, None) => {
            (StatusCode::NOT_FOUND, TEXT, format!("there is only {}\n", paths(pages)))
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn paths(pages: &[Page]) -> String {
    pages.iter().map(|page| page.path).collect::<Vec<_>>().join(" and ")
}
