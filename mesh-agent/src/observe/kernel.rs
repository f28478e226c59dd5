//! Flows of connections that no proxy saw, as the kernel programs tell them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use mesh_common::bpf::{Address, Event, EventKind};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{
    Observer,
    flow::{Flow, Peer, Reporter, Security, Verdict},
};
use crate::{capture::Events, snapshot::Snapshot};

/// Who is told what the kernel programs did.
pub struct KernelFlows {
    /// The node's name.
    pub node: Arc<str>,
    /// Where flows go.
    pub observer: Arc<Observer>,
    /// Who is where.
    pub snapshot: Arc<Snapshot>,
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
        let is_probe = event.kind == EventKind::Probe as u32;
        let connection = &event.connection;
        let client = socket_addr(connection.client, connection.client_port);
        let server = socket_addr(connection.server, connection.server_port);
        let (true, Some(client), Some(server)) = (is_probe, client, server) else { return };
        let callee = self.snapshot.workload_at(server.ip());
        let flow = Flow {
            time: SystemTime::now(),
            node: Arc::clone(&self.node),
            reporter: Reporter::Destination,
            source: Peer {
                host: Some(Arc::clone(&self.node)),
                address: Some(client),
                ..Peer::default()
            },
            destination: Peer {
                identity: callee.as_ref().and_then(|callee| callee.identity.clone()),
                pod: callee.map(|callee| callee.name.clone()),
                address: Some(server),
                host: None,
            },
            service: None,
            verdict: Verdict::Forwarded,
            reason: "a probe or hook of the pod names this port".to_owned(),
            security: Security::Plaintext,
            duration: Duration::ZERO,
            bytes_sent: 0,
            bytes_received: 0,
        };
        self.observer.opened(flow.edge());
        self.observer.ended(flow);
    }
}

fn socket_addr(address: Address, port: u32) -> Option<SocketAddr> {
    Some(SocketAddr::new(IpAddr::from(address), u16::try_from(port).ok()?))
}
