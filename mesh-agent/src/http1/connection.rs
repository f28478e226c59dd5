//! Fields that are for the next hop alone: RFC 9110, section 7.6.1.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What a sender said of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Whether another message may follow.
    pub keep_alive: bool,
    /// The protocol that it wants to go on with, other than HTTP/2.
    pub upgrade: Option<HeaderValue>,
}

/// Takes out of `headers` what is for this hop alone, and what that says.
///
/// `TE: trailers`, which every hop here understands, stays.
pub fn take_hop_by_hop(headers: &mut HeaderMap, version: Version) -> Persistence {
    let mut named: Vec<HeaderName> = Vec::new();
    let (mut close, mut keep_alive, mut wants_upgrade) = (false, false, false);
    for value in headers.get_all(CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            match option {
                it if it.eq_ignore_ascii_case(b"close") => close = true,
                it if it.eq_ignore_ascii_case(b"keep-alive") => keep_alive = true,
                it if it.eq_ignore_ascii_case(b"upgrade") => wants_upgrade = true,
                // What is no name of a field names none.
                it => named.extend(HeaderName::from_bytes(it)),
            }
        }
    }
    let keep_te = headers.get(TE).is_some_and(accepts_trailers);
    // RFC 9110, section 7.8: HTTP/1.0 knows no upgrade.
    let may_upgrade = wants_upgrade && version == Version::HTTP_11;
    let upgrade = headers.remove(UPGRADE).filter(|_| may_upgrade);
    // Nobody may have a message read differently by naming how to read it.
    for name in named.iter().filter(|name| ![CONTENT_LENGTH, HOST].contains(name)) {
        headers.remove(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove(TE);
    if keep_te {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Persistence {
        keep_alive: !close && (version == Version::HTTP_11 || keep_alive),
        // Both sides of a mesh find HTTP/2 out without asking.
        upgrade: upgrade.filter(|it| !it.as_bytes().eq_ignore_ascii_case(b"h2c")),
    }
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    let mut codings = te.as_bytes().split(|byte| *byte == b',');
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}
