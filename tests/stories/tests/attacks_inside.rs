//! What an attacker may turn around in his own pod's network: rules, routes, queues, addresses,
//! packet filters and hooks. Nothing of it opens a way, and what belongs there is put back.

use anyhow::{Result, ensure};
use mesh_harness::{link::ip, mesh::READY, process, wait};
use mesh_stories::{
    python::{PRELUDE, PYTHON},
    siege::{FAMILIES, Family, SERVER_PORT, Siege, TRIES, assert_nothing},
};

#[test]
fn flushing_rules_routes_and_queues_opens_nothing() -> Result<()> {
    let siege = Siege::lay("attack-flush")?;
    siege.run_in(
        "shop/batch",
        &[
            "nft flush ruleset",
            "tc qdisc add dev eth0 clsact",
            "tc qdisc del dev eth0 clsact",
            "tc qdisc replace dev eth0 root pfifo",
            "tc qdisc del dev eth0 root",
            "ip route flush table 15006",
            "ip rule flush",
            "ip rule add from all lookup main pref 32766",
            "ip rule add from all lookup default pref 32767",
            "ip -6 route flush table 15006",
            "ip -6 rule flush",
            "ip -6 rule add from all lookup main pref 32766",
        ],
    )?;
    for command in ["tc filter del dev eth0 egress", "tc filter del dev eth0 ingress"] {
        // There is none to be found, which is no reason not to try.
        let words: Vec<_> = command.split(' ').collect();
        siege.try_in("shop/batch", &words)?;
    }
    siege.holds()?;
    for family in FAMILIES {
        for (how, at) in [&[][..], &["bypass"]].into_iter().zip(30000..) {
            let from = siege.at("shop/batch", family, at);
            let outcome = siege.by_hand("shop/batch", from, siege.server(family), how)?;
            assert_eq!(outcome, "answer: none\n", "{family:?} {how:?}");
        }
    }
    // What belongs there is put back.
    let netns = siege.0.pod("shop/batch").place.netns.name().to_owned();
    for family in ["-4", "-6"] {
        wait::until("the rule to be back", READY, || {
            Ok(ip(&format!("-n {netns} {family} rule show"))?.contains("15006").then_some(()))
        })?;
    }
    siege.holds()
}

#[test]
fn a_pod_that_flushes_every_route_hurts_itself_alone() -> Result<()> {
    let siege = Siege::lay("attack-routes")?;
    siege.run_in("shop/batch", &["ip route flush table main", "ip -6 route flush table main"])?;
    for family in FAMILIES {
        for to in [siege.vault(family), siege.server(family)] {
            assert_nothing(&siege.dial("shop/batch", family.any(), to, &[])?);
        }
        let from = siege.at("shop/batch", family, 30000);
        let outcome = siege.by_hand("shop/batch", from, siege.server(family), &["bypass"])?;
        assert_eq!(outcome, "answer: none\n", "{family:?}");
    }
    siege.holds()
}

#[test]
fn adding_anothers_address_makes_nobody_another() -> Result<()> {
    let siege = Siege::lay("attack-address")?;
    let netns = siege.0.pod("shop/batch").place.netns.name().to_owned();
    for (family, flag, length) in [(Family::V4, "-4", 32), (Family::V6, "-6", 128)] {
        let frontend = siege.address("shop/frontend", family).to_string();
        let spoofed = siege.counter("guard_host_spoofed")?;
        // IPv6 would look for another owner first.
        let nodad = if family == Family::V6 { " nodad" } else { "" };
        let add = format!("ip addr add {frontend}/{length} dev eth0{nodad}");
        siege.run_in("shop/batch", &[&add])?;
        let from = siege.at("shop/frontend", family, 40000).to_string();
        assert_nothing(&siege.dial("shop/batch", &from, siege.vault(family), &[])?);
        // As the source of everything that the pod sends, the proxy's connections included.
        let routes = ip(&format!("-n {netns} {flag} route show default"))?;
        let route = routes.split(" proto ").next().unwrap_or_default();
        let route = route.split(" metric ").next().unwrap_or_default().trim();
        let route = route.trim_end_matches("onlink").trim();
        siege
            .run_in("shop/batch", &[&format!("ip {flag} route replace {route} src {frontend}")])?;
        for to in [siege.vault(family), siege.server(family)] {
            assert_nothing(&siege.dial("shop/batch", family.any(), to, &[])?);
        }
        siege.counts_to("guard_host_spoofed", spoofed + 1)?;
        let log = siege.0.pod("legacy/server").server_log();
        assert!(!log.contains(&frontend), "{log}");
        siege.run_in(
            "shop/batch",
            &[
                &format!("ip {flag} route replace {route}"),
                &format!("ip addr del {frontend}/{length} dev eth0"),
            ],
        )?;
    }
    siege.holds()
}

