//! A server for one test, and kubectl pointed at it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mesh_apiserver::{ApiServer, Settings};
use serde_json::Value;
use tempfile::TempDir;

/// What anything may take at most: much, since machines can be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A server and its files.
pub struct Cluster {
    pub server: ApiServer,
    directory: TempDir,
}

impl Cluster {
    /// A server that lets administrators do everything.
    pub fn start() -> Result<Self> {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = ApiServer::start(listen, directory.path(), settings)?;
        Ok(Self { server, directory })
    }

    /// Writes a file for kubectl and says where it is.
    pub fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.directory.path().join(name);
        fs::write(&path, content)?;
        Ok(path.to_str().context("temporary files have plain names")?.to_owned())
    }

    /// The administrator's kubectl.
    pub fn kubectl(&self) -> Kubectl {
        self.kubectl_of(self.server.kubeconfig())
    }

    /// The kubectl of a kubeconfig.
    pub fn kubectl_of(&self, config: PathBuf) -> Kubectl {
        Kubectl { config, home: self.directory.path().to_owned() }
    }
}

/// kubectl for one cluster, with a cache of its own.
pub struct Kubectl {
    config: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.config)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)
            .output()
            .context("kubectl is missing: `cargo xtask test` installs Debian's kubernetes-client")
    }

    /// What it prints when all goes well.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!("kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it prints as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat())?)?)
    }

    /// What it says when it fails.
    pub fn fails(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if output.status.success() {
            bail!("kubectl {arguments:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Starts one that goes on.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("it is a pipe")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { child, lines })
    }
}

/// A kubectl that runs until it is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// The next line that it prints.
    pub fn line(&mut self, what: &str) -> Result<String> {
        self.lines.recv_timeout(DEADLINE).with_context(|| format!("waited in vain for {what}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
