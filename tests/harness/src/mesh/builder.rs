//! From what a story asks for to namespaces, objects and daemons.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Mesh, SERVICE_PORT_NAME, agent_name, path_text};
use crate::{
    binaries, cleanup,
    daemon::Daemon,
    layout::Layout,
    node::Node,
    objects::{self, Objects},
    pod::Pod,
};

/// What a mesh is to be made of.
#[derive(Debug)]
pub struct MeshBuilder {
    id: String,
    pods: Vec<(String, String, Option<u8>)>,
    services: Vec<(String, String, String, u16, u16)>,
    meshed: BTreeSet<String>,
    folder: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    agent_flags: Vec<String>,
    launcher: Vec<String>,
    by_process: bool,
    quiet: bool,
}

impl MeshBuilder {
    /// An empty mesh.
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            pods: Vec::new(),
            services: Vec::new(),
            meshed: BTreeSet::new(),
            folder: None,
            kubeconfig: None,
            agent_flags: Vec::new(),
            launcher: Vec::new(),
            by_process: false,
            quiet: false,
        }
    }

    /// Where everything of the mesh will be.
    pub fn layout(&self) -> Result<Layout> {
        Layout::new(&self.id)
    }

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
    pub fn service(self, name: &str, address: &str, port: u16, target: u16) -> Self {
        self.service_with(name, address, SERVICE_PORT_NAME, port, target)
    }

    /// The same with a port called `port_name`, which may say what it speaks.
    pub fn service_with(
        mut self,
        name: &str,
        address: &str,
        port_name: &str,
        port: u16,
        target: u16,
    ) -> Self {
        let (name, address) = (name.to_owned(), address.to_owned());
        self.services.push((name, address, port_name.to_owned(), port, target));
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

    /// Has the controller follow the cluster of a kubeconfig instead of the folder. Whoever runs that
    /// cluster gives agents their tokens, and the root where the controller's state would have it.
    pub fn follow_cluster(mut self, kubeconfig: &Path) -> Self {
        self.kubeconfig = Some(kubeconfig.to_owned());
        self
    }

    /// Starts the agents with further flags.
    pub fn agent_flags(mut self, flags: &[&str]) -> Self {
        self.agent_flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Starts the agents by a program that takes their command line.
    pub fn launch_agents_by(mut self, launcher: &[&str]) -> Self {
        self.launcher.extend(launcher.iter().map(ToString::to_string));
        self
    }

    /// Has the agents find pods by their processes; see [`Pod::start_sandbox`].
    pub fn by_process(mut self) -> Self {
        self.by_process = true;
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
            by_process: self.by_process,
            keep: false,
        };
        mesh.build(self)?;
        Ok(mesh)
    }
}

impl Mesh {
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
        self.define_daemons(&builder)
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
        for (name, address, port_name, port, target) in &builder.services {
            let pods = [self.pod(name)];
            let yaml = objects::service_with(name, address, port_name, *port, *target, &pods);
            self.objects.apply(&format!("service-{}.yaml", name.replace('/', "-")), &yaml)?;
        }
        Ok(())
    }

    fn define_daemons(&mut self, builder: &MeshBuilder) -> Result<()> {
        let text = |path: PathBuf| path_text(&path);
        let first = &self.nodes[0];
        let mut controller = vec![binary("mesh-controller"), "serve".to_owned()];
        controller.extend(match &builder.kubeconfig {
            Some(kubeconfig) => vec![
                "--kubernetes".to_owned(),
                "--kubeconfig".to_owned(),
                path_text(kubeconfig),
                // The agent of its node has the port that it would take.
                "--health-listen".to_owned(),
                "127.0.0.1:15014".to_owned(),
            ],
            None => vec![
                "--source".to_owned(),
                text(self.layout.objects()),
                "--state-dir".to_owned(),
                text(self.layout.controller_state()),
            ],
        });
        controller.extend(["--listen".to_owned(), "0.0.0.0:15012".to_owned()]);
        let mut daemons = vec![("controller".to_owned(), first.place.clone(), controller)];
        for node in &self.nodes {
            let mut agent = builder.launcher.clone();
            agent.push(binary("mesh-agent"));
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
            agent.extend_from_slice(&builder.agent_flags);
            daemons.push((agent_name(&node.name), node.place.clone(), agent));
        }
        for (name, place, command_line) in daemons {
            let log = self.layout.log(&name);
            let daemon = Daemon::new(&name, place, command_line, log);
            self.daemons.insert(name, daemon);
        }
        Ok(())
    }
}

/// The path of a daemon; its bare name where it is not built, so that only starting it fails.
fn binary(name: &str) -> String {
    binaries::find(name).map_or_else(|_| name.to_owned(), |path| path_text(&path))
}
