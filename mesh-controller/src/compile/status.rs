//! What became of each of nodemesh's own objects, as their status says: pure.

use std::collections::BTreeMap;

use mesh_common::model::{NamespacedName, Resource};
use serde::Serialize;

use super::{Compiled, ParentStatus, ProblemCode};
use crate::{
    object::{Kind, Object, ObjectKey},
    source::{Objects, Place},
};

/// The status of a MeshConfig, PeerPolicy, AuthorizationPolicy or route, or of a Pod that cannot be
/// in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// The kind.
    pub kind: &'static str,
    /// The namespace; empty for a MeshConfig.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Whether the object, as it is written now, is in use.
    pub accepted: bool,
    /// Why, in one word: `Accepted`, `Invalid`, `NotEnrolled`, or `Problem` where it is in use but
    /// not as it seems to be meant.
    pub reason: &'static str,
    /// Why, for people; empty where there is nothing to say.
    pub message: String,
    /// `metadata.generation` of the version in use.
    pub observed_generation: Option<i64>,
    /// The enrolled workloads that it is in effect for.
    pub workloads: usize,
    /// Of a route: what became of it at each Service that it wants to be attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ParentStatus>,
}

impl ObjectStatus {
    /// The object.
    pub fn key(&self) -> Option<ObjectKey> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == self.kind)?;
        Some(ObjectKey { kind, name: NamespacedName::new(&self.namespace, &self.name) })
    }
}

/// The status of every object of ours, of every route of a Service and of every pod that cannot be
/// in the mesh, by kind and name.
pub fn statuses(objects: &Objects, compiled: &Compiled) -> Vec<ObjectStatus> {
    let effects = Effects::of(compiled);
    let mut statuses = BTreeMap::new();
    for (key, (object, _)) in &objects.in_use {
        let generation = match &**object {
            Object::AuthorizationPolicy(it) => it.generation,
            Object::PeerPolicy(it) => it.generation,
            Object::MeshConfig(it) => it.generation,
            Object::Route(it) if compiled.routes.contains_key(key) => it.generation,
            _ => continue,
        };
        let mut status = status(key, &effects);
        status.observed_generation = generation;
        if let Some(parents) = compiled.routes.get(key) {
            status.parents.clone_from(parents);
            let mut conditions = parents.iter().flat_map(|it| &it.conditions);
            status.accepted = conditions.all(|it| it.type_ != "Accepted" || it.status);
        }
        statuses.insert(key.clone(), status);
    }
    for problem in &compiled.problems {
        if problem.code == ProblemCode::NotEnrolled {
            let mut status = status(&problem.object, &effects);
            status.accepted = false;
            statuses.insert(problem.object.clone(), status);
        }
        if let Some(status) = statuses.get_mut(&problem.object) {
            status.reason = problem.code.name();
            status.message.clone_from(&problem.reason);
        }
    }
    for note in &compiled.notes {
        if let Some(status) = statuses.get_mut(&note.object).filter(|it| it.message.is_empty()) {
            status.message.clone_from(&note.reason);
        }
    }
    for refusal in &objects.refusals {
        let key = refusal.object.as_ref().filter(|key| key.kind.is_ours() || key.kind.is_route());
        let Some(key) = key else { continue };
        let status = statuses.entry(key.clone()).or_insert_with(|| status(key, &effects));
        status.accepted = false;
        status.reason = "Invalid";
        status.message = match &refusal.place {
            Place::Cluster { generation, .. } => {
                status.observed_generation = *generation;
                refusal.reason.clone()
            }
            place => format!("{place}: {}", refusal.reason),
        };
    }
    statuses.into_values().collect()
}

/// How many enrolled workloads each object is in effect for, counted in one pass.
#[derive(Default)]
struct Effects<'c> {
    policies: BTreeMap<&'c NamespacedName, usize>,
    peer_policies: BTreeMap<&'c NamespacedName, usize>,
    all: usize,
}

impl<'c> Effects<'c> {
    fn of(compiled: &'c Compiled) -> Self {
        let mut effects = Self::default();
        for resource in compiled.resources.values() {
            let Resource::Workload(workload) = resource else { continue };
            if !workload.enrolled {
                continue;
            }
            effects.all += 1;
            for policy in &workload.authorization_policies {
                *effects.policies.entry(policy).or_default() += 1;
            }
            if let Some(policy) = &workload.admission.peer_policy {
                *effects.peer_policies.entry(policy).or_default() += 1;
            }
        }
        effects
    }

    fn workloads(&self, key: &ObjectKey) -> usize {
        let counted = match key.kind {
            Kind::AuthorizationPolicy => self.policies.get(&key.name),
            Kind::PeerPolicy => self.peer_policies.get(&key.name),
            Kind::MeshConfig => Some(&self.all),
            _ => None,
        };
        counted.copied().unwrap_or_default()
    }
}

fn status(key: &ObjectKey, effects: &Effects<'_>) -> ObjectStatus {
    ObjectStatus {
        kind: key.kind.name(),
        namespace: key.name.namespace.to_string(),
        name: key.name.name.to_string(),
        accepted: true,
        reason: "Accepted",
        message: String::new(),
        observed_generation: None,
        workloads: effects.workloads(key),
        parents: Vec::new(),
    }
}
