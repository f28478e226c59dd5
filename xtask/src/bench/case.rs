//! What is compared, and the stage that all of it runs on.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, Pod, process::Background, wait};

/// How connections get from the client's pod to the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// From pod to pod, both outside the mesh.
    NoMesh,
    /// Through a relay on each node, mutual TLS between them.
    RelayPair,
    /// Through nodemesh.
    Nodemesh,
}

impl Case {
    /// Every case, in the order of the table.
    pub const ALL: [Self; 3] = [Self::NoMesh, Self::RelayPair, Self::Nodemesh];
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMesh => "no mesh",
            Self::RelayPair => "bare tokio + rustls relay pair",
            Self::Nodemesh => "nodemesh",
        })
    }
}

/// A server that every case reaches in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// nginx, a page of 1 KiB.
    Http,
    /// iperf3.
    Bulk,
    /// 64 bytes back and forth.
    Echo,
}

impl Server {
    const ALL: [Self; 3] = [Self::Http, Self::Bulk, Self::Echo];

    fn port(self) -> u16 {
        match self {
            Self::Http => 8080,
            Self::Bulk => 5201,
            Self::Echo => 7000,
        }
    }
}

/// Relays listen this far above the port that they lead to.
const RELAY_IN: u16 = 10_000;
/// The TLS side of relays.
const RELAY_TLS: u16 = 20_000;
/// The size of the page that nginx serves.
const PAGE_BYTES: usize = 1024;
/// Connections held while memory is looked at.
const HELD: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes, pods, servers, daemons and relays, all running for the whole benchmark.
pub struct Stage {
    pub mesh: Mesh,
    relays: Vec<Background>,
}

impl Stage {
    pub fn set_up(peer: &Path) -> Result<Self> {
        let mesh = Mesh::two_nodes("bench")
            .quiet()
            .meshed("meshed")
            .pod("node-1", "meshed/client")
            .pod("node-2", "meshed/server")
            .pod("node-1", "plain/client")
            .pod("node-2", "plain/server")
            .start()?;
        for name in ["meshed/server", "plain/server"] {
            serve(mesh.pod(name), peer)?;
        }
        let mut stage = Self { mesh, relays: Vec::new() };
        stage.start_relays(peer)?;
        Ok(stage)
    }

    /// The pod that calls in a case.
    pub fn client(&self, case: Case) -> &Pod {
        self.mesh.pod(if case == Case::Nodemesh { "meshed/client" } else { "plain/client" })
    }

    /// Where that pod finds a server.
    pub fn address(&self, case: Case, server: Server) -> SocketAddr {
        let port = server.port();
        match case {
            Case::NoMesh => SocketAddr::new(self.mesh.pod("plain/server").ipv4(), port),
            Case::RelayPair => SocketAddr::new(self.node_address("node-1"), port + RELAY_IN),
            Case::Nodemesh => SocketAddr::new(self.mesh.pod("meshed/server").ipv4(), port),
        }
    }

    /// The processes between client and server.
    pub fn proxies(&self, case: Case) -> Vec<u32> {
        match case {
            Case::NoMesh => Vec::new(),
            Case::RelayPair => self.relays.iter().map(Background::pid).collect(),
            Case::Nodemesh => self.agents(),
        }
    }

    /// The larger of the agents' resident sets, in MiB.
    pub fn agent_memory(&self) -> Result<f64> {
        let sizes = self.agents().into_iter().map(resident_mib).collect::<Result<Vec<_>>>()?;
        Ok(sizes.into_iter().fold(0.0, f64::max))
    }

    /// The same while a thousand connections are open.
    pub fn agent_memory_with_connections(&self, peer: &Path) -> Result<f64> {
        let address = self.address(Case::Nodemesh, Server::Echo);
        let mut command = self.client(Case::Nodemesh).place.command(peer);
        command.args(["hold", &address.to_string(), "--count", &HELD.to_string()]);
        let mut holder = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the process that holds connections")?;
        let mut output = holder.stdout.take().context("its output")?;
        // It prints once every connection has carried a message.
        std::io::Read::read_exact(&mut output, &mut [0; 1])
            .context("the process that holds connections ended early")?;
        let memory = self.agent_memory();
        drop(holder.stdin.take());
        holder.wait()?;
        memory
    }

    fn agents(&self) -> Vec<u32> {
        ["node-1", "node-2"].iter().filter_map(|node| self.mesh.agent(node).pid()).collect()
    }

    fn node_address(&self, node: &str) -> IpAddr {
        self.mesh.node(node).address().into()
    }

    fn start_relays(&mut self, peer: &Path) -> Result<()> {
        let certificates = self.mesh.layout().run_dir().join("relay");
        let written = Command::new(peer).arg("certificates").arg(&certificates).status()?;
        anyhow::ensure!(written.success(), "{} cannot write certificates", peer.display());
        let server = self.mesh.pod("plain/server").ipv4();
        for port in Server::ALL.map(Server::port) {
            let clear = SocketAddr::new(self.node_address("node-1"), port + RELAY_IN);
            let tls = SocketAddr::new(self.node_address("node-2"), port + RELAY_TLS);
            let far = SocketAddr::new(server, port);
            for (node, side, listen, connect) in
                [("node-2", "relay-server", tls, far), ("node-1", "relay-client", clear, tls)]
            {
                self.relays.push(self.start_relay(
                    peer,
                    node,
                    side,
                    [listen, connect],
                    &certificates,
                )?);
            }
        }
        Ok(())
    }

    fn start_relay(
        &self,
        peer: &Path,
        node: &str,
        side: &str,
        [listen, connect]: [SocketAddr; 2],
        certificates: &Path,
    ) -> Result<Background> {
        let place = &self.mesh.node(node).place;
        let mut command = place.command(peer);
        command.args([side, &listen.to_string(), &connect.to_string(), "--certificates"]);
        command.arg(certificates);
        let log: PathBuf = self.mesh.layout().log(&format!("{side}-{}", listen.port()));
        let relay = Background::spawn(command, &log)?;
        wait::until(&format!("{side} to listen on {listen}"), PATIENCE, || {
            Ok(place.netns.listens_on(listen.port())?.then_some(()))
        })
        .with_context(|| relay.log())?;
        Ok(relay)
    }
}

fn serve(pod: &Pod, peer: &Path) -> Result<()> {
    let page = "x".repeat(PAGE_BYTES);
    pod.serve_nginx(Server::Http.port(), &format!("return 200 \"{page}\";"))?;
    pod.serve(Server::Bulk.port(), &["iperf3", "--server"])?;
    let peer = peer.to_string_lossy();
    let listen = format!("0.0.0.0:{}", Server::Echo.port());
    pod.serve(Server::Echo.port(), &[&*peer, "echo", &listen])
}

pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS in /proc/PID/status")?
        .parse()?;
    Ok(kib / 1024.0)
}
