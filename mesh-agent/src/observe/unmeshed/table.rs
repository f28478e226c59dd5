//! Which connections of this node's pods are from before, kept across a restart of the agent.
//!
//! A connection is one of them because its socket was there when its pod was captured, known by
//! the cookie that the kernel gives no second socket. So nothing that the mesh carries is ever
//! taken for one.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Unmeshed;
use crate::{
    capture::netns::Netns,
    files,
    observe::sock_diag::{self, SockDiagError, State, TcpSocket, tcp_sockets},
};

type Cookies = HashSet<u64>;

/// The connections from before, by the pod's uid. Every call but those that ask is cheap.
#[derive(Debug, Default)]
pub struct UnmeshedTable {
    file: Option<PathBuf>,
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    held: HashMap<Arc<str>, Held>,
    /// What an earlier agent knew of pods that were not captured again yet.
    stored: HashMap<Arc<str>, Cookies>,
}

/// What is known of one pod.
#[derive(Debug)]
struct Held {
    netns: Arc<Netns>,
    cookies: Cookies,
}

/// Sockets of a namespace that are open now.
struct Open {
    netns: Arc<Netns>,
    sockets: Vec<TcpSocket>,
}

impl UnmeshedTable {
    /// A table that is kept in `file`, with what an earlier agent wrote there.
    pub fn load(file: PathBuf) -> Self {
        let stored = match read(&file) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(
                    path = %file.display(), %error,
                    "cannot read which connections are from before the mesh; they are not counted"
                );
                HashMap::new()
            }
        };
        Self { file: Some(file), pods: Mutex::new(Pods { held: HashMap::new(), stored }) }
    }

    /// Forgets what an earlier agent knew, but of the pods that it captured and that are captured
    /// still. Of others it means nothing: cookies start again with each boot.
    pub fn keep_only(&self, captured: &[Arc<str>]) {
        self.pods().stored.retain(|uid, _| captured.contains(uid));
    }

    /// Takes down what a pod has open that is captured now, for the first time.
    pub fn note(&self, uid: &Arc<str>, netns: &Arc<Netns>, connections: &[Unmeshed]) {
        let cookies: Cookies = connections.iter().map(|it| it.socket.cookie).collect();
        let mut pods = self.pods();
        let had_any = pods.held.remove(uid).is_some() | pods.stored.remove(uid).is_some();
        let has_any = !cookies.is_empty();
        if has_any {
            pods.held.insert(Arc::clone(uid), Held { netns: Arc::clone(netns), cookies });
        }
        if has_any || had_any {
            self.keep(&pods);
        }
    }

    /// Takes over what an earlier agent knew of a pod.
    pub fn recall(&self, uid: &Arc<str>, netns: &Arc<Netns>) {
        let mut pods = self.pods();
        if let Some(cookies) = pods.stored.remove(uid) {
            pods.held.insert(Arc::clone(uid), Held { netns: Arc::clone(netns), cookies });
        }
    }

    /// Forgets a pod that has left the mesh.
    pub fn forget(&self, uid: &str) {
        let mut pods = self.pods();
        if pods.held.remove(uid).is_some() | pods.stored.remove(uid).is_some() {
            self.keep(&pods);
        }
    }

    /// How many of a pod's connections from before are still open. Asks the kernel, if there were
    /// any when it was asked last.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn count(&self, uid: &str) -> Result<usize, SockDiagError> {
        let mut pods = self.pods();
        let open = pods.open(uid)?.map_or(0, |open| open.sockets.len());
        Ok(open)
    }

    /// Ends a pod's connections from before; how many there were.
    ///
    /// # Errors
    /// Where the kernel cannot be asked, or cannot end connections.
    pub fn close(&self, uid: &str) -> Result<usize, SockDiagError> {
        let mut pods = self.pods();
        let Some(open) = pods.open(uid)? else { return Ok(0) };
        let ended = sock_diag::destroy(&open.netns, &open.sockets)?;
        pods.held.remove(uid);
        self.keep(&pods);
        Ok(ended)
    }

    fn keep(&self, pods: &Pods) {
        let Some(file) = &self.file else { return };
        let held = pods.held.iter().map(|(uid, held)| (&**uid, &held.cookies));
        let all = held.chain(pods.stored.iter().map(|(uid, cookies)| (&**uid, cookies)));
        let all: HashMap<&str, &Cookies> = all.collect();
        let written = serde_json::to_vec(&all).map_err(io::Error::from);
        if let Err(error) = written.and_then(|content| files::replace(file, &content)) {
            tracing::warn!(
                path = %file.display(), %error,
                "cannot keep which connections are from before the mesh; after a restart of the \
                 agent they are not counted"
            );
        }
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pods {
    /// Those of a pod's that are still open; forgets the others.
    fn open(&mut self, uid: &str) -> Result<Option<Open>, SockDiagError> {
        let Some(held) = self.held.get_mut(uid) else { return Ok(None) };
        let mut open = tcp_sockets(&held.netns, State::Open)?;
        open.retain(|socket| socket.is_held() && held.cookies.contains(&socket.cookie));
        held.cookies = open.iter().map(|socket| socket.cookie).collect();
        let netns = Arc::clone(&held.netns);
        if open.is_empty() {
            self.held.remove(uid);
        }
        Ok(Some(Open { netns, sockets: open }))
    }
}

fn read(file: &PathBuf) -> io::Result<HashMap<Arc<str>, Cookies>> {
    let content = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        content => content?,
    };
    let stored: HashMap<String, Cookies> = serde_json::from_slice(&content)?;
    Ok(stored.into_iter().map(|(uid, cookies)| (uid.into(), cookies)).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        path::Path,
    };

    use super::*;
    use crate::observe::flow::Reporter;

    /// One end of a connection over loopback, which a real pod's list leaves out, and the rest.
    fn connection(netns: &Netns) -> (Unmeshed, TcpStream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let own = client.local_addr().expect("connected");
        let open = tcp_sockets(netns, State::Open).expect("listed");
        let socket = open.into_iter().find(|socket| socket.local == own).expect("the client");
        (Unmeshed { reporter: Reporter::Source, socket }, client, listener)
    }

    #[test]
    fn counts_what_is_open_still_and_ends_nothing_else() {
        let netns = Arc::new(Netns::open(Path::new("/proc/self/ns/net")).expect("a namespace"));
        let table = UnmeshedTable::default();
        let ((one, first, _a), (other, second, _b)) = (connection(&netns), connection(&netns));
        let (_, third, _c) = connection(&netns);
        let pod: Arc<str> = "u1".into();
        table.note(&pod, &netns, &[one, other]);
        assert_eq!(table.count(&pod).expect("asked"), 2);
        drop(first);
        assert_eq!(table.count(&pod).expect("asked"), 1);
        assert_eq!(table.close("u2").expect("asked"), 0, "another pod");
        assert_eq!(table.close(&pod).expect("asked"), 1);
        assert_eq!(table.count(&pod).expect("asked"), 0);
        assert!(second.peer_addr().is_err(), "it was ended");
        assert!(third.peer_addr().is_ok(), "it is from after");
    }

    #[test]
    fn survives_a_restart_for_pods_that_are_captured_still() {
        let netns = Arc::new(Netns::open(Path::new("/proc/self/ns/net")).expect("a namespace"));
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("unmeshed.json");
        let [pod, gone]: [Arc<str>; 2] = ["u1".into(), "u2".into()];
        let (one, _client, _listener) = connection(&netns);
        let table = UnmeshedTable::load(file.clone());
        table.note(&pod, &netns, &[one]);
        table.note(&gone, &netns, &[one]);

        let table = UnmeshedTable::load(file.clone());
        table.keep_only(&[Arc::clone(&pod)]);
        assert_eq!(table.count(&pod).expect("asked"), 0, "its namespace is not known yet");
        table.recall(&pod, &netns);
        table.recall(&gone, &netns);
        assert_eq!(table.count(&pod).expect("asked"), 1);
        assert_eq!(table.count(&gone).expect("asked"), 0);
        table.forget(&pod);
        let table = UnmeshedTable::load(file);
        table.recall(&pod, &netns);
        assert_eq!(table.count(&pod).expect("asked"), 0, "it was forgotten");
    }
}
