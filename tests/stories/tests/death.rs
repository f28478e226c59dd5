//! The death of an agent is a reset to whoever has a connection through it, never an orderly end.

use anyhow::{Context, Result};
use mesh_harness::{mesh::READY, wait};
use mesh_stories::{
    call_until_mtls,
    python::{serve_python, spawn_python},
    shop,
};

/// Echoes once on each connection and says how it ended.
const SERVE: &str = "
import threading
def serve(s):
    said = s.recv(100); s.sendall(said)
    if said != b'hello\\n': return
    print('met', said.decode().strip(), flush=True)
    try: print('server:', 'end' if s.recv(100) == b'' else 'more', flush=True)
    except OSError as error: print('server:', errno.errorcode[error.errno], flush=True)
l = socket(AF_INET6); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('::', int(sys.argv[1]))); l.listen()
while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
";
/// Talks once and says how the connection ended.
const CALL: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
print('heard', talk(s), flush=True)
s.settimeout(None)
try: print('client:', 'end' if s.recv(100) == b'' else 'more', flush=True)
except OSError as error: print('client:', errno.errorcode[error.errno], flush=True)
";

fn is_reset_by_the_death_of(story: &str, node: &str, callee: &str) -> Result<()> {
    let mesh = shop(story).start()?;
    let pod = mesh.pod(callee);
    pod.serve_peer(8080, &["echo"])?;
    if callee == "shop/web" {
        call_until_mtls(&mesh, "shop/frontend", &format!("{}:8080", pod.ipv4()))?;
    }
    serve_python(pod, 9000, SERVE)?;
    let to = format!("{}:9000", pod.ipv4());
    let mut client = spawn_python(mesh.pod("shop/frontend"), CALL, &[&to])?;
    client.wait_for_line("heard hello", READY)?;
    mesh.agent(node).kill();
    let ended = |log: &str, who: &str| {
        let how = log.lines().find_map(|line| Some(line.strip_prefix(who)?.trim().to_owned()));
        // A line may be seen while it is written.
        how.filter(|how| !how.is_empty())
    };
    for (who, wait_for) in [("client:", true), ("server:", false)] {
        let log = || if wait_for { client.log() } else { pod.server_log() };
        let how = wait::until(&format!("the {who} end"), READY, || Ok(ended(&log(), who)))
            .with_context(log)?;
        assert_eq!(how, "ECONNRESET", "{who} {callee}, the agent of {node} died");
    }
    Ok(())
}

#[test]
fn of_the_callers_node() -> Result<()> {
    is_reset_by_the_death_of("death-caller", "node-1", "shop/web")
}

#[test]
fn of_the_callees_node() -> Result<()> {
    is_reset_by_the_death_of("death-callee", "node-2", "shop/web")
}

#[test]
fn of_the_node_of_both() -> Result<()> {
    is_reset_by_the_death_of("death-both", "node-1", "shop/batch")
}
