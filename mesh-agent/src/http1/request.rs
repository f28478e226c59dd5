//! Heads of requests.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Method, Uri, Version,
    header::HOST,
    uri::{Authority, PathAndQuery},
};

use super::{Framing, HeadReader, Malformed, fields, fields::first_line};

/// A request's head.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query, or `*`; `/` of CONNECT, which asks for a host and port alone.
    pub target: PathAndQuery,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The fields, as they came, without Host.
    pub headers: HeaderMap,
    /// The host, and the port if there is one; empty where HTTP/1.0 left it out.
    pub host: Bytes,
    /// How long the body is.
    pub framing: Framing,
}

/// Takes a whole head out of `buffer`; `None` where more has to arrive first.
///
/// # Errors
/// Where it is malformed.
pub fn read_request(
    reader: &mut HeadReader,
    buffer: &mut BytesMut,
) -> Result<Option<Request>, Malformed> {
    let Some(mut head) = reader.take(buffer)? else { return Ok(None) };
    let line = first_line(&mut head);
    let (method, target, version) = request_line(&line)?;
    let mut headers = fields::fields(head)?;
    let mut host = host(&mut headers, version)?;
    let framing = Framing::of_request(version, &headers)?;
    let target = match target {
        Target::Path(target) => target,
        Target::Authority(authority) => {
            // RFC 9112, section 3.2.3: what differs may be read differently.
            if !host.is_empty() && host != authority {
                return Err(Malformed::Host);
            }
            // RFC 9110, section 9.3.6: what follows the head is the tunnel's.
            if !framing.is_empty() {
                return Err(Malformed::ConnectBody);
            }
            host = authority;
            PathAndQuery::from_static("/")
        }
    };
    Ok(Some(Request { method, target, version, headers, host, framing }))
}

/// What a request asks for.
enum Target {
    Path(PathAndQuery),
    /// A host and a port, of CONNECT.
    Authority(Bytes),
}

fn request_line(line: &Bytes) -> Result<(Method, Target, Version), Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::RequestLine);
    };
    let version = version_of(version, Malformed::RequestLine)?;
    let method = Method::from_bytes(method).map_err(|_| Malformed::RequestLine)?;
    if method == Method::CONNECT {
        let authority = line.slice_ref(target);
        return if is_place(&authority) {
            Ok((method, Target::Authority(authority), version))
        } else {
            Err(Malformed::Target)
        };
    }
    let is_asterisk = target == b"*" && method == Method::OPTIONS;
    if !is_asterisk && !target.starts_with(b"/") {
        return Err(Malformed::Target);
    }
    // The fragment is never sent; what reads it as part of the path and what cuts it off disagree.
    if target.contains(&b'#') {
        return Err(Malformed::Target);
    }
    let target = PathAndQuery::from_maybe_shared(line.slice_ref(target));
    Ok((method, Target::Path(target.map_err(|_| Malformed::Target)?), version))
}

/// Whether `authority` is a host and a port, and no more: what CONNECT asks for.
pub fn is_place(authority: &Bytes) -> bool {
    let Ok(authority) = Authority::from_maybe_shared(authority.clone()) else { return false };
    let has_user = authority.as_str().contains('@');
    !authority.host().is_empty() && authority.port_u16().is_some() && !has_user
}

/// The version that `text` names; `otherwise` where it names none at all.
pub(super) fn version_of(text: &[u8], otherwise: Malformed) -> Result<Version, Malformed> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        _ if text.starts_with(b"HTTP/") => Err(Malformed::Version),
        _ => Err(otherwise),
    }
}

/// Takes the Host field out of `headers`.
fn host(headers: &mut HeaderMap, version: Version) -> Result<Bytes, Malformed> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Bytes::copy_from_slice(host.as_bytes()),
        (None, _) if version == Version::HTTP_10 => return Ok(Bytes::new()),
        _ => return Err(Malformed::Host),
    };
    // RFC 9110, section 7.2: it may be empty, where there is no host to name.
    if !host.is_empty() {
        let authority = Authority::from_maybe_shared(host.clone()).map_err(|_| Malformed::Host)?;
        if authority.as_str().contains('@') {
            return Err(Malformed::Host);
        }
    }
    headers.remove(HOST);
    Ok(host)
}

impl Request {
    /// What is asked for as a [`Uri`] of that scheme, which HTTP/2 wants whole.
    ///
    /// # Errors
    /// Where there is no host.
    pub fn uri(&self, scheme: http::uri::Scheme) -> Result<Uri, http::Error> {
        let (host, target) = (self.host.clone(), self.target.clone());
        Uri::builder().scheme(scheme).authority(&*host).path_and_query(target).build()
    }
}
