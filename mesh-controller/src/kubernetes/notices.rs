//! What of all that is known an operator should be told, and at which object: pure, but for the
//! clock that is handed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use mesh_common::model::{NamespacedName, ResourceKey, ResourceKind};

use super::events::Notice;
use crate::{
    captured::Missed,
    compile::Problem,
    mesh::{Outcome, Uncaptured},
    object::{Kind, MeshConfig, ObjectKey},
    serve::Refused,
    source::{Place, Refusal},
    view::Picture,
};

/// What agents refused, by node and resource.
type Nacks = BTreeMap<(String, ResourceKey), Refused>;

/// The nodes whose agents refused what was made of an object, and why.
#[derive(Debug, Default)]
pub struct Refusals {
    by_object: BTreeMap<ObjectKey, Vec<(String, String)>>,
}

impl Refusals {
    /// Of `nacks`, by the objects that say what was refused.
    pub fn new(nacks: &Nacks, picture: &Picture) -> Self {
        let mut refusals = Self::default();
        for ((node, key), refused) in nacks {
            let reason = match key.kind {
                ResourceKind::Workload => format!("pod {}: {}", key.name, refused.reason),
                _ => refused.reason.clone(),
            };
            if let Some(object) = cause(key, picture) {
                let of_object = refusals.by_object.entry(object).or_default();
                of_object.push((node.clone(), reason));
            }
        }
        refusals
    }

    /// Of one object.
    pub fn of(&self, key: &ObjectKey) -> &[(String, String)] {
        self.by_object.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The object whose status says that a resource was refused. What a workload has beyond its pod is
/// what governs it.
fn cause(key: &ResourceKey, picture: &Picture) -> Option<ObjectKey> {
    let of = |kind, name: &NamespacedName| Some(ObjectKey { kind, name: name.clone() });
    match key.kind {
        ResourceKind::AuthorizationPolicy => of(Kind::AuthorizationPolicy, &key.name),
        ResourceKind::Route(kind) => of(kind.into(), &key.name),
        ResourceKind::Workload => match picture.peer_policy(key) {
            Some(policy) => of(Kind::PeerPolicy, &policy),
            None => of(Kind::MeshConfig, &MeshConfig::name()),
        },
        ResourceKind::Service => None,
    }
}

/// Since when pods are in the mesh and not captured.
#[derive(Debug)]
pub struct Waits {
    patience: Duration,
    since: BTreeMap<Arc<str>, Instant>,
}

impl Waits {
    /// None wait yet; `patience` is how long one may.
    pub fn new(patience: Duration) -> Self {
        Self { patience, since: BTreeMap::new() }
    }

    /// Of `pods`, that wait now, those that something is wrong with.
    fn overdue<'p>(&mut self, pods: &'p [Uncaptured], now: Instant) -> Vec<&'p Uncaptured> {
        let uids: BTreeSet<&str> = pods.iter().map(|pod| &*pod.uid).collect();
        self.since.retain(|uid, _| uids.contains(&**uid));
        let is_overdue = |pod: &&Uncaptured| {
            let since = *self.since.entry(pod.uid.clone()).or_insert(now);
            now.duration_since(since) >= self.patience || bypass_end(pod).is_some()
        };
        pods.iter().filter(is_overdue).collect()
    }
}

/// What holds now that an operator should know.
pub fn notices(
    outcome: &Outcome,
    nacks: &Nacks,
    waits: &mut Waits,
    now: Instant,
) -> BTreeSet<Notice> {
    let uid_of = |object: &ObjectKey| outcome.objects.uid_of(object).unwrap_or_default();
    let problem = |problem: &Problem| Notice {
        object: problem.object.clone(),
        uid: uid_of(&problem.object),
        reason: problem.code.name(),
        note: problem.reason.clone(),
    };
    let refusal = |refusal: &Refusal| match (&refusal.place, &refusal.object) {
        (Place::Cluster { uid, .. }, Some(object)) => Some(Notice {
            object: object.clone(),
            uid: uid.clone(),
            reason: "Refused",
            note: refusal.reason.clone(),
        }),
        _ => None,
    };
    let mut notices: BTreeSet<_> = (outcome.problems.iter().map(problem))
        .chain(outcome.objects.refusals.iter().filter_map(refusal))
        .collect();
    let patience = waits.patience;
    for pod in waits.overdue(&outcome.uncaptured, now) {
        let object = ObjectKey { kind: Kind::Pod, name: pod.name.clone() };
        let uid = outcome.objects.uid_of(&object).unwrap_or_else(|| pod.uid.clone());
        let (reason, note) = uncaptured(pod, patience);
        notices.insert(Notice { object, uid, reason, note });
    }
    for ((node, key), refused) in nacks {
        let kind = match key.kind {
            ResourceKind::Workload => Kind::Pod,
            ResourceKind::Service => Kind::Service,
            // Its status says so.
            ResourceKind::AuthorizationPolicy => continue,
            ResourceKind::Route(kind) => kind.into(),
        };
        let object = ObjectKey { kind, name: key.name.clone() };
        let note = format!("the agent of node {node} refuses it: {}", refused.reason);
        let uid = uid_of(&object);
        notices.insert(Notice { object, uid, reason: "RefusedByAgent", note });
    }
    notices
}

fn bypass_end(pod: &Uncaptured) -> Option<u64> {
    match &pod.missed {
        Some((Missed::Bypassed(until), _)) => Some(*until),
        _ => None,
    }
}

/// What to say of a pod that is in the mesh and not captured.
fn uncaptured(pod: &Uncaptured, patience: Duration) -> (&'static str, String) {
    let node = pod.node.as_deref().unwrap_or("none");
    if let Some(until) = bypass_end(pod) {
        let time = i64::try_from(until).ok().and_then(|it| Timestamp::from_second(it).ok());
        let time = time.map(|it| it.strftime("%FT%TZ").to_string()).unwrap_or_default();
        let note = format!(
            "bypasses the mesh until {time}, as somebody on node {node} wants: no mTLS, no policies, \
             no flows; `nodemesh bypass --end` on that node ends it"
        );
        return ("Bypassed", note);
    }
    let plaintext = format!(
        "labels put this pod in the mesh, but the agent of node {node} has not captured it for more \
         than {} s: its traffic is plaintext",
        patience.as_secs()
    );
    let note = match &pod.missed {
        Some((Missed::Failed(why) | Missed::Waiting(why), version)) if !why.is_empty() => {
            format!("{plaintext}; the agent (version {version}) says: {why}")
        }
        Some(_) => format!("{plaintext}; the agent has not tried yet"),
        None => {
            format!(
                "{plaintext}, and says nothing of it: is there an agent? `nodemesh status` on \
                     that node tells"
            )
        }
    };
    ("NotCaptured", note)
}

#[cfg(test)]
mod tests;
