//! What somebody who has taken over a pod may try, with NET_ADMIN and NET_RAW in it. Nobody gets
//! to an application that is not for him, or gets there as somebody else.
//!
//! The attacker is in shop/batch, which is in the mesh, or in legacy/client, which is not. The
//! prize is what shop/vault says, on the attacker's own node, which is for shop/frontend alone;
//! and a connection to legacy/server, outside the mesh, past the proxy.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use mesh_harness::{
    Mesh, Seen, binaries,
    link::ip,
    mesh::READY,
    objects::{allow, identity},
    wait,
};
use mesh_stories::{hand, shop};

/// Who is in the mesh gets to the vault, and nobody else even gets an answer to a first packet.
const STRICT: &str = "\
apiVersion: nodemesh.dev/v1alpha1
kind: PeerPolicy
metadata: { name: vault, namespace: shop }
spec:
  selector: { matchLabels: { app: vault } }
  mode: STRICT
";
/// What the vault says.
const PRIZE: &str = "the prize";
const PORT: u16 = 8080;
/// The delivery mark of the proxy, which anybody may read in its source.
const DELIVERY_MARK: &str = "1835365224";
/// What a pod with NET_ADMIN and NET_RAW may do, and nothing else; root by name.
const SETPRIV: [&str; 3] =
    ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all,+net_admin,+net_raw"];

struct Siege(Mesh);

impl Siege {
    fn lay(story: &str) -> Result<Self> {
        let mesh = shop(story).pod("node-1", "shop/vault").pod("node-1", "legacy/server");
        let mesh = mesh.lay_out()?;
        mesh.pod("shop/vault")
            .serve_nginx(PORT, &format!("return 200 \"{PRIZE} $remote_addr\";"))?;
        mesh.pod("legacy/server").serve_peer(7000, &["banner", "unmeshed"])?;
        let policy = allow("shop/vault-callers", "vault", &[&identity("shop/frontend")]);
        mesh.objects().apply("policy.yaml", &policy)?;
        mesh.objects().apply("strict.yaml", STRICT)?;
        mesh.start_daemons()?;
        let siege = Self(mesh);
        siege.holds()?;
        Ok(siege)
    }

    fn address(&self, pod: &str) -> IpAddr {
        self.0.pod(pod).ipv4()
    }

    fn vault(&self) -> SocketAddr {
        SocketAddr::new(self.address("shop/vault"), PORT)
    }

    fn url(&self) -> String {
        format!("http://{}/", self.vault())
    }

    /// Runs a command in a pod, with NET_ADMIN and NET_RAW alone.
    fn try_in(&self, pod: &str, command: &[&str]) -> Result<Seen> {
        self.0.pod(pod).run(&[&SETPRIV[..], command].concat())
    }

    /// The same for commands that the attacker may run.
    fn run_in(&self, pod: &str, commands: &[&str]) -> Result<()> {
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            self.try_in(pod, &words)?.success()?;
        }
        Ok(())
    }

    /// Opens a connection by hand; what came of it.
    fn by_hand(&self, pod: &str, from: SocketAddr, to: SocketAddr, how: &[&str]) -> Result<String> {
        let command = hand::command(&self.0, self.0.pod(pod), from, to, how)?;
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        self.try_in(pod, &command)?.success()
    }

    /// Connects with an ordinary socket with unusual options; what came of it.
    fn dial(&self, pod: &str, from: &str, to: SocketAddr, how: &[&str]) -> Result<String> {
        let (raw, to) = (raw()?, to.to_string());
        let command = [&[raw.as_str(), "dial", from, &to][..], how].concat();
        self.try_in(pod, &command)?.success()
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let (status, _) = self.0.status("node-1")?;
        let value = &status["counters"][name];
        let value = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        value.with_context(|| format!("no counter {name} in {status}"))
    }

    /// Waits until a counter is above `known`; the agent reads them every two seconds.
    fn counts(&self, name: &str, known: u64) -> Result<()> {
        wait::until(&format!("{name} to be above {known}"), READY, || {
            Ok((self.counter(name)? > known).then_some(()))
        })
    }

    /// The vault is open to whom it is for and to nobody else, and nobody has been there.
    fn holds(&self) -> Result<()> {
        let frontend = self.address("shop/frontend");
        let seen = self.0.pod("shop/frontend").curl(&self.url())?;
        ensure!(seen == format!("{PRIZE} {frontend}"), "the frontend hears {seen:?}");
        for pod in ["shop/batch", "legacy/client"] {
            let seen = self.try_in(pod, &["curl", "-sS", "-m", "5", &self.url()])?;
            ensure!(seen.code != 0 && !seen.stdout.contains(PRIZE), "{pod}: {seen}");
        }
        for flow in self.0.flows()? {
            let vault = identity("shop/vault");
            let got_in = flow.has(&[("destination/identity", &vault), ("verdict", "forwarded")]);
            let is_frontend = flow.has(&[("source/identity", &identity("shop/frontend"))]);
            ensure!(!got_in || is_frontend, "somebody got in: {flow}");
        }
        Ok(())
    }
}

