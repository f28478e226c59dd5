//! Where a body ends: RFC 9112, section 6.3.

use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::Malformed;

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// It has this many bytes, perhaps 0.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

impl Framing {
    pub(super) fn of_request(version: Version, headers: &HeaderMap) -> Result<Self, Malformed> {
        Ok(declared(version, headers)?.unwrap_or(Self::None))
    }

    pub(super) fn of_response(
        method: &Method,
        version: Version,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Self, Malformed> {
        let declared = declared(version, headers)?;
        let is_without = *method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || (*method == Method::CONNECT && status.is_success());
        match declared {
            _ if is_without => Ok(Self::None),
            Some(declared) => Ok(declared),
            None => Ok(Self::UntilClose),
        }
    }

    /// Whether the connection can carry nothing behind it.
    pub fn ends_with_connection(self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Whether there is nothing to read.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What the fields say, if anything.
fn declared(version: Version, headers: &HeaderMap) -> Result<Option<Framing>, Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::TwoLengths),
        (Some(coding), None) => {
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if is_chunked && codings.next().is_none() && version == Version::HTTP_11 {
                Ok(Some(Framing::Chunked))
            } else {
                Err(Malformed::TransferEncoding)
            }
        }
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(Malformed::ContentLength);
            }
            length_of(length.as_bytes()).map(|length| Some(Framing::Length(length)))
        }
    }
}

/// Digits, and no sign, which the standard library would take too.
fn length_of(text: &[u8]) -> Result<u64, Malformed> {
    let digits = str::from_utf8(text).ok().filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Malformed::ContentLength)
}
