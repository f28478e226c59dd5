//! What a message can have wrong with it.

use http::StatusCode;

/// Why a message is refused. Whatever follows it on the connection cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// RFC 9112, section 2.2: lines end with CRLF.
    #[error("a line that does not end with CRLF")]
    LineEnd,
    /// RFC 9112, section 3.
    #[error("no request line of method, target and version, with one space between")]
    RequestLine,
    /// RFC 9112, section 3.2: a proxy that is asked as an origin gets `/path`, `*` for OPTIONS, and a
    /// host and port for CONNECT.
    #[error("a request target that is no path, no `*` of OPTIONS and no host and port of CONNECT")]
    Target,
    /// RFC 9112, section 4.
    #[error("no status line of version, three digits and a reason")]
    StatusLine,
    /// RFC 9112, section 2.3: only HTTP/1.0 and HTTP/1.1 are understood.
    #[error("a version that is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// RFC 9112, section 5.1: a token and, without a space, a colon.
    #[error("a field name that is no token before a colon")]
    FieldName,
    /// RFC 9112, section 5.2: folded lines are obsolete.
    #[error("a folded field line")]
    Folded,
    /// RFC 9110, section 5.5.
    #[error("a field value with control characters")]
    FieldValue,
    /// The head is larger than [`MAX_HEAD`](super::MAX_HEAD) or has more fields than
    /// [`MAX_FIELDS`](super::MAX_FIELDS).
    #[error("a head that is too large")]
    TooLarge,
    /// RFC 9112, section 3.2: exactly one Host field that is an authority.
    #[error("no Host field, more than one, or one that is no host")]
    Host,
    /// RFC 9110, section 9.3.6.
    #[error("CONNECT with a body")]
    ConnectBody,
    /// RFC 9112, section 6.3: one Content-Length, digits only.
    #[error("a Content-Length that is no number, or a second one")]
    ContentLength,
    /// RFC 9112, section 6.1: both are an attempt at smuggling.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// Only `chunked` is understood, and only in HTTP/1.1.
    #[error("a Transfer-Encoding other than chunked, or in HTTP/1.0")]
    TransferEncoding,
    /// RFC 9112, section 7.1; extensions, which nobody uses for anything else, are refused too.
    #[error("a chunk whose size is no hexadecimal number alone, or that does not end with CRLF")]
    Chunk,
}

impl Malformed {
    /// How a request is answered that has this wrong with it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
