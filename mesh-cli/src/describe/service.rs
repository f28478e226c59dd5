//! What the mesh makes of a Service.

use mesh_common::model::Service;
use mesh_controller::{compile::ParentStatus, object::ObjectKey};

use super::{Seen, plaintext, rows, yes};
use crate::output;

/// Its addresses and ports, its pods, and the routes that are for it.
pub fn shown(seen: &Seen, service: &Service) -> String {
    let Service { name, addresses, ports, .. } = service;
    let pods = seen.compiled.workloads().filter_map(|workload| {
        let membership = workload.memberships.iter().find(|it| it.service == *name)?;
        Some((workload, membership))
    });
    let mut text = rows(&[
        ("service", name.to_string()),
        ("addresses", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("ports", ports.iter().map(|it| it.port.to_string()).collect::<Vec<_>>().join(", ")),
    ]);
    let head = ["POD", "IN THE MESH", "CAPTURED", "READY", "PLAINTEXT"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for (workload, membership) in pods {
        table.push(vec![
            workload.name.to_string(),
            yes(workload.enrolled),
            yes(workload.captured),
            yes(membership.ready),
            plaintext(workload),
        ]);
    }
    text.push('\n');
    text.push_str(&output::columns("", &table));
    let routes = routes(seen, service);
    if !routes.is_empty() {
        let head = ["ROUTE", "PORT", "ATTACHED"].map(str::to_owned).to_vec();
        let table: Vec<_> = [head].into_iter().chain(routes).collect();
        text.push('\n');
        text.push_str(&output::columns("", &table));
    }
    text
}

/// A row a route and parent that is this Service, also where it is not accepted there.
fn routes(seen: &Seen, service: &Service) -> Vec<Vec<String>> {
    let row = |(route, parent): (&ObjectKey, &ParentStatus)| {
        let port = parent.parent_ref.port.map_or("all".to_owned(), |port| port.to_string());
        vec![route.to_string(), port, attached(parent)]
    };
    seen.compiled.parents(&service.name).map(row).collect()
}

/// Whether a route is in use there, or what is wrong with it.
fn attached(parent: &ParentStatus) -> String {
    let wrong = parent.conditions.iter().find(|it| match it.type_ {
        "PartiallyInvalid" => it.status,
        _ => !it.status,
    });
    match wrong {
        None => yes(true),
        Some(it) if it.type_ == "Accepted" => format!("no: {}: {}", it.reason, it.message),
        Some(it) => format!("yes, but {}: {}", it.reason, it.message),
    }
}
