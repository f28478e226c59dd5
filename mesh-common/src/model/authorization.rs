//! Authorization as compiled: selectors are resolved, names are parsed.

use std::{collections::BTreeMap, sync::Arc};

use super::{IpBlock, NamespacedName, Principal};

/// The newest revision of the policy language that this version understands; see
/// [`AuthorizationPolicy::revision`].
pub const POLICY_REVISION: u32 = 1;

/// Who may, or may not, connect to the workloads that this policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace and name.
    pub name: NamespacedName,
    /// What a matching rule does.
    pub action: Action,
    /// Whether the policy decides, or only says what it would decide.
    pub enforcement: Enforcement,
    /// The Service that it is for: of a workload behind it, only the ports that the Service leads
    /// to are concerned. `None`: every port.
    pub service: Option<NamespacedName>,
    /// The labels that select its pods. The controller has resolved them into what is attached to a
    /// workload: people are told of them, and nothing is decided by them.
    pub selector: BTreeMap<Arc<str>, Arc<str>>,
    /// The rules; the policy matches where any of them does, and never where there is none.
    pub rules: Vec<Rule>,
}

impl AuthorizationPolicy {
    /// The lowest revision of the policy language that has everything this policy uses.
    ///
    /// Whoever knows less must not use the policy: a condition that is overlooked makes a rule
    /// match more than was written.
    pub fn revision(&self) -> u32 {
        let is_first = |rule: &Rule| {
            rule.from.iter().all(Source::is_first_revision)
                && rule.to.iter().all(|operation| operation.not_ports.is_empty())
        };
        let first = self.enforcement == Enforcement::Enforce
            && self.service.is_none()
            && self.rules.iter().all(is_first);
        if first { 0 } else { POLICY_REVISION }
    }
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Lets the connection through; a workload with such a policy refuses what none matches.
    #[default]
    Allow,
    /// Refuses the connection, whatever an ALLOW policy says.
    Deny,
}

/// Whether a policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// It does.
    #[default]
    Enforce,
    /// Connections go on as if it were absent; those that it would have refused are reported.
    Audit,
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

/// A caller; every field that is not empty has to match, and none of the not-forms may.
///
/// Who proves no identity is in no list of identities. But it might be anyone: so where a not-form
/// asks for an identity, such a caller never meets an ALLOW rule and always meets a DENY rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// Any of these identities.
    pub principals: Vec<Principal>,
    /// None of these identities.
    pub not_principals: Vec<Principal>,
    /// An identity in any of these namespaces.
    pub namespaces: Vec<Arc<str>>,
    /// An identity in none of these namespaces.
    pub not_namespaces: Vec<Arc<str>>,
    /// Any of these service accounts, of any trust domain.
    pub service_accounts: Vec<NamespacedName>,
    /// None of these service accounts, of any trust domain.
    pub not_service_accounts: Vec<NamespacedName>,
    /// An address in any of these blocks.
    pub ip_blocks: Vec<IpBlock>,
    /// An address in none of these blocks.
    pub not_ip_blocks: Vec<IpBlock>,
}

impl Source {
    /// Whether it uses nothing but what the first revision had: full identities and namespaces.
    fn is_first_revision(&self) -> bool {
        let first = Self {
            principals: self.principals.clone(),
            namespaces: self.namespaces.clone(),
            ..Self::default()
        };
        *self == first && self.principals.iter().all(Principal::is_exact)
    }
}

/// What is called; every field that is not empty has to match, and none of the not-forms may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Any of these ports of the workload.
    pub ports: Vec<u16>,
    /// None of these ports of the workload.
    pub not_ports: Vec<u16>,
}
