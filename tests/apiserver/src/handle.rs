//! The server in a test's hands: start, faults, counts, credentials, stop.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    cluster::{Cluster, Settings},
    fault::{Failure, Faults},
    folder,
    pki::{Authority, Identity, kubeconfig},
    rbac,
    registry::Registry,
    server,
    store::{Key, Store},
    token::{ISSUER, Tokens},
};

/// How many requests there were of each verb and resource.
pub type Counts = BTreeMap<(String, String), u64>;

/// A running API server; dropping it ends it.
pub struct ApiServer {
    cluster: Arc<Cluster>,
    authority: Authority,
    directory: PathBuf,
    address: SocketAddr,
    tls: TlsAcceptor,
    stop: watch::Sender<bool>,
    runtime: Handle,
    /// Dropped, it ends the thread of the runtime.
    _alive: oneshot::Sender<()>,
}

/// The namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

impl ApiServer {
    /// Starts a server at `listen` (port 0: any) that leaves `admin.kubeconfig` and `ca.crt` in
    /// `directory`.
    pub fn start(listen: SocketAddr, directory: &Path, settings: Settings) -> Result<Self> {
        Self::start_at(listen, &[], directory, settings)
    }

    /// The same, with a certificate that is good for more addresses.
    pub fn start_at(
        listen: SocketAddr,
        more: &[IpAddr],
        directory: &Path,
        settings: Settings,
    ) -> Result<Self> {
        let (runtime, alive) = run()?;
        let listener = bind(&runtime, listen)?;
        let address = listener.local_addr()?;
        let authority = Authority::new()?;
        let certificate = authority.certificate();
        let mut addresses: Vec<IpAddr> =
            vec![[127, 0, 0, 1].into(), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), address.ip()];
        addresses.extend(more);
        let tls = server::tls(&authority.server(&addresses)?, &certificate)?;
        let cluster = Arc::new(Cluster {
            store: Store::new(settings.history),
            registry: Registry::new(),
            faults: Faults::new(),
            tokens: Tokens::new()?,
            address: address.to_string(),
            certificate,
            settings,
        });
        for name in NAMESPACES {
            let namespace =
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            folder::add(&cluster, namespace)?;
        }
        for object in rbac::builtin() {
            folder::add(&cluster, object)?;
        }
        let directory = directory.to_owned();
        let stop = watch::Sender::new(false);
        let server =
            Self { cluster, authority, directory, address, tls, stop, runtime, _alive: alive };
        server.write_files()?;
        server.spawn(listener);
        Ok(server)
    }

    fn write_files(&self) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        fs::write(self.directory.join("ca.crt"), &self.cluster.certificate)?;
        self.kubeconfig_of("admin", &["system:masters"])?;
        Ok(())
    }

    fn spawn(&self, listener: TcpListener) {
        let (cluster, tls) = (self.cluster.clone(), self.tls.clone());
        let stop = self.stop.subscribe();
        self.runtime.spawn(server::serve(cluster, tls, listener, stop));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    /// Writes a kubeconfig with a client certificate of that user and these groups.
    pub fn kubeconfig_of(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let credentials = self.authority.client(user, groups)?;
        let address = self.address.to_string();
        let identity = Identity::Certificate(&credentials);
        let config = kubeconfig(&address, &self.cluster.certificate, &identity);
        let path = self.directory.join(format!("{user}.kubeconfig"));
        fs::write(&path, config)?;
        Ok(path)
    }

    /// Signs a token for an account that is there, for these audiences (none: the API server) and
    /// for any number of seconds.
    pub fn token(
        &self,
        namespace: &str,
        account: &str,
        audiences: &[&str],
        seconds: i64,
    ) -> Result<String> {
        let key = Key {
            resource: "serviceaccounts".to_owned(),
            namespace: namespace.to_owned(),
            name: account.to_owned(),
        };
        let object = self.cluster.store.lock().get(&key);
        let object = object.with_context(|| format!("no account {account} in {namespace}"))?;
        let audiences = if audiences.is_empty() { &[ISSUER] } else { audiences };
        let audiences: Vec<_> = audiences.iter().map(|&audience| audience.to_owned()).collect();
        Ok(self.cluster.tokens.issue(namespace, &object, &audiences, seconds, None).0)
    }

    /// Writes a kubeconfig with a token of an account, good for an hour.
    pub fn kubeconfig_of_account(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token(namespace, account, &[], 3600)?;
        let address = self.address.to_string();
        let config = kubeconfig(&address, &self.cluster.certificate, &Identity::Token(&token));
        let path = self.directory.join(format!("{namespace}-{account}.kubeconfig"));
        fs::write(&path, config)?;
        Ok(path)
    }

    /// Ends every token that was signed until now.
    pub fn expire_tokens(&self) {
        self.cluster.tokens.expire();
    }

    /// Stores every object of the YAML files in a folder, their status included.
    pub fn load(&self, folder: &Path) -> Result<()> {
        folder::load(&self.cluster, folder)
    }

    /// Stores a new object as it is, its status included.
    pub fn add(&self, object: Value) -> Result<()> {
        folder::add(&self.cluster, object)
    }

    /// Ends every connection and refuses new ones.
    pub fn stop_listening(&self) {
        self.stop.send_replace(true);
    }

    /// Listens again, at the same address, after [`Self::stop_listening`].
    pub fn start_listening(&self) -> Result<()> {
        self.spawn(bind(&self.runtime, self.address)?);
        Ok(())
    }

    /// Breaks every watch off, between two events.
    pub fn cut_watches(&self) {
        self.cluster.faults.cut(|cut| cut.now += 1);
    }

    /// Breaks every watch off in the middle of its next event.
    pub fn cut_watches_in_event(&self) {
        self.cluster.faults.cut(|cut| cut.in_event += 1);
    }

    /// Ends every watch with an ERROR event that says 410.
    pub fn expire_watches(&self) {
        self.cluster.faults.cut(|cut| cut.gone += 1);
    }

    /// Answers so many of the next watch requests with 410.
    pub fn refuse_watches(&self, watches: u64) {
        self.cluster.faults.watches_gone(watches);
    }

    /// Sends a bookmark on every watch that takes them.
    pub fn bookmark(&self) {
        self.cluster.faults.cut(|cut| cut.bookmark += 1);
    }

    /// Forgets all history: what is older than now is answered with 410.
    pub fn compact(&self) {
        self.cluster.store.lock().compact();
    }

    /// Lets every answer wait.
    pub fn delay(&self, delay: Duration) {
        self.cluster.faults.set_delay(delay);
    }

    /// Lets requests fail.
    pub fn fail(&self, failure: Failure) {
        self.cluster.faults.fail(failure);
    }

    /// Takes back delays, failures and refusals that have not happened yet.
    pub fn heal(&self) {
        self.cluster.faults.clear();
    }

    /// Requests since the start or the last reset.
    pub fn counts(&self) -> Counts {
        self.cluster.faults.counts()
    }

    /// Requests of one verb and resource.
    pub fn count(&self, verb: &str, resource: &str) -> u64 {
        self.counts().get(&(verb.to_owned(), resource.to_owned())).copied().unwrap_or(0)
    }

    /// What roles did not allow since the start, as clients were told.
    pub fn refusals(&self) -> Vec<String> {
        self.cluster.faults.refusals()
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.cluster.faults.reset_counts();
    }
}

/// A runtime on a thread of its own, so that tests need none.
fn run() -> Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (alive, ended) = oneshot::channel::<()>();
    thread::Builder::new().name("apiserver".to_owned()).spawn(move || runtime.block_on(ended))?;
    Ok((handle, alive))
}

fn bind(runtime: &Handle, address: SocketAddr) -> Result<TcpListener> {
    let _entered = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port of a server that just stopped is free again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("listening on {address}"))?;
    Ok(socket.listen(1024)?)
}