/// A packet filter that sends what goes to the server outside elsewhere, or as somebody else.
fn rewriting(siege: &Siege, family: Family, to: &str, from: Option<&str>) -> Vec<String> {
    let (kind, server) = match family {
        Family::V4 => ("ip", siege.address("legacy/server", family)),
        Family::V6 => ("ip6", siege.address("legacy/server", family)),
    };
    let mut commands = vec![
        format!("add table {kind} steal"),
        format!("add chain {kind} steal out {{ type nat hook output priority -100 ; }}"),
        format!("add chain {kind} steal post {{ type nat hook postrouting priority 100 ; }}"),
    ];
    let server = format!("{kind} daddr {server} tcp dport {SERVER_PORT}");
    match from {
        None => commands.push(format!("add rule {kind} steal out {server} dnat to {to}")),
        Some(from) => commands.push(format!("add rule {kind} steal post {server} snat to {from}")),
    }
    commands
}

#[test]
fn the_proxys_own_connections_cannot_be_turned_elsewhere() -> Result<()> {
    let siege = Siege::lay("attack-nat")?;
    // Anybody outside, to whom the proxy was not asked to go.
    siege.0.pod("legacy/client").serve_peer(7001, &["banner", "elsewhere"])?;
    for family in FAMILIES {
        let server = siege.server(family);
        let open = siege.dial("shop/batch", family.any(), server, &[])?;
        assert!(open.contains("unmeshed"), "by the proxy it is reached: {open}");
        let elsewhere = siege.at("legacy/client", family, 7001).to_string();
        let vault = siege.vault(family).to_string();
        let frontend = siege.address("shop/frontend", family).to_string();
        for (to, from, counter) in [
            (&elsewhere, None, "guard_host_dropped"),
            (&vault, None, "guard_host_dropped"),
            (&elsewhere, Some(frontend.as_str()), "guard_host_spoofed"),
        ] {
            let before = siege.counter(counter)?;
            for command in rewriting(&siege, family, to, from) {
                siege.try_in("shop/batch", &["nft", &command])?.success()?;
            }
            let outcome = siege.dial("shop/batch", family.any(), server, &[])?;
            assert!(outcome.starts_with("failed"), "{family:?} to {to} as {from:?}: {outcome}");
            siege.counts_to(counter, before + 1)?;
            siege.run_in("shop/batch", &["nft flush ruleset"])?;
        }
    }
    siege.holds()
}

/// Asks the kernel to take off what is attached to eth0 and to this network namespace: without
/// saying which program, before, after and in place of each.
const DETACH: &str = "
libc = ctypes.CDLL(None, use_errno=True)
PROG_DETACH, TCX_INGRESS, TCX_EGRESS, SK_LOOKUP = 9, 46, 47, 36
def detach(target, kind, flags):
    attr = ctypes.create_string_buffer(struct.pack('<IIIIIIQ', target, 0, kind, flags, 0, 0, 0), 128)
    done = libc.syscall(321, PROG_DETACH, attr, 128) == 0
    print('detached' if done else 'refused', kind, flags, errno.errorcode.get(ctypes.get_errno()))
