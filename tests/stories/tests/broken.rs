//! What is left of a connection when something around it breaks: nothing, and soon.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, link::ip, mesh::READY, process, wait};
use mesh_stories::{
    WEB,
    python::{python, serve_python, spawn_python},
    shop,
};

/// Says when its connection has ended, and how.
const WATCH: &str = "
l = socket(AF_INET6); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('::', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    said = s.recv(100); s.sendall(said)
    print('met', said.decode(), end='')
    try: print('ended' if s.recv(100) == b'' else 'more')
    except OSError as error: print(errno.errorcode[error.errno])
";

/// Talks once, says so, and stays.
const STAY: &str = "
s = tcp(address(sys.argv[1])[0]); s.connect(address(sys.argv[1]))
print('heard', talk(s))
time.sleep(1000)
";

/// How many sockets a node's agent has open.
fn sockets(mesh: &Mesh, node: &str) -> Result<usize> {
    let pid = mesh.agent(node).pid().context("the agent runs")?;
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is closed meanwhile is no more.
        let open = fs::read_link(entry?.path()).unwrap_or_default();
        sockets += usize::from(open.to_string_lossy().starts_with("socket:"));
    }
    Ok(sockets)
}

fn metric(mesh: &Mesh, node: &str, name: &str) -> Result<u64> {
    let url = "http://127.0.0.1:15020/metrics";
    let seen = mesh.node(node).place.run(&["curl", "-s", "--max-time", "10", url])?.success()?;
    let line = seen.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in:\n{seen}"))?.parse()?)
}

fn limit_descriptors(mesh: &Mesh, node: &str, limit: usize) -> Result<()> {
    let pid = mesh.agent(node).pid().context("the agent runs")?;
    let mut command = std::process::Command::new("prlimit");
    command.arg(format!("--pid={pid}")).arg(format!("--nofile={limit}:"));
    process::run(&mut command, READY)?.success().map(drop)
}

