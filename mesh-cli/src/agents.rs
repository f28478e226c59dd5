//! The agents: those of this machine, each behind its Unix socket, or those of a cluster, which are
//! reached by its API server.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail, ensure};
use hyper_util::rt::TokioIo;
use mesh_common::{SYSTEM_NAMESPACE, api::v1::agent_client::AgentClient};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    runtime::Runtime,
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{
    cluster::{Cluster, ClusterArgs},
    container,
    rollout::{self, Component},
};

pub mod exec;

/// Where agents put their sockets when nothing else is said.
const DIRECTORY: &str = "/run/nodemesh";
/// How long an agent may take to answer; it does so from memory.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long an API server, a kubelet and a runtime may take to start a command in a pod.
const EXEC_PATIENCE: Duration = Duration::from_secs(20);

/// Where agents are looked for.
#[derive(clap::Args, Clone, Debug)]
pub struct Whereabouts {
    /// Socket of an agent; may be repeated [default: every /run/nodemesh/*.sock; where there is
    /// none, the agents of the cluster]
    #[arg(long = "socket", value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Which agents to ask.
#[derive(clap::Args, Clone, Debug)]
pub struct Agents {
    #[command(flatten)]
    whereabouts: Whereabouts,
    /// Only the agent of this node of the cluster
    #[arg(long, value_name = "NODE", conflicts_with = "paths")]
    node: Option<String>,
}

/// An agent that can be asked.
pub type Agent = AgentClient<Channel>;

/// Where an agent is.
#[derive(Clone)]
pub enum Place {
    /// On this machine, behind this socket.
    Socket(PathBuf),
    /// In this pod of a cluster.
    Pod {
        /// The cluster.
        cluster: Cluster,
        /// The pod's name.
        pod: String,
        /// The node that the agent is of.
        node: String,
        /// The agent's socket, as the pod sees it.
        socket: String,
    },
}

impl Agents {
    /// The cluster that is meant, where it is not about this machine.
    pub fn cluster(&self) -> &ClusterArgs {
        &self.whereabouts.cluster
    }

    /// The agents to ask, at least one.
    ///
    /// # Errors
    /// Where none is found.
    pub async fn find(&self) -> anyhow::Result<Vec<Place>> {
        self.whereabouts.find(self.node.as_deref()).await
    }
}

impl Whereabouts {
    /// The agents to ask, at least one; of a cluster only that of `node`, where one is named.
    ///
    /// # Errors
    /// Where none is found.
    pub async fn find(&self, node: Option<&str>) -> anyhow::Result<Vec<Place>> {
        if !self.paths.is_empty() {
            return Ok(self.paths.iter().cloned().map(Place::Socket).collect());
        }
        if !self.cluster.is_named() && node.is_none() {
            let found = of_this_machine()?;
            if !found.is_empty() {
                return Ok(found.into_iter().map(Place::Socket).collect());
            }
            ensure!(
                self.cluster.is_known(),
                "no agent has a socket in {DIRECTORY}, and no cluster is known: start mesh-agent on \
                 this machine, name its socket with --socket, or a cluster with --kubeconfig or in \
                 KUBECONFIG"
            );
        }
        of_cluster(&self.cluster.connect().await?, node).await
    }
}

/// The sockets in the agents' directory, by name.
fn of_this_machine() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot look into {DIRECTORY}; are you root?"))?;
    found.retain(|path| path.extension().is_some_and(|it| it == "sock"));
    found.sort();
    Ok(found)
}

