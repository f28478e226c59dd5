//! The folder of Kubernetes YAML that the controller serves.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{mesh::SERVICE_PORT_NAME, pod::Pod};

/// A folder of objects, one file an object.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
}

impl Objects {
    /// The objects in `folder`, which is made if it is absent.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Adds or replaces a file of objects, at once: the controller never sees half of it.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        let draft = self.folder.join(format!(".{file}"));
        let path = self.folder.join(file);
        fs::write(&draft, yaml).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Takes a file away.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// Writes the Namespace `name`, in the mesh or not.
    pub fn apply_namespace(&self, name: &str, meshed: bool) -> Result<()> {
        self.apply(&format!("namespace-{name}.yaml"), &namespace(name, meshed))
    }
}

/// A Namespace.
pub fn namespace(name: &str, meshed: bool) -> String {
    let labels = if meshed { "\n  labels: { nodemesh.dev/mesh: enabled }" } else { "" };
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}{labels}\n")
}

/// A Node.
pub fn node(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nstatus:\n  addresses:\n  \
         - {{ type: InternalIP, address: {address} }}\n"
    )
}

/// A running Pod with a service account of the pod's name.
pub fn pod(pod: &Pod) -> String {
    let (namespace, name) = split(&pod.name);
    let (node, uid, ipv4, ipv6) = (&pod.node, &pod.uid, pod.ipv4(), pod.ipv6());
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         uid: {uid}\n  labels: {{ app: {name} }}\nspec:\n  nodeName: {node}\n  \
         serviceAccountName: {name}\n  containers:\n  - {{ name: app, image: app }}\nstatus:\n  \
         phase: Running\n  podIP: {ipv4}\n  podIPs:\n  - {{ ip: {ipv4} }}\n  - {{ ip: \"{ipv6}\" \
         }}\n  conditions:\n  - {{ type: Ready, status: \"True\" }}\n"
    )
}

/// A Service with a virtual IP, and the EndpointSlice that says which pods are behind it.
pub fn service(name: &str, address: &str, port: u16, target: u16, pods: &[&Pod]) -> String {
    service_with(name, address, SERVICE_PORT_NAME, port, target, pods)
}

/// The same with a port called `port_name`, which may say what it speaks.
pub fn service_with(
    name: &str,
    address: &str,
    port_name: &str,
    port: u16,
    target: u16,
    pods: &[&Pod],
) -> String {
    let (namespace, name) = split(name);
    let endpoints: String = pods
        .iter()
        .map(|pod| {
            let (ip, (_, target_name)) = (pod.ipv4(), split(&pod.name));
            format!(
                "- addresses: [{ip}]\n  conditions: {{ ready: true }}\n  nodeName: {}\n  \
                 targetRef: {{ kind: Pod, namespace: {namespace}, name: {target_name} }}\n",
                pod.node
            )
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         spec:\n  clusterIP: {address}\n  clusterIPs: [{address}]\n  selector: {{ app: {name} }}\n  \
         ports:\n  - {{ name: {port_name}, port: {port}, targetPort: {target} }}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  \
         namespace: {namespace}\n  labels: {{ kubernetes.io/service-name: {name} }}\n\
         addressType: IPv4\nports:\n- {{ name: {port_name}, port: {target}, protocol: TCP \
         }}\nendpoints:\n{endpoints}"
    )
}

/// An AuthorizationPolicy of one ALLOW rule for callers with one of `principals`.
pub fn allow(name: &str, app: &str, principals: &[&str]) -> String {
    let (namespace, name) = split(name);
    format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  \
         namespace: {namespace}\nspec:\n  selector:\n    matchLabels: {{ app: {app} }}\n  \
         action: ALLOW\n  rules:\n  - name: callers\n    from:\n    - principals: [{}]\n",
        principals.join(", ")
    )
}

/// The SPIFFE id of a pod made by [`pod`].
pub fn identity(pod: &str) -> String {
    let (namespace, name) = split(pod);
    format!("spiffe://cluster.local/ns/{namespace}/sa/{name}")
}

/// Namespace and name; a name without a namespace is in `default`.
pub fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("default", name))
}
