//! A bare relay pair: TCP to mutual TLS 1.3 and back, one TLS connection for each TCP one.
//!
//! The honest floor of the naive design: tokio's default runtime, tokio-rustls and
//! `copy_bidirectional`, no identity, no policy, no report.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier, version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SERVER_NAME: &str = "relay.bench";
const ROOT: &str = "root.crt";

pub fn write_certificates(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut root = CertificateParams::new([])?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // By name: one that has its issuer's is taken for its own issuer by OpenSSL and its like.
    root.distinguished_name.push(DnType::CommonName, "root");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    fs::write(folder.join(ROOT), root.pem())?;
    for side in ["client", "server"] {
        let key = KeyPair::generate()?;
        let mut certificate = CertificateParams::new([SERVER_NAME.to_owned()])?;
        certificate.distinguished_name.push(DnType::CommonName, side);
        let certificate = certificate.signed_by(&key, &root)?;
        fs::write(folder.join(format!("{side}.crt")), certificate.pem())?;
        fs::write(folder.join(format!("{side}.key")), key.serialize_pem())?;
    }
    Ok(())
}

struct Material {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn read(folder: &Path, side: &str) -> Result<Material> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join(ROOT))?)?;
    Ok(Material {
        roots: Arc::new(roots),
        chain: vec![CertificateDer::from_pem_file(folder.join(format!("{side}.crt")))?],
        key: PrivateKeyDer::from_pem_file(folder.join(format!("{side}.key")))?,
    })
}

#[tokio::main]
pub async fn client_side(listen: SocketAddr, connect: SocketAddr, folder: &Path) -> Result<()> {
    let Material { roots, chain, key } = read(folder, "client")?;
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let connector = TlsConnector::from(Arc::new(config));
    accept(listen, move |mut inbound| {
        let connector = connector.clone();
        async move {
            let outbound = TcpStream::connect(connect).await?;
            outbound.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME)?;
            let mut outbound = connector.connect(name, outbound).await?;
            copy_bidirectional(&mut inbound, &mut outbound).await?;
            Ok(())
        }
    })
    .await
}

#[tokio::main]
pub async fn server_side(listen: SocketAddr, connect: SocketAddr, folder: &Path) -> Result<()> {
    let Material { roots, chain, key } = read(folder, "server")?;
    let config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_client_cert_verifier(WebPkiClientVerifier::builder(roots).build()?)
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    accept(listen, move |inbound| {
        let acceptor = acceptor.clone();
        async move {
            let mut inbound = acceptor.accept(inbound).await?;
            let mut outbound = TcpStream::connect(connect).await?;
            outbound.set_nodelay(true)?;
            copy_bidirectional(&mut inbound, &mut outbound).await?;
            Ok(())
        }
    })
    .await
}

async fn accept<F, R>(listen: SocketAddr, serve: F) -> Result<()>
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send + 'static,
{
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let serve = Arc::new(serve);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let serve = serve.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("relay: {error:#}");
            }
        });
    }
}