fn raw() -> Result<String> {
    Ok(binaries::find("mesh-raw")?.to_string_lossy().into_owned())
}

fn assert_nothing(outcome: &str) {
    assert!(!outcome.contains(PRIZE) && !outcome.contains("unmeshed"), "{outcome}");
}

#[test]
fn flushing_rules_routes_and_queues_opens_nothing() -> Result<()> {
    let siege = Siege::lay("attack-flush")?;
    siege.run_in(
        "shop/batch",
        &[
            "tc qdisc add dev eth0 clsact",
            "tc qdisc del dev eth0 clsact",
            "tc qdisc replace dev eth0 root pfifo",
            "tc qdisc del dev eth0 root",
            "ip route flush table 15006",
            "ip rule flush",
            "ip rule add from all lookup main pref 32766",
            "ip rule add from all lookup default pref 32767",
        ],
    )?;
    siege.holds()?;
    // What belongs there is put back.
    let netns = siege.0.pod("shop/batch").place.netns.name().to_owned();
    wait::until("the rule to be back", READY, || {
        Ok(ip(&format!("-n {netns} rule show"))?.contains("15006").then_some(()))
    })?;
    siege.holds()
}

#[test]
fn adding_anothers_address_makes_nobody_another() -> Result<()> {
    let siege = Siege::lay("attack-address")?;
    let frontend = siege.address("shop/frontend").to_string();
    siege.run_in("shop/batch", &[&format!("ip addr add {frontend}/32 dev eth0")])?;
    let outcome = siege.dial("shop/batch", &format!("{frontend}:40000"), siege.vault(), &[])?;
    assert_nothing(&outcome);
    // As the source of everything that the pod sends, the proxy's connections included.
    let netns = siege.0.pod("shop/batch").place.netns.name().to_owned();
    let routes = ip(&format!("-n {netns} route show default"))?;
    let route = routes.trim().trim_end_matches("onlink").trim().to_owned();
    siege.run_in("shop/batch", &[&format!("ip route replace {route} src {frontend}")])?;
    assert_eq!(siege.counter("guard_host_spoofed")?, 0);
    for to in [siege.vault(), SocketAddr::new(siege.address("legacy/server"), 7000)] {
        assert_nothing(&siege.dial("shop/batch", "0.0.0.0:0", to, &[])?);
    }
    siege.counts("guard_host_spoofed", 0)?;
    let log = siege.0.pod("legacy/server").server_log();
    assert!(!log.contains(&frontend), "{log}");
    siege.run_in("shop/batch", &[&format!("ip addr del {frontend}/32 dev eth0")])?;
    Ok(())
}

#[test]
fn frames_made_by_hand_do_not_leave_the_pod() -> Result<()> {
    let siege = Siege::lay("attack-frames")?;
    let server = SocketAddr::new(siege.address("legacy/server"), 7000);
    let port = |pod, port| SocketAddr::new(siege.address(pod), port);
    let shapes = [&[][..], &["options"], &["fragments"], &["tags"]];
    // Each of them is good enough to get a connection, outside the mesh.
    for (shape, at) in shapes.into_iter().zip(30000..) {
        let outcome = siege.by_hand("legacy/client", port("legacy/client", at), server, shape)?;
        assert!(outcome.contains("answer: syn-ack"), "{shape:?}: {outcome}");
    }

    let mut at = 31000;
    for shape in shapes {
        for way in [&[][..], &["bypass"]] {
            let mut to = vec![server, siege.vault()];
            if shape.is_empty() {
                to.extend([port("shop/vault", 15008), port("shop/web", PORT)]);
            }
            for to in to {
                at += 1;
                let how = [shape, way].concat();
                let outcome = siege.by_hand("shop/batch", port("shop/batch", at), to, &how)?;
                assert_eq!(outcome, "answer: none\n", "{how:?} to {to}");
            }
        }
    }
    siege.counts("guard_pod_dropped", 0)?;
    siege.counts("guard_host_dropped", 0)?;
    let as_frontend = port("shop/frontend", 30000);
    siege.by_hand("shop/batch", as_frontend, siege.vault(), &["bypass"])?;
    siege.counts("guard_host_spoofed", 0)?;
    siege.holds()
}

