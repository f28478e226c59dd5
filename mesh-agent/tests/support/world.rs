//! Two pods in network namespaces of their own, linked to a bridge on a node, and an agent's
//! capture there. Everything has a unique prefix and goes away with the world.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use mesh_agent::capture::{
    Capture, CaptureConfig, InboundModes, Pod, PodNetns, listeners::PodListeners, netns::Netns,
    sockets::SocketTable,
};
use mesh_common::{
    bpf::{ConnectionKey, LAYOUT_VERSION, ProbeKey},
    identity::{SpiffeId, TrustDomain},
    model::{NamespacedName, Workload},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

/// How long anything may take that takes no time.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pods' names, with the last part of their addresses.
const PODS: [(&str, &str); 2] = [("a", "1"), ("b", "2")];

/// How many worlds there are in this process: they share its cgroup.
static WORLDS: Mutex<u32> = Mutex::new(0);
static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct World {
    prefix: String,
    cgroup: PathBuf,
    state: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "capture tests load kernel programs and make network namespaces: run them as root"
        );
        let prefix = format!("nmc{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let world = Self {
            cgroup: join_cgroup(),
            state: tempfile::tempdir().expect("a writable temporary directory"),
            prefix,
        };
        world.enter_node();
        for (pod, _) in PODS {
            let netns = world.netns_name(pod);
            ip(&["netns", "add", &netns]);
            let peer = format!("to-{pod}");
            ip(&[
                "link",
                "add",
                "eth0",
                "netns",
                &netns,
                "type",
                "veth",
                "peer",
                "name",
                &peer,
                "netns",
                &world.node(),
            ]);
            world.on_node(&format!("link set {peer} master bridge up"));
        }
        for (pod, number) in PODS {
            let in_pod = |arguments: &str| {
                let netns = world.netns_name(pod);
                let arguments = arguments.split(' ');
                ip(&["-n", &netns].into_iter().chain(arguments).collect::<Vec<_>>());
            };
            in_pod(&format!("link set eth0 address 02:00:00:00:00:0{number}"));
            in_pod(&format!("addr add 10.99.0.{number}/24 dev eth0"));
            in_pod(&format!("addr add fd99::{number}/64 dev eth0 nodad"));
            in_pod("link set lo up");
            in_pod("link set eth0 up");
            // Finding an IPv6 neighbour on a link that is just up takes the kernel a second.
            for (_, other) in PODS.iter().filter(|(_, other)| *other != number) {
                let address = format!("fd99::{other} lladdr 02:00:00:00:00:0{other}");
                in_pod(&format!("neigh add {address} dev eth0 nud permanent"));
            }
        }
        world
    }

    /// Makes the node and moves this thread there, where the agent will run.
    fn enter_node(&self) {
        ip(&["netns", "add", &self.node()]);
        self.on_node("link add bridge type bridge");
        self.on_node("addr add 10.99.0.254/24 dev bridge");
        self.on_node("link set bridge up");
        let path = Path::new("/run/netns").join(self.node());
        let node = fs::File::open(path).expect("just made");
        move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may do that");
    }

    fn on_node(&self, arguments: &str) {
        let node = self.node();
        ip(&["-n", &node].into_iter().chain(arguments.split(' ')).collect::<Vec<_>>());
    }

    fn node(&self) -> String {
        format!("{}-node", self.prefix)
    }

    pub fn config(&self) -> CaptureConfig {
        CaptureConfig {
            node: format!("{}.example.org", self.prefix),
            cgroup: Some(self.cgroup.clone()),
            bpffs: self.bpffs(),
            pod_netns: PodNetns::Path(format!("/run/netns/{}-{{namespace}}-{{pod}}", self.prefix)),
            state_dir: self.state.path().to_path_buf(),
            workers: 2,
            max_pods: 16,
            max_connections: 1024,
            max_unserved: 1024,
            object: None,
            kernel_log: false,
        }
    }

    pub fn start(&self) -> Capture {
        match Capture::start(self.config()) {
            Ok(capture) => capture,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn cleanup(&self) -> mesh_agent::capture::cleanup::Cleaned {
        let config = self.config();
        let CaptureConfig { node, bpffs, state_dir, pod_netns, .. } = &config;
        mesh_agent::capture::cleanup(node, bpffs, state_dir, pod_netns).expect("cleanup works")
    }

    pub fn bpffs(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.prefix)
    }

    pub fn pins(&self) -> PathBuf {
        self.bpffs().join(format!("{}_example_org/v{LAYOUT_VERSION}", self.prefix))
    }

    pub fn state(&self) -> PathBuf {
        self.state.path().join(format!("{}.example.org/capture", self.prefix))
    }

    pub fn netns_name(&self, pod: &str) -> String {
        format!("{}-test-{pod}", self.prefix)
    }

    pub fn netns(&self, pod: &str) -> Netns {
        Netns::open(&Path::new("/run/netns").join(self.netns_name(pod))).expect("the world made it")
    }

    /// Runs something inside a pod.
    pub fn in_pod<T>(&self, pod: &str, f: impl FnOnce() -> T) -> T {
        self.netns(pod).run(f).expect("the namespace can be entered")
    }

    /// The output of a command inside a pod.
    pub fn sh(&self, pod: &str, command: &str) -> String {
        self.in_pod(pod, || {
            let output = Command::new("sh").args(["-c", command]).output().expect("sh starts");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// How many captured connections wait for the proxy.
    pub fn published(&self) -> usize {
        self.connections::<20>("ORIGINAL_DESTINATIONS")
    }

    /// How many connections of the proxy are let through to local pods.
    pub fn admitted(&self) -> usize {
        self.connections::<4>("ADMITTED")
    }

    /// How many connections the proxy is opening.
    pub fn upstreams(&self) -> usize {
        self.connections::<4>("UPSTREAMS")
    }

    /// How many addresses and ports the kernel knows that probes call.
    pub fn probes(&self) -> usize {
        self.entries::<{ size_of::<ProbeKey>() }, 8>("PROBES")
    }

    fn connections<const VALUE: usize>(&self, map: &str) -> usize {
        self.entries::<{ size_of::<ConnectionKey>() }, VALUE>(map)
    }

    fn entries<const KEY: usize, const VALUE: usize>(&self, map: &str) -> usize {
        let data = MapData::from_pin(self.pins().join("maps").join(map)).expect("it is pinned");
        let map = Map::from_map_data(data).expect("a known kind of map");
        let map = HashMap::<_, [u8; KEY], [u8; VALUE]>::try_from(map);
        map.map_or_else(|error| panic!("{error}"), |map| map.keys().count())
    }

    pub fn workload(&self, pod: &str) -> Workload {
        let (_, number) = PODS.iter().find(|(name, _)| *name == pod).expect("a or b");
        let addresses = [format!("10.99.0.{number}"), format!("fd99::{number}")];
        let domain: TrustDomain = TrustDomain::DEFAULT.parse().expect("a trust domain");
        Workload {
            name: NamespacedName::new("test", pod),
            uid: format!("uid-{pod}").into(),
            node: Some("node".into()),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            identity: Some(SpiffeId::new(domain, "test", pod).expect("an identity")),
            enrolled: true,
            captured: false,
            memberships: Vec::new(),
            authorization_policies: Vec::new(),
            admission: Default::default(),
        }
    }

    /// Captures a pod, and plays its proxy.
    pub fn capture(
        &self,
        capture: &mut Capture,
        pod: &str,
        modes: impl Into<InboundModes>,
    ) -> Served {
        let mut served = None;
        let pod = capture
            .capture(&self.workload(pod), modes, |_, listeners| {
                served = Some(listeners);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
        Served {
            pod,
            listeners: served.expect("a fresh pod gets listeners"),
            sockets: capture.sockets(),
        }
    }

    /// An application in a pod that greets each connection.
    pub fn application(&self, pod: &str, address: &str) -> TcpListener {
        let listener = self.in_pod(pod, || listen(address));
        let accepting = listener.try_clone().expect("descriptors are left");
        thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
                let _ = stream.write_all(format!("application saw {peer}").as_bytes());
            }
        });
        listener
    }

    /// Connects from a pod.
    pub fn connect(&self, pod: &str, address: &str) -> io::Result<TcpStream> {
        let address: SocketAddr = address.parse().expect("an address and a port");
        let domain = Domain::for_address(address);
        self.connect_with(pod, address, domain, |_| Ok(()))
    }

    /// Connects from a pod with a socket that was prepared.
    pub fn connect_with(
        &self,
        pod: &str,
        address: SocketAddr,
        domain: Domain,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<TcpStream> {
        self.in_pod(pod, || {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            prepare(&socket)?;
            socket.connect_timeout(&address.into(), PATIENCE)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket.into())
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let config = self.config();
        // Whatever state a failed test left; the namespaces go away after it.
        let CaptureConfig { node, bpffs, state_dir, pod_netns, .. } = &config;
        let _ = mesh_agent::capture::cleanup(node, bpffs, state_dir, pod_netns);
        for (pod, _) in PODS {
            let _ = Command::new("ip").args(["netns", "del", &self.netns_name(pod)]).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.node()]).status();
        leave_cgroup(&self.cgroup);
    }
}

/// A captured pod with the listeners that its proxy has.
pub struct Served {
    pub pod: Arc<Pod>,
    pub listeners: Vec<PodListeners>,
    sockets: Arc<SocketTable>,
}

impl Served {
    /// The next captured outbound connection, and where it was going.
    pub fn outbound(&self) -> (TcpStream, Option<SocketAddr>) {
        let stream = accept(self.listeners.iter().flat_map(|worker| &worker.outbound));
        let destination = self.destination(&stream);
        (stream, destination)
    }

    /// The next connection on the listener for plaintext.
    pub fn inbound(&self) -> TcpStream {
        accept(self.listeners.iter().flat_map(|worker| &worker.inbound))
    }

    /// The next connection on the listener for HBONE.
    pub fn hbone(&self) -> TcpStream {
        accept(self.listeners.iter().flat_map(|worker| &worker.hbone))
    }

    fn destination(&self, stream: &TcpStream) -> Option<SocketAddr> {
        let peer = stream.peer_addr().expect("an accepted socket has a peer");
        let local = stream.local_addr().expect("an accepted socket has an address");
        let key = ConnectionKey::new(self.pod.netns.cookie(), peer, local);
        self.sockets.take_original_destination(&key).expect("the map can be read")
    }

    /// Marks a socket as the proxy's.
    pub fn mark(&self, socket: &impl AsFd, admit: u64) {
        self.sockets.mark_proxy_socket(socket.as_fd(), admit).expect("the map can be written");
    }
}

/// Listens for an application.
pub fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).expect("the address is free")
}

/// Everything that a peer sends until it closes or PATIENCE is over.
pub fn read(mut stream: &TcpStream) -> io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn accept<'a>(listeners: impl Iterator<Item = &'a TcpListener> + Clone) -> TcpStream {
    let mut accepted = None;
    eventually("a connection arrives at the proxy", || {
        accepted = listeners.clone().find_map(|listener| listener.accept().ok());
        accepted.is_some()
    });
    accepted.expect("just looked").0
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Puts this process into a cgroup of its own, so that no other test's programs see its sockets.
fn join_cgroup() -> PathBuf {
    let mut worlds = WORLDS.lock().expect("no test panics while it holds this");
    let cgroup = cgroup_root().join(format!("nmc{}", process::id()));
    if *worlds == 0 {
        fs::create_dir_all(&cgroup).expect("cgroup v2 is writable");
        fs::write(cgroup.join("cgroup.procs"), process::id().to_string()).expect("it is ours");
    }
    *worlds += 1;
    cgroup
}

fn leave_cgroup(cgroup: &Path) {
    let mut worlds = WORLDS.lock().expect("no test panics while it holds this");
    *worlds -= 1;
    if *worlds == 0 {
        let _ = fs::write(cgroup_root().join("cgroup.procs"), process::id().to_string());
        let _ = fs::remove_dir(cgroup);
    }
}

fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(path))
    });
    root.expect("cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// An address and a port of the same text.
pub fn socket_address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}
