//! Pods, servers and proxies, all running for the whole benchmark.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_harness::{Mesh, Pod, objects, process::Background, wait};

use super::{
    Course, Protocol, Proxy, Way,
    config::{self, Leg, Side, at},
};
use crate::setup;

/// The size of the page that nginx serves.
const PAGE_BYTES: usize = 1024;
/// Where nginx serves it.
const HTTP1: u16 = 8080;
/// Where nginx answers gRPC calls.
const GRPC: u16 = 8090;
/// How far above the server's port each leg of the others listens, and then each of them.
const PLAIN: u16 = 10_000;
const OUT: u16 = 20_000;
const IN: u16 = 30_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub mesh: Mesh,
    others: Vec<(Proxy, Background)>,
}

impl Stage {
    pub fn set_up(peer: &Path) -> Result<Self> {
        let mesh = Mesh::two_nodes("bench-http")
            .quiet()
            .meshed("meshed")
            .pod("node-1", "meshed/client")
            .pod("node-2", "meshed/server")
            .pod("node-1", "plain/client")
            .pod("node-2", "plain/server")
            .start()?;
        for name in ["meshed/server", "plain/server"] {
            serve(mesh.pod(name))?;
            let namespace = objects::split(name).0;
            for protocol in [Protocol::Http1, Protocol::Grpc] {
                let service = format!("{namespace}/{}", port_name(protocol));
                let way = if namespace == "meshed" { Way::Mtls } else { Way::Plain };
                let address = virtual_ip(Course { protocol, way }).to_string();
                let yaml = objects::service_with(
                    &service,
                    &address,
                    port_name(protocol),
                    80,
                    server_port(protocol),
                    &[mesh.pod(name)],
                );
                mesh.objects().apply(&format!("{}.yaml", service.replace('/', "-")), &yaml)?;
            }
        }
        let mut stage = Self { mesh, others: Vec::new() };
        stage.start_others(peer)?;
        for course in Course::ALL {
            for proxy in Proxy::ALL {
                stage.wait_for(course, proxy)?;
            }
        }
        Ok(stage)
    }

    /// The pod that calls.
    pub fn client(&self, proxy: Proxy) -> &Pod {
        self.mesh.pod(if proxy == Proxy::Nodemesh { "meshed/client" } else { "plain/client" })
    }

    /// Where that pod calls.
    pub fn address(&self, course: Course, proxy: Proxy) -> SocketAddr {
        let port = server_port(course.protocol);
        match proxy {
            Proxy::NoMesh => at(self.mesh.pod("plain/server").ipv4(), port),
            Proxy::Nodemesh => at(virtual_ip(course), 80),
            other => {
                let leg = if course.way == Way::Plain { PLAIN } else { OUT };
                at(self.node("node-1"), port + leg + offset(other))
            }
        }
    }

    /// The processes between client and server.
    pub fn proxies(&self, proxy: Proxy) -> Vec<u32> {
        match proxy {
            Proxy::NoMesh => Vec::new(),
            Proxy::Nodemesh => {
                ["node-1", "node-2"].iter().filter_map(|it| self.mesh.agent(it).pid()).collect()
            }
            other => {
                let of = self.others.iter().filter(|(proxy, _)| *proxy == other);
                of.map(|(_, process)| process.pid()).collect()
            }
        }
    }

    fn node(&self, name: &str) -> IpAddr {
        self.mesh.node(name).address().into()
    }

    fn start_others(&mut self, peer: &Path) -> Result<()> {
        let certificates = self.mesh.layout().run_dir().join("certificates");
        let written = Command::new(peer).arg("certificates").arg(&certificates).status()?;
        ensure!(written.success(), "{} cannot write certificates", peer.display());
        for side in ["client", "server"] {
            let read = |end| fs::read_to_string(certificates.join(format!("{side}.{end}")));
            fs::write(certificates.join(format!("{side}.pem")), read("crt")? + &read("key")?)?;
        }
        for proxy in Proxy::OTHERS {
            for node in ["node-1", "node-2"] {
                let process = self
                    .start_other(proxy, node, &certificates)
                    .with_context(|| format!("{} on {node}", proxy.name()))?;
                self.others.push((proxy, process));
            }
        }
        Ok(())
    }

