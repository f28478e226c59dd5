//! What a refusal is remembered for, so that the kernel refuses the next such call at once.

use std::{net::SocketAddr, sync::Arc};

use mesh_common::{bpf::DenialKey, model::NamespacedName};

use super::{
    Shared,
    pod::ServedPod,
    reach::right,
    route::{self, Route, Upstream, Via},
};
use crate::{
    denials::{Asked, ELSEWHERE, HERE},
    observe::flow::Flow,
};

/// A call that a policy refused.
pub(super) struct Denied<'c> {
    pub(super) shared: &'c Shared,
    pub(super) caller: &'c ServedPod,
    /// Where the application asked to go.
    pub(super) destination: SocketAddr,
    pub(super) route: &'c Route,
    /// Who refused.
    pub(super) upstream: &'c Upstream,
    /// When that was asked for.
    pub(super) asked: Asked,
}

impl Denied<'_> {
    /// Has the kernel remember it as far as it says something of the next call.
    pub(super) fn remember(&self, said: Flow) {
        let said = Arc::new(said);
        let denials = &self.shared.denials;
        let remember = |place, until| {
            denials.remember(self.asked, self.call(place), until, &said);
        };
        let until = self.asked.good_for(match self.upstream.via {
            Via::SameNode(_) => HERE,
            Via::Tunnel => ELSEWHERE,
            Via::Passthrough => return,
        });
        let Some(service) = &self.route.service else { return remember(self.destination, until) };
        if self.is_found_at_own_address() {
            remember(self.upstream.address, until);
        }
        // Where the next connection goes is for a route to say.
        if self.route.decided_by.is_some() {
            return;
        }
        if let Some(until) = self.all_refuse(service, until) {
            remember(self.destination, until);
        }
    }

    fn call(&self, place: SocketAddr) -> DenialKey {
        DenialKey::new(self.caller.pod.netns.cookie(), place)
    }

    /// Whether a call to the endpoint's own address leads to the same workload: two may claim one
    /// address for a while.
    fn is_found_at_own_address(&self) -> bool {
        let route = route::choose(self.shared, self.upstream.address);
        let uid = |upstream: &Upstream| upstream.workload.as_ref().map(|it| it.uid.clone());
        route.service.is_none()
            && route.upstreams.first().is_some_and(|at| uid(at) == uid(self.upstream))
    }

    /// Until when it is known that no endpoint of the Service would let the caller in.
    fn all_refuse(&self, service: &NamespacedName, until: u64) -> Option<u64> {
        let mut endpoints = route::endpoints(self.shared, service, self.destination);
        endpoints
            .try_fold(until, |until, endpoint| Some(until.min(self.refuses(&endpoint, until)?)))
    }

    fn refuses(&self, endpoint: &Upstream, until: u64) -> Option<u64> {
        if endpoint.address == self.upstream.address {
            return Some(until);
        }
        match (&endpoint.via, &endpoint.workload) {
            (Via::SameNode(_), Some(workload)) => {
                let right = right(self.caller, workload, endpoint.address);
                right.judge(&self.shared.snapshot).is_err().then(|| self.asked.good_for(HERE))
            }
            // Its own proxy knows, and may have said so a moment ago.
            (Via::Tunnel, _) => self.shared.denials.until(&self.call(endpoint.address)),
            _ => None,
        }
    }
}
