//! The API server that the program talks to: the tests' own, or a real one where
//! KUBEBUILDER_ASSETS has its programs.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    thread,
};

use mesh_apiserver::{ApiServer, Envtest, Settings};
use serde_json::{Value, json};

use crate::kubernetes::{Kubernetes, Played};

const NAMESPACES: &str = "/api/v1/namespaces";

pub enum Server {
    StandIn(Box<ApiServer>),
    Real {
        admin: Kubernetes,
        server: Envtest,
        /// Ends namespaces, which no controller does there.
        _ends: Played,
    },
}

impl Server {
    /// One as the environment says.
    pub fn start(folder: &Path) -> Self {
        let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") else {
            return Self::StandIn(Box::new(stand_in(folder, Settings::default())));
        };
        let server = Envtest::start(&PathBuf::from(assets), folder);
        let server = server.unwrap_or_else(|error| panic!("{error:#}"));
        let admin = Kubernetes::by(server.kubeconfig());
        admin.wait();
        let ends = admin.play(end_namespaces);
        Self::Real { admin, server, _ends: ends }
    }

    /// The tests' own, for a test that has it misbehave; none where a real one is asked for.
    pub fn that_fails(folder: &Path, settings: Settings) -> Option<Self> {
        if env::var_os("KUBEBUILDER_ASSETS").is_some() {
            let test = thread::current().name().unwrap_or_default().to_owned();
            eprintln!("LEFT OUT: {test} needs an API server that does as it is told");
            return None;
        }
        Some(Self::StandIn(Box::new(stand_in(folder, settings))))
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::StandIn(server) => server.kubeconfig(),
            Self::Real { server, .. } => server.kubeconfig().to_owned(),
        }
    }

    /// Makes an object with its status.
    pub fn add(&self, object: Value) {
        match self {
            Self::StandIn(server) => server.add(object).expect("an object"),
            Self::Real { admin, .. } => admin.create(object),
        }
    }

    /// The tests' own.
    pub fn own(&self) -> &ApiServer {
        match self {
            Self::StandIn(server) => server,
            Self::Real { .. } => panic!("only a test of Server::that_fails has it misbehave"),
        }
    }
}

fn stand_in(folder: &Path, settings: Settings) -> ApiServer {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ApiServer::start(listen, folder, settings).expect("an API server")
}

/// What Kubernetes' namespace controller does when all is gone that was in one.
fn end_namespaces(admin: &Kubernetes) {
    for mut namespace in admin.list(NAMESPACES) {
        if namespace["metadata"]["deletionTimestamp"].is_string() {
            namespace["spec"]["finalizers"] = json!([]);
            let name = namespace["metadata"]["name"].as_str().expect("a name").to_owned();
            admin.put(&format!("{NAMESPACES}/{name}/finalize"), &namespace);
        }
    }
}
