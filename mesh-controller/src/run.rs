//! A controller that follows a cluster, from its start to its end.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::Client;
use mesh_common::{
    SYSTEM_NAMESPACE,
    identity::TrustDomain,
    listen::{self, Sharing},
    names::CA_SECRET,
};
use tokio::{sync::watch, task};

use crate::{
    health::{self, Pages},
    kubernetes::{
        self, ClientError,
        authority::Keeper,
        captures::{self, Ledger},
        health::Health,
        lease::Election,
        review::Reviewer,
        writer::{self, Writer},
    },
    mesh::Mesh,
    serve::{Controller, ServeError, Verifier},
    source::cluster,
};

/// After captures changed others may change at once, too.
const SETTLE: Duration = Duration::from_millis(50);

/// How a controller of a cluster runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API server is; `None` for KUBECONFIG, or the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// Where agents are served.
    pub listen: SocketAddr,
    /// Where health and metrics are.
    pub health_listen: SocketAddr,
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// How long certificates of workloads live.
    pub svid_lifetime: Duration,
    /// This controller among others: the name of its pod.
    pub name: String,
    /// How long a pod may be in the mesh and not captured before an Event says so.
    pub capture_patience: Duration,
}

/// A pod that is in the mesh is captured within seconds; after so long something is wrong.
pub const CAPTURE_PATIENCE: Duration = Duration::from_secs(60);

/// Why a controller of a cluster ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The Secret of the authority is of no use.
    #[error("Secret {SYSTEM_NAMESPACE}/{CA_SECRET}: {0}; correct it, or delete it for a new root")]
    Authority(#[from] crate::ca::CaError),
    /// An address is taken.
    #[error("cannot listen at {0}: {1}; is another controller running?")]
    Listen(SocketAddr, std::io::Error),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs until `shutdown` ends. Agents are served once every kind has been listed, and the captures
/// with them; then for as long as it takes from what is known, whatever becomes of the API server.
///
/// # Errors
/// Where it cannot start, or its socket fails.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let starting = Starting::new(settings).await?;
    let mut shutdown = std::pin::pin!(shutdown);
    tokio::select! {
        started = starting.start() => started?.serve(shutdown).await,
        () = &mut shutdown => Ok(()),
    }
}

/// A controller that answers probes, and no agents yet.
pub struct Starting {
    settings: Settings,
    client: Client,
    mesh: Arc<Mesh>,
    health: Health,
    health_address: SocketAddr,
    is_serving: watch::Sender<bool>,
}

/// A controller that serves agents as soon as it is told to.
pub struct Started {
    controller: Controller,
    mesh: Arc<Mesh>,
    listener: TcpListener,
    is_serving: watch::Sender<bool>,
    /// What it does beside; ends with it.
    _tasks: task::JoinSet<()>,
}

impl Starting {
    /// Finds the API server and answers probes.
    ///
    /// # Errors
    /// Where there is none, or the address for probes is taken.
    pub async fn new(settings: Settings) -> Result<Self, RunError> {
        let client = kubernetes::client(settings.kubeconfig.as_deref()).await?;
        let mesh = Arc::new(Mesh::new(settings.trust_domain.clone()));
        let health = Health::default();
        let (is_serving, serving) = watch::channel(false);
        let not_ready = {
            let health = health.clone();
            move || match (*serving.borrow(), health.missing()) {
                (true, _) => Vec::new(),
                (false, missing) if missing.is_empty() => vec!["agents are served soon".into()],
                (false, missing) => missing,
            }
        };
        let registry = health::registry(mesh.clone(), health.clone());
        let pages = Pages { registry, not_ready: Box::new(not_ready) };
        let health_address = health::serve(settings.health_listen, pages)
            .map_err(|error| RunError::Listen(settings.health_listen, error))?;
        tracing::info!(address = %health_address, "health and metrics");
        Ok(Self { settings, client, mesh, health, health_address, is_serving })
    }

    /// Where health and metrics are.
    pub fn health_address(&self) -> SocketAddr {
        self.health_address
    }

    /// Follows the cluster and waits until agents can be served.
    ///
    /// # Errors
    /// Where the authority is of no use, or the address for agents is taken.
    pub async fn start(self) -> Result<Started, RunError> {
        let Self { settings, client, mesh, health, is_serving, .. } = self;
        let Settings { listen, trust_domain, svid_lifetime, name, capture_patience, .. } = settings;
        let mut tasks = task::JoinSet::new();
        tasks.spawn(captures::follow(client.clone(), health.clone(), mesh.clone()));
        let (is_listed, mut listed) = watch::channel(false);
        tasks.spawn(follow(client.clone(), health.clone(), mesh.clone(), is_listed));
        let keeper = Keeper::new(client.clone());
        let authority = Arc::new(keeper.open(&health, trust_domain, svid_lifetime).await?);
        // Its sender lives as long as the task, which does as long as this.
        let _ = listed.wait_for(|is_listed| *is_listed).await;
        health.all_known().await;
        // With the captures, which may have come after the objects.
        publish(&mesh).await;
        tasks.spawn(recompile(mesh.clone()));

        let ledger = Ledger::new(client.clone(), mesh.clone());
        let verifier = Verifier::Review(Reviewer::new(client.clone(), mesh.clone()));
        let controller =
            Controller::new(mesh.clone(), authority.clone(), verifier, Some(ledger.clone()));
        tasks.spawn(async move { ledger.retry().await });
        {
            let health = health.clone();
            tasks.spawn(async move { keeper.keep(&health, &authority).await });
        }
        let (leading, leads) = watch::channel(false);
        tasks.spawn(Election::new(client.clone(), name.clone()).run(health.clone(), leading));
        let writer = Writer::new(client, name, health, capture_patience);
        tasks.spawn(writer::run(writer, mesh.clone(), controller.clone(), leads));
        let listener = listen::listen(listen, Sharing::Alone)
            .map_err(|error| RunError::Listen(listen, error))?;
        Ok(Started { controller, mesh, listener, is_serving, _tasks: tasks })
    }
}

impl Started {
    /// Where agents are served.
    ///
    /// # Errors
    /// Where the socket has no address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What is known.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// Serves agents until `shutdown` ends.
    ///
    /// # Errors
    /// Where the socket fails.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        if let Ok(address) = self.address() {
            tracing::info!(%address, "listening");
        }
        self.is_serving.send_replace(true);
        Ok(self.controller.serve(self.listener, shutdown).await?)
    }
}

async fn follow(client: Client, health: Health, mesh: Arc<Mesh>, is_listed: watch::Sender<bool>) {
    cluster::watch(client, health, |objects| {
        let (mesh, is_listed) = (mesh.clone(), &is_listed);
        async move {
            let count = objects.in_use.len();
            let set = task::spawn_blocking(move || mesh.set_objects(objects));
            if let Err(error) = set.await {
                tracing::error!(%error, "compiling failed; agents keep what they have");
            }
            if !is_listed.send_replace(true) {
                tracing::info!(objects = count, "the cluster is known");
            }
            true
        }
    })
    .await;
}

/// Compiles when captures changed, for ever.
async fn recompile(mesh: Arc<Mesh>) {
    loop {
        mesh.stale().await;
        tokio::time::sleep(SETTLE).await;
        let started = Instant::now();
        publish(&mesh).await;
        tokio::time::sleep(started.elapsed()).await;
    }
}

async fn publish(mesh: &Arc<Mesh>) {
    let mesh = mesh.clone();
    if let Err(error) = task::spawn_blocking(move || mesh.publish()).await {
        tracing::error!(%error, "compiling failed; agents keep what they have");
    }
}
