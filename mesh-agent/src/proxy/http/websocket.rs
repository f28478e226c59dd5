//! WebSockets that HTTP/2 clients ask for, as HTTP/1.1 opens them: RFC 8441, section 5, and RFC 6455,
//! section 4.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, StatusCode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{
    message::{Request, Response},
    trouble::Trouble,
};

/// The name of the protocol.
pub(super) const WEBSOCKET: &str = "websocket";

/// What only HTTP/1.1 says.
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A WebSocket that is asked for over HTTP/1.1.
pub(super) struct Opening {
    /// What is asked.
    pub(super) request: Request,
    /// What only a server answers that has understood it.
    accept: HeaderValue,
}

impl Opening {
    /// Asks for what `request`, which came by HTTP/2, asks for.
    pub(super) fn of(request: &Request) -> Self {
        // It is no secret: it shows that the answer is one to this request.
        let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
        let mut asked = request.copy();
        asked.upgrade.clone_from(&request.upgrade);
        asked.headers.insert(KEY, text(&key));
        Self { request: asked, accept: text(&accept_of(&key)) }
    }

    /// Reads the answer, and makes of it the one that HTTP/2 has. Whether the WebSocket is open.
    pub(super) fn read(&self, response: &mut Response) -> Result<bool, Trouble> {
        let malformed = |what: String| Err(Trouble::MalformedResponse(what));
        let protocol = response.upgrade.take();
        match response.status {
            StatusCode::SWITCHING_PROTOCOLS => {
                if !protocol.is_some_and(|it| is_websocket(&it)) {
                    return malformed("it switches to another protocol than WebSocket".to_owned());
                }
                if !response.headers.get_all(ACCEPT).iter().eq([&self.accept]) {
                    return malformed("Sec-WebSocket-Accept is not that of the key".to_owned());
                }
                response.status = StatusCode::OK;
                response.reason.clear();
                forget_handshake_of_response(response);
                Ok(true)
            }
            // In HTTP/2 it would open one.
            status if status.is_success() => {
                malformed(format!("it answers {status} where a WebSocket was asked for"))
            }
            _ => Ok(false),
        }
    }
}

/// Whether `protocol` is WebSocket.
pub(super) fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}

/// Takes out of a request of HTTP/2 what has no meaning there.
pub(super) fn forget_handshake(request: &mut Request) {
    request.headers.remove(KEY);
}

/// The same of a response.
pub(super) fn forget_handshake_of_response(response: &mut Response) {
    response.headers.remove(ACCEPT);
}

/// What a server says that has understood `key`.
pub(super) fn accept_of(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    STANDARD.encode(hash)
}

fn text(base64: &str) -> HeaderValue {
    HeaderValue::from_str(base64).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_has_its_answer() {
        // RFC 6455, section 1.3.
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
