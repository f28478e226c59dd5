//! The values that are in effect for a pod, and where each comes from.

use mesh_common::model::{Action, PeerMode, Workload};
use mesh_controller::object::MeshConfig;

use super::{Seen, enrolment, yes};
use crate::output;

/// A row a value.
pub fn shown(seen: &Seen, workload: &Workload) -> String {
    let config = match seen.picture.config() {
        Some(_) => format!("MeshConfig {}", MeshConfig::name().name),
        None => "built-in default: there is no MeshConfig".to_owned(),
    };
    let from = match &workload.admission.peer_policy {
        Some(policy) => format!("PeerPolicy {policy}"),
        None => config.clone(),
    };
    let mode = |mode| match mode {
        PeerMode::Strict => "STRICT",
        PeerMode::Permissive => "PERMISSIVE",
    };
    let mut table = vec![["SETTING", "VALUE", "FROM"].map(str::to_owned).to_vec()];
    let mut add = |setting: &str, value: &str, from: &str| {
        table.push([setting, value, from].map(str::to_owned).to_vec());
    };
    let why = match workload.enrolled {
        true => enrolment::source(seen, &workload.name),
        false => enrolment::why_not(seen, workload),
    };
    add("in the mesh", &yes(workload.enrolled), &why);
    let domain = seen.picture.domain().to_string();
    add("trust domain", &domain, "the controller's --trust-domain, or its default");
    add("peer mode", mode(workload.admission.peer_mode), &from);
    for it in &workload.admission.port_modes {
        add(&format!("peer mode of port {}", it.port), mode(it.mode), &from);
    }
    let default = match workload.admission.default_action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
    };
    add("what no policy governs", default, &config);
    for policy in &workload.authorization_policies {
        add("authorization", &policy.to_string(), "AuthorizationPolicy");
    }
    output::columns("", &table)
}
