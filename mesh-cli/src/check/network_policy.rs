//! Which NetworkPolicies stand in the way of port 15008: pure.

use std::collections::BTreeMap;

use mesh_common::ports::HBONE;
use serde_json::Value;

/// A direction that NetworkPolicies limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into a pod.
    Ingress,
    /// Out of a pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `policyTypes` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }

    fn rules(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Of the `policies` of a pod's namespace those that limit it in `direction`, where none of them
/// lets port 15008 through for anybody. Whom those that do let through is not looked at.
pub fn blocking<'p>(
    policies: &'p [Value],
    labels: &BTreeMap<String, String>,
    direction: Direction,
) -> Vec<&'p Value> {
    let limits = |policy: &&Value| {
        limits(policy, direction) && selects(&policy["spec"]["podSelector"], labels)
    };
    let limiting: Vec<&Value> = policies.iter().filter(limits).collect();
    let is_open = limiting.iter().any(|policy| {
        let rules = policy["spec"][direction.rules()].as_array();
        rules.into_iter().flatten().any(lets_hbone_through)
    });
    if is_open { Vec::new() } else { limiting }
}

/// Ingress is limited where nothing is said, egress only where there are rules for it.
fn limits(policy: &Value, direction: Direction) -> bool {
    match policy["spec"]["policyTypes"].as_array() {
        Some(types) => types.iter().any(|it| it == direction.name()),
        None => direction == Direction::Ingress || !policy["spec"]["egress"].is_null(),
    }
}

fn lets_hbone_through(rule: &Value) -> bool {
    let Some(ports) = rule["ports"].as_array().filter(|ports| !ports.is_empty()) else {
        return true;
    };
    let hbone = u64::from(HBONE);
    ports.iter().any(|port| {
        let is_tcp = port["protocol"].as_str().is_none_or(|it| it == "TCP");
        let first = port["port"].as_u64();
        let is_in = match (first, port["endPort"].as_u64()) {
            (Some(first), Some(last)) => (first..=last).contains(&hbone),
            (Some(first), None) => first == hbone,
            // Left out, every port; a name is one of a container's, none of which is ours.
            (None, _) => port["port"].is_null(),
        };
        is_tcp && is_in
    })
}

/// Whether a label selector selects `labels`; an empty one selects everything.
fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector["matchLabels"].as_object().is_none_or(|wanted| {
        wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
    });
    exact
        && selector["matchExpressions"].as_array().is_none_or(|list| {
            list.iter().all(|expression| {
                let value = labels.get(expression["key"].as_str().unwrap_or_default());
                let is_listed = || {
                    let values = expression["values"].as_array();
                    values.into_iter().flatten().any(|it| it.as_str() == value.map(String::as_str))
                };
                match expression["operator"].as_str() {
                    Some("In") => value.is_some() && is_listed(),
                    Some("NotIn") => !is_listed(),
                    Some("Exists") => value.is_some(),
                    Some("DoesNotExist") => value.is_none(),
                    _ => false,
                }
            })
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: Value) -> Value {
        json!({ "metadata": { "name": "it" }, "spec": spec })
    }

    fn blocks(policies: &[Value], direction: Direction) -> bool {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        !blocking(policies, &labels, direction).is_empty()
    }

    #[test]
    fn port_15008_has_to_be_let_in() {
        let all = json!({});
        let ports =
            |ports: Value| policy(json!({ "podSelector": all, "ingress": [{ "ports": ports }] }));
        for (policies, blocked) in [
            (vec![], false),
            (vec![policy(json!({ "podSelector": all }))], true),
            (vec![policy(json!({ "podSelector": all, "ingress": [{}] }))], false),
            (vec![ports(json!([{ "port": 8080 }]))], true),
            (vec![ports(json!([{ "port": "http" }]))], true),
            (vec![ports(json!([{ "port": 15008, "protocol": "UDP" }]))], true),
            (vec![ports(json!([{ "port": 15008 }]))], false),
            (vec![ports(json!([{ "port": 15000, "endPort": 16000, "protocol": "TCP" }]))], false),
            (vec![ports(json!([{ "port": 8080 }])), ports(json!([{ "port": 15008 }]))], false),
            (vec![policy(json!({ "podSelector": { "matchLabels": { "app": "other" } } }))], false),
            (
                vec![policy(json!({ "podSelector": { "matchExpressions": [
                    { "key": "app", "operator": "NotIn", "values": ["db"] },
                    { "key": "app", "operator": "Exists" },
                ] } }))],
                true,
            ),
        ] {
            assert_eq!(blocks(&policies, Direction::Ingress), blocked, "{policies:?}");
        }
    }

    #[test]
    fn egress_is_limited_where_it_is_spoken_of() {
        let silent = policy(json!({ "podSelector": {} }));
        let denies = policy(json!({ "podSelector": {}, "policyTypes": ["Egress"] }));
        let dns = policy(json!({ "podSelector": {}, "egress": [{ "ports": [{ "port": 53 }] }] }));
        assert!(!blocks(&[silent], Direction::Egress));
        assert!(blocks(std::slice::from_ref(&denies), Direction::Egress));
        assert!(!blocks(&[denies], Direction::Ingress));
        assert!(blocks(&[dns], Direction::Egress));
    }
}
