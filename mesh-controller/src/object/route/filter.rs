//! What a route does to requests and responses.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use mesh_common::model::{
    Cors, Filter, HeaderModifier, Mirror, PathModifier, Redirect, RedirectScheme, Rewrite, Share,
};

use super::{
    BadReference, INCOMPATIBLE, InvalidRule, backend,
    matching::{header_name, unsupported},
    written,
};

/// Where filters are written, which says which there may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// A rule of an HTTPRoute.
    Http,
    /// A rule of a GRPCRoute.
    Grpc,
    /// A backend.
    Backend,
}

/// Seconds that browsers remember an answer about other origins where none are written.
const MAX_AGE: i32 = 5;

/// The filters of a rule or a backend.
pub(super) fn filters(
    field: &str,
    list: Option<Vec<written::Filter>>,
    namespace: &str,
    on: On,
    bad: &mut Vec<BadReference>,
) -> Result<Vec<Filter>, InvalidRule> {
    let mut filters: Vec<Filter> = Vec::new();
    for (at, written) in list.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        let kind = written.r#type.clone();
        let filter = filter(&field, written, namespace, on, bad)?;
        // A request may be copied to several.
        let is_same = |it: &Filter| std::mem::discriminant(it) == std::mem::discriminant(&filter);
        if filters.iter().any(is_same) && !matches!(filter, Filter::Mirror(_)) {
            return Err(incompatible(&field, &format!("a second {kind}")));
        }
        filters.push(filter);
    }
    let has = |wanted: fn(&Filter) -> bool| filters.iter().any(wanted);
    if has(|it| matches!(it, Filter::Redirect(_))) && has(|it| matches!(it, Filter::Rewrite(_))) {
        return Err(incompatible(field, "RequestRedirect beside URLRewrite"));
    }
    Ok(filters)
}

/// Whether a path is changed by the prefix that matched.
pub(super) fn needs_prefix(filter: &Filter) -> bool {
    let path = match filter {
        Filter::Rewrite(rewrite) => &rewrite.path,
        Filter::Redirect(redirect) => &redirect.path,
        _ => &None,
    };
    matches!(path, Some(PathModifier::Prefix(_)))
}

fn filter(
    field: &str,
    written: written::Filter,
    namespace: &str,
    on: On,
    bad: &mut Vec<BadReference>,
) -> Result<Filter, InvalidRule> {
    let kind = written.r#type.as_str();
    let is_known = match on {
        On::Http => matches!(
            kind,
            "RequestHeaderModifier"
                | "ResponseHeaderModifier"
                | "RequestMirror"
                | "RequestRedirect"
                | "URLRewrite"
                | "CORS"
        ),
        On::Grpc => {
            matches!(kind, "RequestHeaderModifier" | "ResponseHeaderModifier" | "RequestMirror")
        }
        On::Backend => matches!(kind, "RequestHeaderModifier" | "ResponseHeaderModifier"),
    };
    let missing = || unsupported(field, &format!("{kind} without what it is to do"));
    if !is_known {
        return Err(unsupported(
            &format!("{field}.type"),
            &format!("`{kind}` is not understood here"),
        ));
    }
    Ok(match kind {
        "RequestHeaderModifier" => Filter::RequestHeaders(headers(
            &format!("{field}.requestHeaderModifier"),
            written.request_header_modifier.ok_or_else(missing)?,
        )?),
        "ResponseHeaderModifier" => Filter::ResponseHeaders(headers(
            &format!("{field}.responseHeaderModifier"),
            written.response_header_modifier.ok_or_else(missing)?,
        )?),
        "RequestMirror" => {
            let field = format!("{field}.requestMirror");
            let written = written.request_mirror.ok_or_else(missing)?;
            let share = share(&field, &written)?;
            let field = format!("{field}.backendRef");
            let target = backend::target(&field, &written.backend_ref, namespace, bad);
            Filter::Mirror(Mirror { target, share })
        }
        "RequestRedirect" => Filter::Redirect(redirect(
            &format!("{field}.requestRedirect"),
            written.request_redirect.ok_or_else(missing)?,
        )?),
        "URLRewrite" => {
            let written = written.url_rewrite.ok_or_else(missing)?;
            let path = path(&format!("{field}.urlRewrite.path"), written.path)?;
            let hostname = hostname(&format!("{field}.urlRewrite.hostname"), written.hostname)?;
            Filter::Rewrite(Rewrite { hostname, path })
        }
        _ => Filter::Cors(cors(&format!("{field}.cors"), written.cors.ok_or_else(missing)?)?),
    })
}

fn headers(field: &str, written: written::HeaderModifier) -> Result<HeaderModifier, InvalidRule> {
    let list = |part: &str, list: Option<Vec<written::Header>>| {
        let header = |(at, it): (usize, written::Header)| {
            let field = format!("{field}.{part}[{at}]");
            let name = header_name(&format!("{field}.name"), &it.name)?;
            let value = HeaderValue::from_str(&it.value)
                .map_err(|_| unsupported(&format!("{field}.value"), "no value of a header"))?;
            Ok((name, value))
        };
        list.unwrap_or_default().into_iter().enumerate().map(header).collect::<Result<Vec<_>, _>>()
    };
    Ok(HeaderModifier {
        set: list("set", written.set)?,
        add: list("add", written.add)?,
        remove: names(&format!("{field}.remove"), written.remove.unwrap_or_default())?,
    })
}

