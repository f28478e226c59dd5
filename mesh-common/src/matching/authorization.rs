//! The verdict on one connection.
//!
//! DENY first; then, where any ALLOW policy governs the port, one has to match; else the mesh's
//! default holds. A policy that an agent was told of but does not have denies: losing a policy on
//! the way must not open a door. Policies that only audit are asked last, of what the others let
//! through.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::{
    identity::SpiffeId,
    model::{Action, AuthorizationPolicy, Enforcement, NamespacedName, Operation, Source},
};

mod prepared;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
mod table;

pub use prepared::{Policies, governed_ports};

/// One connection, as policies judge it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The caller's verified identity; `None` for plaintext.
    pub source: Option<&'a SpiffeId>,
    /// The caller's address.
    pub address: IpAddr,
    /// The port on the workload that is called.
    pub port: u16,
}

/// What policies say of a [`Request`], and which of them decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rule of an ALLOW policy matched.
    Allowed(Reason),
    /// No policy governs this and the mesh allows what nobody speaks of.
    AllowedByDefault,
    /// It goes on, but policies that only audit would have refused it: this would have been said.
    Audited(Box<Verdict>),
    /// A rule of a DENY policy matched.
    Denied(Reason),
    /// ALLOW policies govern the port and none matched: these.
    NoRuleMatched(Arc<[NamespacedName]>),
    /// No policy governs this and the mesh refuses what nobody speaks of.
    DeniedByDefault,
    /// A policy is attached that this agent does not have.
    PolicyMissing(NamespacedName),
}

/// The policy and the rule of it that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The policy.
    pub policy: NamespacedName,
    /// The rule's name or index.
    pub rule: Arc<str>,
}

/// When a policy is asked, of all that are attached to a workload: those that deny before those
/// that allow, and what only audits after what is enforced. Of the same turn the names decide.
pub fn turn(policy: &AuthorizationPolicy) -> impl Ord + use<> {
    (policy.enforcement == Enforcement::Audit, policy.action == Action::Allow)
}

impl Verdict {
    /// Whether the connection may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_) | Self::AllowedByDefault | Self::Audited(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizationPolicy {} rule {}", self.policy, self.rule)
    }
}

/// How many policies a text names before it only counts the rest.
const NAMED: usize = 5;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(reason) => write!(f, "allowed by {reason}"),
            Self::AllowedByDefault => f.write_str("allowed: no policy applies"),
            Self::Audited(verdict) => write!(f, "allowed; without audit: {verdict}"),
            Self::Denied(reason) => write!(f, "denied by {reason}"),
            Self::NoRuleMatched(policies) => {
                f.write_str("denied: no rule matched of AuthorizationPolicy ")?;
                for (at, policy) in policies.iter().take(NAMED).enumerate() {
                    write!(f, "{}{policy}", if at == 0 { "" } else { ", " })?;
                }
                match policies.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::DeniedByDefault => {
                f.write_str("denied by MeshConfig default: no policy allows it")
            }
            Self::PolicyMissing(policy) => {
                write!(
                    f,
                    "denied: AuthorizationPolicy {policy} applies but is not here, or this agent is too old for it"
                )
            }
        }
    }
}

/// Whether `source` is the caller, in a rule of a policy with `action`.
fn source_matches(source: &Source, action: Action, request: Request<'_>) -> bool {
    let Source {
        principals,
        not_principals,
        namespaces,
        not_namespaces,
        service_accounts,
        not_service_accounts,
        ip_blocks,
        not_ip_blocks,
    } = source;
    let of_blocks = (ip_blocks.is_empty()
        || ip_blocks.iter().any(|block| block.contains(request.address)))
        && !not_ip_blocks.iter().any(|block| block.contains(request.address));
    if !of_blocks {
        return false;
    }
    let Some(caller) = request.source else {
        let asks_who =
            !(principals.is_empty() && namespaces.is_empty() && service_accounts.is_empty());
        let asks_who_not = !(not_principals.is_empty()
            && not_namespaces.is_empty()
            && not_service_accounts.is_empty());
        return !asks_who && (!asks_who_not || action == Action::Deny);
    };
    let in_namespace = |it: &Arc<str>| **it == *caller.namespace();
    let is_account = |it: &NamespacedName| {
        *it.namespace == *caller.namespace() && *it.name == *caller.service_account()
    };
    (principals.is_empty() || principals.iter().any(|it| it.matches(caller)))
        && (namespaces.is_empty() || namespaces.iter().any(in_namespace))
        && (service_accounts.is_empty() || service_accounts.iter().any(is_account))
        && !not_principals.iter().any(|it| it.matches(caller))
        && !not_namespaces.iter().any(in_namespace)
        && !not_service_accounts.iter().any(is_account)
}

/// Whether `operation` is what is called.
fn operation_matches(operation: &Operation, request: Request<'_>) -> bool {
    (operation.ports.is_empty() || operation.ports.contains(&request.port))
        && !operation.not_ports.contains(&request.port)
}

#[cfg(test)]
mod tests;
