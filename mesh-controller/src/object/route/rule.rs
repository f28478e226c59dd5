//! Rules: each stands for itself, and one that is wrong answers with an error.

use std::{sync::Arc, time::Duration};

use mesh_common::model::{
    Backend, BackendTarget, Filter, PathMatch, Retry, RouteMatch, RouteRule, Timeouts,
};

use super::{
    BadReference, Built, FieldError, INCOMPATIBLE, InvalidRule, RULE_MATCHES, backend, duration,
    fields,
    filter::{self, On},
    matching::{self, unsupported},
    written::{GrpcMatch, GrpcRule, HttpMatch, HttpRule, StreamRule},
};

/// How often a request is sent once more where a retry does not say.
const ATTEMPTS: u32 = 1;
/// How long to wait before where it does not say.
const BACKOFF: Duration = Duration::from_millis(25);

/// Adds a rule of an HTTPRoute.
pub(super) fn http(
    built: &mut Built,
    at: usize,
    written: HttpRule,
    namespace: &str,
) -> Result<(), FieldError> {
    let field = format!("spec.rules[{at}]");
    let matches = written.matches.filter(|list| !list.is_empty());
    let matches = matches.unwrap_or_else(|| vec![HttpMatch::default()]);
    fields::at_most(&format!("{field}.matches"), matches.len(), RULE_MATCHES)?;
    let (matches, problem) = all(&field, matches, matching::http);
    let name = name(at, written.name);
    let mut bad = Vec::new();
    let rest = || {
        problem.map_or(Ok(()), Err)?;
        if written.session_persistence.is_some() {
            return Err(unsupported(&format!("{field}.sessionPersistence"), "not understood"));
        }
        let filters_field = format!("{field}.filters");
        let filters =
            filter::filters(&filters_field, written.filters, namespace, On::Http, &mut bad)?;
        let is_one_prefix = matches!(&matches[..], [it] if matches!(it.path, PathMatch::Prefix(_)));
        if filters.iter().any(filter::needs_prefix) && !is_one_prefix {
            let reason = "ReplacePrefixMatch needs exactly one match, by PathPrefix";
            return Err(unsupported(&filters_field, reason));
        }
        let refs = format!("{field}.backendRefs");
        let backends =
            backend::backends(&refs, written.backend_refs, namespace, On::Backend, &mut bad)?;
        if filters.iter().any(|it| matches!(it, Filter::Redirect(_))) && !backends.is_empty() {
            let message = format!("{refs}: beside RequestRedirect, which answers by itself");
            return Err(InvalidRule { reason: INCOMPATIBLE, message });
        }
        let timeouts = timeouts(&format!("{field}.timeouts"), written.timeouts)?;
        let retry = written.retry.map(|it| retry(&format!("{field}.retry"), it)).transpose()?;
        Ok(RouteRule {
            name: name.clone(),
            matches: matches.clone(),
            filters,
            backends,
            timeouts,
            retry,
        })
    };
    let rule = rest();
    add(built, rule, name, matches, bad);
    Ok(())
}

/// Adds a rule of a GRPCRoute.
pub(super) fn grpc(
    built: &mut Built,
    at: usize,
    written: GrpcRule,
    namespace: &str,
) -> Result<(), FieldError> {
    let field = format!("spec.rules[{at}]");
    let matches = written.matches.filter(|list| !list.is_empty());
    let matches = matches.unwrap_or_else(|| vec![GrpcMatch::default()]);
    fields::at_most(&format!("{field}.matches"), matches.len(), RULE_MATCHES)?;
    let (matches, problem) = all(&field, matches, matching::grpc);
    let name = name(at, written.name);
    let mut bad = Vec::new();
    let rest = || {
        problem.map_or(Ok(()), Err)?;
        if written.session_persistence.is_some() {
            return Err(unsupported(&format!("{field}.sessionPersistence"), "not understood"));
        }
        let filters_field = format!("{field}.filters");
        let filters =
            filter::filters(&filters_field, written.filters, namespace, On::Grpc, &mut bad)?;
        let refs = format!("{field}.backendRefs");
        let backends =
            backend::backends(&refs, written.backend_refs, namespace, On::Backend, &mut bad)?;
        let (name, matches, timeouts) = (name.clone(), matches.clone(), Timeouts::default());
        Ok(RouteRule { name, matches, filters, backends, timeouts, retry: None })
    };
    let rule = rest();
    add(built, rule, name, matches, bad);
    Ok(())
}

