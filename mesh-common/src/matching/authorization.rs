//! The verdict on one connection.
//!
//! DENY first; then, where any ALLOW policy is attached, one has to match; else the mesh's
//! default holds. A policy that an agent was told of but does not have denies: losing a policy on
//! the way must not open a door.

use std::fmt;

use crate::{
    identity::SpiffeId,
    model::{Action, AuthorizationPolicy, NamespacedName, Operation, Rule, Source},
};

/// One connection, as policies judge it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The caller's verified identity; `None` for plaintext.
    pub source: Option<&'a SpiffeId>,
    /// The port on the workload that is called.
    pub port: u16,
}

/// What policies say of a [`Request`], and which of them decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rule of an ALLOW policy matched.
    Allowed(Reason),
    /// No policy is attached and the mesh allows what nobody speaks of.
    AllowedByDefault,
    /// A rule of a DENY policy matched.
    Denied(Reason),
    /// ALLOW policies are attached and none matched: these.
    NoRuleMatched(Vec<NamespacedName>),
    /// A policy is attached that this agent does not have.
    PolicyMissing(NamespacedName),
}

/// The policy and the rule of it that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The policy.
    pub policy: NamespacedName,
    /// The rule's name or index.
    pub rule: String,
}

impl Verdict {
    /// Whether the connection may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_) | Self::AllowedByDefault)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizationPolicy {} rule {}", self.policy, self.rule)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(reason) => write!(f, "allowed by {reason}"),
            Self::AllowedByDefault => f.write_str("allowed: no policy applies"),
            Self::Denied(reason) => write!(f, "denied by {reason}"),
            Self::NoRuleMatched(policies) => {
                f.write_str("denied: no rule matched of AuthorizationPolicy ")?;
                for (at, policy) in policies.iter().enumerate() {
                    write!(f, "{}{policy}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::PolicyMissing(policy) => {
                write!(f, "denied: AuthorizationPolicy {policy} applies but has not arrived")
            }
        }
    }
}

/// Judges `request` by the policies called `names`, which `find` looks up.
pub fn judge<'p>(
    request: Request<'_>,
    names: &[NamespacedName],
    find: impl Fn(&NamespacedName) -> Option<&'p AuthorizationPolicy>,
) -> Verdict {
    let mut allowed = None;
    let mut unmatched = Vec::new();
    for name in names {
        let Some(policy) = find(name) else {
            return Verdict::PolicyMissing(name.clone());
        };
        let rule = policy.rules.iter().find(|rule| rule_matches(rule, request));
        let reason = rule.map(|rule| Reason { policy: name.clone(), rule: rule.name.to_string() });
        match (policy.action, reason) {
            (Action::Deny, Some(reason)) => return Verdict::Denied(reason),
            (Action::Deny, None) => {}
            (Action::Allow, Some(reason)) => allowed = allowed.or(Some(reason)),
            (Action::Allow, None) => unmatched.push(name.clone()),
        }
    }
    match (allowed, unmatched.is_empty()) {
        (Some(reason), _) => Verdict::Allowed(reason),
        (None, true) => Verdict::AllowedByDefault,
        (None, false) => Verdict::NoRuleMatched(unmatched),
    }
}

fn rule_matches(rule: &Rule, request: Request<'_>) -> bool {
    any_or_empty(&rule.from, |source| source_matches(source, request.source))
        && any_or_empty(&rule.to, |operation| operation_matches(operation, request.port))
}

fn source_matches(source: &Source, caller: Option<&SpiffeId>) -> bool {
    let is_caller = |principal: &SpiffeId| Some(principal) == caller;
    let holds_caller = |namespace: &std::sync::Arc<str>| {
        caller.is_some_and(|caller| caller.namespace() == &**namespace)
    };
    any_or_empty(&source.principals, is_caller) && any_or_empty(&source.namespaces, holds_caller)
}

fn operation_matches(operation: &Operation, port: u16) -> bool {
    any_or_empty(&operation.ports, |allowed| *allowed == port)
}

fn any_or_empty<T>(list: &[T], matches: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> SpiffeId {
        text.parse().expect("a literal identity")
    }

    fn policy(name: &str, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
        AuthorizationPolicy { name: NamespacedName::new("shop", name), action, rules }
    }

    fn rule(principals: &[&str], ports: &[u16]) -> Rule {
        Rule {
            name: "0".into(),
            from: vec![Source {
                principals: principals.iter().map(|text| identity(text)).collect(),
                namespaces: Vec::new(),
            }],
            to: vec![Operation { ports: ports.to_vec() }],
        }
    }

    const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
    const BATCH: &str = "spiffe://cluster.local/ns/shop/sa/batch";

    fn verdict(policies: &[AuthorizationPolicy], source: Option<&str>, port: u16) -> Verdict {
        let names: Vec<_> = policies.iter().map(|policy| policy.name.clone()).collect();
        let source = source.map(identity);
        judge(Request { source: source.as_ref(), port }, &names, |name| {
            policies.iter().find(|policy| policy.name == *name)
        })
    }

    #[test]
    fn without_policies_everything_is_allowed() {
        assert_eq!(verdict(&[], None, 80), Verdict::AllowedByDefault);
    }

    #[test]
    fn an_allow_policy_refuses_what_it_does_not_name() {
        let policies = [policy("web", Action::Allow, vec![rule(&[FRONTEND], &[80])])];
        assert!(verdict(&policies, Some(FRONTEND), 80).is_allowed());
        for (source, port) in [(Some(FRONTEND), 81), (Some(BATCH), 80), (None, 80)] {
            assert_eq!(
                verdict(&policies, source, port).to_string(),
                "denied: no rule matched of AuthorizationPolicy shop/web"
            );
        }
    }

    #[test]
    fn deny_wins_over_allow_in_any_order() {
        let allow = policy("a", Action::Allow, vec![rule(&[FRONTEND], &[])]);
        let deny = policy("d", Action::Deny, vec![rule(&[FRONTEND], &[6379])]);
        for policies in [[allow.clone(), deny.clone()], [deny, allow]] {
            assert!(verdict(&policies, Some(FRONTEND), 80).is_allowed());
            assert_eq!(
                verdict(&policies, Some(FRONTEND), 6379).to_string(),
                "denied by AuthorizationPolicy shop/d rule 0"
            );
        }
    }

    #[test]
    fn a_deny_policy_alone_lets_the_rest_through() {
        let policies = [policy("d", Action::Deny, vec![rule(&[BATCH], &[])])];
        assert_eq!(verdict(&policies, Some(FRONTEND), 80), Verdict::AllowedByDefault);
    }

    #[test]
    fn an_allow_policy_without_rules_allows_nobody() {
        let policies = [policy("none", Action::Allow, Vec::new())];
        assert!(!verdict(&policies, Some(FRONTEND), 80).is_allowed());
    }

    #[test]
    fn a_missing_policy_denies() {
        let names = [NamespacedName::new("shop", "lost")];
        let request = Request { source: None, port: 80 };
        assert_eq!(judge(request, &names, |_| None), Verdict::PolicyMissing(names[0].clone()));
    }
}
