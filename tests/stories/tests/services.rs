//! Ways to a pod other than a virtual IP: ports of its node, addresses that somebody else rewrites
//! first, and names that lead to the pod itself.

use anyhow::{Context, Result};
use mesh_harness::{
    Flow, Mesh, Pod,
    link::ip,
    mesh::READY,
    objects::{self, identity},
    wait,
};
use mesh_stories::{python::PYTHON, shop};

const STRICT: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: \
                      strict, namespace: shop }\nspec: { mode: STRICT }\n";
/// A port that the kubelet probes, which it reaches in strict mode too.
const CONTAINER: &str = "  - { name: app, image: app }\n";
const PROBED: &str = "  - name: app\n    image: app\n    readinessProbe: { httpGet: { path: /, \
                      port: 8080 } }\n";
/// A NodePort, and a port of the node as a container asks for it.
const PORTS: [u16; 2] = [30080, 8080];

/// Has node-2 hand both ports to shop/web as kube-proxy and the portmap plugin do; `masquerade`:
/// from its own address.
fn node_ports(mesh: &Mesh, masquerade: bool) -> Result<()> {
    let web = mesh.pod("shop/web").ipv4();
    let rules: String =
        PORTS.iter().map(|port| format!("tcp dport {port} dnat ip to {web}:8080; ")).collect();
    let source = if masquerade { format!("ip daddr {web} masquerade;") } else { String::new() };
    let table = format!(
        "table inet ports {{}}; delete table inet ports; table inet ports {{ chain before {{ type \
         nat hook prerouting priority dstnat; {rules} }}; chain after {{ type nat hook postrouting \
         priority srcnat; {source} }}; }}"
    );
    mesh.node("node-2").place.run(&["nft", &table])?.success().map(drop)
}

/// Which of the node's ports answer a pod outside of the mesh.
fn answering(mesh: &Mesh) -> Result<Vec<u16>> {
    let node = mesh.node("node-2").address();
    let mut answering = Vec::new();
    for port in PORTS {
        let url = format!("http://{node}:{port}/");
        let seen = mesh.pod("legacy/client").run(&["curl", "-sS", "-m", "5", &url])?;
        if seen.code == 0 {
            assert_eq!(seen.stdout, "hello\n");
            answering.push(port);
        }
    }
    Ok(answering)
}

fn until_answering(mesh: &Mesh, ports: &[u16]) -> Result<()> {
    let mut last = Vec::new();
    wait::until(&format!("{ports:?} to answer"), READY, || {
        last = answering(mesh)?;
        Ok((last == ports).then_some(()))
    })
    .with_context(|| format!("{last:?} answer\n{}", mesh.last_words()))
}

#[test]
fn ports_of_a_node_lead_to_a_permissive_pod_and_not_to_a_strict_one() -> Result<()> {
    let mesh = shop("node-ports").start()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "hello")?;
    let yaml = objects::pod(web);
    assert!(yaml.contains(CONTAINER), "{yaml}");
    mesh.objects().apply("pod-shop-web.yaml", &yaml.replace(CONTAINER, PROBED))?;
    for masquerade in [false, true] {
        node_ports(&mesh, masquerade)?;
        assert_eq!(answering(&mesh)?, PORTS, "masquerade: {masquerade}");
    }
    mesh.objects().apply("strict.yaml", STRICT)?;
    until_answering(&mesh, &[])?;
    // Neither way, and not as the node that probes the very port.
    for masquerade in [false, true] {
        node_ports(&mesh, masquerade)?;
        assert!(answering(&mesh)?.is_empty(), "masquerade: {masquerade}");
    }
    Ok(())
}

#[test]
fn a_policy_sees_the_source_that_a_node_port_keeps() -> Result<()> {
    let mesh = shop("node-port-source").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    node_ports(&mesh, false)?;
    let allow = format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: client, \
         namespace: shop }}\nspec:\n  selector:\n    matchLabels: {{ app: web }}\n  action: ALLOW\n  \
         rules:\n  - name: client\n    from:\n    - ipBlocks: [{}/32]\n",
        mesh.pod("legacy/client").ipv4()
    );
    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    mesh.objects().apply("allow.yaml", &allow)?;
    wait::until("others to be refused", READY, || {
        Ok((mesh.pod("shop/batch").try_curl(&url)?.code != 0).then_some(()))
    })?;
    assert_eq!(answering(&mesh)?, PORTS);
    node_ports(&mesh, true)?;
    assert!(answering(&mesh)?.is_empty(), "it is the node that calls");
    Ok(())
}

/// Turns connections to one address into such to a pod, as a replacement of kube-proxy does in
/// connect(), and stays. The offsets are those of `struct bpf_sock_addr`.
const REWRITE: &str = "
import ctypes, os, socket, struct, sys, time
cgroup, virtual, pod, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
def load(dst, src, off): return struct.pack('<BBhi', 0x61, dst | src << 4, off, 0)
def store(dst, src, off): return struct.pack('<BBhi', 0x63, dst | src << 4, off, 0)
def move(dst, value): return struct.pack('<BBhI', 0xb4, dst, 0, value)
def unless(dst, value, skip): return struct.pack('<BBhI', 0x56, dst, skip, value)
word = lambda address: struct.unpack('<I', socket.inet_aton(address))[0]
code = b''.join([
    load(2, 1, 4), unless(2, word(virtual), 4),
    move(2, word(pod)), store(1, 2, 4), move(2, socket.htons(port)), store(1, 2, 24),
    move(0, 1), struct.pack('<BBhi', 0x95, 0, 0, 0),
])
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b'\\0'))
    result = libc.syscall(321, command, buffer, 128)
    if result < 0: raise OSError(ctypes.get_errno(), 'bpf %d' % command)
    return result
