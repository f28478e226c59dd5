//! The mesh of a story: two nodes, pods, a controller and an agent a node.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    binaries, cleanup,
    daemon::Daemon,
    flows::Flow,
    layout::Layout,
    node::Node,
    objects::Objects,
    pod::Pod,
    process::{self, Seen},
    wait,
};

mod builder;

pub use builder::MeshBuilder;

/// What generated Services call their port.
pub const SERVICE_PORT_NAME: &str = "main";

/// How long daemons may take until they are ready, and the mesh to take in a change.
pub const READY: Duration = Duration::from_secs(30);

/// Two nodes, their pods and daemons; gone when dropped.
#[derive(Debug)]
pub struct Mesh {
    layout: Layout,
    nodes: Vec<Node>,
    pods: BTreeMap<String, Pod>,
    daemons: BTreeMap<String, Daemon>,
    objects: Objects,
    quiet: bool,
    by_process: bool,
    keep: bool,
}

impl Mesh {
    /// A mesh of two nodes, named after its story and this process.
    pub fn two_nodes(story: &str) -> MeshBuilder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::two_nodes_called(&format!("{story}-{}-{count}", std::process::id()))
    }

    /// A mesh of two nodes under a fixed id, of which there is one at a time.
    pub fn two_nodes_called(id: &str) -> MeshBuilder {
        MeshBuilder::new(id)
    }

    /// Names and paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A pod that the story has laid out.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("the story has no pod {name}"))
    }

    /// Every pod.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// A node, `node-1` or `node-2`.
    pub fn node(&self, name: &str) -> &Node {
        let node = self.nodes.iter().find(|node| node.name == name);
        node.unwrap_or_else(|| panic!("a mesh has no node {name}"))
    }

    /// Both nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The controller.
    pub fn controller(&self) -> &Daemon {
        self.daemon("controller")
    }

    /// The agent of a node.
    pub fn agent(&self, node: &str) -> &Daemon {
        self.daemon(&agent_name(node))
    }

    /// The folder that the controller serves.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Leaves everything running when this is dropped, until the id is claimed again.
    pub fn keep(&mut self) -> Result<()> {
        self.keep = true;
        cleanup::disown(&self.layout)
    }

    /// Runs `nodemesh` with `arguments` against the agent of `node`.
    pub fn nodemesh(&self, node: &str, arguments: &[&str]) -> Result<Seen> {
        let mut command = Command::new(binaries::find("nodemesh")?);
        command.args(arguments).arg("--socket").arg(self.layout.socket(node));
        process::run(&mut command, READY)
    }

    /// What both agents remember, oldest first a node.
    pub fn flows(&self) -> Result<Vec<Flow>> {
        let mut flows = Vec::new();
        for node in &self.nodes {
            // An agent that is down has nothing to tell.
            if self.agent(&node.name).pid().is_none() {
                continue;
            }
            let seen = self.nodemesh(&node.name, &["flows", "-o", "json", "--last", "1000"])?;
            for line in seen.success()?.lines() {
                flows.push(Flow::parse(line)?);
            }
        }
        Ok(flows)
    }

    /// The newest flow with these field values; waits for it.
    pub fn flow(&self, fields: &[(&str, &str)]) -> Result<Flow> {
        let mut last = Vec::new();
        let found = wait::until(&format!("a flow with {fields:?}"), READY, || {
            last = self.flows()?;
            Ok(last.iter().rev().find(|flow| flow.has(fields)).cloned())
        });
        found.with_context(|| {
            let flows: Vec<_> = last.iter().map(ToString::to_string).collect();
            format!("flows were:\n{}\n{}", flows.join("\n"), self.last_words())
        })
    }

    /// What `nodemesh status` says of a node, as JSON, and its exit code.
    pub fn status(&self, node: &str) -> Result<(serde_json::Value, i32)> {
        let seen = self.nodemesh(node, &["status", "-o", "json"])?;
        let status = serde_json::from_str(&seen.stdout).with_context(|| format!("{seen}"))?;
        Ok((status, seen.code))
    }

    /// Starts the controller and the agents and waits until every agent is ready.
    pub fn start_daemons(&self) -> Result<()> {
        self.start_controller()?;
        for node in &self.nodes {
            self.issue_token(&node.name)?;
            self.agent(&node.name).start()?;
        }
        for node in &self.nodes {
            self.wait_ready(&node.name)?;
        }
        Ok(())
    }

    /// Starts the controller and waits until it listens.
    pub fn start_controller(&self) -> Result<()> {
        let controller = self.controller();
        controller.start()?;
        let netns = &self.node("node-1").place.netns;
        wait::until("the controller to listen on port 15012", READY, || {
            controller.check_alive()?;
            Ok(netns.listens_on(15012)?.then_some(()))
        })
        .with_context(|| controller.last_words())
    }

    /// Waits until a node's agent says that it is ready.
    pub fn wait_ready(&self, node: &str) -> Result<()> {
        let agent = self.agent(node);
        let netns = &self.node(node).place.netns;
        wait::until(&format!("{} to answer /readyz", agent.name), READY, || {
            agent.check_alive()?;
            Ok(netns.run(readyz)?.then_some(()))
        })
        .with_context(|| format!("{}\n{}", agent.last_words(), self.controller().last_words()))
    }

    /// The end of every daemon's log.
    pub fn last_words(&self) -> String {
        self.daemons.values().map(Daemon::last_words).collect::<Vec<_>>().join("\n")
    }

    /// Removes every trace of a node's agent from the kernel, as `mesh-agent cleanup` does.
    pub fn clean_node(&self, node: &str) -> Result<Seen> {
        self.node(node).place.run(&self.cleanup(node)?)
    }

    /// The same with /proc/sys as container runtimes mount it: read-only.
    pub fn clean_node_as_a_container(&self, node: &str) -> Result<Seen> {
        let lay_out = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
                       exec \"$@\"";
        let unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", lay_out, "sh"];
        let command_line = unshare.into_iter().map(str::to_owned).chain(self.cleanup(node)?);
        self.node(node).place.run(&command_line.collect::<Vec<_>>())
    }

    fn cleanup(&self, node: &str) -> Result<Vec<String>> {
        let command = [path_text(&binaries::find("mesh-agent")?), "cleanup".to_owned()];
        Ok(command.into_iter().chain(self.node_flags(node)).collect())
    }

    /// Writes the join token of a node to the file that its agent reads.
    pub fn issue_token(&self, node: &str) -> Result<()> {
        let controller = path_text(&binaries::find("mesh-controller")?);
        let state = path_text(&self.layout.controller_state());
        let token = self
            .node("node-1")
            .place
            .run(&[controller.as_str(), "token", node, "--state-dir", &state])?
            .success()?;
        let file = self.layout.token(node);
        fs::write(&file, token.trim())?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn daemon(&self, name: &str) -> &Daemon {
        self.daemons.get(name).unwrap_or_else(|| panic!("a mesh has no {name}"))
    }

    /// The flags that the agent of a node and its cleanup have in common.
    fn node_flags(&self, node: &str) -> Vec<String> {
        let by_path = ("--pod-netns", self.layout.pod_netns_template());
        [
            ("--node", node.to_owned()),
            ("--bpffs", path_text(&self.layout.bpffs())),
            ("--state-dir", path_text(&self.layout.agent_state())),
        ]
        .into_iter()
        .chain((!self.by_process).then_some(by_path))
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !self.quiet {
            // Test runners show this only where the test failed.
            eprintln!("{}", self.last_words());
        }
        if self.keep {
            // Programs are detached by their process groups; only their handles go.
            std::mem::take(&mut self.daemons).into_values().for_each(std::mem::forget);
            std::mem::take(&mut self.pods).into_values().for_each(std::mem::forget);
            return;
        }
        if let Err(error) = cleanup::sweep(&self.layout) {
            eprintln!("cleaning up mesh {}: {error:#}", self.layout.id());
        }
    }
}

fn agent_name(node: &str) -> String {
    format!("agent-{node}")
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether the agent of this network namespace answers 200 on its readiness port.
fn readyz() -> bool {
    let ask = || -> Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", 15021))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 ") {
            bail!("not an answer: {answer}");
        }
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    // Whatever goes wrong here, the agent is not ready; the wait around this has the deadline.
    ask().unwrap_or(false)
}
