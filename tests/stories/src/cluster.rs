//! A mesh whose controller follows an API server that Debian's kubectl works with.

use std::fs;

use anyhow::Result;
use mesh_harness::{
    Mesh, MeshBuilder,
    mesh::READY,
    process::{Background, Seen},
    wait,
};
use serde_json::json;

use crate::api_server::ApiServer;

/// As little of a definition of the Gateway API as an API server wants: the real one says more.
const HTTP_ROUTES: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: httproutes.gateway.networking.k8s.io }
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: { kind: HTTPRoute, listKind: HTTPRouteList, plural: httproutes, singular: httproute }
  versions:
  - name: v1
    served: true
    storage: true
    subresources: { status: {} }
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: { type: object, x-kubernetes-preserve-unknown-fields: true }
          status: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

/// An API server with the objects of a mesh, and the mesh.
pub struct Cluster {
    /// Nodes, pods, daemons.
    pub mesh: Mesh,
    server: ApiServer,
}

impl Cluster {
    /// Puts what `mesh` is made of into an API server and starts its daemons with that.
    pub fn start(mesh: MeshBuilder) -> Result<Self> {
        let directory = mesh.layout()?.run_dir().join("cluster");
        let mesh = mesh.follow_cluster(&directory.join("admin.kubeconfig")).lay_out()?;
        mesh.objects().apply("routes.yaml", HTTP_ROUTES)?;
        mesh.objects().apply("agents.yaml", &agents(&mesh))?;
        let objects = mesh.layout().objects().to_string_lossy().into_owned();
        let server = ApiServer::start(&mesh, directory, &["--folder", &objects])?;
        let cluster = Self { mesh, server };
        cluster.start_daemons()?;
        Ok(cluster)
    }

    /// Runs a program on the first node, with the kubeconfig of an administrator.
    pub fn run(&self, command_line: &[&str]) -> Result<Seen> {
        self.server.run(&self.mesh, command_line)
    }

    /// The same for a program that goes on.
    pub fn spawn(&self, command_line: &[&str], log: &str) -> Result<Background> {
        self.server.spawn(&self.mesh, command_line, log)
    }

    /// Runs Debian's kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.server.kubectl(&self.mesh, arguments)
    }

    /// Starts controller and agents, and does what kubelets would: gives agents the files of their pods.
    fn start_daemons(&self) -> Result<()> {
        self.mesh.start_controller()?;
        let bundle = ["get", "configmap", "nodemesh-trust-bundle", "-n", "nodemesh-system"];
        let bundle = self.kubectl(&[&bundle[..], &["-o", "jsonpath={.data.root\\.crt}"]].concat());
        let authority = self.mesh.layout().controller_state().join("ca");
        fs::create_dir_all(&authority)?;
        fs::write(authority.join("root.crt"), bundle?)?;
        for node in self.mesh.nodes() {
            let name = &node.name;
            let token = self.token(name)?;
            fs::write(self.mesh.layout().token(name), token)?;
            self.mesh.agent(name).start()?;
        }
        self.mesh.nodes().iter().try_for_each(|node| self.mesh.wait_ready(&node.name))?;
        // Ready is: tried. The other node hears of it by way of the API server.
        let pods = self.mesh.pods().filter(|pod| pod.name.starts_with("shop/")).count();
        wait::until("all pods to be captured", READY, || {
            let status = self.mesh.nodes().iter().map(|node| self.mesh.status(&node.name));
            let status = status.collect::<Result<Vec<_>>>()?;
            let captured = status.iter().map(|(it, _)| it.to_string().matches("captured").count());
            Ok((captured.sum::<usize>() >= pods).then_some(()))
        })
    }

    /// The token that a kubelet would put into the pod of a node's agent.
    fn token(&self, node: &str) -> Result<String> {
        let pod = format!("mesh-agent-{node}");
        let spec = json!({
            "audiences": ["nodemesh-controller"],
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod },
        });
        self.server.token(&self.mesh, &spec)
    }
}

/// The namespace, account and pods of the agents.
fn agents(mesh: &Mesh) -> String {
    let mut yaml = "\
apiVersion: v1
kind: Namespace
metadata: { name: nodemesh-system }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: mesh-agent, namespace: nodemesh-system }
"
    .to_owned();
    for node in mesh.nodes() {
        let (name, address) = (&node.name, node.address());
        yaml += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: mesh-agent-{name}\n  \
             namespace: nodemesh-system\n  labels: {{ app.kubernetes.io/name: mesh-agent }}\nspec:\n  \
             nodeName: {name}\n  serviceAccountName: mesh-agent\n  hostNetwork: true\n  \
             containers: [{{ name: agent, image: nodemesh }}]\nstatus:\n  phase: Running\n  \
             podIP: {address}\n  podIPs: [{{ ip: {address} }}]\n"
        );
    }
    yaml
}
