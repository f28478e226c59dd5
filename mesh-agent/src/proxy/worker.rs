//! One worker thread: a runtime of its own, the listeners it accepts on, the tunnels it keeps.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time};

use super::{
    Shared,
    accept::{Purpose, accept_loop},
    hbone, http,
    meter::Meters,
    pod::ServedPod,
    revoke::LiveRights,
};
use crate::capture::listeners::PodListeners;

/// How long a draining pod without connections is still served: agents elsewhere may not have
/// heard yet that it left, and a refused tunnel would cost them a request.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How often a draining pod is looked at.
const DRAIN_CHECK: Duration = Duration::from_millis(200);

/// How often unused tunnels are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What a connection finds on its worker.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) tunnels: hbone::Pool<hbone::Key>,
    /// HTTP/1.1 connections to endpoints that wait for their next request.
    pub(super) connections: http::Pool,
    /// HTTP/2 connections to endpoints.
    pub(super) streams: http::Streams,
    /// What its live connections were let through for.
    pub(super) rights: Arc<LiveRights>,
    /// What its live connections move.
    pub(super) meters: Arc<Meters>,
}

enum Command {
    Serve(Arc<ServedPod>, PodListeners),
    StopWhenIdle(Arc<ServedPod>),
}

/// The handle of a worker thread; the thread ends with it.
pub(super) struct Worker {
    commands: mpsc::UnboundedSender<Command>,
}

impl Worker {
    pub(super) fn start(index: usize, shared: Arc<Shared>) -> io::Result<Self> {
        // Unbounded, but only the control loop sends, one command a pod and change.
        let (commands, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("proxy-{index}")).spawn(move || {
            let context = Arc::new(Context {
                shared,
                tunnels: hbone::Pool::default(),
                connections: http::Pool::default(),
                streams: http::Streams::default(),
                rights: Arc::default(),
                meters: Arc::default(),
            });
            runtime.block_on(run(context, inbox));
        })?;
        Ok(Self { commands })
    }

    pub(super) fn serve(&self, pod: Arc<ServedPod>, listeners: PodListeners) {
        self.send(Command::Serve(pod, listeners));
    }

    pub(super) fn stop_when_idle(&self, pod: Arc<ServedPod>) {
        self.send(Command::StopWhenIdle(pod));
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("a proxy worker has ended; restart the agent");
        }
    }
}

async fn run(context: Arc<Context>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    tokio::spawn(sweep_tunnels(context.clone()));
    tokio::spawn(sweep_connections(context.clone()));
    tokio::spawn(context.rights.clone().follow(context.shared.snapshot.clone()));
    tokio::spawn(context.meters.clone().follow(context.shared.observer.clone()));
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Serve(pod, listeners) => {
                serve(&context, &pod, listeners);
                tokio::spawn(close_tunnels(context.clone(), pod));
            }
            Command::StopWhenIdle(pod) => {
                tokio::spawn(stop_when_idle(context.clone(), pod));
            }
        }
    }
}

fn serve(context: &Arc<Context>, pod: &Arc<ServedPod>, listeners: PodListeners) {
    let PodListeners { outbound, inbound, hbone } = listeners;
    for (purpose, listeners) in
        [(Purpose::Outbound, outbound), (Purpose::Inbound, inbound), (Purpose::Hbone, hbone)]
    {
        for listener in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::spawn(accept_loop(context.clone(), pod.clone(), purpose, listener));
                }
                Err(error) => {
                    tracing::error!(pod = %pod.pod.name, %error, "cannot serve a listener");
                }
            }
        }
    }
}

/// What a pod shares between its connections lives no longer than the pod.
async fn close_tunnels(context: Arc<Context>, pod: Arc<ServedPod>) {
    pod.stopped().await;
    context.connections.close_of(&pod.pod.uid);
    context.streams.close(|key| *key.source == *pod.pod.uid);
    context.tunnels.close(|key| *key.source == *pod.pod.uid);
}

async fn stop_when_idle(context: Arc<Context>, pod: Arc<ServedPod>) {
    let mut idle = Duration::ZERO;
    while idle < DRAIN_GRACE {
        time::sleep(DRAIN_CHECK).await;
        idle = if pod.connections() == 0 { idle + DRAIN_CHECK } else { Duration::ZERO };
    }
    pod.stop();
    let mut pods = context.shared.pods.write().expect(super::LOCK);
    // A pod that was captured again meanwhile has the same uid and is another one here.
    if pods.get(&pod.pod.uid).is_some_and(|current| Arc::ptr_eq(current, &pod)) {
        pods.remove(&pod.pod.uid);
    }
}

async fn sweep_tunnels(context: Arc<Context>) {
    let mut tick = time::interval(SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        context.tunnels.close_unused();
        context.streams.close_unused();
    }
}

async fn sweep_connections(context: Arc<Context>) {
    let mut tick = time::interval(http::Pool::SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        context.connections.sweep();
    }
}
