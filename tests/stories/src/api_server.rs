//! An API server on the first node, with whatever Debian's kubectl puts into it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh, binaries,
    mesh::READY,
    process::{Background, Seen},
};
use serde_json::{Value, json};

/// Its address, on the first node, so that all reach it.
pub const HOST: &str = "10.80.0.1";
/// Its port.
pub const PORT: &str = "6443";
/// Where the agents' account gets tokens.
const TOKEN: &str = "/api/v1/namespaces/nodemesh-system/serviceaccounts/mesh-agent/token";

/// The running server.
pub struct ApiServer {
    /// Its files; `admin.kubeconfig` and `ca.crt` are among them.
    pub directory: PathBuf,
    _process: Background,
}

impl ApiServer {
    /// Starts it with its files in `directory` and with further flags.
    pub fn start(mesh: &Mesh, directory: PathBuf, flags: &[&str]) -> Result<Self> {
        let binary = binaries::find("mesh-apiserver")?.to_string_lossy().into_owned();
        let (listen, dir) = (format!("{HOST}:{PORT}"), directory.to_string_lossy().into_owned());
        let command = [&[&*binary, "--listen", &listen, "--dir", &dir], flags].concat();
        let log = mesh.layout().log("apiserver");
        let mut process = mesh.nodes()[0].place.spawn(&command, &log)?;
        process.wait_for_line("mesh-apiserver is ready at https", READY)?;
        Ok(Self { directory, _process: process })
    }

    /// Runs a program on the first node, with the kubeconfig of an administrator.
    pub fn run(&self, mesh: &Mesh, command_line: &[&str]) -> Result<Seen> {
        mesh.nodes()[0].place.run_for(&self.command_line(command_line), READY * 10)
    }

    /// The same for a program that goes on.
    pub fn spawn(&self, mesh: &Mesh, command_line: &[&str], log: &str) -> Result<Background> {
        let log = mesh.layout().log(log);
        mesh.nodes()[0].place.spawn(&self.command_line(command_line), &log)
    }

    /// Runs Debian's kubectl. Where it is missing the story fails: `cargo xtask test` installs it.
    pub fn try_kubectl(&self, mesh: &Mesh, arguments: &[&str]) -> Result<Seen> {
        self.run(mesh, &[&["kubectl"], arguments].concat())
    }

    /// What kubectl prints; a refusal is an error.
    pub fn kubectl(&self, mesh: &Mesh, arguments: &[&str]) -> Result<String> {
        self.try_kubectl(mesh, arguments)?.success()
    }

    /// A token of the agents' account, with `spec` as TokenRequests have it.
    pub fn token(&self, mesh: &Mesh, spec: &Value) -> Result<String> {
        // `kubectl create token` speaks protobuf, which the tests' server does not.
        let request = self.directory.join("token.json");
        let kind = "TokenRequest";
        let object =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": kind, "spec": spec });
        fs::write(&request, object.to_string())?;
        let create = ["create", "--raw", TOKEN, "-f", &request.to_string_lossy()];
        let token: Value = serde_json::from_str(&self.kubectl(mesh, &create)?)?;
        Ok(token["status"]["token"].as_str().context("no token")?.to_owned())
    }

    fn command_line(&self, command_line: &[&str]) -> Vec<String> {
        let home = self.directory.display();
        let kubeconfig = format!("KUBECONFIG={home}/admin.kubeconfig");
        let variables = ["env".to_owned(), format!("HOME={home}"), kubeconfig];
        variables.into_iter().chain(command_line.iter().map(|&word| word.to_owned())).collect()
    }
}
