//! Authorization as compiled: selectors are resolved, names are parsed.

use std::sync::Arc;

use super::NamespacedName;
use crate::identity::SpiffeId;

/// Who may, or may not, connect to the workloads that this policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace and name.
    pub name: NamespacedName,
    /// What a matching rule does.
    pub action: Action,
    /// The rules; the policy matches where any of them does, and never where there is none.
    pub rules: Vec<Rule>,
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets the connection through; a workload with such a policy refuses what none matches.
    Allow,
    /// Refuses the connection, whatever an ALLOW policy says.
    Deny,
}

/// Matches where one of `from` and one of `to` match; an empty list matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The rule's name, or its index in the policy: what flows call it.
    pub name: Arc<str>,
    /// The callers.
    pub from: Vec<Source>,
    /// What they call.
    pub to: Vec<Operation>,
}

/// A caller; every field that is not empty has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Any of these identities.
    pub principals: Vec<SpiffeId>,
    /// An identity in any of these namespaces.
    pub namespaces: Vec<Arc<str>>,
}

/// What is called; every field that is not empty has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Any of these ports of the workload.
    pub ports: Vec<u16>,
}
