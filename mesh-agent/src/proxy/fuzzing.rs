//! Ways into readers of what strangers send, for fuzz/.

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderValue, Response};
use mesh_common::model::Workload;

use super::{
    failure::Failure,
    hbone::{server, status},
    sniff::{self, server_name::Hello},
};

/// How many of a client's first bytes are looked at: they have to decide.
pub const LOOKED_AT: usize = sniff::LOOKED_AT;

/// What a client speaks that begins with `first`; `None` where more has to come first.
pub fn spoken(first: &[u8]) -> Option<impl Debug + PartialEq + use<>> {
    sniff::look(first)
}

/// The server that a ClientHello names, if any; `None` where more of it has to come first.
pub fn server_name(bytes: &[u8]) -> Option<Option<String>> {
    match sniff::server_name::read(bytes) {
        Hello::Whole(name) => Some(name),
        Hello::Part => None,
    }
}

/// Where a CONNECT for a Service leads.
pub fn behind_service(workload: &Workload, own: IpAddr, authority: &str) -> Option<SocketAddr> {
    server::behind_service(workload, own, authority)
}

/// Whether a far proxy's answer is a refusal, and the words for it.
pub fn refusal(
    code: http::StatusCode,
    proxy_status: HeaderValue,
    from: SocketAddr,
) -> (bool, String) {
    let mut response = Response::new(());
    *response.status_mut() = code;
    response.headers_mut().insert("proxy-status", proxy_status);
    told(&response, from)
}

/// The same of our own answer to a caller that a policy refused for `reason`.
pub fn denial(reason: String, from: SocketAddr) -> (bool, String) {
    told(&status::to_response(&Failure::Denied(reason)), from)
}

fn told(response: &Response<()>, from: SocketAddr) -> (bool, String) {
    let failure = status::to_failure(response, from);
    (matches!(failure, Failure::Denied(_)), failure.to_string())
}
