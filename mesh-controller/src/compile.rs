//! From objects to resources: pure.
//!
//! Every object is judged for itself. What is wrong with one shows as a [`Problem`] of that object
//! and takes nothing from the others; the result does not depend on the order of arrival.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use mesh_common::{
    identity::TrustDomain,
    model::{
        AuthorizationPolicy, Membership, NamespacedName, Resource, ResourceKey, ResourceKind,
        Service, Workload,
    },
};

use crate::{
    captured::Captures,
    index::Index,
    object::{Kind, ObjectKey},
};

mod admission;
mod authorization;
mod enrolment;
mod ports;
mod route;
mod service;
mod status;
mod workload;

pub use route::{ParentCondition, ParentStatus};
pub use status::{ObjectStatus, statuses};

/// What is wrong with an object, seen next to the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object.
    pub object: ObjectKey,
    /// What it is about.
    pub code: ProblemCode,
    /// What is wrong, what that costs, and what to do.
    pub reason: String,
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemCode {
    /// Objects do not fit together.
    Problem,
    /// A pod is wanted in the mesh and cannot be.
    NotEnrolled,
}

impl ProblemCode {
    /// In one word, as conditions and Events have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Problem => "Problem",
            Self::NotEnrolled => "NotEnrolled",
        }
    }
}

/// What the compiler makes of the objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// The resources of the whole mesh.
    pub resources: BTreeMap<ResourceKey, Resource>,
    /// The nodes that have a Node object.
    pub nodes: BTreeSet<String>,
    /// What is wrong, sorted by object.
    pub problems: Vec<Problem>,
    /// What is odd and may be meant, as the status of the object says; sorted by object.
    pub notes: Vec<Problem>,
    /// What became of each route that wants to be attached to a Service.
    pub routes: BTreeMap<ObjectKey, Vec<ParentStatus>>,
}

impl Compiled {
    /// The workload of that name.
    pub fn workload(&self, name: &NamespacedName) -> Option<&Workload> {
        match self.resource(ResourceKind::Workload, name)? {
            Resource::Workload(workload) => Some(workload),
            _ => None,
        }
    }

    /// The Service of that name.
    pub fn service(&self, name: &NamespacedName) -> Option<&Service> {
        match self.resource(ResourceKind::Service, name)? {
            Resource::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The AuthorizationPolicy of that name.
    pub fn policy(&self, name: &NamespacedName) -> Option<&AuthorizationPolicy> {
        match self.resource(ResourceKind::AuthorizationPolicy, name)? {
            Resource::AuthorizationPolicy(policy) => Some(policy),
            _ => None,
        }
    }

    /// Every workload, by name.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.resources.values().filter_map(|resource| match resource {
            Resource::Workload(workload) => Some(workload),
            _ => None,
        })
    }

    /// The routes that want to be attached to a Service, and what became of each there.
    pub fn parents<'c>(
        &'c self,
        service: &'c NamespacedName,
    ) -> impl Iterator<Item = (&'c ObjectKey, &'c ParentStatus)> {
        let parents = self.routes.iter().flat_map(|(key, all)| all.iter().map(move |it| (key, it)));
        parents.filter(move |(key, status)| {
            let to = &status.parent_ref;
            let namespace = to.namespace.as_deref().unwrap_or(&key.name.namespace);
            (namespace, to.name.as_str()) == (&*service.namespace, &*service.name)
        })
    }

    fn resource(&self, kind: ResourceKind, name: &NamespacedName) -> Option<&Resource> {
        self.resources.get(&ResourceKey { kind, name: name.clone() })
    }
}

/// Compiles everything in `index`; `captures` is what agents said they captured.
pub fn compile(index: &Index<'_>, captures: &Captures, trust_domain: &TrustDomain) -> Compiled {
    let mut problems = Problems::default();
    let services = service::services(index, &mut problems);
    let pods = workload::eligible(index, &mut problems);
    let memberships = service::memberships(index, &services, &pods, &mut problems);
    let enrolled = enrolment::enrolled(index, &mut problems);
    let workloads = workload::workloads(workload::Inputs {
        index,
        pods,
        enrolled,
        captures,
        trust_domain,
        memberships,
        problems: &mut problems,
    });
    for policy in index.policies.values() {
        if let Some(service) = policy.compiled.service.as_ref()
            && !index.services.contains_key(service)
        {
            let reason = format!("Service {service} does not exist, so it is for no pod");
            problems.add(Kind::AuthorizationPolicy, &policy.compiled.name, reason);
        }
    }
    authorization::unknown_accounts(index, &mut problems);
    ports::target_names(index, &mut problems);
    let notes = ports::notes(index, &workloads);
    let (routes, route_statuses) = route::routes(index, &mut problems);
    let policies = index.policies.values().map(|policy| policy.compiled.clone());
    let resources = (workloads.into_iter().map(Resource::Workload))
        .chain(services.into_values().map(Resource::Service))
        .chain(policies.map(Resource::AuthorizationPolicy))
        .chain(routes);
    problems.list.sort();
    Compiled {
        resources: resources.map(|resource| (resource.key(), resource)).collect(),
        nodes: index.nodes.keys().map(|&name| name.to_owned()).collect(),
        problems: problems.list,
        notes,
        routes: route_statuses,
    }
}

#[derive(Default)]
struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, kind: Kind, name: &NamespacedName, reason: String) {
        let object = ObjectKey { kind, name: name.clone() };
        self.list.push(Problem { object, code: ProblemCode::Problem, reason });
    }

    fn not_enrolled(&mut self, name: &NamespacedName, reason: String) {
        let object = ObjectKey { kind: Kind::Pod, name: name.clone() };
        self.list.push(Problem { object, code: ProblemCode::NotEnrolled, reason });
    }
}

/// The memberships of pods, and the endpoints that are no pods.
#[derive(Default)]
struct Memberships {
    of_pods: BTreeMap<NamespacedName, Vec<Membership>>,
    /// By namespace and address.
    others: BTreeMap<(Arc<str>, IpAddr), service::OtherEndpoint>,
}

#[cfg(test)]
mod tests;
