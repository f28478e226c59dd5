//! HTTP over TLS: connections, who is behind them, and answers on the wire.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    api::{self, Answer},
    auth::{self, User},
    cluster::Cluster,
    error::ApiError,
    exec,
    pki::Credentials,
    request::{Query, Request},
};

/// The limit of the real server: 3 MiB.
const BODY: usize = 3 * 1024 * 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// TLS with the server's certificate; clients may bring one that `authority` (PEM) signed.
pub fn tls(credentials: &Credentials, authority: &str) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let chain = vec![CertificateDer::from_pem_slice(credentials.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("the server's certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until `stop` changes, which ends them too.
pub async fn serve(
    cluster: Arc<Cluster>,
    tls: TlsAcceptor,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        // An error is of one connection that went away, or of descriptors that run out.
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (cluster, tls, mut stop) = (cluster.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(cluster, tls, stream) => {}
                _ = stop.changed() => {}
            }
        });
    }
}

async fn connection(cluster: Arc<Cluster>, tls: TlsAcceptor, stream: TcpStream) {
    // Events are small and should not wait for one another.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|chain| auth::from_certificate(chain.first()?));
    let service = service_fn(|request| {
        let (cluster, user) = (cluster.clone(), user.clone());
        async move { Ok::<_, Infallible>(respond(&cluster, user, request).await) }
    });
    // What goes wrong with a connection is the client's to notice.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn respond(
    cluster: &Arc<Cluster>,
    certified: Option<User>,
    mut request: http::Request<Incoming>,
) -> Response<Body> {
    let line = cluster.settings.log.then(|| log_line(&request));
    let upgrade = hyper::upgrade::on(&mut request);
    let headers = request.headers().clone();
    let answer = handle(cluster, certified, request).await;
    if let Some(line) = line {
        let outcome =
            answer.as_ref().map_or_else(|error| error.status().to_string(), |_| "ok".into());
        eprintln!("{line} -> {outcome}");
    }
    match answer {
        Ok(Answer::Exec(exec)) => match exec::switch(exec, &headers, upgrade) {
            Some(response) => response.map(|()| full(Bytes::new())),
            None => response(Answer::error(&ApiError::bad_request("Upgrade request required"))),
        },
        Ok(answer) => response(answer),
        Err(error) => {
            let retry_after = error.retry_after();
            let mut response = response(Answer::error(&error));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    }
}

async fn handle(
    cluster: &Arc<Cluster>,
    certified: Option<User>,
    request: http::Request<Incoming>,
) -> Result<Answer, ApiError> {
    let header = text(request.headers(), header::AUTHORIZATION);
    let user = match auth::authenticate(cluster, certified, header.as_deref()) {
        Err(_) if api::is_public(request.uri().path()) => User::default(),
        user => auth::impersonate(user?, request.headers())?,
    };
    let request = read(request, user).await?;
    api::answer(cluster, &request).await
}

async fn read(request: http::Request<Incoming>, user: User) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY).collect().await;
    let body = body.map_err(|_| ApiError::too_large(BODY))?.to_bytes();
    let text = |name| text(&parts.headers, name);
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
    Ok(Request {
        method: parts.method,
        path: percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned(),
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        accept: text(header::ACCEPT),
        content_type,
        user_agent: text(header::USER_AGENT).unwrap_or_default(),
        user,
        body,
    })
}

/// What a client asked for, for whoever finds out how it behaves.
fn log_line(request: &http::Request<Incoming>) -> String {
    let header = |name| text(request.headers(), name).unwrap_or_default();
    format!(
        "{} {} accept={} content-type={}",
        request.method(),
        request.uri(),
        header(header::ACCEPT),
        header(header::CONTENT_TYPE)
    )
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn response(answer: Answer) -> Response<Body> {
    let (code, content_type, body) = match answer {
        Answer::Json(code, json) => (code, "application/json", full(json.into())),
        Answer::Text(code, text) => {
            (code, "text/plain; charset=utf-8", full(Bytes::from_static(text.as_bytes())))
        }
        Answer::Bytes(kind, bytes) => (StatusCode::OK, kind, full(bytes.into())),
        // It has an answer of its own.
        Answer::Exec(_) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", full(Bytes::new())),
        Answer::Stream(frames) => {
            let body = StreamBody::new(ReceiverStream::new(frames)).boxed_unsync();
            (StatusCode::OK, "application/json", body)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