/// The agents of a cluster that run, by their nodes; only that of `node`, where one is named.
///
/// # Errors
/// Where there is none, or the API server does not say.
pub async fn of_cluster(cluster: &Cluster, node: Option<&str>) -> anyhow::Result<Vec<Place>> {
    let pods = rollout::pods(cluster, Component::Agents).await?;
    let running = pods.iter().filter(|pod| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let mut found: Vec<_> = running
        .filter_map(|pod| {
            let on = pod["spec"]["nodeName"].as_str()?;
            let name = pod["metadata"]["name"].as_str()?;
            let found = || (on.to_owned(), name.to_owned(), socket(pod, on));
            node.is_none_or(|node| node == on).then(found)
        })
        .collect();
    found.sort();
    match node {
        Some(node) if found.is_empty() => bail!(
            "no agent runs on a node {node}: see `kubectl -n {SYSTEM_NAMESPACE} get pods -o wide`"
        ),
        None if found.is_empty() => bail!(
            "no agent runs in this cluster: `nodemesh check` says why, `nodemesh install` puts them \
             there"
        ),
        _ => {}
    }
    let place = |(node, pod, socket)| Place::Pod { cluster: cluster.clone(), pod, node, socket };
    Ok(found.into_iter().map(place).collect())
}

/// Where the agent in a pod has its socket: where it was told, or where agents have theirs.
fn socket(pod: &Value, node: &str) -> String {
    let told = container::flag(&pod["spec"]["containers"][0], "--admin-socket");
    told.map_or_else(|| format!("{DIRECTORY}/{node}.sock"), str::to_owned)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "the agent behind {}", path.display()),
            Self::Pod { node, .. } => write!(f, "the agent of {node}"),
        }
    }
}

/// Asks every agent, all at once; their answers in the order of `places`.
pub async fn each<T: Send + 'static, F>(
    places: Vec<Place>,
    ask: impl Fn(Place) -> F,
) -> Vec<anyhow::Result<T>>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let asked: Vec<_> = places.into_iter().map(|place| tokio::spawn(ask(place))).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.context("the question was interrupted").flatten());
    }
    answers
}

/// Namespace and name of a pod.
pub type Name = (String, String);

/// A pod as people name it: `namespace/name`, or a name beside `--namespace`.
///
/// # Errors
/// Where no namespace is said, or a name is empty.
pub fn pod_name(pod: &str, namespace: Option<&str>) -> anyhow::Result<Name> {
    let (namespace, name) = match (pod.split_once('/'), namespace) {
        (Some((namespace, name)), _) => (namespace, name),
        (None, Some(namespace)) => (namespace, pod),
        (None, None) => bail!("{pod}: no namespace; write NAMESPACE/{pod} or give --namespace"),
    };
    ensure!(!namespace.is_empty() && !name.is_empty(), "{pod}: write NAMESPACE/POD");
    Ok((namespace.to_owned(), name.to_owned()))
}

/// A runtime for a command that waits for answers.
///
/// # Errors
/// Where the system gives no epoll descriptor.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

impl Place {
    /// Connects to the agent.
    ///
    /// # Errors
    /// Where it is not there or nobody may connect; the text says what to do.
    pub async fn connect(&self) -> anyhow::Result<Agent> {
        let connecting = async {
            match self {
                Self::Socket(path) => {
                    let stream = UnixStream::connect(path).await;
                    speak(stream.map_err(|error| anyhow!(reason(&error)))?).await
                }
                Self::Pod { cluster, pod, socket, .. } => {
                    speak(exec::open(cluster, pod, socket).await?).await
                }
            }
        };
        let patience = match self {
            Self::Socket(_) => PATIENCE,
            Self::Pod { .. } => EXEC_PATIENCE,
        };
        match tokio::time::timeout(patience, connecting).await {
            Ok(connected) => connected.with_context(|| format!("cannot reach {self}")),
            Err(_) => bail!("{self} does not answer; look at its log"),
        }
    }

    /// What the agent answers to `call`.
    ///
    /// # Errors
    /// Where it refuses, is too old to know the question, or does not answer.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> anyhow::Result<T> {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                bail!("{self} is older than this command: upgrade it")
            }
            Ok(Err(status)) => bail!("{self} says: {}", status.message()),
            Err(_) => bail!("{self} does not answer; look at its log"),
        }
    }
}

/// A client on a stream that leads to an agent.
async fn speak<S>(stream: S) -> anyhow::Result<Agent>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = stream.take();
        // A stream that has ended is not opened anew: commands are short.
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    // The address is not used, but has to be one.
    let channel = Endpoint::from_static("http://agent").connect_with_connector(connector).await?;
    Ok(AgentClient::new(channel))
}

/// Why a socket cannot be connected to, and what to do.
pub fn reason(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "no such socket; is the agent running, is the path right?",
        io::ErrorKind::ConnectionRefused => "the agent has ended; start it again",
        io::ErrorKind::PermissionDenied => "only root may ask an agent; use sudo",
        _ => return error.to_string(),
    };
    advice.to_owned()
}