#[test]
fn what_a_deleted_pod_had_open_ends_with_it() -> Result<()> {
    let mesh = shop("deleted-pod").start()?;
    let frontend = mesh.pod("shop/frontend");
    let callees = ["shop/web", "shop/batch"];
    let idle = sockets(&mesh, "node-1")?;
    let mut callers = Vec::new();
    for callee in callees {
        let callee = mesh.pod(callee);
        serve_python(callee, 9000, WATCH)?;
        callers.push(spawn_python(frontend, STAY, &[&format!("{}:9000", callee.ipv4())])?);
        wait::until(&format!("{} to have a caller", callee.name), READY, || {
            Ok(callee.server_log().contains("met hello").then_some(()))
        })?;
    }

    // Its program goes on, as one may that holds the namespace after the pod is gone.
    mesh.objects().remove("pod-shop-frontend.yaml")?;
    ip(&format!("netns del {}", frontend.place.netns.name()))?;
    for callee in callees {
        let callee = mesh.pod(callee);
        wait::until(&format!("{} to lose its caller", callee.name), READY, || {
            Ok(callee.server_log().contains("ECONNRESET").then_some(()))
        })
        .with_context(|| format!("{}\n{}", callee.server_log(), mesh.last_words()))?;
    }
    wait::until("the agent to let go of the pod's sockets", READY, || {
        Ok((sockets(&mesh, "node-1")? < idle).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_caller_that_gives_up_stops_the_connecting() -> Result<()> {
    /// Accepts nobody, and is full.
    const FULL: &str = "
l = socket(AF_INET); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('0.0.0.0', int(sys.argv[1]))); l.listen(0)
waiting = []
for _ in range(4):
    s = socket(); s.setblocking(False); s.connect_ex(('127.0.0.1', int(sys.argv[1])))
    waiting.append(s)
time.sleep(1000)
";
    // One that is gone before the proxy looks at it leaves no flow.
    const GIVE_UP: &str = "
for pause in (0.05, 0.2, 0.8, 3.2):
    s = tcp(address(sys.argv[1])[0]); s.connect(address(sys.argv[1]))
    time.sleep(pause)
    s.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
";
    let mesh = shop("gives-up").start()?;
    let callee = mesh.pod("legacy/client");
    serve_python(callee, 9000, FULL)?;
    python(mesh.pod("shop/frontend"), GIVE_UP, &[&format!("{}:9000", callee.ipv4())])?;
    let reason = "the caller gave up before the connection was made";
    mesh.flow(&[("reporter", "source"), ("verdict", "ERROR"), ("reason", reason)]).map(drop)
}

#[test]
fn handshakes_that_never_end_do_not_pile_up() -> Result<()> {
    const BEGIN: &str = "
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
to = address(sys.argv[1])
begun = []
for _ in range(1200):
    s = tcp(to[0]); s.connect(to); begun.append(s)
print(len(begun), 'begun')
time.sleep(1000)
";
    let mesh = shop("handshakes").start()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "still here")?;
    let idle = sockets(&mesh, "node-2")?;
    let hbone = format!("{}:15008", web.ipv4());
    let mut stranger = spawn_python(mesh.pod("legacy/client"), BEGIN, &[&hbone])?;
    stranger.wait_for_line("1200 begun", READY)?;
    wait::until("the oldest to give way", READY, || {
        Ok((metric(&mesh, "node-2", "nodemesh_handshakes_given_up_total")? >= 176).then_some(()))
    })?;
    let body = mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?;
    assert_eq!(body.trim(), "still here");
    wait::until("the rest to run out of time", READY, || {
        Ok((sockets(&mesh, "node-2")? < idle + 50).then_some(()))
    })
}

#[test]
fn an_agent_without_descriptors_says_so_once_and_recovers() -> Result<()> {
    const MANY: &str = "
held = []
for _ in range(300):
    s = tcp(address(sys.argv[1])[0]); s.setblocking(False); s.connect_ex(address(sys.argv[1]))
    held.append(s)
print(len(held), 'asked')
time.sleep(1000)
";
    let mesh = shop("descriptors").start()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_http(8080, "still here")?;
    frontend.curl(&format!("http://{WEB}/"))?;
    limit_descriptors(&mesh, "node-1", sockets(&mesh, "node-1")? + 100)?;
    let mut many = spawn_python(frontend, MANY, &[&format!("{}:8080", web.ipv4())])?;
    many.wait_for_line("300 asked", READY)?;
    let failed = || mesh.agent("node-1").lines_with(&["cannot accept"]).len();
    wait::until("the agent to run out of descriptors", READY, || Ok((failed() > 0).then_some(())))?;
    drop(many);
    limit_descriptors(&mesh, "node-1", 2048)?;
    wait::until("calls to work again", READY, || {
        let seen = frontend.try_curl(&format!("http://{WEB}/"))?;
        Ok((seen.code == 0).then_some(()))
    })?;
    assert_eq!(failed(), 1, "{}", mesh.agent("node-1").log());
    Ok(())
}

#[test]
fn a_node_that_dies_silently_ends_what_was_under_way() -> Result<()> {
    /// A tunnel's end is given up after a minute.
    const PATIENCE: Duration = Duration::from_secs(150);
    const SEND: &str = "
s = tcp(address(sys.argv[1])[0]); s.connect(address(sys.argv[1]))
s.settimeout(None)
print('heard', talk(s))
try:
    while True: s.sendall(b'x' * 1000); time.sleep(0.1)
except OSError as error: print('lost', errno.errorcode[error.errno])
";
    let mesh = shop("dies").start()?;
    let web = mesh.pod("shop/web");
    web.serve_peer(8080, &["echo"])?;
    let mut caller =
        spawn_python(mesh.pod("shop/frontend"), SEND, &[&format!("{}:8080", web.ipv4())])?;
    caller.wait_for_line("heard hello", READY)?;
    // Everything that node-2 would get is dropped on the way.
    let node = mesh.node("node-2").place.netns.name();
    ip(&format!("-n {node} route replace blackhole {}/32", web.ipv4()))?;
    caller.wait_for_line("lost ECONNRESET", PATIENCE)?;
    Ok(())
}
