//! A pod: a network namespace, a cgroup, and the unmodified programs that run in them.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    binaries, cgroup,
    layout::{Layout, pod_addresses},
    netns::Netns,
    node::Node,
    process::{Background, Place, Seen},
    wait,
};

/// How long a server may take until it listens.
const SERVER_START: Duration = Duration::from_secs(10);

/// One pod of a mesh.
#[derive(Debug)]
pub struct Pod {
    /// `namespace/name`.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Where its programs run.
    pub place: Place,
    addresses: (Ipv4Addr, Ipv6Addr),
    files: PathBuf,
    servers: Mutex<Vec<Background>>,
}

impl Pod {
    /// Makes the namespace and the cgroup of a pod and links them to `node`.
    pub fn create(layout: &Layout, node: &Node, name: &str, host: u8) -> Result<Self> {
        let netns = Netns::create(&layout.netns(name))?;
        netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        node.link_pod(&netns, host)?;
        // Agents see the processes of every mesh that is up.
        let uid = format!("{}-{}", layout.id(), name.replace('/', "-"));
        let cgroup = layout.pod_cgroup(&node.name, &uid);
        cgroup::create(&cgroup)?;
        let files = layout.pod_files(name);
        fs::create_dir_all(&files).with_context(|| format!("making {}", files.display()))?;
        Ok(Self {
            name: name.to_owned(),
            node: node.name.clone(),
            uid,
            place: Place { netns, cgroup },
            addresses: pod_addresses(node.number, host),
            files,
            servers: Mutex::default(),
        })
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> IpAddr {
        self.addresses.0.into()
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> IpAddr {
        self.addresses.1.into()
    }

    /// A directory for files of its programs.
    pub fn files(&self) -> &PathBuf {
        &self.files
    }

    /// Starts what keeps a sandbox, a program that does nothing, as another user than root.
    pub fn start_sandbox(&self) -> Result<()> {
        let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
        let sandbox = self.spawn(&[&nobody[..], &["sleep", "infinity"]].concat())?;
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox);
        Ok(())
    }

    /// Runs a program to its end.
    pub fn run<S: AsRef<OsStr>>(&self, command_line: &[S]) -> Result<Seen> {
        self.place.run(command_line)
    }

    /// Starts a program that goes on until the result is dropped.
    pub fn spawn<S: AsRef<OsStr>>(&self, command_line: &[S]) -> Result<Background> {
        let program = command_line.first().context("no program to start")?.as_ref();
        let program = PathBuf::from(program).file_name().context("no program")?.to_owned();
        let log = self.files.join(program).with_extension("log");
        self.place.spawn(command_line, &log)
    }

    /// What `url` answers, body and status, within ten seconds; a refusal is an error.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.try_curl(url)?.success()
    }

    /// Like [`Pod::curl`], for calls that are to fail: the outcome as it is.
    pub fn try_curl(&self, url: &str) -> Result<Seen> {
        self.run(&["curl", "--silent", "--show-error", "--fail", "--max-time", "10", url])
    }

    /// Starts an nginx that answers every request with `body`.
    pub fn serve_http(&self, port: u16, body: &str) -> Result<()> {
        self.serve_nginx(port, &format!("return 200 \"{body}\\n\";"))
    }

    /// Starts an nginx with `location`, the inside of a location block for `/`.
    ///
    /// Debian's nginx as it is; one process, everything it writes in the pod's directory.
    pub fn serve_nginx(&self, port: u16, location: &str) -> Result<()> {
        self.serve_nginx_with(port, "", location)
    }

    /// The same for HTTP/2 alone, without TLS.
    pub fn serve_nginx_http2(&self, port: u16, location: &str) -> Result<()> {
        self.serve_nginx_with(port, " http2", location)
    }

    fn serve_nginx_with(&self, port: u16, flags: &str, location: &str) -> Result<()> {
        let directory = self.files.join(format!("nginx-{port}"));
        fs::create_dir_all(&directory)?;
        let at = directory.display();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  client_max_body_size 0;\n\
             \x20 keepalive_requests 1000000000;\n\
             \x20 client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n\
             \x20 fastcgi_temp_path {at}/fastcgi;\n  uwsgi_temp_path {at}/uwsgi;\n\
             \x20 scgi_temp_path {at}/scgi;\n  default_type text/plain;\n\
             \x20 server {{\n    listen {port}{flags};\n    listen [::]:{port}{flags};\n\
             \x20   location / {{ {location} }}\n  }}\n}}\n"
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, config)?;
        let file = file.to_string_lossy().into_owned();
        let at = at.to_string();
        let error_log = format!("{at}/error.log");
        self.serve(port, &["nginx", "-p", &at, "-e", &error_log, "-c", &file])
    }

    /// Starts a Redis that keeps everything in memory.
    pub fn serve_redis(&self, port: u16) -> Result<()> {
        let port_text = port.to_string();
        let options = ["--bind", "*", "-::*", "--protected-mode", "no", "--save", ""];
        let mut command = vec!["redis-server", "--port", &port_text];
        command.extend(options);
        self.serve(port, &command)
    }

    /// Starts `mesh-peer serve`, the other end for what curl cannot do.
    pub fn serve_peer(&self, port: u16, behaviour: &[&str]) -> Result<()> {
        let peer = binaries::find("mesh-peer")?.to_string_lossy().into_owned();
        let address = format!("[::]:{port}");
        let mut command = vec![peer.as_str(), "serve", &address];
        command.extend(behaviour);
        self.serve(port, &command)
    }

    /// Runs `mesh-peer call` against `address`.
    pub fn call_peer(&self, address: &str, behaviour: &[&str]) -> Result<Seen> {
        let peer = binaries::find("mesh-peer")?.to_string_lossy().into_owned();
        let mut command = vec![peer.as_str(), "call", address];
        command.extend(behaviour);
        self.place.run_for(&command, Duration::from_secs(300))
    }

    /// Starts a server that lives as long as the mesh and waits until it listens on `port`.
    pub fn serve<S: AsRef<OsStr>>(&self, port: u16, command_line: &[S]) -> Result<()> {
        let mut server = self.spawn(command_line)?;
        wait::until(&format!("{} to listen on port {port}", self.name), SERVER_START, || {
            if let Some(code) = server.ended()? {
                anyhow::bail!("the server of {} ended with {code}:\n{}", self.name, server.log());
            }
            Ok(self.place.netns.listens_on(port)?.then_some(()))
        })?;
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Ok(())
    }

    /// What the pod's servers have printed.
    pub fn server_log(&self) -> String {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.iter().map(Background::log).collect()
    }

    /// Ends the pod's servers.
    pub fn stop_servers(&self) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
