//! An installation that is taken away takes its pods out of the mesh: agents on real nodes, with an
//! API server that speaks Kubernetes' protocol and whoever deletes as they are.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_harness::{Mesh, binaries, ledger::Ledger, mesh::READY, process::Seen, wait};
use mesh_stories::{
    api_server::{ApiServer, HOST, PORT},
    shop,
    traces::kernel_links,
};
use serde_json::{Value, json};

/// What every way out promises.
const PLAIN: Duration = Duration::from_secs(60);
const NODES: [&str; 2] = ["node-1", "node-2"];

/// A mesh whose agents are of a DaemonSet in a cluster.
struct Cluster {
    mesh: Mesh,
    server: ApiServer,
    before: Vec<Ledger>,
}

impl Cluster {
    fn start(story: &str) -> Result<Self> {
        let mesh = shop(story);
        let account = mesh.layout()?.run_dir().join("account");
        let mesh = mesh
            .launch_agents_by(&[
                "env",
                &format!("KUBERNETES_SERVICE_HOST={HOST}"),
                &format!("KUBERNETES_SERVICE_PORT={PORT}"),
            ])
            .agent_flags(&[
                "--daemon-set=nodemesh-system/mesh-agent",
                "--service-account",
                &account.to_string_lossy(),
            ])
            .lay_out()?;
        let before = pods(&mesh)?;
        let directory = mesh.layout().run_dir().join("cluster");
        let server = ApiServer::start(&mesh, directory, &["--rbac", "--no-kubelets"])?;
        let cluster = Self { mesh, server, before };
        cluster.install(&account)?;
        cluster.mesh.pod("shop/web").serve_http(8080, "hello")?;
        cluster.mesh.start_daemons()?;
        Ok(cluster)
    }

