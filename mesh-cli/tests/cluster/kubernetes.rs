//! The controllers of Kubernetes, as far as a test plays them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use http::{Request, header};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::Cluster;

/// How often a played controller looks.
const LOOK: Duration = Duration::from_millis(50);
/// A real API server takes some seconds; other tests want the machine, too.
const START: Duration = Duration::from_secs(120);

/// An administrator of a cluster.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    runtime: Arc<Runtime>,
}

/// A controller that is played until this is dropped.
pub struct Played {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubernetes {
    pub fn of(cluster: &Cluster) -> Self {
        Self::by(&cluster.server.kubeconfig())
    }

    /// The user of a kubeconfig.
    pub fn by(kubeconfig: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options).await;
            Client::try_from(config.expect("a configuration")).expect("a client")
        });
        Self { client, runtime: Arc::new(runtime) }
    }

    /// What is at `path`; nothing where that is.
    pub fn get(&self, path: &str) -> Value {
        let request = Request::get(path).body(Vec::new()).expect("a request");
        self.runtime.block_on(self.client.request(request)).unwrap_or_default()
    }

    /// The items of the list at `path`.
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.get(path)["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the API server answers.
    pub fn wait(&self) {
        let end = Instant::now() + START;
        while self.list("/api/v1/namespaces").is_empty() {
            assert!(Instant::now() < end, "the API server does not answer");
            thread::sleep(LOOK);
        }
    }

    /// Makes an object with its status.
    pub fn create(&self, object: Value) {
        let created = self.runtime.block_on(mesh_apiserver::create(&self.client, object));
        created.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Puts `object` to `path`.
    pub fn put(&self, path: &str, object: &Value) {
        let request = Request::put(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(object.to_string().into_bytes())
            .expect("a request");
        // It may be gone meanwhile.
        let _gone = self.runtime.block_on(self.client.request::<Value>(request));
    }

    /// Gives what is at `path` this status, where it is there.
    pub fn set_status(&self, path: &str, status: &Value) {
        let body = json!({ "status": status }).to_string().into_bytes();
        let request = Request::patch(format!("{path}/status"))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(body)
            .expect("a request");
        // It may be gone meanwhile.
        let _gone = self.runtime.block_on(self.client.request::<Value>(request));
    }

    /// Does `turn` again and again.
    pub fn play(&self, turn: impl Fn(&Self) + Send + 'static) -> Played {
        let ends = Arc::new(AtomicBool::new(false));
        let (this, until) = (self.clone(), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                turn(&this);
                thread::sleep(LOOK);
            }
        });
        Played { ends, thread: Some(thread) }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the played controller panicked");
        }
    }
}
