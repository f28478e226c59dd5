//! What policies mean, worked out one by one: what [`Policies`](super::Policies) is compared with.

use std::sync::Arc;

use super::{Reason, Request, Verdict};
use crate::model::{
    Action, Admission, AuthorizationPolicy, Enforcement, IpBlock, Membership, NamespacedName,
    Operation, PortMapping, Principal, Source, Workload,
};

/// A workload behind shop/web, whose port 80 is 8080 there, with these policies.
pub fn workload(policies: &[AuthorizationPolicy], default_action: Action) -> Workload {
    Workload {
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
            ready: false,
        }],
        authorization_policies: policies.iter().map(|policy| policy.name.clone()).collect(),
        admission: Admission { default_action, ..Admission::default() },
    }
}

/// What `policies`, all that are attached to `workload` and in its order, say of `request`.
pub fn judge(
    policies: &[AuthorizationPolicy],
    workload: &Workload,
    request: Request<'_>,
) -> Verdict {
    let enforced = decide(policies, workload, request, &[Enforcement::Enforce]);
    if !enforced.is_allowed() {
        return enforced;
    }
    let both = [Enforcement::Enforce, Enforcement::Audit];
    match decide(policies, workload, request, &both) {
        Verdict::Allowed(_) | Verdict::AllowedByDefault => enforced,
        refused => Verdict::Audited(Box::new(refused)),
    }
}

fn decide(
    policies: &[AuthorizationPolicy],
    workload: &Workload,
    request: Request<'_>,
    who: &[Enforcement],
) -> Verdict {
    let of = |action: Action| {
        policies.iter().filter(move |policy| {
            policy.action == action
                && who.contains(&policy.enforcement)
                && governs(policy, workload, request.port)
        })
    };
    let first = |action: Action| of(action).find_map(|policy| reason(policy, request));
    if let Some(reason) = first(Action::Deny) {
        return Verdict::Denied(reason);
    }
    if let Some(reason) = first(Action::Allow) {
        return Verdict::Allowed(reason);
    }
    let governing: Vec<_> = of(Action::Allow).map(|policy| policy.name.clone()).collect();
    match (governing.is_empty(), workload.admission.default_action) {
        (false, _) => Verdict::NoRuleMatched(governing.into()),
        (true, Action::Allow) => Verdict::AllowedByDefault,
        (true, Action::Deny) => Verdict::DeniedByDefault,
    }
}

fn governs(policy: &AuthorizationPolicy, workload: &Workload, port: u16) -> bool {
    let Some(service) = &policy.service else { return true };
    let mut memberships = workload.memberships.iter();
    memberships.any(|it| {
        it.service == *service && it.ports.iter().any(|mapping| mapping.target_port == port)
    })
}

fn reason(policy: &AuthorizationPolicy, request: Request<'_>) -> Option<Reason> {
    let mut rules = policy.rules.iter();
    let rule = rules.find(|rule| {
        (rule.from.is_empty() || rule.from.iter().any(|it| is_from(it, policy.action, request)))
            && (rule.to.is_empty() || rule.to.iter().any(|it| is_to(it, request.port)))
    })?;
    Some(Reason { policy: policy.name.clone(), rule: rule.name.clone() })
}

fn is_from(source: &Source, action: Action, request: Request<'_>) -> bool {
    let principal = |it: &Principal| request.source.map(|caller| it.matches(caller));
    let namespace = |it: &Arc<str>| request.source.map(|caller| caller.namespace() == &**it);
    let account = |it: &NamespacedName| {
        request.source.map(|caller| {
            caller.namespace() == &*it.namespace && caller.service_account() == &*it.name
        })
    };
    let block = |it: &IpBlock| it.contains(request.address);
    named(&source.principals, principal)
        && named(&source.namespaces, namespace)
        && named(&source.service_accounts, account)
        && not_named(&source.not_principals, action, principal)
        && not_named(&source.not_namespaces, action, namespace)
        && not_named(&source.not_service_accounts, action, account)
        && (source.ip_blocks.is_empty() || source.ip_blocks.iter().any(block))
        && !source.not_ip_blocks.iter().any(block)
}

/// `is` gives nothing for who has no identity.
fn named<T>(list: &[T], is: impl Fn(&T) -> Option<bool>) -> bool {
    list.is_empty() || list.iter().any(|it| is(it) == Some(true))
}

fn not_named<T>(list: &[T], action: Action, is: impl Fn(&T) -> Option<bool>) -> bool {
    list.iter().all(|it| match is(it) {
        Some(is) => !is,
        None => action == Action::Deny,
    })
}

fn is_to(operation: &Operation, port: u16) -> bool {
    (operation.ports.is_empty() || operation.ports.contains(&port))
        && !operation.not_ports.contains(&port)
}
