//! The mesh of a story: two nodes, pods, a controller and an agent a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
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
    objects::{self, Objects},
    pod::Pod,
    process::{self, Seen},
    wait,
};

/// What generated Services call their port.
pub const SERVICE_PORT_NAME: &str = "main";

/// How long daemons may take until they are ready, and the mesh to take in a change.
pub const READY: Duration = Duration::from_secs(30);

/// What a mesh is to be made of.
#[derive(Debug)]
pub struct MeshBuilder {
    id: String,
    pods: Vec<(String, String, Option<u8>)>,
    services: Vec<(String, String, u16, u16)>,
    meshed: BTreeSet<String>,
    folder: Option<PathBuf>,
    quiet: bool,
}

impl MeshBuilder {
    /// Puts a pod, `namespace/name`, on a node.
    pub fn pod(mut self, node: &str, name: &str) -> Self {
        self.pods.push((node.to_owned(), name.to_owned(), None));
        self
    }

    /// Puts a pod on a node with the address whose last part is `host`.
    pub fn pod_at(mut self, node: &str, name: &str, host: u8) -> Self {
        self.pods.push((node.to_owned(), name.to_owned(), Some(host)));
        self
    }

    /// Puts a virtual IP in front of the pod of the same name.
    pub fn service(mut self, name: &str, address: &str, port: u16, target: u16) -> Self {
        self.services.push((name.to_owned(), address.to_owned(), port, target));
        self
    }

    /// Labels a namespace into the mesh.
    pub fn meshed(mut self, namespace: &str) -> Self {
        self.meshed.insert(namespace.to_owned());
        self
    }

    /// Serves a copy of this folder instead of objects made from pods and services.
    pub fn objects_from(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Does not print logs when the mesh goes.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Makes nodes, pods and objects, starts the daemons and waits until all is captured.
    pub fn start(self) -> Result<Mesh> {
        let mesh = self.lay_out()?;
        mesh.start_daemons()?;
        Ok(mesh)
    }

    /// Makes nodes, pods and objects without any daemon.
    pub fn lay_out(self) -> Result<Mesh> {
        let layout = Layout::new(&self.id)?;
        cleanup::sweep_abandoned()?;
        cleanup::claim(&layout)?;
        // From here on, dropping the mesh takes away whatever has been made of it.
        let mut mesh = Mesh {
            objects: Objects::new(layout.objects())?,
            layout,
            nodes: Vec::new(),
            pods: BTreeMap::new(),
            daemons: BTreeMap::new(),
            quiet: self.quiet,
            keep: false,
        };
        mesh.build(self)?;
        Ok(mesh)
    }
}

/// Two nodes, their pods and daemons; gone when dropped.
#[derive(Debug)]
pub struct Mesh {
    layout: Layout,
    nodes: Vec<Node>,
    pods: BTreeMap<String, Pod>,
    daemons: BTreeMap<String, Daemon>,
    objects: Objects,
    quiet: bool,
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
        MeshBuilder {
            id: id.to_owned(),
            pods: Vec::new(),
            services: Vec::new(),
            meshed: BTreeSet::new(),
            folder: None,
            quiet: false,
        }
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
        let mut command_line = vec![path_text(&binaries::find("mesh-agent")?)];
        command_line.push("cleanup".to_owned());
        command_line.extend(self.node_flags(node));
        self.node(node).place.run(&command_line)
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

    fn build(&mut self, builder: MeshBuilder) -> Result<()> {
        for directory in ["logs", "tokens", "pods"] {
            fs::create_dir_all(self.layout.run_dir().join(directory))?;
        }
        for number in [1, 2] {
            self.nodes.push(Node::create(&self.layout, number)?);
        }
        self.nodes[0].join(&self.nodes[1])?;
        for (at, (node, name, host)) in builder.pods.iter().enumerate() {
            // From 10 on: 1 is the gateway, and small numbers are easily mistaken for nodes.
            let host = host.map_or_else(|| u8::try_from(10 + at), Ok)?;
            let pod = Pod::create(&self.layout, self.node(node), name, host)?;
            self.pods.insert(name.clone(), pod);
        }
        match &builder.folder {
            Some(folder) => self.copy_objects(folder)?,
            None => self.write_objects(&builder)?,
        }
        self.define_daemons()
    }

    fn copy_objects(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = name
                && path.is_file()
            {
                self.objects.apply(&name, &fs::read_to_string(&path)?)?;
            }
        }
        Ok(())
    }

    fn write_objects(&self, builder: &MeshBuilder) -> Result<()> {
        for node in &self.nodes {
            let yaml = objects::node(&node.name, &node.address().to_string());
            self.objects.apply(&format!("{}.yaml", node.name), &yaml)?;
        }
        let namespaces: BTreeSet<_> =
            self.pods.keys().map(|pod| objects::split(pod).0.to_owned()).collect();
        for namespace in namespaces.union(&builder.meshed) {
            self.objects.apply_namespace(namespace, builder.meshed.contains(namespace))?;
        }
        for pod in self.pods.values() {
            let file = format!("pod-{}.yaml", pod.name.replace('/', "-"));
            self.objects.apply(&file, &objects::pod(pod))?;
        }
        for (name, address, port, target) in &builder.services {
            let yaml = objects::service(name, address, *port, *target, &[self.pod(name)]);
            self.objects.apply(&format!("service-{}.yaml", name.replace('/', "-")), &yaml)?;
        }
        Ok(())
    }

    fn define_daemons(&mut self) -> Result<()> {
        let text = |path: PathBuf| path_text(&path);
        let first = &self.nodes[0];
        let controller = vec![
            binary("mesh-controller"),
            "serve".to_owned(),
            "--source".to_owned(),
            text(self.layout.objects()),
            "--state-dir".to_owned(),
            text(self.layout.controller_state()),
            "--listen".to_owned(),
            "0.0.0.0:15012".to_owned(),
        ];
        let mut daemons = vec![("controller".to_owned(), first.place.clone(), controller)];
        for node in &self.nodes {
            let mut agent = vec![binary("mesh-agent")];
            agent.extend(self.node_flags(&node.name));
            agent.extend([
                "--controller".to_owned(),
                format!("https://{}:15012", first.address()),
                "--controller-ca".to_owned(),
                text(self.layout.controller_state().join("ca/root.crt")),
                "--join-token-file".to_owned(),
                text(self.layout.token(&node.name)),
                "--cgroup".to_owned(),
                text(self.layout.node_cgroup(&node.name)),
                "--admin-socket".to_owned(),
                text(self.layout.socket(&node.name)),
            ]);
            daemons.push((agent_name(&node.name), node.place.clone(), agent));
        }
        for (name, place, command_line) in daemons {
            let log = self.layout.log(&name);
            let daemon = Daemon::new(&name, place, command_line, log);
            self.daemons.insert(name, daemon);
        }
        Ok(())
    }

    /// The flags that the agent of a node and its cleanup have in common.
    fn node_flags(&self, node: &str) -> Vec<String> {
        [
            ("--node", node.to_owned()),
            ("--bpffs", path_text(&self.layout.bpffs())),
            ("--state-dir", path_text(&self.layout.agent_state())),
            ("--pod-netns", self.layout.pod_netns_template()),
        ]
        .into_iter()
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

/// The path of a daemon; its bare name where it is not built, so that only starting it fails.
fn binary(name: &str) -> String {
    binaries::find(name).map_or_else(|_| name.to_owned(), |path| path_text(&path))
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
