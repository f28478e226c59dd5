//! Which NetworkPolicies stand in the way of port 15008: pure.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_common::{model::IpBlock, ports::HBONE};
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

    fn peers(self) -> &'static str {
        match self {
            Self::Ingress => "from",
            Self::Egress => "to",
        }
    }
}

/// A pod that may be at the other end of a tunnel.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A NetworkPolicy, with what is the same for every pod that it is for.
pub struct Policy<'p> {
    /// The object.
    pub object: &'p Value,
    /// Whether it lets port 15008 through for anybody of the mesh, by direction.
    opens: [bool; 2],
}

impl<'p> Policy<'p> {
    /// The policy `object` in a mesh of `peers`.
    pub fn new(object: &'p Value, peers: &[Peer]) -> Self {
        let opens = Direction::ALL.map(|direction| {
            let rules = object["spec"][direction.rules()].as_array();
            rules.into_iter().flatten().any(|rule| {
                lets_hbone_through(rule) && is_for_some(object, &rule[direction.peers()], peers)
            })
        });
        Self { object, opens }
    }
}

/// Of the `policies` of a pod's namespace those that limit it in `direction`, where none of them
/// lets port 15008 through for anybody of the mesh. That it does so for some and not for others is
/// what a policy may be for.
pub fn blocking<'p>(
    policies: &[Policy<'p>],
    labels: &BTreeMap<String, String>,
    direction: Direction,
) -> Vec<&'p Value> {
    let limiting = policies.iter().filter(|policy| {
        limits(policy.object, direction) && selects(&policy.object["spec"]["podSelector"], labels)
    });
    let limiting: Vec<_> = limiting.collect();
    let is_open = limiting.iter().any(|policy| policy.opens[direction as usize]);
    if is_open { Vec::new() } else { limiting.iter().map(|policy| policy.object).collect() }
}

/// Whether `list`, the `from` or `to` of a rule, is for any of `peers`.
fn is_for_some(policy: &Value, list: &Value, peers: &[Peer]) -> bool {
    let Some(list) = list.as_array().filter(|list| !list.is_empty()) else { return true };
    let own = policy["metadata"]["namespace"].as_str().unwrap_or_default();
    list.iter().any(|it| {
        peers.iter().any(|peer| match &it["ipBlock"] {
            Value::Null => {
                let is_near = match &it["namespaceSelector"] {
                    Value::Null => peer.namespace == own,
                    selector => selects(selector, &peer.namespace_labels),
                };
                is_near && selects(&it["podSelector"], &peer.labels)
            }
            block => {
                let without = block["except"].as_array().into_iter().flatten();
                let is_in = |address| holds(&block["cidr"], address);
                let is_out = |address| without.clone().any(|it| holds(it, address));
                peer.addresses.iter().any(|&address| is_in(address) && !is_out(address))
            }
        })
    })
}

/// Whether an address is in a block. One that is not understood is taken to hold it.
fn holds(block: &Value, address: IpAddr) -> bool {
    let text = block.as_str().unwrap_or_default();
    let Some((first, prefix)) = text.split_once('/') else { return true };
    match (first.parse(), prefix.parse()) {
        (Ok(first), Ok(prefix)) => IpBlock::around(first, prefix).contains(address),
        _ => true,
    }
}

/// The labels of an object.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default()
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
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
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
        let peer = Peer {
            namespace: "shop".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "frontend".to_owned())]),
            namespace_labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            addresses: vec![IpAddr::from([10, 0, 0, 7])],
        };
        let policies: Vec<_> =
            policies.iter().map(|it| Policy::new(it, std::slice::from_ref(&peer))).collect();
        !blocking(&policies, &labels, direction).is_empty()
    }

    #[test]
    fn port_15008_has_to_be_let_in_from_somebody_of_the_mesh() {
        let from = |peer: Value| {
            json!({
                "metadata": { "name": "it", "namespace": "shop" },
                "spec": { "podSelector": {}, "ingress": [{ "from": [peer] }] },
            })
        };
        for (peer, blocked) in [
            (json!({ "podSelector": {} }), false),
            (json!({ "podSelector": { "matchLabels": { "app": "frontend" } } }), false),
            (json!({ "podSelector": { "matchLabels": { "app": "gone" } } }), true),
            (json!({ "namespaceSelector": { "matchLabels": { "team": "a" } } }), false),
            (json!({ "namespaceSelector": { "matchLabels": { "team": "b" } } }), true),
            (json!({ "ipBlock": { "cidr": "10.0.0.0/8" } }), false),
            (json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"] } }), true),
            (json!({ "ipBlock": { "cidr": "192.168.0.0/16" } }), true),
        ] {
            assert_eq!(blocks(&[from(peer.clone())], Direction::Ingress), blocked, "{peer}");
        }
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