    fn legs(&self, proxy: Proxy, node: &str) -> Vec<Leg> {
        let server = self.mesh.pod("plain/server").ipv4();
        let protocols = [Protocol::Http1, Protocol::Grpc];
        let leg = |protocol, listen: u16, connect, side| {
            let listen = at(self.node(node), server_port(protocol) + listen + offset(proxy));
            Leg { protocol, listen, connect, side }
        };
        let legs = protocols.map(|protocol| {
            let port = server_port(protocol);
            if node == "node-2" {
                return vec![leg(protocol, IN, at(server, port), Side::Server)];
            }
            let far = at(self.node("node-2"), port + IN + offset(proxy));
            vec![
                leg(protocol, PLAIN, at(server, port), Side::Nowhere),
                leg(protocol, OUT, far, Side::Client),
            ]
        });
        legs.concat()
    }

    fn start_other(&self, proxy: Proxy, node: &str, certificates: &Path) -> Result<Background> {
        let legs = self.legs(proxy, node);
        let name = format!("{}-{node}", proxy.name());
        let directory = self.mesh.layout().run_dir().join(&name);
        fs::create_dir_all(&directory)?;
        let file = directory.join("config");
        let path = file.to_string_lossy().into_owned();
        let (config, command) = match proxy {
            Proxy::Envoy => {
                let file = format!("{path}.json");
                fs::write(&file, config::envoy(&legs, certificates).to_string())?;
                let binary = setup::envoy().to_string_lossy().into_owned();
                (String::new(), config::envoy_command(&binary, &file))
            }
            Proxy::Haproxy => {
                let command = ["haproxy", "-db", "-f", &path].map(str::to_owned).to_vec();
                (config::haproxy(&legs, certificates), command)
            }
            _ => {
                let error_log = directory.join("error.log").to_string_lossy().into_owned();
                let command = ["nginx", "-e", &error_log, "-c", &path].map(str::to_owned).to_vec();
                (config::nginx(&legs, certificates, &directory), command)
            }
        };
        fs::write(&file, config)?;
        let place = &self.mesh.node(node).place;
        let log: PathBuf = self.mesh.layout().log(&name);
        let mut process = place.spawn(&command, &log)?;
        for leg in legs {
            wait::until(&format!("{name} to listen on {}", leg.listen), PATIENCE, || {
                ensure!(process.ended()?.is_none(), "it ended");
                Ok(place.netns.listens_on(leg.listen.port())?.then_some(()))
            })
            .with_context(|| process.log())?;
        }
        Ok(process)
    }

    /// Waits until a request is answered.
    fn wait_for(&self, course: Course, proxy: Proxy) -> Result<()> {
        let url = format!("http://{}/", self.address(course, proxy));
        let mut command = vec!["curl", "-sS", "--fail", "-m", "5", "-o", "/dev/null"];
        if course.protocol == Protocol::Grpc {
            command.push("--http2-prior-knowledge");
        }
        command.push(&url);
        let mut last = String::new();
        wait::until(&format!("{course}: {}", proxy.name()), PATIENCE, || {
            let seen = self.client(proxy).run(&command)?;
            last = seen.to_string();
            Ok((seen.code == 0).then_some(()))
        })
        .with_context(|| last)
    }
}

fn serve(pod: &Pod) -> Result<()> {
    let page = "x".repeat(PAGE_BYTES);
    pod.serve_nginx(HTTP1, &format!("return 200 \"{page}\";"))?;
    pod.serve_nginx_http2(
        GRPC,
        &format!(
            "default_type application/grpc; add_trailer grpc-status 0; return 200 \"{}\";",
            "y".repeat(64)
        ),
    )
}

fn port_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http",
        Protocol::Grpc => "grpc",
    }
}

fn server_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Http1 => HTTP1,
        Protocol::Grpc => GRPC,
    }
}

/// The Service that a pod of the mesh calls.
fn virtual_ip(course: Course) -> IpAddr {
    let way = if course.way == Way::Plain { 90 } else { 92 };
    let protocol = if course.protocol == Protocol::Http1 { 0 } else { 1 };
    IpAddr::from([10, 96, 0, way + protocol])
}

fn offset(proxy: Proxy) -> u16 {
    match proxy {
        Proxy::Envoy => 100,
        Proxy::Haproxy => 200,
        _ => 300,
    }
}
