//! What the engine asks of the mesh around it: routes, endpoints, connections.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use mesh_common::{
    matching::{
        protocol::{self, Protocol},
        route::Routes,
    },
    model::{NamespacedName, Service},
};

use super::{
    message::Version,
    pool::{Key, Pool, Reach},
    transport::Transport,
    upstream2,
};
use crate::{
    observe::flow::Reporter,
    proxy::{
        failure::Failure,
        meter::Meters,
        pod::ServedPod,
        reach::{self, Connected},
        record::Record,
        revoke::Leash,
        route::{Upstream as Place, Via, upstream},
        worker::Context,
    },
    snapshot::Endpoint,
};

/// A connection that was made.
pub(in crate::proxy) struct Dialled {
    pub(in crate::proxy) transport: Transport,
    pub(in crate::proxy) leash: Leash,
    /// What policies that only audit would have refused it for.
    pub(in crate::proxy) audit: Option<String>,
}

/// The mesh around one client's connection to a Service.
pub(in crate::proxy) trait Network: Send + Sync {
    /// The Service that was called, and its port.
    fn called(&self) -> (&NamespacedName, u16);

    /// The routes for this client, where the Service's port has any.
    fn routes(&self) -> Option<Arc<Routes>>;

    /// The version that a port of a Service asks for, where it asks for one.
    fn version_of(&self, service: &NamespacedName, port: u16) -> Option<Version>;

    /// An endpoint of a port of a Service, none of those that were `tried` already.
    fn endpoint(&self, service: &NamespacedName, port: u16, tried: &[SocketAddr]) -> Option<Place>;

    /// What connections to `place` may be shared for.
    fn key(&self, place: &Place) -> Key;

    /// The HTTP/1.1 connections that wait.
    fn pool(&self) -> &Pool;

    /// The HTTP/2 connections.
    fn streams(&self) -> &upstream2::Pool;

    /// Connects.
    fn dial<'n>(&'n self, place: &'n Place) -> BoxFuture<'n, Result<Dialled, Failure>>;

    /// A record of a request that begins.
    fn record(&self) -> Record;

    /// What connections that go on with another protocol move.
    fn meters(&self) -> &Arc<Meters>;
}

/// The mesh as a pod of this node sees it.
pub(in crate::proxy) struct PodNetwork {
    pub(in crate::proxy) context: Arc<Context>,
    pub(in crate::proxy) pod: Arc<ServedPod>,
    /// The client's address.
    pub(in crate::proxy) peer: SocketAddr,
    /// The address and port that were called.
    pub(in crate::proxy) destination: SocketAddr,
    pub(in crate::proxy) service: Arc<Service>,
}

impl Network for PodNetwork {
    fn called(&self) -> (&NamespacedName, u16) {
        (&self.service.name, self.destination.port())
    }

    fn routes(&self) -> Option<Arc<Routes>> {
        let namespace = &self.pod.pod.name.namespace;
        self.context.shared.snapshot.routes_for(self.destination, namespace)
    }

    fn version_of(&self, service: &NamespacedName, port: u16) -> Option<Version> {
        let of = |service: &Service| {
            let mut ports = service.ports.iter();
            match protocol::declared(ports.find(|it| it.port == port)?)? {
                Protocol::Http2 => Some(Version::Http2),
                _ => None,
            }
        };
        if *service == self.service.name {
            return of(&self.service);
        }
        of(&*self.context.shared.snapshot.service(service)?)
    }

    fn endpoint(&self, service: &NamespacedName, port: u16, tried: &[SocketAddr]) -> Option<Place> {
        let shared = &self.context.shared;
        let like = self.destination.ip();
        let address = |(workload, port): &Endpoint| {
            Some(SocketAddr::new(workload.address_like(like)?, *port))
        };
        let random = fastrand::u64(..);
        let (workload, port) = shared.snapshot.endpoint(service, port, |endpoints| {
            balance(endpoints, random, |it| address(it).is_some_and(|it| !tried.contains(&it)))
        })?;
        let address = SocketAddr::new(workload.address_like(like)?, port);
        Some(upstream(shared, address, Some(workload)))
    }

    fn key(&self, place: &Place) -> Key {
        let uid = || place.workload.as_ref().map_or_else(|| "".into(), |it| it.uid.clone());
        let reach = match &place.via {
            Via::Passthrough => Reach::Passthrough,
            Via::SameNode(callee) => Reach::SameNode(callee.pod.uid.clone()),
            Via::Tunnel => Reach::Tunnel(uid(), self.context.shared.certificates.generation()),
        };
        let (source, identity) = (self.pod.pod.uid.clone(), self.pod.pod.identity.clone());
        Key { source, identity, address: place.address, reach }
    }

    fn pool(&self) -> &Pool {
        &self.context.connections
    }

    fn streams(&self) -> &upstream2::Pool {
        &self.context.streams
    }

    fn dial<'n>(&'n self, place: &'n Place) -> BoxFuture<'n, Result<Dialled, Failure>> {
        Box::pin(async {
            let (connected, audit) = reach::connect(&self.context, &self.pod, place).await?;
            let (transport, leash) = match connected {
                Connected::Tcp(stream, leash) => (Transport::Tcp(stream), leash),
                // The far proxy judges, and ends what loses its right.
                Connected::Tunnel(stream) => (Transport::tunnel(stream), Leash::default()),
            };
            Ok(Dialled { transport, leash, audit })
        })
    }

    fn meters(&self) -> &Arc<Meters> {
        &self.context.meters
    }

    fn record(&self) -> Record {
        let mut record = Record::start(&self.context.shared, Reporter::Source);
        record.source_pod(&self.pod.pod, self.peer);
        record.destination_address(self.destination);
        record.service(self.service.name.clone());
        record
    }
}

/// Which of `endpoints` is next, of those that `may` be. Evenly at random, where all may.
fn balance(endpoints: &[Endpoint], random: u64, may: impl Fn(&Endpoint) -> bool) -> Option<usize> {
    let first = ((u128::from(random) * endpoints.len() as u128) >> 64) as usize;
    let order = (first..endpoints.len()).chain(0..first);
    order.into_iter().find(|at| may(&endpoints[*at]))
}
