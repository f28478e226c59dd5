//! Pods of this mesh and pods behind Istio ambient's ztunnel call each other.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use h2::Reason;
use mesh_harness::{Mesh, layout::url_host, mesh::READY, objects::identity, wait};
use mesh_stories::{
    ambient::{Asked, Caller, Server, redirected, serve},
    certificates::{Validity, signed_by_mesh},
    python::python,
    shop,
};

/// What a client behind a ztunnel is to others.
const CALLER: &str = "legacy/client";
/// A pod on node-2 behind a ztunnel.
const CALLEE: &str = "legacy/server";

/// A tunnel from [`CALLER`] to shop/web's `address`.
fn tunnel(mesh: &Mesh, address: IpAddr) -> Result<Caller> {
    let credentials = signed_by_mesh(mesh, &identity(CALLER), Validity::Current)?;
    let hbone = SocketAddr::new(address, 15008);
    Caller::connect(&mesh.pod(CALLER).place.netns, hbone, credentials)
}

fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

#[test]
fn a_ztunnel_reaches_a_meshed_pod_by_address_and_by_service() -> Result<()> {
    let mesh = shop("ambient-in").start()?;
    let web = mesh.pod("shop/web");
    web.serve_peer(8080, &["echo"])?;
    for address in [web.ipv4(), web.ipv6()] {
        let tunnel = tunnel(&mesh, address)?;
        let by_address = at(address, 8080);
        for authority in [by_address.as_str(), "web.shop.svc.cluster.local:80"] {
            let answer = tunnel.ask(authority, "hello")?;
            assert_eq!((answer.status, &*answer.body), (200, "hello"), "{authority}");
        }
        // More than fill one of its own tunnels, at once.
        for answer in tunnel.ask_all(&vec![&*by_address; 150], "hello")? {
            assert_eq!((answer.status, &*answer.body), (200, "hello"));
        }
        let refused = [
            (at(address, 8081), 503),
            (at(mesh.pod("shop/frontend").ipv4(), 8080), 400),
            ("web.shop.svc.cluster.local:81".to_owned(), 400),
            ("batch.shop.svc.cluster.local:80".to_owned(), 400),
            ("web.shop.example:80".to_owned(), 400),
        ];
        for (authority, status) in refused {
            assert_eq!(tunnel.ask(&authority, "hello")?.status, status, "{authority}");
        }
    }
    let flow = mesh.flow(&[("source/identity", &identity(CALLER)), ("verdict", "FORWARDED")])?;
    assert!(flow.has(&[("security", "mtls"), ("destination/pod", "shop/web")]), "{flow}");
    Ok(())
}

#[test]
fn a_ztunnel_is_told_of_resets_and_denials() -> Result<()> {
    let mesh = shop("ambient-told").start()?;
    let web = mesh.pod("shop/web");
    web.serve_peer(8080, &["reset"])?;
    let tunnel = tunnel(&mesh, web.ipv4())?;
    let authority = at(web.ipv4(), 8080);
    // A ztunnel takes CANCEL or NO_ERROR for an orderly end of data.
    let answer = tunnel.ask(&authority, "hello\n")?;
    assert_eq!((answer.status, answer.reset), (200, Some(Reason::CONNECT_ERROR)));

    let policy = "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: { name: \
                  no-legacy, namespace: shop }\nspec:\n  action: DENY\n  rules:\n  - name: who\n    \
                  from:\n    - namespaces: [legacy]\n";
    mesh.objects().apply("deny.yaml", policy)?;
    wait::until("a CONNECT to be denied", READY, || {
        Ok((tunnel.ask(&authority, "hello\n")?.status == 403).then_some(()))
    })
    .with_context(|| mesh.last_words())
}

/// A mesh with pods behind a ztunnel on both nodes.
fn mixed(story: &str, server: Server) -> Result<(Mesh, Asked)> {
    let mesh = shop(story).pod("node-2", CALLEE).lay_out()?;
    for (file, name) in [("pod-legacy-server.yaml", CALLEE), ("pod-legacy-client.yaml", CALLER)] {
        mesh.objects().apply(file, &redirected(mesh.pod(name)))?;
    }
    mesh.start_daemons()?;
    let credentials = signed_by_mesh(&mesh, &identity(CALLEE), Validity::Current)?;
    let asked = serve(mesh.pod(CALLEE), &credentials, server)?;
    Ok((mesh, asked))
}

