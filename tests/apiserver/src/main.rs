//! `mesh-apiserver`: the server as a process.

use std::{
    io::{Write, stdout},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::Result;
use clap::Parser;
use mesh_apiserver::{ApiServer, Settings};

/// An API server for tests: objects in memory, Kubernetes' own protocol over TLS.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes any that is free.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// More addresses that the certificate is good for.
    #[arg(long)]
    san: Vec<IpAddr>,
    /// Where admin.kubeconfig and ca.crt are written.
    #[arg(long)]
    dir: PathBuf,
    /// Objects of these YAML files are there from the start.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Let Roles and bindings decide who may do what.
    #[arg(long)]
    rbac: bool,
    /// Let deleted pods stay until somebody ends them, as they wait for a kubelet.
    #[arg(long)]
    no_kubelets: bool,
    /// Write every request to standard error.
    #[arg(long)]
    log: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { rbac, no_kubelets, log, .. } = arguments;
    let settings = Settings { rbac, kubelets: !no_kubelets, log, ..Settings::default() };
    let server = ApiServer::start_at(arguments.listen, &arguments.san, &arguments.dir, settings)?;
    if let Some(folder) = &arguments.folder {
        server.load(folder)?;
    }
    println!("mesh-apiserver is ready at https://{}", server.address());
    stdout().flush()?;
    loop {
        std::thread::park();
    }
}
