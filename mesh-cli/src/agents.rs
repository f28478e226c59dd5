//! The agents of this machine, each behind its Unix socket.

use std::{
    error::Error as StdError,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use hyper_util::rt::TokioIo;
use mesh_common::api::v1::agent_client::AgentClient;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Where agents put their sockets when nothing else is said.
const DIRECTORY: &str = "/run/nodemesh";
/// How long an agent may take to answer; it does so from memory.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Which agents to ask.
#[derive(clap::Args, Clone, Debug)]
pub struct Sockets {
    /// Socket of an agent; may be repeated [default: every /run/nodemesh/*.sock]
    #[arg(long = "socket", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// An agent that can be asked.
pub type Agent = AgentClient<Channel>;

impl Sockets {
    /// The sockets to ask, at least one.
    ///
    /// # Errors
    /// Where none was given and none is found.
    pub fn find(&self) -> anyhow::Result<Vec<PathBuf>> {
        if !self.paths.is_empty() {
            return Ok(self.paths.clone());
        }
        let mut found = match fs::read_dir(DIRECTORY) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
        .with_context(|| format!("cannot look into {DIRECTORY}; are you root?"))?;
        found.retain(|path| path.extension().is_some_and(|it| it == "sock"));
        found.sort();
        if found.is_empty() {
            bail!(
                "no agent has a socket in {DIRECTORY}: start mesh-agent on this machine, or name \
                 its socket with --socket"
            );
        }
        Ok(found)
    }
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

/// Connects to the agent behind `socket`.
///
/// # Errors
/// Where it is not there or nobody may connect; the text says what to do.
pub async fn connect(socket: &Path) -> anyhow::Result<Agent> {
    let path = socket.to_owned();
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is not used, but has to be one.
    let endpoint = Endpoint::from_static("http://agent");
    let connecting = endpoint.connect_with_connector(connector);
    let connected = match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(connected) => connected.map_err(|error| reason(&error)),
        Err(_) => Err("it does not answer; look at its log".to_owned()),
    };
    match connected {
        Ok(channel) => Ok(AgentClient::new(channel)),
        Err(reason) => bail!("cannot reach the agent behind {}: {reason}", socket.display()),
    }
}

/// Why a socket cannot be connected to, and what to do.
fn reason(error: &(dyn StdError + 'static)) -> String {
    let Some(io) = error.downcast_ref::<io::Error>() else {
        return error.source().map_or_else(|| error.to_string(), reason);
    };
    let advice = match io.kind() {
        io::ErrorKind::NotFound => "no such socket; is the agent running, is the path right?",
        io::ErrorKind::ConnectionRefused => "the agent has ended; start it again",
        io::ErrorKind::PermissionDenied => "only root may ask an agent; use sudo",
        _ => return io.to_string(),
    };
    advice.to_owned()
}
