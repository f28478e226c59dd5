//! Which flows someone wants to see.

use std::sync::Arc;

use mesh_common::{api::v1, model::NamespacedName};

use super::{Flow, HttpFlow, Verdict};

/// Which flows someone wants to see: those that match every part that is not empty.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    pods: Vec<PodPattern>,
    verdicts: Vec<Verdict>,
    protocols: Vec<String>,
    statuses: Vec<StatusPattern>,
    methods: Vec<String>,
    paths: Vec<String>,
}

/// A status, or a hundred of them.
#[derive(Clone, Copy, Debug)]
struct StatusPattern {
    from: u16,
    to: u16,
}

/// A pod as people name it: with its namespace or in any.
#[derive(Clone, Debug)]
struct PodPattern {
    namespace: Option<String>,
    name: String,
}

/// Why a filter means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// A verdict that came later than this agent.
    #[error(
        "the filter holds a verdict that this agent does not know; use FORWARDED, DENIED, ERROR or AUDIT"
    )]
    Verdict,
    /// Neither a number nor a class.
    #[error("`{0}` is no HTTP status; use one as `503`, or a class as `5xx`")]
    Status(String),
}

impl TryFrom<v1::FlowFilter> for FlowFilter {
    type Error = InvalidFilter;

    fn try_from(wire: v1::FlowFilter) -> Result<Self, Self::Error> {
        let verdict = |verdict: v1::Verdict| match verdict {
            v1::Verdict::Forwarded => Ok(Verdict::Forwarded),
            v1::Verdict::Denied => Ok(Verdict::Denied),
            v1::Verdict::Error => Ok(Verdict::Error),
            v1::Verdict::Audit => Ok(Verdict::Audit),
            v1::Verdict::Unspecified => Err(InvalidFilter::Verdict),
        };
        let known = |value: i32| v1::Verdict::try_from(value).map_err(|_| InvalidFilter::Verdict);
        let verdicts = wire.verdicts.into_iter().map(|value| verdict(known(value)?));
        Ok(Self {
            verdicts: verdicts.collect::<Result<_, _>>()?,
            pods: wire.pods.iter().map(|text| PodPattern::new(text)).collect(),
            protocols: wire.protocols,
            statuses: wire
                .http_statuses
                .iter()
                .map(|it| StatusPattern::new(it))
                .collect::<Result<_, _>>()?,
            methods: wire.http_methods,
            paths: wire.http_paths,
        })
    }
}

impl FlowFilter {
    /// Whether `flow` is to be shown.
    pub fn matches(&self, flow: &Flow) -> bool {
        let pod = |pattern: &PodPattern| {
            [&flow.source, &flow.destination]
                .iter()
                .any(|peer| peer.pod.as_ref().is_some_and(|pod| pattern.matches(pod)))
        };
        (self.pods.is_empty() || self.pods.iter().any(pod))
            && (self.verdicts.is_empty() || self.verdicts.contains(&flow.verdict))
            && (self.protocols.is_empty() || self.protocols.iter().any(|it| speaks(flow, it)))
            && self.matches_http(flow.http.as_deref())
    }

    /// Flows that are no request have none of what is asked for here.
    fn matches_http(&self, http: Option<&HttpFlow>) -> bool {
        let is = |wanted: bool, has: &dyn Fn(&HttpFlow) -> bool| !wanted || http.is_some_and(has);
        is(!self.statuses.is_empty(), &|http| {
            let status = http.status.map(|status| status.as_u16());
            let mut wanted = self.statuses.iter();
            status.is_some_and(|status| wanted.any(|it| (it.from..=it.to).contains(&status)))
        }) && is(!self.methods.is_empty(), &|http| {
            let method = http.method.as_ref().map(http::Method::as_str).unwrap_or_default();
            self.methods.iter().any(|it| it.eq_ignore_ascii_case(method))
        }) && is(!self.paths.is_empty(), &|http| {
            self.paths.iter().any(|it| match it.strip_suffix('*') {
                Some(prefix) => http.path.starts_with(prefix),
                None => *http.path == **it,
            })
        })
    }

    /// The last `last` of `flows` (0: all) that match, in their order.
    pub(in crate::observe) fn last_of(&self, flows: Vec<Arc<Flow>>, last: usize) -> Vec<Arc<Flow>> {
        let mut matching: Vec<_> = flows.into_iter().filter(|flow| self.matches(flow)).collect();
        if last != 0 {
            matching.drain(..matching.len().saturating_sub(last));
        }
        matching
    }
}

impl PodPattern {
    fn new(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => {
                Self { namespace: Some(namespace.to_owned()), name: name.to_owned() }
            }
            None => Self { namespace: None, name: text.to_owned() },
        }
    }

    fn matches(&self, pod: &NamespacedName) -> bool {
        *self.name == *pod.name
            && self.namespace.as_deref().is_none_or(|namespace| *namespace == *pod.namespace)
    }
}

/// Whether what was spoken is called `protocol`.
fn speaks(flow: &Flow, protocol: &str) -> bool {
    match &flow.http {
        None => protocol.eq_ignore_ascii_case("tcp"),
        Some(http) => {
            let name = http.protocol.as_str();
            name.eq_ignore_ascii_case(protocol)
                || protocol.eq_ignore_ascii_case("http") && name.starts_with("HTTP")
        }
    }
}

impl StatusPattern {
    fn new(text: &str) -> Result<Self, InvalidFilter> {
        let invalid = || InvalidFilter::Status(text.to_owned());
        let (first, last) = match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            Some(class) => (format!("{class}00"), format!("{class}99")),
            None => (text.to_owned(), text.to_owned()),
        };
        let status = |text: &str| text.parse().ok().filter(|it| (100..600).contains(it));
        let (from, to) = (status(&first).ok_or_else(invalid)?, status(&last).ok_or_else(invalid)?);
        Ok(Self { from, to })
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::observe::{flow::HttpProtocol, tests::flow};

    #[test]
    fn requests_are_found_by_what_they_were() {
        let http = HttpFlow {
            method: Some(Method::GET),
            path: "/api/items".into(),
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            ..HttpFlow::new(HttpProtocol::Http2)
        };
        let request = Flow { http: Some(Box::new(http)), ..flow(1) };
        let matching = |wire: v1::FlowFilter| {
            let filter = FlowFilter::try_from(wire).expect("a good filter");
            (filter.matches(&request), filter.matches(&flow(1)))
        };
        let of = |part: &str, values: &[&str]| {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            let mut wire = v1::FlowFilter::default();
            match part {
                "protocol" => wire.protocols = values,
                "status" => wire.http_statuses = values,
                "method" => wire.http_methods = values,
                _ => wire.http_paths = values,
            }
            matching(wire)
        };
        assert_eq!(of("protocol", &["http"]), (true, false));
        assert_eq!(of("protocol", &["HTTP/1.1", "grpc"]), (false, false));
        assert_eq!(of("protocol", &["tcp", "http/2"]), (true, true));
        assert_eq!(of("status", &["5xx"]), (true, false));
        assert_eq!(of("status", &["404", "503"]), (true, false));
        assert_eq!(of("status", &["4xx"]), (false, false));
        assert_eq!(of("method", &["get"]), (true, false));
        assert_eq!(of("path", &["/api/*"]), (true, false));
        assert_eq!(of("path", &["/api"]), (false, false));
        let wire = v1::FlowFilter { http_statuses: vec!["6xx".into()], ..Default::default() };
        assert_eq!(FlowFilter::try_from(wire).err(), Some(InvalidFilter::Status("6xx".into())));
    }
}
