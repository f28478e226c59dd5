//! Faults for other processes: `POST /admin/<fault>` with an administrator's certificate.
//!
//! `cut-watches`, `cut-watches-in-event`, `expire-watches`, `refuse-watches?watches=1`, `bookmark`,
//! `compact`, `expire-tokens`, `delay?milliseconds=100`, `heal`, `reset-counts`, and
//! `fail?requests=1&code=503&retryAfter=1&verb=list&resource=pods`. `GET /admin/counts` tells how
//! many requests there were, as `{"list pods": 1}`.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::{api::Answer, cluster::Cluster, error::ApiError, fault::Failure, request::Request};

/// Does what the path says.
pub fn answer(cluster: &Cluster, request: &Request, fault: &str) -> Result<Answer, ApiError> {
    if !request.user.is_master() {
        return Err(ApiError::forbidden_path(&request.user.name, "post", &request.path));
    }
    if (&request.method, fault) == (&Method::GET, "counts") {
        return Ok(Answer::ok(&counts(cluster)));
    }
    if request.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let faults = &cluster.faults;
    let number = |key| request.query.number(key);
    match fault {
        "cut-watches" => faults.cut(|cut| cut.now += 1),
        "cut-watches-in-event" => faults.cut(|cut| cut.in_event += 1),
        "expire-watches" => faults.cut(|cut| cut.gone += 1),
        "bookmark" => faults.cut(|cut| cut.bookmark += 1),
        "refuse-watches" => faults.watches_gone(number("watches")?.unwrap_or(1)),
        "compact" => cluster.store.lock().compact(),
        "expire-tokens" => cluster.tokens.expire(),
        "delay" => {
            faults.set_delay(Duration::from_millis(number("milliseconds")?.unwrap_or(0)));
        }
        "heal" => faults.clear(),
        "reset-counts" => faults.reset_counts(),
        "fail" => faults.fail(Failure {
            requests: number("requests")?.unwrap_or(1),
            code: number("code")?.and_then(|code| code.try_into().ok()).unwrap_or(500),
            retry_after: number("retryAfter")?,
            verb: request.query.get("verb").map(str::to_owned),
            resource: request.query.get("resource").map(str::to_owned),
        }),
        _ => return Err(ApiError::no_such_resource()),
    }
    Ok(Answer::Text(StatusCode::OK, "ok"))
}

fn counts(cluster: &Cluster) -> Value {
    let counts = cluster.faults.counts().into_iter();
    let named: Map<_, _> = counts
        .map(|((verb, resource), count)| (format!("{verb} {resource}"), count.into()))
        .collect();
    named.into()
}
