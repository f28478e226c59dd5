//! A client that speaks HBONE like an agent, with whatever certificate it likes or none.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http::{Method, Request};
use mesh_harness::netns::Netns;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio_rustls::TlsConnector;

use crate::certificates::Credentials;

/// An answer has to come within this time; a refusal too.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection or the handshake was refused, or it was closed before an answer.
    Refused(String),
    /// An HTTP status.
    Status(u16),
}

/// Opens a connection to `hbone` inside `netns` and asks for `authority`.
pub fn connect(
    netns: &Netns,
    hbone: SocketAddr,
    credentials: Option<Credentials>,
    authority: &str,
) -> Result<Outcome> {
    let stream = netns
        .run(|| TcpStream::connect_timeout(&hbone, PATIENCE))?
        .with_context(|| format!("connecting to {hbone}"))?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = ask(stream, tls(credentials)?, authority);
        match tokio::time::timeout(PATIENCE, asked).await {
            Err(_) => bail!("{hbone} neither answered nor refused within {PATIENCE:?}"),
            Ok(Ok(status)) => Ok(Outcome::Status(status)),
            Ok(Err(error)) => Ok(Outcome::Refused(format!("{error:#}"))),
        }
    })
}

/// Sends one CONNECT; its status. In TLS 1.3 a refused certificate shows only here.
async fn ask(stream: TcpStream, tls: TlsConnector, authority: &str) -> Result<u16> {
    let name = ServerName::try_from("hbone")?;
    let stream = tls.connect(name, tokio::net::TcpStream::from_std(stream)?).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    // Ends with the runtime; its error reaches the request as well.
    tokio::spawn(connection);
    let mut client = client.ready().await?;
    let request = Request::builder().method(Method::CONNECT).uri(authority).body(())?;
    let (answer, _body) = client.send_request(request, false)?;
    Ok(answer.await?.status().as_u16())
}

pub(crate) fn tls(credentials: Option<Credentials>) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match credentials {
        Some(credentials) => builder.with_client_auth_cert(credentials.chain, credentials.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any server: these stories are about what the server takes.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