for flags in (0, 1 << 2, 1 << 3, 1 << 4, 1 << 5):
    for kind in (TCX_INGRESS, TCX_EGRESS):
        detach(if_nametoindex('eth0'), kind, flags)
    detach(os.open('/proc/self/ns/net', os.O_RDONLY), SK_LOOKUP, flags)
";

#[test]
fn hooks_cannot_be_detached_or_replaced_from_inside() -> Result<()> {
    let siege = Siege::lay("attack-detach")?;
    let mut command = std::process::Command::new("bpftool");
    let command = command.args(["--json", "link", "show"]);
    let links = process::run(command, READY)?.success()?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&links)?;
    let links: Vec<_> = links.iter().filter_map(|link| link["id"].as_u64()).collect();
    ensure!(!links.is_empty());
    for link in links {
        let id = link.to_string();
        let seen = siege.try_in("shop/batch", &["bpftool", "link", "detach", "id", &id])?;
        assert_ne!(seen.code, 0, "{seen}");
    }
    let program = format!("{PRELUDE}\n{DETACH}");
    let seen = siege.try_in("shop/batch", &[PYTHON, "-c", &program])?.success()?;
    assert!(!seen.contains("detached") && seen.contains("refused"), "{seen}");
    // Anybody's program in front of ours, or instead.
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bpf/mesh-ebpf.o");
    siege.run_in("shop/batch", &["tc qdisc add dev eth0 clsact"])?;
    for command in [
        format!("tc filter add dev eth0 egress bpf da obj {object} sec classifier"),
        format!("ip link set dev eth0 xdpgeneric obj {object} sec classifier"),
        format!("bpftool prog load {object} /sys/fs/bpf/attacker"),
    ] {
        let words: Vec<_> = command.split(' ').collect();
        let seen = siege.try_in("shop/batch", &words)?;
        assert_ne!(seen.code, 0, "{seen}");
    }
    let (status, code) = siege.0.status("node-1")?;
    assert_eq!(code, 0, "{status}");
    let repairs = status["hooks"].as_array().into_iter().flatten().map(|hook| &hook["repairs"]);
    assert!(repairs.into_iter().all(|repairs| *repairs == 0), "{status}");
    let before = siege.counter("guard_pod_dropped")?;
    let from = siege.at("shop/batch", Family::V4, 30000);
    let outcome = siege.by_hand("shop/batch", from, siege.server(Family::V4), &[])?;
    assert_eq!(outcome, "answer: none\n");
    siege.counts_to("guard_pod_dropped", before + TRIES)?;
    siege.holds()
}

/// Makes a namespace of one's own, which no hook knows, moves the pod's link into it, sets it up as
/// it was, and runs a command there. Arguments: address, gateway, command. Where user namespaces
/// are allowed anybody with NET_ADMIN can do that; root can here, without one.
const MOVE: &str = "
inside='until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.1; done
ip link set lo up; ip link set eth0 up; ip addr add $1 dev eth0 nodad
ip route add $2 dev eth0; ip route add default via $2 dev eth0; shift 2; exec \"$@\"'
unshare --net sh -c \"$inside\" inside \"$@\" & moved=$!
until [ \"$(readlink /proc/$moved/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.1; done
ip link set eth0 netns $moved && wait $moved
";

#[test]
fn a_link_that_is_moved_into_a_namespace_of_his_own_keeps_its_guards() -> Result<()> {
    for (family, gateway) in [(Family::V4, "10.81.1.1"), (Family::V6, "fd81:0:0:1::1")] {
        let siege = Siege::lay("attack-move")?;
        let before = siege.counter("guard_pod_dropped")?;
        let address = siege.address("shop/batch", family).to_string();
        let dial = siege.dialing(family.any(), siege.server(family))?;
        let mut command = vec!["sh", "-c", MOVE, "move", &address, gateway];
        command.extend(dial.iter().map(String::as_str));
        let outcome = siege.0.pod("shop/batch").run(&command)?.success()?;
        assert!(outcome.contains("failed"), "{outcome}");
        siege.counts_to("guard_pod_dropped", before + 1)?;
    }
    Ok(())
}
