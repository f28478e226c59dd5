//! Where a redirect leads.

use super::path;
use crate::model::{PathMatch, Redirect, RedirectScheme};

/// The request that is redirected.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its authority: a host, perhaps with a port.
    pub authority: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// The port of the Service that was called.
    pub port: u16,
}

/// The value of `Location` for a request that came over plain HTTP and met `redirect` by `by`.
///
/// The port is that of `redirect`; else, where it has a scheme, that scheme's; else the Service's.
/// A port that goes without saying for the scheme is left out.
pub fn location(redirect: &Redirect, by: &PathMatch, asked: Asked<'_>) -> String {
    let scheme = redirect.scheme.unwrap_or(RedirectScheme::Http);
    let (scheme, well_known) = match scheme {
        RedirectScheme::Http => ("http", 80),
        RedirectScheme::Https => ("https", 443),
    };
    let host = redirect.hostname.as_deref().unwrap_or_else(|| host(asked.authority));
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => asked.port,
    };
    let mut location = format!("{scheme}://{host}");
    if port != well_known {
        location.push_str(&format!(":{port}"));
    }
    match &redirect.path {
        Some(modifier) => location.push_str(&path::modified(asked.path, modifier, by)),
        None => location.push_str(asked.path),
    }
    if let Some(query) = asked.query {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// The host of an authority; that of an IPv6 address stays in its brackets.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::model::PathModifier;

    fn redirect() -> Redirect {
        let (scheme, hostname, path, port) = (None, None, None, None);
        Redirect { scheme, hostname, path, port, status: StatusCode::FOUND }
    }

    fn to(redirect: &Redirect, authority: &str, port: u16) -> String {
        let by = PathMatch::Prefix("/old".into());
        location(redirect, &by, Asked { authority, path: "/old/x", query: Some("a=1"), port })
    }

    #[test]
    fn what_is_not_said_stays() {
        assert_eq!(to(&redirect(), "web.shop:8080", 8080), "http://web.shop:8080/old/x?a=1");
        assert_eq!(to(&redirect(), "web", 80), "http://web/old/x?a=1");
        assert_eq!(to(&redirect(), "[fd00::1]:8080", 8080), "http://[fd00::1]:8080/old/x?a=1");
        assert_eq!(to(&redirect(), "[fd00::1]", 80), "http://[fd00::1]/old/x?a=1");
    }

    #[test]
    fn ports_that_go_without_saying_are_not_said() {
        let https = Some(RedirectScheme::Https);
        let secure = Redirect { scheme: https, ..redirect() };
        assert_eq!(to(&secure, "web:8080", 8080), "https://web/old/x?a=1");
        let both = Redirect { port: Some(443), ..secure.clone() };
        assert_eq!(to(&both, "web:8080", 8080), "https://web/old/x?a=1");
        let odd = Redirect { port: Some(80), ..secure };
        assert_eq!(to(&odd, "web:8080", 8080), "https://web:80/old/x?a=1");
        let plain = Redirect { scheme: Some(RedirectScheme::Http), ..redirect() };
        assert_eq!(to(&plain, "web:8080", 8080), "http://web/old/x?a=1");
    }

    #[test]
    fn host_and_path_are_replaced() {
        let path = Some(PathModifier::Prefix("/new".into()));
        let redirect = Redirect { hostname: Some("example.com".into()), path, ..redirect() };
        assert_eq!(to(&redirect, "web", 80), "http://example.com/new/x?a=1");
    }
}