fn names(field: &str, list: Vec<String>) -> Result<Vec<HeaderName>, InvalidRule> {
    let name = |(at, name): (usize, String)| header_name(&format!("{field}[{at}]"), &name);
    list.into_iter().enumerate().map(name).collect()
}

fn share(field: &str, written: &written::Mirror) -> Result<Share, InvalidRule> {
    let (numerator, denominator) = match (written.percent, &written.fraction) {
        (Some(_), Some(_)) => return Err(unsupported(field, "percent beside fraction")),
        (Some(percent), None) => (percent, 100),
        (None, Some(it)) => (it.numerator, it.denominator.unwrap_or(100)),
        (None, None) => (100, 100),
    };
    let numbers = u32::try_from(numerator).ok().zip(u32::try_from(denominator).ok());
    numbers
        .and_then(|(numerator, denominator)| {
            let denominator = NonZeroU32::new(denominator)?;
            (numerator <= denominator.get()).then_some(Share { numerator, denominator })
        })
        .ok_or_else(|| unsupported(field, &format!("{numerator} of {denominator} is no share")))
}

fn redirect(field: &str, written: written::Redirect) -> Result<Redirect, InvalidRule> {
    let scheme = match written.scheme.as_deref() {
        None => None,
        Some("http") => Some(RedirectScheme::Http),
        Some("https") => Some(RedirectScheme::Https),
        Some(other) => {
            let reason = format!("`{other}` is none of http, https");
            return Err(unsupported(&format!("{field}.scheme"), &reason));
        }
    };
    let port = written.port.map(|port| {
        u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
            unsupported(&format!("{field}.port"), &format!("{port} is not within 1 to 65535"))
        })
    });
    let status = match written.status_code.unwrap_or(302) {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok(),
        _ => None,
    };
    Ok(Redirect {
        scheme,
        hostname: hostname(&format!("{field}.hostname"), written.hostname)?,
        path: path(&format!("{field}.path"), written.path)?,
        port: port.transpose()?,
        status: status.ok_or_else(|| {
            unsupported(&format!("{field}.statusCode"), "none of 301, 302, 303, 307, 308")
        })?,
    })
}

fn hostname(field: &str, text: Option<String>) -> Result<Option<Arc<str>>, InvalidRule> {
    match text {
        Some(text) if !crate::object::is_name(&text) => {
            Err(unsupported(field, &format!("`{text}` is no name of a host")))
        }
        text => Ok(text.map(Into::into)),
    }
}

fn path(
    field: &str,
    written: Option<written::PathModifier>,
) -> Result<Option<PathModifier>, InvalidRule> {
    let Some(written) = written else { return Ok(None) };
    let (name, text, make): (_, _, fn(Arc<str>) -> PathModifier) = match written.r#type.as_str() {
        "ReplaceFullPath" => ("replaceFullPath", written.replace_full_path, PathModifier::Full),
        "ReplacePrefixMatch" => {
            ("replacePrefixMatch", written.replace_prefix_match, PathModifier::Prefix)
        }
        other => {
            let reason = format!("`{other}` is none of ReplaceFullPath, ReplacePrefixMatch");
            return Err(unsupported(&format!("{field}.type"), &reason));
        }
    };
    let field = format!("{field}.{name}");
    let text = text.ok_or_else(|| unsupported(&field, "missing"))?;
    // It becomes part of a request line.
    let is_clean = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !is_clean {
        return Err(unsupported(&field, &format!("`{text}` is no path")));
    }
    Ok(Some(make(text.into())))
}

fn cors(field: &str, written: written::Cors) -> Result<Cors, InvalidRule> {
    let any = |list: &Vec<String>| list.iter().any(|it| it == "*");
    // `None` is for any; what is left out is for none beyond those that need no permission.
    let some = |list: Option<Vec<String>>| Some(list.unwrap_or_default()).filter(|it| !any(it));
    let method = |text: String| {
        Method::from_bytes(text.as_bytes()).map_err(|_| {
            unsupported(&format!("{field}.allowMethods"), &format!("`{text}` is no method"))
        })
    };
    let methods = some(written.allow_methods);
    let methods = methods.map(|it| it.into_iter().map(method).collect::<Result<_, _>>());
    let allowed = some(written.allow_headers);
    let allowed = allowed.map(|it| names(&format!("{field}.allowHeaders"), it));
    let exposed = some(written.expose_headers);
    let exposed = exposed.map(|it| {
        let exposed = names(&format!("{field}.exposeHeaders"), it)?;
        Ok(exposed.into_iter().map(HeaderValue::from).collect())
    });
    let max_age = written.max_age.unwrap_or(MAX_AGE);
    let max_age = u64::try_from(max_age)
        .map_err(|_| unsupported(&format!("{field}.maxAge"), &format!("{max_age} is negative")))?;
    Ok(Cors {
        allow_origins: written
            .allow_origins
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect(),
        allow_credentials: written.allow_credentials.unwrap_or_default(),
        allow_methods: methods.transpose()?,
        allow_headers: allowed.transpose()?,
        expose_headers: exposed.transpose()?,
        max_age: Duration::from_secs(max_age),
    })
}

fn incompatible(field: &str, reason: &str) -> InvalidRule {
    InvalidRule { reason: INCOMPATIBLE, message: format!("{field}: {reason}") }
}
