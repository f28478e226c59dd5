//! What is asked for on the command line, read strictly.

use anyhow::{Context, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::HOST, uri::PathAndQuery};
use mesh_common::model::{NamespacedName, Service, ServicePort};

use super::seen::port_name;

/// Name and port of a Service: `web`, `web.shop`, `web.shop.svc.cluster.local`, `shop/web`, each with
/// or without `:80`.
///
/// # Errors
/// Where it is none of those.
pub fn service_name(text: &str, namespace: &str) -> anyhow::Result<(NamespacedName, Option<u16>)> {
    let (name, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((name, port)) => {
            let number = port.parse().ok().filter(|port| *port != 0);
            let number = number.with_context(|| {
                format!("{text}: `{port}` is no port; write a number, 1 to 65535")
            })?;
            (name, Some(number))
        }
    };
    let (namespace, name) = match (name.split_once('/'), name.split_once('.')) {
        (Some(parts), _) => parts,
        (None, Some((name, rest))) => {
            let (namespace, rest) = rest.split_once('.').unwrap_or((rest, "svc"));
            let is_known = rest == "svc" || rest.starts_with("svc.");
            ensure!(is_known, "{text}: write NAME.NAMESPACE, or NAMESPACE/NAME");
            (namespace, name)
        }
        (None, None) => (namespace, name),
    };
    ensure!(
        !name.is_empty() && !namespace.is_empty() && !name.contains(['/', '.']),
        "{text}: write NAME, NAME.NAMESPACE or NAMESPACE/NAME"
    );
    Ok((NamespacedName::new(namespace, name), port))
}

/// The port that is meant.
///
/// # Errors
/// Where none is said and there are several, or there is no such port.
pub fn port(service: &Service, said: Option<u16>) -> anyhow::Result<&ServicePort> {
    let name = &service.name;
    let all = service.ports.iter().map(port_name).collect::<Vec<_>>().join(", ");
    match (said, &service.ports[..]) {
        (_, []) => bail!("Service {name} has no TCP port: there is nothing to route"),
        (None, [only]) => Ok(only),
        (None, [first, ..]) => bail!(
            "Service {name} has several ports, {all}: say which, as in {}.{}:{}",
            name.name,
            name.namespace,
            first.port
        ),
        (Some(said), ports) => ports
            .iter()
            .find(|it| it.port == said)
            .with_context(|| format!("Service {name} has no TCP port {said}; it has {all}")),
    }
}

/// Headers, each `name: value`.
///
/// # Errors
/// Where one is no header.
pub fn headers(list: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for text in list {
        let (name, value) = text
            .split_once(':')
            .with_context(|| format!("--header `{text}`: no colon; write 'name: value'"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .with_context(|| format!("--header `{text}`: `{name}` is no name of a header"))?;
        // The proxy keeps it apart: no match of a route sees it.
        ensure!(name != HOST, "--header `{text}`: write --host for the host");
        let value = HeaderValue::from_str(value.trim())
            .with_context(|| format!("--header `{text}`: no value of a header"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A path, perhaps with a query.
///
/// # Errors
/// Where it is none.
pub fn path(text: &str) -> anyhow::Result<PathAndQuery> {
    ensure!(text.starts_with('/'), "--path `{text}`: a path begins with a slash");
    text.parse().with_context(|| format!("--path `{text}`"))
}

/// A method.
///
/// # Errors
/// Where it is none.
pub fn method(text: &str) -> anyhow::Result<Method> {
    Method::from_bytes(text.as_bytes()).with_context(|| format!("--method `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_as_people_do() {
        let web = NamespacedName::new("shop", "web");
        for (text, port) in [
            ("web", None),
            ("web:80", Some(80)),
            ("web.shop", None),
            ("web.shop:8080", Some(8080)),
            ("web.shop.svc", None),
            ("web.shop.svc.cluster.local:80", Some(80)),
            ("shop/web:80", Some(80)),
        ] {
            assert_eq!(service_name(text, "shop").expect(text), (web.clone(), port), "{text}");
        }
        for wrong in ["", "web:", "web:0", "web:http", "web.", "/web", "shop/", "web.shop.pod"] {
            service_name(wrong, "shop").expect_err(wrong);
        }
    }

    #[test]
    fn headers_are_joined_by_name() {
        let list = ["a: 1".to_owned(), "A:2".to_owned(), "b:".to_owned()];
        let read = headers(&list).expect("headers");
        assert_eq!((read.get_all("a").iter().count(), read["b"].len()), (2, 0));
        for wrong in ["a", "a b: 1", ": 1", "a: \u{1}", "Host: a"] {
            headers(&[wrong.to_owned()]).expect_err(wrong);
        }
    }
}
