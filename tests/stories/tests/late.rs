//! A handshake that was begun while plaintext was welcome and ends when it is not any more.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use mesh_harness::{mesh::READY, wait};
use mesh_stories::{
    python::{python, serve_python},
    shop,
    siege::Siege,
};

const STRICT: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: \
                      strict, namespace: shop }\nspec: { mode: STRICT }\n";

/// Says what it hears, and answers.
const SERVE: &str = "
l = socket(AF_INET6); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('::', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    try: print('request', s.recv(100), flush=True); s.sendall(b'answer'); s.close()
    except OSError: pass
";
const CONNECT: &str = "
s = tcp('10.0.0.1')
code = s.connect_ex(address(sys.argv[1]))
print(errno.errorcode.get(code, 'connected'))
";

/// Begins a handshake and ends it eight seconds later; whether the pod is to be strict by then.
fn late(story: &str, strict: bool) -> Result<bool> {
    // Nobody is besieged: it is for what is made by hand.
    let siege = Siege(shop(story).start()?);
    let mesh = &siege.0;
    let (client, web) = (mesh.pod("legacy/client"), mesh.pod("shop/web"));
    serve_python(web, 9000, SERVE)?;
    let to = SocketAddr::new(web.ipv4(), 9000);
    let stranger = SocketAddr::new([10, 77, 1, 9].into(), 30000);
    siege.route_to("legacy/client", stranger.ip())?;
    mesh_harness::link::ip(&format!(
        "-n {} route add {}/32 via {}",
        mesh.node("node-2").place.netns.name(),
        stranger.ip(),
        mesh.node("node-1").address()
    ))?;
    let command = siege.sending("legacy/client", stranger, to)?;
    let command: Vec<_> = command.iter().map(String::as_str).chain(["late"]).collect();
    let mut raw = client.spawn(&command)?;
    raw.wait_for_line("answer: syn-ack", READY)?;
    if strict {
        mesh.objects().apply("strict.yaml", STRICT)?;
        wait::until("plaintext to be refused", READY, || {
            Ok((python(client, CONNECT, &[&to.to_string()])? == "ECONNREFUSED").then_some(()))
        })
        .with_context(|| mesh.last_words())?;
        assert_eq!(raw.ended()?, None, "the pod went strict only after the handshake's end");
    }
    wait::until("the handshake and what follows to end", READY, || raw.ended())?;
    Ok(web.server_log().contains("request b'GET") || raw.log().contains("heard: answer"))
}

#[test]
fn an_acknowledgement_that_comes_late_is_good_enough_where_nothing_changed() -> Result<()> {
    assert!(late("late-open", false)?, "the client itself works");
    Ok(())
}

#[test]
fn an_acknowledgement_that_comes_after_strict_gets_nobody_in() -> Result<()> {
    assert!(!late("late-strict", true)?, "the application heard a request in plaintext");
    Ok(())
}
