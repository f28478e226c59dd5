//! What Prometheus reads.

use http::StatusCode;
use mesh_common::model::NamespacedName;

use super::*;
use crate::observe::{
    Observer,
    flow::{HttpFlow, HttpProtocol, Peer, Reporter, Security, Verdict},
    tests::flow,
};

fn observe(flows: impl IntoIterator<Item = Flow>) -> String {
    let metrics = Arc::new(Metrics::new());
    let observer = Observer::new(4, Arc::clone(&metrics));
    for flow in flows {
        if flow.verdict == Verdict::Forwarded {
            observer.opened(flow.edge());
        }
        observer.record(flow);
    }
    metrics.encode()
}

#[test]
fn names_workloads_and_never_pods() {
    let text = observe([flow(1), flow(2)]);
    let labels = "reporter=\"source\",source_namespace=\"shop\",source_account=\"frontend\",\
         destination_namespace=\"shop\",destination_account=\"web\",\
         destination_service_namespace=\"shop\",destination_service=\"web\",security=\"mtls\"";
    for line in [
        format!("nodemesh_connections_opened_total{{{labels}}} 2"),
        format!("nodemesh_connections_closed_total{{{labels},verdict=\"forwarded\"}} 2"),
        format!("nodemesh_sent_bytes_total{{{labels},verdict=\"forwarded\"}} 20"),
        format!("nodemesh_received_bytes_total{{{labels},verdict=\"forwarded\"}} 40"),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    assert!(text.contains(concat!("nodemesh_build_info{version=\"", env!("CARGO_PKG_VERSION"))));
    assert!(!text.contains("frontend-1"), "no pod is a label:\n{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_is_refused_is_opened_and_closed_at_once() {
    let denied = Flow {
        reporter: Reporter::Destination,
        security: Security::Plaintext,
        verdict: Verdict::Denied,
        source: Peer::default(),
        service: None,
        ..flow(1)
    };
    let text = observe([denied]);
    let labels = "reporter=\"destination\",source_namespace=\"unknown\",source_account=\"unknown\",\
         destination_namespace=\"shop\",destination_account=\"web\",\
         destination_service_namespace=\"\",destination_service=\"\",security=\"plaintext\"";
    for line in [
        format!("nodemesh_connections_opened_total{{{labels}}} 1"),
        format!("nodemesh_connections_closed_total{{{labels},verdict=\"denied\"}} 1"),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
}

#[test]
fn payload_is_counted_while_it_moves_and_once() {
    let metrics = Arc::new(Metrics::new());
    let observer = Observer::new(4, Arc::clone(&metrics));
    let ended = flow(1);
    let series = Series::new(ended.edge(), Verdict::Forwarded);
    observer.opened(ended.edge());
    let is_counted = |family: &str, verdict: &str, count: u64| {
        let text = metrics.encode();
        let line = text.lines().find(|line| {
            line.starts_with(&format!("nodemesh_{family}_total{{"))
                && line.contains(&format!("verdict=\"{verdict}\""))
        });
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{text}");
    };
    observer.moved(&series, Payload { sent: 4, received: 0 });
    is_counted("sent_bytes", "forwarded", 4);
    is_counted("connections_closed", "forwarded", 0);
    observer.moved(&series, Payload { sent: 1, received: 20 });
    // Its right was taken away: what came after the last time ends there.
    let ended = Flow { verdict: Verdict::Denied, ..ended };
    observer.ended_after(ended, Payload { sent: 5, received: 20 });
    is_counted("sent_bytes", "forwarded", 5);
    is_counted("sent_bytes", "denied", 5);
    assert_eq!(observer.recent(0, &Default::default())[0].bytes_sent, 10);
}

#[test]
fn a_full_family_counts_the_rest_together() {
    let of = |at: usize| {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/caller-{at}");
        let identity = Some(identity.parse().expect("an identity"));
        Flow { source: Peer { identity, ..Peer::default() }, ..flow(1) }
    };
    let text = observe((0..SERIES_LIMIT + 10).map(of));
    let series = text.lines().filter(|line| line.starts_with("nodemesh_connections_opened_total{"));
    assert_eq!(series.count(), SERIES_LIMIT + 1);
    let other = text.lines().find(|line| {
        line.starts_with("nodemesh_connections_opened_total{")
            && line.contains("source_account=\"other\"")
    });
    assert!(other.is_some_and(|line| line.ends_with(" 10")), "{other:?}");
    assert!(text.contains("nodemesh_metrics_overflows_total 20"));
}

#[test]
fn requests_are_counted_by_outcome_and_timed() {
    let metrics = Arc::new(Metrics::new());
    let observer = Observer::new(4, Arc::clone(&metrics));
    for (status, millis) in [(200, 2), (200, 20_000), (503, 2)] {
        let http = HttpFlow {
            status: StatusCode::from_u16(status).ok(),
            code: (status == 503).then_some("no_endpoint"),
            // The called Service's name says nothing of which version answered.
            backend: (status == 200).then(|| NamespacedName::new("shop", "web-v2")),
            ..HttpFlow::new(HttpProtocol::Http1)
        };
        let duration = std::time::Duration::from_millis(millis);
        observer.request(Flow { http: Some(Box::new(http)), duration, ..flow(1) });
    }
    let text = metrics.encode();
    let line = |name: &str, labels: &[&str]| {
        let mut lines = text.lines().filter(|line| line.starts_with(name));
        let line = lines.find(|line| labels.iter().all(|label| line.contains(label)));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    let backend = ["backend_service_namespace=\"shop\"", "backend_service=\"web-v2\""];
    assert_eq!(line("nodemesh_requests_total{", &backend), "2");
    let ok = ["protocol=\"HTTP/1.1\"", "response_code=\"200\"", "grpc_status=\"\"", "error=\"\""];
    assert_eq!(line("nodemesh_requests_total{", &ok), "2");
    let failed = ["response_code=\"503\"", "error=\"no_endpoint\"", "backend_service=\"\""];
    assert_eq!(line("nodemesh_requests_total{", &failed), "1");
    let took = "nodemesh_request_duration_seconds";
    for (bound, count) in [("0.001", "0"), ("0.0025", "1"), ("10.0", "1"), ("+Inf", "2")] {
        let labels = [&*format!("le=\"{bound}\""), backend[1]];
        assert_eq!(line(&format!("{took}_bucket{{"), &labels), count, "{bound}");
    }
    for (backend, count, sum) in
        [(backend[1], "2", "20.002"), ("backend_service=\"\"", "1", "0.002")]
    {
        assert_eq!(line(&format!("{took}_count{{"), &[backend]), count);
        assert!(line(&format!("{took}_sum{{"), &[backend]).starts_with(sum));
    }
}