    /// Applies the manifests, and does what the controllers of a cluster would: makes the agents'
    /// pods, and gives them the files of their account.
    fn install(&self, account: &Path) -> Result<()> {
        self.kubectl(&["apply", "-k", &overlay()])?;
        fs::create_dir_all(account)?;
        fs::write(account.join("token"), self.server.token(&self.mesh, &json!({}))?)?;
        fs::copy(self.server.directory.join("ca.crt"), account.join("ca.crt"))?;
        let set = ["get", "daemonset", "mesh-agent", "--namespace", "nodemesh-system"];
        let set: Value =
            serde_json::from_str(&self.kubectl(&[&set[..], &["-o", "json"]].concat())?)?;
        for node in NODES {
            let pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": format!("mesh-agent-{node}"),
                    "namespace": "nodemesh-system",
                    "labels": set["spec"]["template"]["metadata"]["labels"],
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "mesh-agent",
                        "uid": set["metadata"]["uid"], "controller": true,
                    }],
                },
                "spec": {
                    "nodeName": node,
                    "containers": [{ "name": "agent", "image": "nodemesh" }],
                },
            });
            let file = self.server.directory.join(format!("{node}.json"));
            fs::write(&file, pod.to_string())?;
            self.kubectl(&["create", "-f", &file.to_string_lossy()])?;
        }
        Ok(())
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Result<Seen> {
        self.server.try_kubectl(&self.mesh, arguments)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.server.kubectl(&self.mesh, arguments)
    }

    /// Runs what takes nodemesh away, ends the agents as kubelets do, and looks at what is left.
    fn leave(&self, command_line: &[&str]) -> Result<()> {
        let (frontend, web) = (self.mesh.pod("shop/frontend"), self.mesh.pod("shop/web"));
        let url = format!("http://{}:8080/", web.ipv4());
        wait::until("the call to go over mTLS", READY, || {
            frontend.curl(&url)?;
            let mtls = [("source/pod", "shop/frontend"), ("security", "mtls")];
            Ok(self.mesh.flows()?.iter().any(|flow| flow.has(&mtls)).then_some(()))
        })?;

        let calling = format!(
            "while true; do curl --silent --show-error --fail --max-time 10 --output /dev/null {url}; \
             sleep 0.01; done"
        );
        let calling = frontend.spawn(&["sh", "-c", &calling])?;
        let mut leaving = self.server.spawn(&self.mesh, command_line, "leaving")?;
        for node in NODES {
            self.end_agent(node)?;
        }
        wait::until("the pods to call each other in plaintext", PLAIN, || {
            Ok((frontend.try_curl(&url)?.code == 0).then_some(()))
        })
        .with_context(|| self.mesh.last_words())?;
        let code = wait::until(&format!("{command_line:?} to end"), PLAIN, || leaving.ended());
        let calls = calling.log();
        ensure!(!calls.contains("curl: ("), "calls failed meanwhile: {calls}");
        drop(calling);
        ensure!(code? == 0, "{}", leaving.log());
        let namespace = ["get", "namespace", "nodemesh-system"];
        ensure!(self.try_kubectl(&namespace)?.stderr.contains("NotFound"));
        self.nothing_is_left()
    }

    /// What a kubelet does with a pod that is deleted: SIGTERM, then the word that it has ended.
    fn end_agent(&self, node: &str) -> Result<()> {
        let pod = format!("mesh-agent-{node}");
        let get = ["get", "pod", &pod, "--namespace", "nodemesh-system"];
        wait::until(&format!("pod {pod} to be deleted"), PLAIN, || {
            let seen = self.kubectl(&[&get[..], &["-o", "json"]].concat())?;
            let object: Value = serde_json::from_str(&seen)?;
            Ok(object["metadata"]["deletionTimestamp"].is_string().then_some(()))
        })?;
        assert_eq!(self.mesh.agent(node).stop()?, 0);
        let delete = ["delete", "pod", &pod, "--namespace", "nodemesh-system"];
        self.kubectl(&[&delete[..], &["--grace-period=0", "--force"]].concat()).map(drop)
    }

    fn nothing_is_left(&self) -> Result<()> {
        let layout = self.mesh.layout();
        let pods = pods(&self.mesh)?;
        let both = self.before.iter().zip(&pods);
        let rules: Vec<_> = both.flat_map(|(before, after)| before.differences(after)).collect();
        assert_eq!(rules, Vec::<String>::new(), "rules and settings of pods");
        assert_eq!(kernel_links(&self.mesh)?, 0, "hooks");
        for directory in [layout.bpffs(), layout.agent_state()] {
            let left: Vec<_> = fs::read_dir(&directory).into_iter().flatten().collect();
            assert!(left.is_empty(), "{}: {left:?}", directory.display());
        }
        for node in NODES {
            assert!(!layout.socket(node).exists(), "the socket of {node}");
        }
        Ok(())
    }
}

fn pods(mesh: &Mesh) -> Result<Vec<Ledger>> {
    mesh.pods().map(|pod| Ledger::of_namespace(&pod.place.netns)).collect()
}

/// What the documentation has people apply and delete.
fn overlay() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/overlays/default").to_owned()
}

#[test]
fn uninstalling_leaves_nothing_on_any_node() -> Result<()> {
    let nodemesh = binaries::find("nodemesh")?;
    Cluster::start("leave-uninstall")?.leave(&[&nodemesh.to_string_lossy(), "uninstall"])
}

#[test]
fn deleting_the_manifests_leaves_nothing_on_any_node() -> Result<()> {
    // The namespace comes first, and may take others along before kubectl asks for them.
    let delete = ["kubectl", "delete", "--ignore-not-found", "-k", &overlay()];
    Cluster::start("leave-kubectl")?.leave(&delete)
}

#[test]
fn deleting_the_namespace_leaves_nothing_on_any_node() -> Result<()> {
    let delete = ["kubectl", "delete", "namespace", "nodemesh-system"];
    Cluster::start("leave-namespace")?.leave(&delete)
}
