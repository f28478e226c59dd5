//! What a connection speaks, by the client's first bytes, on ports of Services that say nothing.
//!
//! Nothing is consumed. A client that says nothing in time waits for the server to speak first, as
//! those of SMTP or MySQL do; that is remembered for the destination, so that only the first of
//! its connections waits.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::{io::Interest, net::TcpStream, time};

use super::LOCK;

pub(super) mod server_name;

pub(super) use server_name::server_name;

/// How long a client has to speak first. The promise is 100 ms, everything included.
const PATIENCE: Duration = Duration::from_millis(90);
/// How long a destination whose clients wait is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are remembered.
const DESTINATIONS: usize = 1024;
/// How long bytes that say nothing yet wait for more.
const PAUSE: Duration = Duration::from_millis(2);

/// What every HTTP/2 client says first (RFC 9113, section 3.4), as far as it takes to be sure.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// The longest method that is waited for: `UPDATEREDIRECTREF` of WebDAV, the longest that IANA knows,
/// has one byte more, and nobody calls it.
const METHOD: usize = 16;
/// The first bytes that are looked at.
pub(super) const LOOKED_AT: usize = 32;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    Tls,
    /// Anything else, or nothing.
    Other,
}

/// Destinations whose clients wait for the server.
#[derive(Debug, Default)]
pub(super) struct Silent(Mutex<HashMap<SocketAddr, Instant>>);

impl Silent {
    /// What `client`, which called `destination`, speaks.
    pub(super) async fn listen(&self, client: &TcpStream, destination: SocketAddr) -> Spoken {
        if self.knows(destination) {
            return Spoken::Other;
        }
        match time::timeout(PATIENCE, listen(client, look)).await {
            Ok(spoken) => spoken,
            Err(_) => {
                self.remember(destination);
                Spoken::Other
            }
        }
    }

    fn knows(&self, destination: SocketAddr) -> bool {
        let mut known = self.0.lock().expect(LOCK);
        let is_known = known.get(&destination).is_some_and(|at| at.elapsed() < REMEMBERED);
        if !is_known {
            known.remove(&destination);
        }
        is_known
    }

    fn remember(&self, destination: SocketAddr) {
        let mut known = self.0.lock().expect(LOCK);
        if known.len() >= DESTINATIONS {
            known.clear();
        }
        known.insert(destination, Instant::now());
    }
}

/// Which version of HTTP a client speaks that speaks HTTP; waits for its first bytes.
pub(super) async fn version(client: &TcpStream) -> Spoken {
    listen(client, |first| {
        let common = first.len().min(PREFACE.len());
        match first[..common] == PREFACE[..common] {
            true if common < PREFACE.len() => None,
            true => Some(Spoken::Http2),
            false => Some(Spoken::Http1),
        }
    })
    .await
}

async fn listen(client: &TcpStream, look: impl Fn(&[u8]) -> Option<Spoken>) -> Spoken {
    let mut first = [0; LOOKED_AT];
    loop {
        // It broke, or said all that it will: whoever carries it learns the same.
        let Ok(ready) = client.ready(Interest::READABLE).await else { return Spoken::Other };
        let Ok(count @ 1..) = client.peek(&mut first).await else { return Spoken::Other };
        if let Some(spoken) = look(&first[..count]) {
            return spoken;
        }
        if ready.is_read_closed() {
            return Spoken::Other;
        }
        // The socket stays readable: there is nothing to wait for but time.
        time::sleep(PAUSE).await;
    }
}

/// What somebody speaks who begins with `first`; `None` where more has to come first.
pub(super) fn look(first: &[u8]) -> Option<Spoken> {
    match first {
        // A handshake record (RFC 8446, section 5.1).
        [0x16, 0x03, ..] => return Some(Spoken::Tls),
        [] | [0x16] => return None,
        _ => {}
    }
    let common = first.len().min(PREFACE.len());
    if first[..common] == PREFACE[..common] {
        return (common == PREFACE.len()).then_some(Spoken::Http2);
    }
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let method = first.iter().take_while(|byte| is_method(byte)).count();
    match (method, &first[method..]) {
        // A path, or the `*` of OPTIONS. What has a URL or a host there speaks to a forward proxy,
        // and is not for us to route.
        (1..=METHOD, [b' ', b'/' | b'*', ..]) => Some(Spoken::Http1),
        (1..=METHOD, [] | [b' ']) => None,
        _ => Some(Spoken::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_who_speaks() {
        for (first, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http1)),
            (b"OPTIONS * HTTP/1.1", Some(Spoken::Http1)),
            (b"M-SEARCH /", Some(Spoken::Http1)),
            (b"PRI / HTTP/1.1", Some(Spoken::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http2)),
            (b"\x16\x03\x01\x02\x00", Some(Spoken::Tls)),
            (b"", None),
            (b"\x16", None),
            (b"G", None),
            (b"GET", None),
            (b"GET ", None),
            (b"PRI * HT", None),
            (b"CONNECT web:80 HTTP/1.1", Some(Spoken::Other)),
            (b"GET http://web/ HTTP/1.1", Some(Spoken::Other)),
            (b"HELO mail.example.com\r\n", Some(Spoken::Other)),
            (b"EHLO\r\n", Some(Spoken::Other)),
            (b"get / HTTP/1.1", Some(Spoken::Other)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Other)),
            (b"\x00\x00", Some(Spoken::Other)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(Spoken::Other)),
        ] {
            assert_eq!(look(first), expected, "{}", first.escape_ascii());
        }
    }

    #[test]
    fn one_wait_is_enough_for_a_destination() {
        let (silent, destination) = (Silent::default(), "10.0.0.1:25".parse().expect("a literal"));
        assert!(!silent.knows(destination));
        silent.remember(destination);
        assert!(silent.knows(destination));
        assert!(!silent.knows("10.0.0.1:26".parse().expect("a literal")));
    }
}
