//! What decides over connections to a workload, as messages: how agents tell it, and `nodemesh`
//! where it works with objects alone.

use std::borrow::Borrow;

use super::v1;
use crate::{
    matching::authorization::{Verdict, governed_ports, turn},
    model::{AuthorizationPolicy, NamespacedName, Workload},
};

/// The policies that are attached to `workload`, in the order in which they are asked. `find` looks
/// one up, or says why it is not in use; such a policy comes first, since it denies.
pub fn attached_policies<P: Borrow<AuthorizationPolicy>>(
    workload: &Workload,
    find: impl Fn(&NamespacedName) -> Result<P, String>,
) -> Vec<v1::AttachedPolicy> {
    let names = workload.authorization_policies.iter();
    let mut found: Vec<_> = names.map(|name| (name, find(name))).collect();
    found.sort_by_key(|(_, found)| found.as_ref().ok().map(|policy| turn(policy.borrow())));
    let attached = found.into_iter().map(|(name, found)| {
        let name = Some(name.into());
        match found {
            Err(refusal) => v1::AttachedPolicy { name, refusal, ..Default::default() },
            Ok(policy) => {
                let policy = policy.borrow();
                let ports = governed_ports(policy, workload).unwrap_or_default();
                let ports = ports.into_iter().map(u32::from).collect();
                v1::AttachedPolicy {
                    name,
                    policy: Some(policy.into()),
                    ports,
                    ..Default::default()
                }
            }
        }
    });
    attached.collect()
}

/// `verdict` and what decided; who called is left to be filled in.
pub fn judgement(verdict: &Verdict) -> v1::Judgement {
    let (policies, rule) = decided(verdict);
    v1::Judgement {
        allowed: verdict.is_allowed(),
        reason: verdict.to_string(),
        policies: policies.iter().map(Into::into).collect(),
        rule,
        ..Default::default()
    }
}

fn decided(verdict: &Verdict) -> (Vec<NamespacedName>, String) {
    match verdict {
        Verdict::Allowed(reason) | Verdict::Denied(reason) => {
            (vec![reason.policy.clone()], reason.rule.to_string())
        }
        Verdict::Audited(verdict) => decided(verdict),
        Verdict::NoRuleMatched(policies) => (policies.to_vec(), String::new()),
        Verdict::PolicyMissing(policy) => (vec![policy.clone()], String::new()),
        Verdict::AllowedByDefault | Verdict::DeniedByDefault => (Vec::new(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        matching::authorization::Reason,
        model::{Action, Enforcement, Membership, PortMapping},
    };

    fn policy(name: &str, action: Action, enforcement: Enforcement) -> AuthorizationPolicy {
        AuthorizationPolicy {
            name: NamespacedName::new("shop", name),
            action,
            enforcement,
            service: Some(NamespacedName::new("shop", "web")),
            selector: Default::default(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn policies_come_in_the_order_in_which_they_are_asked() {
        let policies = [
            policy("a", Action::Deny, Enforcement::Audit),
            policy("b", Action::Allow, Enforcement::Enforce),
            policy("c", Action::Deny, Enforcement::Enforce),
            policy("e", Action::Allow, Enforcement::Audit),
        ];
        let names = policies.iter().map(|it| it.name.clone());
        let workload = Workload {
            name: NamespacedName::new("shop", "web"),
            uid: "uid".into(),
            node: None,
            addresses: Vec::new(),
            identity: None,
            enrolled: true,
            captured: true,
            memberships: vec![Membership {
                service: NamespacedName::new("shop", "web"),
                ports: vec![PortMapping { service_port: 80, target_port: 8080 }],
                ready: true,
            }],
            authorization_policies: names.chain([NamespacedName::new("shop", "lost")]).collect(),
            admission: Default::default(),
        };
        let attached = attached_policies(&workload, |name| {
            policies.iter().find(|it| it.name == *name).ok_or_else(|| "too new".to_owned())
        });
        let order = attached.iter().filter_map(|it| it.name.as_ref()).map(|it| it.name.as_str());
        assert_eq!(order.collect::<Vec<_>>(), ["lost", "c", "b", "a", "e"]);
        assert_eq!((attached[0].refusal.as_str(), &attached[0].policy), ("too new", &None));
        assert_eq!(attached[1].ports, [8080]);
    }

    #[test]
    fn a_judgement_names_what_decided() {
        let reason = Reason { policy: NamespacedName::new("shop", "a"), rule: "who".into() };
        let audited = judgement(&Verdict::Audited(Box::new(Verdict::Denied(reason))));
        assert!(audited.allowed);
        assert_eq!(audited.policies, [(&NamespacedName::new("shop", "a")).into()]);
        assert_eq!(audited.rule, "who");
        let none = [NamespacedName::new("shop", "a"), NamespacedName::new("shop", "b")];
        let unmatched = judgement(&Verdict::NoRuleMatched(none.into()));
        assert_eq!((unmatched.allowed, unmatched.policies.len()), (false, 2));
        assert!(judgement(&Verdict::DeniedByDefault).policies.is_empty());
    }
}
