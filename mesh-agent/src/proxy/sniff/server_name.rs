//! The server name of a ClientHello (RFC 6066, section 3), which TLSRoutes go by. Nothing is consumed
//! and nothing is decrypted.

use rustls::server::Acceptor;
use tokio::{io::Interest, net::TcpStream, time};

use super::PAUSE;

/// As much as one record holds (RFC 8446, section 5.1), with its head: no client says more.
const LARGEST: usize = (1 << 14) + 5;

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Hello {
    /// A whole ClientHello, which may name a server; or no TLS, which names none.
    Whole(Option<String>),
    /// The beginning of one.
    Part,
}

/// The server that `client` asks for; waits for its ClientHello. `None` where it names none or
/// speaks no TLS.
pub(in crate::proxy) async fn server_name(client: &TcpStream) -> Option<String> {
    let mut bytes = vec![0; LARGEST];
    loop {
        let ready = client.ready(Interest::READABLE).await.ok()?;
        let count = client.peek(&mut bytes).await.ok().filter(|count| *count > 0)?;
        match read(&bytes[..count]) {
            Hello::Whole(name) => return name,
            Hello::Part if count == LARGEST || ready.is_read_closed() => return None,
            Hello::Part => time::sleep(PAUSE).await,
        }
    }
}

/// What `bytes`, the first of a client, say.
pub(in crate::proxy) fn read(mut bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Hello::Whole(None);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(hello)) => {
                return Hello::Whole(hello.client_hello().server_name().map(str::to_owned));
            }
            Err(_) => return Hello::Whole(None),
        }
    }
    Hello::Part
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What a client says first to `server`.
    fn hello(server: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let server = server.to_owned().try_into().expect("a name or an address");
        let mut client = ClientConnection::new(Arc::new(config), server).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("it is written to memory");
        hello
    }

    #[test]
    fn the_server_name_is_found_when_the_hello_is_whole() {
        let hello = hello("shop.example.com");
        assert_eq!(read(&hello), Hello::Whole(Some("shop.example.com".to_owned())));
        for end in 1..hello.len() {
            assert_eq!(read(&hello[..end]), Hello::Part, "{end} of {} bytes", hello.len());
        }
        let and_more = [&hello[..], b"\x17\x03\x03\x00\x01\x00"].concat();
        assert_eq!(read(&and_more), Hello::Whole(Some("shop.example.com".to_owned())));
    }

    #[test]
    fn what_names_no_server_has_none() {
        assert_eq!(read(&hello("10.0.0.1")), Hello::Whole(None), "addresses are not named");
        for other in ["GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x7f\x7f00000000000", "220 mail\r\n"] {
            let mut bytes = other.as_bytes().to_vec();
            bytes.resize(LARGEST, b'0');
            assert_eq!(read(&bytes), Hello::Whole(None), "{other:?}");
        }
    }
}