/// Says something to an address and prints what came back, then how it ended.
const TALK: &str = "
s = tcp(address(sys.argv[1])[0])
try:
    s.connect(address(sys.argv[1]))
    print(talk(s), flush=True)
    s.shutdown(SHUT_WR)
    print('end' if s.recv(1) == b'' else 'more')
except ConnectionResetError: print('reset')
";

#[test]
fn a_meshed_pod_reaches_a_pod_behind_a_ztunnel() -> Result<()> {
    let (mesh, asked) = mixed("ambient-out", Server::default())?;
    let callee = mesh.pod(CALLEE);
    for address in [callee.ipv4(), callee.ipv6()] {
        let to = format!("{}:7000", url_host(address));
        assert_eq!(python(mesh.pod("shop/frontend"), TALK, &[&to])?, "hello\nend");
        assert!(asked.all().iter().any(|(_, authority)| *authority == to), "{:?}", asked.all());
    }
    let fields = [("destination/identity", &*identity(CALLEE)), ("security", "mtls")];
    mesh.flow(&[fields[0], fields[1], ("verdict", "FORWARDED")])?;

    for (port, verdict) in [(8400, "ERROR"), (8401, "DENIED"), (8403, "DENIED"), (8503, "ERROR")] {
        let to = at(callee.ipv4(), port);
        assert_eq!(python(mesh.pod("shop/frontend"), TALK, &[&to])?, "reset", "{port}");
        let flow = mesh.flow(&[("destination/address", &*to), ("verdict", verdict)])?;
        assert!(flow.field("reason").contains(&format!("{}", port - 8000)), "{flow}");
    }
    // What a ztunnel does to the streams that outlive it.
    let to = at(callee.ipv4(), 9000);
    assert_eq!(python(mesh.pod("shop/frontend"), TALK, &[&to])?, "reset");
    mesh.flow(&[("destination/address", &*to), ("verdict", "FORWARDED")])?;
    Ok(())
}

#[test]
fn a_pod_behind_a_ztunnel_of_the_same_node_is_reached_over_hbone() -> Result<()> {
    let (mesh, _) = mixed("ambient-near", Server::default())?;
    let near = mesh.pod(CALLER);
    let credentials = signed_by_mesh(&mesh, &identity(CALLER), Validity::Current)?;
    serve(near, &credentials, Server::default())?;
    let to = at(near.ipv4(), 7000);
    assert_eq!(python(mesh.pod("shop/frontend"), TALK, &[&to])?, "hello\nend");
    mesh.flow(&[("destination/identity", &identity(CALLER)), ("security", "mtls")])?;
    Ok(())
}

#[test]
fn a_peer_that_takes_one_stream_and_little_at_once_gets_no_more() -> Result<()> {
    let server = Server { streams: 1, window: 100, ..Server::default() };
    let (mesh, asked) = mixed("ambient-small", server)?;
    let to = at(mesh.pod(CALLEE).ipv4(), 7000);
    let frontend = mesh.pod("shop/frontend");
    frontend.call_peer(&to, &["echo", "100000"])?.success()?;
    let seen = frontend.call_peer(&to, &["many", "20"])?.success()?;
    assert_eq!(seen.trim_end(), "20 connections, each answered its own line");
    let tunnels: std::collections::BTreeSet<_> =
        asked.all().into_iter().map(|(tunnel, _)| tunnel).collect();
    assert!(tunnels.len() >= 20, "{tunnels:?}");
    Ok(())
}

#[test]
fn a_ztunnel_that_says_goodbye_keeps_what_it_has_and_gets_nothing_new() -> Result<()> {
    const SIX: &str = "
all = []
for number in range(6):
    s = tcp(address(sys.argv[1])[0])
    s.connect(address(sys.argv[1]))
    all.append(s)
    talk(s)
for s in all: talk(s)
print('talked twice')
";
    let server = Server { goodbye_after: Some(1), ..Server::default() };
    let (mesh, asked) = mixed("ambient-goodbye", server)?;
    let to = at(mesh.pod(CALLEE).ipv4(), 7000);
    assert_eq!(python(mesh.pod("shop/frontend"), SIX, &[&to])?, "talked twice");
    let tunnels: Vec<_> = asked.all().into_iter().map(|(tunnel, _)| tunnel).collect();
    assert_eq!(tunnels, [0, 1, 2, 3, 4, 5]);
    Ok(())
}
