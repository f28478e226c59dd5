//! Flows of connections that no proxy saw, as the kernel programs tell them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use mesh_common::bpf::{Address, ConnectionKey, DenialKey, Event, EventKind};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{
    Observer,
    flow::{Flow, Peer, Reporter, Security, Verdict},
};
use crate::{capture::Events, denials::Denials, snapshot::Snapshot};

/// Who is told what the kernel programs did.
pub struct KernelFlows {
    /// The node's name.
    pub node: Arc<str>,
    /// Where flows go.
    pub observer: Arc<Observer>,
    /// Who is where.
    pub snapshot: Arc<Snapshot>,
    /// What the proxy said of calls that the kernel refuses in its place.
    pub denials: Arc<Denials>,
}

impl KernelFlows {
    /// Tells every event as a flow, for as long as the process lives.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(self, events: Events) -> io::Result<()> {
        thread::Builder::new().name("kernel-flows".to_owned()).spawn(move || {
            if let Err(error) = self.follow(events) {
                tracing::error!(%error, "cannot wait for what the kernel programs tell");
            }
        })?;
        Ok(())
    }

    fn follow(&self, mut events: Events) -> io::Result<()> {
        // What nobody was there for is of another time.
        events.by_ref().for_each(drop);
        loop {
            match poll(&mut [PollFd::new(&events, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.by_ref() {
                self.tell(&event);
            }
        }
    }

    fn tell(&self, event: &Event) {
        let ConnectionKey { netns, client, client_port, server, server_port } = event.connection;
        let (Some(client), Some(server)) =
            (socket_addr(client, client_port), socket_addr(server, server_port))
        else {
            return;
        };
        if event.kind == EventKind::Probe as u32 {
            let flow = self.probe(client, server);
            self.observer.opened(flow.edge());
            self.observer.ended(flow);
            return;
        }
        if event.kind == EventKind::Denied as u32 {
            let denial = self.denial(netns, client.ip(), server);
            return self.observer.record(denial);
        }
        let reason = if event.kind == EventKind::NoEndpoint as u32 {
            "no ready endpoint for this port of the Service"
        } else {
            "the agent gave no sign of life for 5 s"
        };
        self.observer.record(self.refusal(client.ip(), server, reason));
    }

    /// A probe that a pod has got.
    fn probe(&self, client: SocketAddr, server: SocketAddr) -> Flow {
        let host = Some(Arc::clone(&self.node));
        let source = Peer { host, address: Some(client), ..Peer::default() };
        let destination = Peer { address: Some(server), ..self.pod(server.ip()) };
        let reason = "a probe or hook of the pod names this port";
        self.flow(Reporter::Destination, source, destination, Verdict::Forwarded, reason)
    }

    /// A call that the kernel refused because the proxy had refused one like it.
    fn denial(&self, netns: u64, client: IpAddr, server: SocketAddr) -> Flow {
        match self.denials.said(&DenialKey::new(netns, server)) {
            Some(said) => {
                Flow { time: SystemTime::now(), duration: Duration::ZERO, ..(*said).clone() }
            }
            None => {
                let reason = "denied by a policy; the flow of an earlier call says by which";
                let flow = self.refusal(client, server, reason);
                Flow { verdict: Verdict::Denied, ..flow }
            }
        }
    }

    /// A call of connect() that failed in the kernel, before the socket had a port.
    fn refusal(&self, client: IpAddr, server: SocketAddr, reason: &str) -> Flow {
        let destination = Peer { address: Some(server), ..self.pod(server.ip()) };
        let source = self.pod(client);
        let flow = self.flow(Reporter::Source, source, destination, Verdict::Error, reason);
        let service = self.snapshot.service_at(server.ip());
        Flow { service: service.map(|service| service.name.clone()), ..flow }
    }

    fn pod(&self, address: IpAddr) -> Peer {
        let workload = self.snapshot.workload_at(address);
        Peer {
            identity: workload.as_ref().and_then(|workload| workload.identity.clone()),
            pod: workload.map(|workload| workload.name.clone()),
            ..Peer::default()
        }
    }

    fn flow(
        &self,
        reporter: Reporter,
        source: Peer,
        destination: Peer,
        verdict: Verdict,
        reason: &str,
    ) -> Flow {
        Flow {
            time: SystemTime::now(),
            node: Arc::clone(&self.node),
            reporter,
            source,
            destination,
            service: None,
            verdict,
            reason: reason.to_owned(),
            security: Security::Plaintext,
            duration: Duration::ZERO,
            bytes_sent: 0,
            bytes_received: 0,
            http: None,
        }
    }
}

fn socket_addr(address: Address, port: u32) -> Option<SocketAddr> {
    Some(SocketAddr::new(IpAddr::from(address), u16::try_from(port).ok()?))
}
