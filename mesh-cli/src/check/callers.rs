//! Who calls pods from outside the mesh, and what is made of that: pure.

use std::collections::BTreeMap;

use mesh_common::{
    identity::SpiffeId,
    matching::authorization::Request,
    model::{Membership, NamespacedName, Workload},
};
use mesh_controller::compile::Compiled;
use serde_json::Value;

use crate::{authz, value::name};

/// Somebody calls something.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Who, and by which object: `APIService v1.example`.
    pub what: String,
    /// Whom.
    pub to: To,
    /// Who the caller proves to be; nobody, where it is outside the mesh.
    pub identity: Option<SpiffeId>,
}

/// Who is called.
#[derive(Clone, Debug, PartialEq)]
pub enum To {
    /// Any pod of a Service, at a port of the Service.
    Service(NamespacedName, u16),
    /// A pod, at a port of its own.
    Pod(NamespacedName, u16),
    /// The pods of a Service, at a port of their own.
    PodsOf(NamespacedName, u16),
}

/// What the mesh makes of pods, found by name and by Service.
pub struct Pods<'c> {
    compiled: &'c Compiled,
    by_service: BTreeMap<&'c NamespacedName, Vec<(&'c Workload, &'c Membership)>>,
}

impl<'c> Pods<'c> {
    /// The pods of the mesh.
    pub fn of(compiled: &'c Compiled) -> Self {
        let mut by_service = BTreeMap::<_, Vec<_>>::new();
        for workload in enrolled(compiled) {
            for member in &workload.memberships {
                by_service.entry(&member.service).or_default().push((workload, member));
            }
        }
        Self { compiled, by_service }
    }

    /// The pod that refuses `call` and why, where one does.
    pub fn refusal(&self, call: &Call) -> Option<(&'c Workload, String)> {
        let called = |workload: &'c Workload, port| {
            let reason = self.reason(workload, port, call.identity.as_ref())?;
            Some((workload, reason))
        };
        let of_service = |service| self.by_service.get(service).into_iter().flatten().copied();
        match &call.to {
            To::Pod(name, port) => called(self.find(name)?, *port),
            To::PodsOf(service, port) => {
                of_service(service).find_map(|(workload, _)| called(workload, *port))
            }
            To::Service(service, port) => of_service(service).find_map(|(workload, member)| {
                let port = member.ports.iter().find(|it| it.service_port == *port)?;
                called(workload, port.target_port)
            }),
        }
    }

    /// The pod of that name, where it is in the mesh.
    pub fn find(&self, name: &NamespacedName) -> Option<&'c Workload> {
        self.compiled.workload(name).filter(|workload| workload.enrolled)
    }

    /// Why `workload` refuses that caller at `port`, where it does.
    fn reason(&self, workload: &Workload, port: u16, source: Option<&SpiffeId>) -> Option<String> {
        // From which address is not known here: in no block but those of all addresses.
        let address = std::net::IpAddr::from([0; 4]);
        match authz::verdict(self.compiled, workload, Request { source, address, port }) {
            Ok(verdict) => (!verdict.is_allowed()).then(|| verdict.to_string()),
            Err(reason) => Some(reason),
        }
    }
}

/// The pods that are in the mesh.
pub fn enrolled(compiled: &Compiled) -> impl Iterator<Item = &Workload> {
    compiled.workloads().filter(|workload| workload.enrolled)
}

/// What the API server calls by a configuration of webhooks.
pub fn of_webhooks(object: &Value, kind: &str) -> Vec<Call> {
    let name = name(object);
    let hooks = object["webhooks"].as_array().into_iter().flatten();
    hooks
        .filter_map(|hook| {
            let what = format!("{kind} {name}, {}", hook["name"].as_str().unwrap_or("?"));
            call(what, &hook["clientConfig"]["service"])
        })
        .collect()
}

/// What it calls by an APIService that is not its own.
pub fn of_api_service(object: &Value) -> Option<Call> {
    call(format!("APIService {}", name(object)), &object["spec"]["service"])
}

/// What it calls to convert between versions.
pub fn of_conversion(object: &Value) -> Option<Call> {
    let service = &object["spec"]["conversion"]["webhook"]["clientConfig"]["service"];
    call(format!("the conversion of CustomResourceDefinition {}", name(object)), service)
}

fn call(what: String, service: &Value) -> Option<Call> {
    let name = NamespacedName::new(service["namespace"].as_str()?, service["name"].as_str()?);
    // Where none is written it is that of HTTPS.
    let port = u16::try_from(service["port"].as_u64().unwrap_or(443)).ok()?;
    Some(Call { what: format!("{what} calls {name}"), to: To::Service(name, port), identity: None })
}