instructions, license = (ctypes.create_string_buffer(it) for it in (code, b'GPL'))
at = lambda buffer: ctypes.addressof(buffer)
# BPF_PROG_LOAD of BPF_PROG_TYPE_CGROUP_SOCK_ADDR for BPF_CGROUP_INET4_CONNECT.
program = bpf(5, struct.pack('<IIQQIIQII16sII', 18, len(code) // 8, at(instructions), at(license),
    0, 0, 0, 0, 0, b'', 0, 10))
# BPF_PROG_ATTACH with BPF_F_ALLOW_MULTI.
bpf(8, struct.pack('<IIII', os.open(cgroup, os.O_RDONLY), program, 10, 2))
print('attached', flush=True)
time.sleep(1000)
";

#[test]
fn what_others_rewrite_first_is_recognised_by_the_pods_address() -> Result<()> {
    const VIRTUAL: &str = "10.96.0.99";
    let mesh = shop("rewritten").lay_out()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "shop/web")?;
    let cgroup = mesh.layout().node_cgroup("node-1").to_string_lossy().into_owned();
    let mut rewriter = mesh.node("node-1").place.spawn(
        &[PYTHON, "-c", REWRITE, &cgroup, VIRTUAL, &web.ipv4().to_string(), "8080"],
        &mesh.layout().log("rewriter"),
    )?;
    rewriter.wait_for_line("attached", READY)?;
    mesh.start_daemons()?;
    until_mtls(&mesh, &format!("http://{VIRTUAL}/"), "shop/web", 0)
}

/// Calls `url` until that goes over mTLS to `pod`, in a flow after the first `known`.
fn until_mtls(mesh: &Mesh, url: &str, pod: &str, known: usize) -> Result<()> {
    let (from, to) = (identity("shop/frontend"), identity(pod));
    let mtls = [
        ("source/identity", from.as_str()),
        ("destination/identity", &to),
        ("destination/pod", pod),
        ("security", "mtls"),
    ];
    wait::until(&format!("{url} to be called over mTLS"), READY, || {
        assert_eq!(mesh.pod("shop/frontend").curl(url)?, format!("{pod}\n"));
        let of_caller = outgoing(mesh)?;
        Ok(of_caller.iter().skip(known).any(|flow| flow.has(&mtls)).then_some(()))
    })
    .with_context(|| mesh.last_words())
}

/// What the caller's node tells of its calls.
fn outgoing(mesh: &Mesh) -> Result<Vec<Flow>> {
    let mut flows = mesh.flows()?;
    flows.retain(|flow| flow.has(&[("source/pod", "shop/frontend"), ("reporter", "source")]));
    Ok(flows)
}

/// A headless Service: its name leads to the addresses of its pods.
fn headless(pod: &Pod) -> String {
    objects::service("shop/web", "None", 8080, 8080, &[pod])
}

/// Makes a pod of shop while the mesh is up, which answers with its name.
fn make(mesh: &Mesh, name: &str, host: u8, uid: &str) -> Result<Pod> {
    let mut pod = Pod::create(mesh.layout(), mesh.node("node-2"), name, host)?;
    pod.uid = format!("{}-{uid}", mesh.layout().id());
    mesh.objects().apply(&format!("pod-{}.yaml", name.replace('/', "-")), &objects::pod(&pod))?;
    pod.serve_http(8080, name)?;
    Ok(pod)
}

#[test]
fn a_stateful_pod_that_is_made_again_elsewhere_is_itself_again() -> Result<()> {
    const NAME: &str = "shop/web-0";
    let mesh = shop("stateful").start()?;
    let node = mesh.node("node-2").place.netns.name();
    let first = make(&mesh, NAME, 30, "first")?;
    mesh.objects().apply("service-shop-web.yaml", &headless(&first))?;
    let old = format!("http://{}:8080/", first.ipv4());
    until_mtls(&mesh, &old, NAME, 0)?;

    // Deleted, and its network with it.
    first.stop_servers();
    mesh.objects().remove("pod-shop-web-0.yaml")?;
    ip(&format!("netns del {}", first.place.netns.name()))?;
    wait::until("the pod's link to be gone", READY, || {
        Ok(ip(&format!("-n {node} link show pod30")).is_err().then_some(()))
    })?;
    let again = make(&mesh, NAME, 40, "again")?;
    mesh.objects().apply("service-shop-web.yaml", &headless(&again))?;
    // Its address is another's now, who serves at the same port.
    let heir = make(&mesh, "shop/heir", 30, "heir")?;
    mesh.wait_ready("node-2")?;
    let known = outgoing(&mesh)?.len();
    until_mtls(&mesh, &format!("http://{}:8080/", again.ipv4()), NAME, known)?;
    until_mtls(&mesh, &old, &heir.name, known)?;
    let (old, gone) = (format!("{}:8080", first.ipv4()), identity(NAME));
    for flow in outgoing(&mesh)?.iter().skip(known) {
        let is_mistaken =
            flow.has(&[("destination/address", &old), ("destination/identity", &gone)]);
        assert!(!is_mistaken, "{flow}");
    }
    Ok(())
}