#[test]
fn a_process_that_no_hook_sees_does_not_get_out() -> Result<()> {
    let siege = Siege::lay("attack-outside")?;
    let server = SocketAddr::new(siege.address("legacy/server"), 7000);
    let patience = std::time::Duration::from_secs(2);
    // This test's own process is in no pod's cgroup.
    let connect =
        move || std::net::TcpStream::connect_timeout(&server, patience).map_err(|it| it.kind());
    assert!(siege.0.pod("legacy/client").place.netns.run(connect)?.is_ok());
    assert!(siege.0.pod("shop/batch").place.netns.run(connect)?.is_err());
    Ok(())
}

#[test]
fn the_proxys_mark_is_nothing_to_anybody() -> Result<()> {
    let siege = Siege::lay("attack-mark")?;
    siege.0.pod("shop/web").serve_http(PORT, "in the mesh")?;
    siege.0.pod("legacy/server").serve_http(PORT, "unmeshed")?;
    let (batch, client) = (siege.address("shop/batch"), siege.address("legacy/client"));
    let frontend = siege.address("shop/frontend");
    let how = ["mark", DELIVERY_MARK, "transparent"];
    for (pod, own) in [("shop/batch", batch), ("legacy/client", client)] {
        for from in [format!("{own}:0"), format!("{frontend}:1025")] {
            assert_nothing(&siege.dial(pod, &from, siege.vault(), &how)?);
        }
    }
    siege.holds()?;
    // Where nothing is refused, whoever has it is still who he is, and goes through the proxy.
    let open = [
        (SocketAddr::new(siege.address("legacy/server"), PORT), "unmeshed"),
        (SocketAddr::new(siege.address("shop/web"), PORT), "in the mesh"),
    ];
    for (to, says) in open {
        let outcome = siege.dial("shop/batch", &format!("{batch}:0"), to, &how)?;
        assert!(outcome.contains(says), "{to}: {outcome}");
        let address = to.to_string();
        let flow = siege.0.flow(&[("destination/address", &address), ("reporter", "source")])?;
        assert_eq!(flow.field("source/identity"), identity("shop/batch"), "{flow}");
    }
    siege.0.agent("node-1").kill();
    for (to, says) in open {
        let outcome = siege.dial("shop/batch", &format!("{batch}:0"), to, &how)?;
        assert!(!outcome.contains(says), "{to} without the agent: {outcome}");
    }
    Ok(())
}

#[test]
fn hooks_cannot_be_detached_or_replaced_from_inside() -> Result<()> {
    let siege = Siege::lay("attack-detach")?;
    let mut command = std::process::Command::new("bpftool");
    let command = command.args(["--json", "link", "show"]);
    let links = mesh_harness::process::run(command, READY)?.success()?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&links)?;
    let links: Vec<_> = links.iter().filter_map(|link| link["id"].as_u64()).collect();
    ensure!(!links.is_empty());
    for link in links {
        let id = link.to_string();
        let seen = siege.try_in("shop/batch", &["bpftool", "link", "detach", "id", &id])?;
        assert_ne!(seen.code, 0, "{seen}");
    }
    let (status, code) = siege.0.status("node-1")?;
    assert_eq!(code, 0, "{status}");
    siege.holds()
}

#[test]
fn the_proxys_listeners_lead_nobody_anywhere() -> Result<()> {
    let siege = Siege::lay("attack-listeners")?;
    for pod in ["shop/batch", "legacy/client"] {
        for host in ["shop/batch", "shop/vault"] {
            for port in [15001, 15006, 15008] {
                let to = SocketAddr::new(siege.address(host), port);
                assert_nothing(&siege.dial(pod, "0.0.0.0:0", to, &[])?);
            }
        }
    }
    let loopback = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 15001);
    assert_nothing(&siege.dial("shop/batch", "0.0.0.0:0", loopback, &[])?);
    siege.holds()
}