/// The rules of a TLSRoute or a TCPRoute, which are for whole connections.
pub(super) fn streams(rules: Option<Vec<StreamRule>>, namespace: &str) -> Built {
    let mut built = Built::default();
    for (at, written) in rules.unwrap_or_default().into_iter().enumerate() {
        let field = format!("spec.rules[{at}].backendRefs");
        let name = name(at, written.name);
        let mut bad = Vec::new();
        let backends =
            backend::backends(&field, written.backend_refs, namespace, On::Backend, &mut bad);
        let rule =
            backends.map(|backends| RouteRule { backends, ..empty(name.clone(), Vec::new()) });
        add(&mut built, rule, name, Vec::new(), bad);
    }
    built
}

fn add(
    built: &mut Built,
    rule: Result<RouteRule, InvalidRule>,
    name: Arc<str>,
    matches: Vec<RouteMatch>,
    bad: Vec<BadReference>,
) {
    let rule = rule.unwrap_or_else(|invalid| {
        let target = BackendTarget::Invalid(invalid.message.as_str().into());
        built.invalid.push(invalid);
        let backends = vec![Backend { target, weight: 1, filters: Vec::new() }];
        RouteRule { backends, ..empty(name, matches) }
    });
    built.bad_references.extend(bad);
    built.rules.push(rule);
}

fn empty(name: Arc<str>, matches: Vec<RouteMatch>) -> RouteRule {
    let (filters, backends, timeouts, retry) = Default::default();
    RouteRule { name, matches, filters, backends, timeouts, retry }
}

fn name(at: usize, written: Option<String>) -> Arc<str> {
    written.unwrap_or_else(|| at.to_string()).into()
}

/// The matches that are understood, and what is wrong with the first that is not.
fn all<T>(
    field: &str,
    list: Vec<T>,
    read: impl Fn(&str, T) -> Result<RouteMatch, InvalidRule>,
) -> (Vec<RouteMatch>, Option<InvalidRule>) {
    let (mut matches, mut problem) = (Vec::new(), None);
    for (at, written) in list.into_iter().enumerate() {
        match read(&format!("{field}.matches[{at}]"), written) {
            Ok(it) => matches.push(it),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    (matches, problem)
}

fn timeouts(
    field: &str,
    written: Option<super::written::Timeouts>,
) -> Result<Timeouts, InvalidRule> {
    let Some(written) = written else { return Ok(Timeouts::default()) };
    let read = |part: &str, text: Option<String>| {
        let duration = text.map(|text| read_duration(&format!("{field}.{part}"), &text));
        // Nothing is as long as one likes.
        duration.transpose().map(|it| it.filter(|it| !it.is_zero()))
    };
    let timeouts = Timeouts {
        request: read("request", written.request)?,
        backend_request: read("backendRequest", written.backend_request)?,
    };
    match timeouts {
        Timeouts { request: Some(all), backend_request: Some(one) } if one > all => {
            Err(unsupported(&format!("{field}.backendRequest"), "longer than request"))
        }
        timeouts => Ok(timeouts),
    }
}

fn retry(field: &str, written: super::written::Retry) -> Result<Retry, InvalidRule> {
    let code = |code: i32| {
        u16::try_from(code).ok().filter(|code| (400..600).contains(code)).ok_or_else(|| {
            unsupported(&format!("{field}.codes"), &format!("{code} is not within 400 to 599"))
        })
    };
    let attempts = written.attempts.map(|attempts| {
        u32::try_from(attempts).map_err(|_| {
            unsupported(&format!("{field}.attempts"), &format!("{attempts} is negative"))
        })
    });
    let backoff = written.backoff.map(|it| read_duration(&format!("{field}.backoff"), &it));
    Ok(Retry {
        codes: written.codes.unwrap_or_default().into_iter().map(code).collect::<Result<_, _>>()?,
        attempts: attempts.transpose()?.unwrap_or(ATTEMPTS),
        backoff: backoff.transpose()?.unwrap_or(BACKOFF),
    })
}

fn read_duration(field: &str, text: &str) -> Result<Duration, InvalidRule> {
    duration::parse(text).ok_or_else(|| {
        unsupported(field, &format!("`{text}` is no duration such as 10s, 1h30m or 500ms"))
    })
}
