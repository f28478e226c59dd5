//! The policies of one workload, prepared so that a verdict takes a few hash lookups, however many
//! policies there are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Reason, Request, Verdict,
    table::{Rank, Table},
};
use crate::model::{Action, AuthorizationPolicy, Enforcement, NamespacedName, Workload};

/// The policies of one workload, ready to judge.
#[derive(Debug)]
pub struct Policies {
    default_action: Action,
    missing: Option<NamespacedName>,
    /// What a [`Rank`] refers to: each policy and its rules.
    names: Vec<(NamespacedName, Vec<Arc<str>>)>,
    enforced: Actions,
    audited: Actions,
}

/// The policies that enforce, or those that audit.
#[derive(Debug)]
struct Actions {
    deny: Table,
    allow: Table,
    governing: Governing,
}

/// Which ALLOW policies have a say at a port.
#[derive(Debug, Default)]
struct Governing {
    elsewhere: Arc<[NamespacedName]>,
    at_ports: HashMap<u16, Arc<[NamespacedName]>>,
}

impl Policies {
    /// The policies that are attached to `workload`, which `find` looks up.
    pub fn new<'p>(
        workload: &Workload,
        find: impl Fn(&NamespacedName) -> Option<&'p AuthorizationPolicy>,
    ) -> Self {
        let mut missing = None;
        let mut attached = Vec::new();
        for name in &workload.authorization_policies {
            match find(name) {
                Some(policy) => attached.push((policy, governed_ports(policy, workload))),
                None => missing = missing.or_else(|| Some(name.clone())),
            }
        }
        let names = attached.iter().map(|(policy, _)| {
            (policy.name.clone(), policy.rules.iter().map(|rule| rule.name.clone()).collect())
        });
        Self {
            default_action: workload.admission.default_action,
            missing,
            names: names.collect(),
            enforced: Actions::new(&attached, Enforcement::Enforce),
            audited: Actions::new(&attached, Enforcement::Audit),
        }
    }

    /// What the policies say of `request`.
    pub fn judge(&self, request: Request<'_>) -> Verdict {
        if let Some(missing) = &self.missing {
            return Verdict::PolicyMissing(missing.clone());
        }
        if let Some(rank) = self.enforced.deny.first_match(request) {
            return Verdict::Denied(self.reason(rank));
        }
        let verdict = match self.enforced.allowed(request) {
            Ok(rank) => Verdict::Allowed(self.reason(rank)),
            Err(governing) if !governing.is_empty() => {
                return Verdict::NoRuleMatched(governing.clone());
            }
            Err(_) => match self.default_action {
                Action::Allow => Verdict::AllowedByDefault,
                Action::Deny => return Verdict::DeniedByDefault,
            },
        };
        if let Some(rank) = self.audited.deny.first_match(request) {
            return Verdict::Audited(Box::new(Verdict::Denied(self.reason(rank))));
        }
        match (&verdict, self.audited.allowed(request)) {
            (Verdict::AllowedByDefault, Err(governing)) if !governing.is_empty() => {
                Verdict::Audited(Box::new(Verdict::NoRuleMatched(governing.clone())))
            }
            _ => verdict,
        }
    }

    fn reason(&self, rank: Rank) -> Reason {
        let (policy, rules) = &self.names[rank.policy as usize];
        Reason { policy: policy.clone(), rule: rules[rank.rule as usize].clone() }
    }
}

/// The ports that `policy` is about on `workload`; `None` for all.
pub fn governed_ports(policy: &AuthorizationPolicy, workload: &Workload) -> Option<Vec<u16>> {
    let service = policy.service.as_ref()?;
    let of_service = workload.memberships.iter().filter(|it| it.service == *service);
    let mut ports: Vec<u16> =
        of_service.flat_map(|it| &it.ports).map(|mapping| mapping.target_port).collect();
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

type Attached<'p> = (&'p AuthorizationPolicy, Option<Vec<u16>>);

impl Actions {
    fn new(attached: &[Attached<'_>], enforcement: Enforcement) -> Self {
        let mut actions = Self {
            deny: Table::new(Action::Deny),
            allow: Table::new(Action::Allow),
            governing: Governing::default(),
        };
        let mut allowing = Vec::new();
        for (at, (policy, scope)) in attached.iter().enumerate() {
            if policy.enforcement != enforcement {
                continue;
            }
            let table = match policy.action {
                Action::Deny => &mut actions.deny,
                Action::Allow => {
                    allowing.push((&policy.name, scope.as_deref()));
                    &mut actions.allow
                }
            };
            for (rule_at, rule) in policy.rules.iter().enumerate() {
                table.insert(
                    Rank { policy: at as u32, rule: rule_at as u32 },
                    rule,
                    scope.as_deref(),
                );
            }
        }
        actions.governing = Governing::new(&allowing);
        actions
    }

    /// The ALLOW rule that matches, or those policies that would have had to.
    fn allowed(&self, request: Request<'_>) -> Result<Rank, &Arc<[NamespacedName]>> {
        self.allow.first_match(request).ok_or_else(|| self.governing.at(request.port))
    }
}

impl Governing {
    fn new(allowing: &[(&NamespacedName, Option<&[u16]>)]) -> Self {
        let everywhere = allowing.iter().filter(|(_, scope)| scope.is_none());
        let elsewhere = everywhere.map(|(name, _)| (*name).clone()).collect();
        let mut ports: BTreeMap<u16, Arc<[NamespacedName]>> = BTreeMap::new();
        for port in allowing.iter().filter_map(|(_, scope)| *scope).flatten() {
            ports.entry(*port).or_insert_with(|| {
                let here = allowing
                    .iter()
                    .filter(|(_, scope)| scope.is_none_or(|ports| ports.contains(port)));
                here.map(|(name, _)| (*name).clone()).collect()
            });
        }
        Self { elsewhere, at_ports: ports.into_iter().collect() }
    }

    fn at(&self, port: u16) -> &Arc<[NamespacedName]> {
        self.at_ports.get(&port).unwrap_or(&self.elsewhere)
    }
}
