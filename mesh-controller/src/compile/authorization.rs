//! Which AuthorizationPolicies apply to which pod.

use std::collections::{BTreeMap, BTreeSet};

use mesh_common::{
    SYSTEM_NAMESPACE,
    model::{Membership, NamespacedName},
};

use super::Problems;
use crate::{
    index::Index,
    object::{Kind, Labels, Pod, Policy},
};

/// The policies by the namespace that they are for, filed under what they select by, so that a pod
/// is not compared with each of thousands.
pub(super) struct Attachments<'o> {
    by_namespace: BTreeMap<&'o str, Selected<'o>>,
}

#[derive(Default)]
struct Selected<'o> {
    /// Those that select every pod.
    all: Vec<&'o Policy>,
    /// The others, by one of the labels that a pod must have.
    by_label: BTreeMap<(&'o str, &'o str), Vec<&'o Policy>>,
}

impl<'o> Attachments<'o> {
    pub fn new(index: &Index<'o>) -> Self {
        let mut by_namespace: BTreeMap<&str, Selected<'_>> = BTreeMap::new();
        for policy in index.policies.values().copied() {
            let selected = by_namespace.entry(&policy.compiled.name.namespace).or_default();
            match policy.match_labels.first_key_value() {
                None => selected.all.push(policy),
                Some((key, value)) => {
                    selected.by_label.entry((key, value)).or_default().push(policy);
                }
            }
        }
        Self { by_namespace }
    }

    /// The names of the policies that apply to `pod`, sorted: those of its own namespace, and those
    /// of nodemesh-system, which are for the whole mesh; for a Service, where it stands behind it.
    pub fn of(&self, pod: &Pod, memberships: &[Membership]) -> Vec<NamespacedName> {
        let is_behind = |policy: &&&Policy| {
            let service = policy.compiled.service.as_ref();
            service.is_none_or(|service| memberships.iter().any(|it| it.service == *service))
        };
        let candidates = |selected: &'_ Selected<'o>| {
            let labels = pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let by_label = labels.filter_map(|label| selected.by_label.get(&label)).flatten();
            selected.all.iter().chain(by_label).copied().collect::<Vec<_>>()
        };
        let candidates: Vec<&Policy> = [&*pod.name.namespace, SYSTEM_NAMESPACE]
            .into_iter()
            .filter_map(|namespace| self.by_namespace.get(namespace))
            .flat_map(candidates)
            .collect();
        let mut names: Vec<NamespacedName> = candidates
            .iter()
            .filter(|policy| selects(&policy.match_labels, &pod.labels))
            .filter(is_behind)
            .map(|policy| policy.compiled.name.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Accounts that policies name and that do not exist are problems: usually a misspelt name, which
/// then lets nobody in. Where no account of a namespace is known nothing is said of it: a folder
/// need not have them, while every namespace of a cluster has at least `default`.
pub(super) fn unknown_accounts(index: &Index<'_>, problems: &mut Problems) {
    let namespaces: BTreeSet<&str> = index.accounts.iter().map(|it| &*it.namespace).collect();
    for policy in index.policies.values() {
        let rules = policy.compiled.rules.iter();
        let sources = rules.flat_map(|rule| rule.from.iter().map(move |from| (&rule.name, from)));
        for (rule, from) in sources {
            let named = from.service_accounts.iter().chain(&from.not_service_accounts);
            for account in named {
                if namespaces.contains(&*account.namespace) && !index.accounts.contains(account) {
                    let reason = format!(
                        "rule {rule} names service account {account}, which does not exist: it \
                         matches nobody until it does"
                    );
                    problems.add(Kind::AuthorizationPolicy, &policy.compiled.name, reason);
                }
            }
        }
    }
}

pub(super) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
