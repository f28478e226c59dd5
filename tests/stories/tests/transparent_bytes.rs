//! An application cannot tell the mesh from none: bytes, their order and their end.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{
    python::{python, serve_python},
    shop,
};

const GIB: u64 = 1 << 30;

/// On another node, through a tunnel, and on the caller's own.
const CALLEES: [&str; 2] = ["shop/web", "shop/batch"];

/// A server that gives each connection to `def serve(s)` in a process of its own.
fn server(serve: &str) -> String {
    format!(
        "
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
{serve}
l = socket(AF_INET6); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('::', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    if os.fork() == 0:
        l.close()
        try: print(serve(s), flush=True)
        except OSError as error: print('error', errno.errorcode[error.errno], flush=True)
        os._exit(0)
    s.close()
"
    )
}

/// Runs `serve` in both callees and `client` in shop/frontend against each; what the clients
/// printed.
fn between(mesh: &Mesh, serve: &str, client: &str) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for callee in CALLEES {
        let pod = mesh.pod(callee);
        serve_python(pod, 9000, &server(serve))?;
        let to = format!("{}:9000", pod.ipv4());
        let seen = python(mesh.pod("shop/frontend"), client, &[&to])
            .with_context(|| format!("{callee} said: {}", pod.server_log()))?;
        said.push(seen);
    }
    Ok(said)
}

/// Waits until both callees have printed `line`.
fn callees_said(mesh: &Mesh, line: &str) -> Result<()> {
    for callee in CALLEES {
        let pod = mesh.pod(callee);
        wait::until(&format!("{callee} to say {line:?}"), READY, || {
            Ok(pod.server_log().lines().any(|said| said == line).then_some(()))
        })
        .with_context(|| pod.server_log())?;
    }
    Ok(())
}

/// Waits for a reset without reading or writing.
const BREAKS: &str = "
def breaks(s):
    poll = select.poll(); poll.register(s, 0)
    return 'reset' if poll.poll(10000) and s.getsockopt(SOL_SOCKET, SO_ERROR) else 'nothing'
";

#[test]
fn a_reset_after_the_callers_half_close_reaches_the_server() -> Result<()> {
    let mesh = shop("reset-after-end").start()?;
    let serve = format!(
        "{BREAKS}
def serve(s):
    assert s.recv(100) == b'x' and s.recv(100) == b''
    s.sendall(b'y')
    return breaks(s)
"
    );
    let client = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
s.sendall(b'x'); s.shutdown(SHUT_WR); print(s.recv(1).decode())
s.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack('ii', 1, 0)); s.close()
";
    assert_eq!(between(&mesh, &serve, client)?, ["y", "y"]);
    callees_said(&mesh, "reset")
}

#[test]
fn a_reset_after_the_servers_half_close_reaches_the_caller() -> Result<()> {
    let mesh = shop("reset-after-servers-end").start()?;
    let serve = "
def serve(s):
    s.sendall(b'x'); s.shutdown(SHUT_WR)
    s.recv(1)
    s.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack('ii', 1, 0)); s.close()
    return 'closed'
";
    let client = format!(
        "{BREAKS}
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
assert s.recv(100) == b'x' and s.recv(100) == b''
s.sendall(b'y')
print(breaks(s))
"
    );
    assert_eq!(between(&mesh, serve, &client)?, ["reset", "reset"]);
    callees_said(&mesh, "closed")
}

#[test]
fn no_urgent_byte_is_lost() -> Result<()> {
    let mesh = shop("urgent").start()?;
    let serve = "
def serve(s):
    got = b''
    while True:
        part = s.recv(100)
        if not part: break
        got += part
    s.sendall(got.upper())
    return 'got ' + got.decode()
";
    let client = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
for at, text in enumerate([b'one', b'!', b'two', b'?']):
    s.send(text, MSG_OOB if at % 2 else 0); time.sleep(0.05)
s.shutdown(SHUT_WR)
got = b''
while True:
    part = s.recv(100)
    if not part: break
    got += part
print(got.decode())
";
    assert_eq!(between(&mesh, serve, client)?, ["ONE!TWO?", "ONE!TWO?"]);
    callees_said(&mesh, "got one!two?")
}

#[test]
fn single_bytes_for_a_slow_reader_disturb_no_other_connection() -> Result<()> {
    let mesh = shop("single-bytes").start()?;
    let serve = "
def serve(s):
    if s.recv(1) == b'e':
        while True:
            part = s.recv(100)
            if not part: return 'echo ended'
            s.sendall(part)
    time.sleep(3)
    total = 0
    while True:
        part = s.recv(65536)
        if not part: break
        if any(byte != (total + at) % 251 for at, byte in enumerate(part)): return 'differs'
        total += len(part)
    s.sendall(b'%d' % total)
    return 'all'
";
    // Other connections use the same tunnel meanwhile, and one writes single bytes as well.
    let client = "
to = address(sys.argv[1])
echo = tcp('10.0.0.1'); echo.connect(to); echo.sendall(b'e')
slow = [tcp('10.0.0.1') for _ in range(3)]
for s in slow:
    s.connect(to); s.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1); s.sendall(b's')
for at in range(100000):
    for s in slow: s.send(b'%c' % (at % 251))
    if at % 1000 == 0: talk(echo, b'still here')
for s in slow:
    s.shutdown(SHUT_WR)
print([s.recv(100).decode() for s in slow], talk(echo, b'still here'))
";
    let expected = "['100000', '100000', '100000'] still here";
    assert_eq!(between(&mesh, serve, client)?, [expected, expected]);
    callees_said(&mesh, "all")
}