#[test]
fn a_tuple_that_was_admitted_once_is_a_strangers_afterwards() -> Result<()> {
    let siege = Siege::lay("attack-replay")?;
    let (frontend, vault) = (siege.0.pod("shop/frontend"), siege.0.pod("shop/vault"));
    // A caller that closes first leaves no trace of its tuple; here the vault tells it.
    vault.serve_nginx(9000, "return 200 \"$remote_port\";")?;
    let open = SocketAddr::new(siege.address("shop/vault"), 9000);
    let port = frontend.curl(&format!("http://{open}/"))?.parse()?;
    let admitted = SocketAddr::new(siege.address("shop/frontend"), port);
    // nginx closes first, so that the vault remembers the tuple in TIME_WAIT.
    let url = siege.url();
    frontend.run(&["curl", "-sS", "-m", "5", "-H", "Connection: close", &url])?.success()?;
    let frontend = siege.address("shop/frontend");
    let sockets = vault.run(&["ss", "-Htan", "sport", "=", &format!(":{PORT}")])?.success()?;
    let mut tuples: Vec<SocketAddr> = Vec::new();
    for line in sockets.lines() {
        let peer = line.split_whitespace().nth(4).unwrap_or_default();
        let peer = peer.replace("[::ffff:", "").replace("]:", ":");
        tuples.extend(peer.parse::<SocketAddr>().ok().filter(|peer| peer.ip() == frontend));
    }
    ensure!(!tuples.is_empty(), "no trace of the frontend: {sockets}");
    for tuple in tuples {
        for pod in ["shop/frontend", "shop/batch", "legacy/client"] {
            let outcome = siege.by_hand(pod, tuple, siege.vault(), &["bypass"])?;
            assert_nothing(&outcome);
            if pod != "legacy/client" {
                assert_eq!(outcome, "answer: none\n", "{pod} as {tuple}");
            }
        }
    }
    siege.holds()?;

    // Where nothing on its way stops the attacker, and answers get to him, only the memory of
    // what was admitted is between him and the vault.
    hand::route_to(&siege.0, siege.0.pod("legacy/client"), frontend)?;
    let refused = siege.counter("inbound_refused")?;
    let outcome = siege.by_hand("legacy/client", admitted, open, &[])?;
    assert_eq!(outcome, "answer: reset\n", "as {admitted}");
    siege.counts("inbound_refused", refused)
}

#[test]
fn syn_cookies_and_odd_packets_of_strangers_do_not_get_to_the_application() -> Result<()> {
    let siege = Siege::lay("attack-cookies")?;
    // An address that is the client's on the node but unknown to its kernel, which so does not
    // answer for what is made by hand.
    let stranger = SocketAddr::new([10, 77, 1, 9].into(), 30000);
    hand::route_to(&siege.0, siege.0.pod("legacy/client"), stranger.ip())?;
    let server = SocketAddr::new(siege.address("legacy/server"), 7000);
    let outcome = siege.by_hand("legacy/client", stranger, server, &[])?;
    assert!(outcome.contains("unmeshed"), "the client itself works: {outcome}");
    for cookies in ["1", "2"] {
        siege.0.pod("shop/vault").place.netns.set_sysctl("ipv4/tcp_syncookies", cookies)?;
        for (port, shape) in [(30001, &[][..]), (30002, &["options"]), (30003, &["fragments"])] {
            let from = SocketAddr::new(stranger.ip(), port);
            for _ in 0..2 {
                let outcome = siege.by_hand("legacy/client", from, siege.vault(), shape)?;
                assert!(!outcome.contains("syn-ack"), "{shape:?}: {outcome}");
            }
        }
        siege.holds()?;
    }
    Ok(())
}

/// A loopback address that the node takes for one of the vault's, and that the kernels of both take
/// for no mistake: nothing else is in the way to it.
fn open_loopback(siege: &Siege) -> Result<SocketAddr> {
    let (vault, node) = (siege.0.pod("shop/vault"), siege.0.node("node-1"));
    for netns in [&vault.place.netns, &node.place.netns] {
        netns.set_sysctl("ipv4/conf/all/route_localnet", "1")?;
    }
    let loopback = SocketAddr::new([127, 0, 0, 9].into(), PORT);
    let (name, device) = (node.place.netns.name(), hand::link_of(vault));
    let mac = hand::mac(vault.place.netns.name(), "eth0")?;
    ip(&format!("-n {name} route add {}/32 dev {device} table local", loopback.ip()))?;
    ip(&format!("-n {name} neigh add {} lladdr {mac} dev {device} nud permanent", loopback.ip()))?;
    Ok(loopback)
}

#[test]
fn anothers_loopback_is_out_of_reach() -> Result<()> {
    let siege = Siege::lay("attack-loopback")?;
    let loopback = open_loopback(&siege)?;
    let batch = SocketAddr::new(siege.address("shop/batch"), 30000);
    let outcome = siege.by_hand("shop/batch", batch, loopback, &["bypass"])?;
    assert_eq!(outcome, "answer: none\n");
    // Its own loopback, sent to the vault.
    let own = SocketAddr::new([127, 0, 0, 1].into(), 30000);
    for pod in ["shop/batch", "legacy/client"] {
        let outcome = siege.by_hand(pod, own, siege.vault(), &["bypass"])?;
        assert_eq!(outcome, "answer: none\n", "{pod}");
    }
    siege.counts("guard_host_dropped", 0)?;
    siege.counts("guard_host_spoofed", 0)?;
    siege.holds()
}
