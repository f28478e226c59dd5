//! What a rule of a route is for.

use http::{HeaderName, Method};
use mesh_common::model::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, TextMatch};

use super::{
    InvalidRule, UNSUPPORTED,
    written::{GrpcMatch, HttpMatch, NamedText, Text},
};

/// Methods that a match may ask for.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// What a path that is compared piece by piece cannot contain, and how it cannot end.
const NOT_IN_PATHS: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "#"];
const NOT_AT_ENDS: [&str; 2] = ["/..", "/."];

pub(super) fn http(field: &str, written: HttpMatch) -> Result<RouteMatch, InvalidRule> {
    let method = written.method.map(|text| {
        let known = METHODS.contains(&text.as_str()).then(|| Method::from_bytes(text.as_bytes()));
        known.and_then(Result::ok).ok_or_else(|| {
            let known = METHODS.join(", ");
            unsupported(&format!("{field}.method"), &format!("`{text}` is none of {known}"))
        })
    });
    Ok(RouteMatch {
        path: path(&format!("{field}.path"), written.path)?,
        method: method.transpose()?,
        headers: headers(&format!("{field}.headers"), written.headers)?,
        query: query(&format!("{field}.queryParams"), written.query_params)?,
    })
}

pub(super) fn grpc(field: &str, written: GrpcMatch) -> Result<RouteMatch, InvalidRule> {
    let path = match written.method {
        None => PathMatch::Grpc { service: None, method: None },
        Some(it) if it.service.is_none() && it.method.is_none() => {
            let field = format!("{field}.method");
            return Err(unsupported(&field, "neither service nor method is written"));
        }
        Some(it) => {
            let read = |part: &str, value: Option<String>| {
                let field = format!("{field}.method.{part}");
                value.map(|value| text(&field, it.r#type.as_deref(), &value)).transpose()
            };
            PathMatch::Grpc {
                service: read("service", it.service)?,
                method: read("method", it.method)?,
            }
        }
    };
    let headers = headers(&format!("{field}.headers"), written.headers)?;
    Ok(RouteMatch { path, method: None, headers, query: Vec::new() })
}

fn path(field: &str, written: Option<Text>) -> Result<PathMatch, InvalidRule> {
    let (kind, value) = match &written {
        None => ("PathPrefix", "/"),
        Some(it) => {
            (it.r#type.as_deref().unwrap_or("PathPrefix"), it.value.as_deref().unwrap_or("/"))
        }
    };
    let field = format!("{field}.value");
    if kind == "RegularExpression" {
        let pattern = value.parse();
        return pattern
            .map(PathMatch::Pattern)
            .map_err(|error| unsupported(&field, &error.to_string()));
    }
    if !value.starts_with('/') {
        return Err(unsupported(&field, &format!("`{value}` does not begin with a slash")));
    }
    let bad = NOT_IN_PATHS.into_iter().find(|bad| value.contains(bad));
    let bad = bad.or_else(|| NOT_AT_ENDS.into_iter().find(|bad| value.ends_with(bad)));
    if let Some(bad) = bad {
        return Err(unsupported(&field, &format!("`{value}` contains `{bad}`")));
    }
    match kind {
        "Exact" => Ok(PathMatch::Exact(value.into())),
        "PathPrefix" => Ok(PathMatch::Prefix(value.strip_suffix('/').unwrap_or(value).into())),
        other => Err(unsupported(
            &field,
            &format!("type `{other}` is none of Exact, PathPrefix, RegularExpression"),
        )),
    }
}

/// Of several on one name the first counts, in whatever case they are written.
fn headers(field: &str, list: Option<Vec<NamedText>>) -> Result<Vec<HeaderMatch>, InvalidRule> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (at, it) in list.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        let name = header_name(&format!("{field}.name"), &it.name)?;
        if headers.iter().any(|known| known.name == name) {
            continue;
        }
        let value = text(&format!("{field}.value"), it.r#type.as_deref(), &it.value)?;
        headers.push(HeaderMatch { name, value });
    }
    Ok(headers)
}

fn query(field: &str, list: Option<Vec<NamedText>>) -> Result<Vec<QueryMatch>, InvalidRule> {
    let mut query: Vec<QueryMatch> = Vec::new();
    for (at, it) in list.unwrap_or_default().into_iter().enumerate() {
        if query.iter().any(|known| *known.name == *it.name) {
            continue;
        }
        let field = format!("{field}[{at}].value");
        let value = text(&field, it.r#type.as_deref(), &it.value)?;
        query.push(QueryMatch { name: it.name.into(), value });
    }
    Ok(query)
}

fn text(field: &str, kind: Option<&str>, value: &str) -> Result<TextMatch, InvalidRule> {
    match kind.unwrap_or("Exact") {
        "Exact" => Ok(TextMatch::Exact(value.into())),
        "RegularExpression" => {
            let pattern = value.parse().map(TextMatch::Pattern);
            pattern.map_err(|error| unsupported(field, &error.to_string()))
        }
        other => {
            Err(unsupported(field, &format!("type `{other}` is none of Exact, RegularExpression")))
        }
    }
}

pub(super) fn header_name(field: &str, name: &str) -> Result<HeaderName, InvalidRule> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| unsupported(field, &format!("`{name}` is no name of a header")))
}

pub(super) fn unsupported(field: &str, reason: &str) -> InvalidRule {
    InvalidRule { reason: UNSUPPORTED, message: format!("{field}: {reason}") }
}