#[test]
fn sendfile_and_splice_carry_every_byte() -> Result<()> {
    let mesh = shop("splice").start()?;
    // Echoes without ever seeing a byte, as proxies do.
    let serve = "
def serve(s):
    out, into = os.pipe()
    total = 0
    while True:
        count = os.splice(s.fileno(), into, 65536)
        if count == 0: break
        while count:
            moved = os.splice(out, s.fileno(), count)
            count -= moved; total += moved
    s.shutdown(SHUT_WR)
    return 'spliced %d' % total
";
    let client = "
import tempfile, threading
data = b''.join(hashlib.sha256(b'%d' % at).digest() for at in range(1 << 18))
file = tempfile.TemporaryFile(); file.write(data); file.flush()
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1])); s.settimeout(None)
back = hashlib.sha256()
def read():
    while True:
        part = s.recv(1 << 20)
        if not part: break
        back.update(part)
reader = threading.Thread(target=read); reader.start()
at = 0
while at < len(data): at += os.sendfile(s.fileno(), file.fileno(), at, len(data) - at)
s.shutdown(SHUT_WR); reader.join()
print(back.digest() == hashlib.sha256(data).digest())
";
    assert_eq!(between(&mesh, serve, client)?, ["True", "True"]);
    callees_said(&mesh, "spliced 8388608")?;

    let web = mesh.pod("shop/web");
    let data: Vec<u8> =
        (0..8_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(web.files().join("file"), &data)?;
    web.serve_nginx(8080, &format!("root {}; sendfile on;", web.files().display()))?;
    let frontend = mesh.pod("shop/frontend");
    let got = frontend.files().join("got");
    let url = format!("http://{}:8080/file", web.ipv4());
    frontend.run(&["curl", "-sSf", "-o", &got.to_string_lossy(), &url])?.success()?;
    assert!(std::fs::read(got)? == data, "the file differs");
    Ok(())
}

#[test]
fn big_ten_gibibytes_with_every_byte_checked() -> Result<()> {
    let mesh = shop("gibibytes").start()?;
    let bytes = (10 * GIB).to_string();
    mesh.pod("shop/web").serve_peer(8080, &["sum"])?;
    let to = format!("{}:8080", mesh.pod("shop/web").ipv4());
    let seen = mesh.pod("shop/frontend").call_peer(&to, &["send", &bytes])?.success()?;
    assert_eq!(seen.trim_end(), format!("{bytes} bytes, all as sent"));
    let flow = mesh.flow(&[("reporter", "source"), ("verdict", "forwarded")])?;
    assert_eq!(flow.number("bytes_sent"), 10 * GIB, "{flow}");
    Ok(())
}

/// Longer than any timer of ours: keepalive gives up after a minute, tunnels without a
/// connection are closed after one and a half.
#[test]
fn big_idle_connections_stay() -> Result<()> {
    let mesh = shop("idle").start()?;
    let serve = "
def serve(s):
    while True:
        part = s.recv(100)
        if not part: return 'ended in order'
        s.sendall(part)
";
    for callee in CALLEES {
        serve_python(mesh.pod(callee), 9000, &server(serve))?;
    }
    let to = CALLEES.map(|callee| format!("{}:9000", mesh.pod(callee).ipv4()));
    let client = "
import time
both = []
for to in sys.argv[1:]:
    s = tcp('10.0.0.1'); s.connect(address(to)); talk(s); both.append(s)
time.sleep(100)
print([talk(s) for s in both])
";
    let program = format!("{}\n{client}", mesh_stories::python::PRELUDE);
    let patience = std::time::Duration::from_secs(150);
    let place = &mesh.pod("shop/frontend").place;
    let seen = place
        .run_for(&["/usr/bin/python3", "-c", &program, &to[0], &to[1]], patience)?
        .success()?;
    assert_eq!(seen.trim_end(), "['hello', 'hello']");
    callees_said(&mesh, "ended in order")
}

/// As many as one agent may have descriptors for, where that is less than 20,000.
#[test]
fn big_twenty_thousand_connections_of_one_pod_to_one_port() -> Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let count = limit.map_or(20_000, |limit| limit.saturating_sub(1_000).min(20_000));
    let mesh = shop("twenty-thousand").start()?;
    mesh.pod("shop/web").serve_peer(8080, &["lines"])?;
    let to = format!("{}:8080", mesh.pod("shop/web").ipv4());
    let seen = mesh
        .pod("shop/frontend")
        .call_peer(&to, &["many", &count.to_string()])?
        .success()
        .with_context(|| mesh.last_words())?;
    assert_eq!(seen.trim_end(), format!("{count} connections, each answered its own line"));
    Ok(())
}

/// Answers at once and goes away with the request unread, as web servers refuse an upload.
const REFUSE: &str = "
def serve(s):
    s.recv(1000)
    s.sendall(b'413' * 1000)
    s.close()
    return 'refused'
";

#[test]
fn an_early_answer_arrives_whenever_the_caller_reads_it() -> Result<()> {
    // One caller reads only once it can write no more, the other all the time.
    const UPLOAD: &str = "
for way in ['after', 'meanwhile'] * 10:
    s = tcp(address(sys.argv[1])[0]); s.connect(address(sys.argv[1]))
    answer = b''
    try:
        while True:
            s.sendall(b'x' * 65536)
            if way == 'meanwhile' and select.select([s], [], [], 0)[0]:
                answer += s.recv(65536)
    except (ConnectionResetError, BrokenPipeError): pass
    try:
        while more := s.recv(65536): answer += more
    except ConnectionResetError: pass
    assert answer == b'413' * 1000, (way, len(answer))
print('answered')
";
    let mesh = shop("early-answer").start()?;
    assert_eq!(between(&mesh, REFUSE, UPLOAD)?, ["answered"; 2]);
    Ok(())
}
