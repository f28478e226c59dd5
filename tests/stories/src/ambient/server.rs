//! The called side.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::{Request, Response};
use mesh_harness::Pod;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;

use super::{FRAME, STREAM_WINDOW, TUNNEL_WINDOW};
use crate::certificates::Credentials;

/// What a server takes.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// How many streams a tunnel may have at once; ztunnel says 200.
    pub streams: u32,
    /// The window of a stream; ztunnel's is 4 MiB.
    pub window: u32,
    /// After how many streams a tunnel is told to take no more, as by a ztunnel that is asked to
    /// end.
    pub goodbye_after: Option<usize>,
}

impl Default for Server {
    fn default() -> Self {
        Self { streams: 200, window: STREAM_WINDOW, goodbye_after: None }
    }
}

/// What a server was asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<Mutex<Vec<(usize, String)>>>);

impl Asked {
    /// The tunnel's number and the authority of each CONNECT, in order.
    pub fn all(&self) -> Vec<(usize, String)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves HBONE at every address of `pod`, as long as this process lives.
///
/// A CONNECT to port 8400 to 8599 is answered with the status 400 to 599. To port 9000 and up the
/// stream is reset at the first thing said, as by a ztunnel that ends before its streams do. To any
/// other port everything said comes back.
pub fn serve(pod: &Pod, credentials: &Credentials, server: Server) -> Result<Asked> {
    let tls = tls(credentials)?;
    let asked = Asked::default();
    let any = SocketAddr::new(IpAddr::from([0_u16; 8]), 15008);
    let listener = pod.place.netns.run(|| TcpListener::bind(any))?.context("binding to 15008")?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = asked.clone();
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            for tunnel in 0.. {
                let (stream, _) = listener.accept().await?;
                let (tls, seen) = (tls.clone(), seen.clone());
                tokio::spawn(async move {
                    // A tunnel that fails shows where it was to carry something.
                    let _ = serve_tunnel(tunnel, stream, tls, server, seen).await;
                });
            }
            std::io::Result::Ok(())
        })
    });
    Ok(asked)
}

async fn serve_tunnel(
    tunnel: usize,
    stream: tokio::net::TcpStream,
    tls: TlsAcceptor,
    server: Server,
    asked: Asked,
) -> Result<()> {
    let stream = tls.accept(stream).await?;
    let mut connection = Builder::new()
        .initial_window_size(server.window)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(server.streams)
        .handshake(stream)
        .await?;
    let mut count = 0;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let authority = request.uri().to_string();
        asked.lock().push((tunnel, authority));
        tokio::spawn(serve_stream(request, respond));
        count += 1;
        if server.goodbye_after == Some(count) {
            connection.graceful_shutdown();
        }
    }
    Ok(())
}

async fn serve_stream(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<()> {
    let port = request.uri().port_u16().unwrap_or_default();
    if let 8400..8600 = port {
        let refusal = Response::builder().status(port - 8000).body(())?;
        respond.send_response(refusal, true)?;
        return Ok(());
    }
    let mut send = respond.send_response(Response::new(()), false)?;
    let mut receive = request.into_body();
    while let Some(chunk) = receive.data().await {
        let chunk = chunk?;
        receive.flow_control().release_capacity(chunk.len())?;
        if port >= 9000 {
            send.send_reset(Reason::CANCEL);
            return Ok(());
        }
        send.send_data(chunk, false)?;
    }
    send.send_data(Bytes::new(), true)?;
    Ok(())
}

fn tls(credentials: &Credentials) -> Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes any client that has a certificate: these stories are about what the client takes.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
