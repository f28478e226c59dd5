//! Frames that an attacker makes by hand: none opens a connection past the proxy, in whatever shape
//! it comes, and the counters say at which end of the link it was dropped.

use std::{net::TcpStream, time::Duration};

use anyhow::Result;
use mesh_stories::siege::{FAMILIES, Family, PORT, Siege, TRIES};

/// What goes through the queues of the pod meets `guard_pod`, and what goes around them
/// `guard_host`.
const WAYS: [(&[&str], &str); 2] =
    [(&[], "guard_pod_dropped"), (&["bypass"], "guard_host_dropped")];

/// Sends first packets of every shape, of which each that is `good` opens a connection outside the
/// mesh; none does from inside.
fn none_leaves(siege: &Siege, family: Family, shapes: &[(&[&str], bool)]) -> Result<()> {
    let server = siege.server(family);
    for ((shape, is_good), port) in shapes.iter().zip(30000..) {
        let from = siege.at("legacy/client", family, port);
        let outcome = siege.by_hand("legacy/client", from, server, shape)?;
        let is_answered = outcome.contains("answer: syn-ack");
        assert!(is_answered || !is_good, "{family:?} {shape:?}: {outcome}");
    }
    let mut port = 31000;
    for (way, counter) in WAYS {
        let before = siege.counter(counter)?;
        let mut sent = 0;
        for (shape, _) in shapes {
            for to in [server, siege.vault(family)] {
                port += 1;
                sent += TRIES;
                let from = siege.at("shop/batch", family, port);
                let how = [shape, way].concat();
                let outcome = siege.by_hand("shop/batch", from, to, &how)?;
                assert_eq!(outcome, "answer: none\n", "{how:?} to {to}");
            }
        }
        siege.counts_to(counter, before + sent)?;
    }
    siege.holds()
}

#[test]
fn ipv4_packets_of_every_shape_stay_in_the_pod() -> Result<()> {
    let siege = Siege::lay("attack-ipv4")?;
    let shapes = [&[][..], &["options"], &["fragments"], &["tag"], &["tags"]];
    none_leaves(&siege, Family::V4, &shapes.map(|shape| (shape, true)))
}

#[test]
fn ipv6_packets_of_every_shape_stay_in_the_pod() -> Result<()> {
    let siege = Siege::lay("attack-ipv6")?;
    let shapes = [
        &[][..],
        &["destination"],
        &["hops"],
        &["routing"],
        &["chain"],
        &["atomic"],
        &["fragments"],
        &["tag"],
        &["tags"],
    ];
    none_leaves(&siege, Family::V6, &shapes.map(|shape| (shape, true)))
}

/// What a first packet may carry, and whether Linux answers it.
const SEGMENTS: [(&[&str], bool); 7] = [
    (&["data"], true),
    // A cookie that is not the server's, which then answers as if there were none.
    (&["fastopen"], true),
    (&["mptcp"], true),
    // SYN and FIN, which Linux does not answer, URG, PUSH, ECE and CWR.
    (&["flags", "03"], false),
    (&["flags", "22"], true),
    (&["flags", "0a"], true),
    (&["flags", "c2"], true),
];

#[test]
fn ipv4_first_packets_with_more_than_syn_stay_in_the_pod() -> Result<()> {
    none_leaves(&Siege::lay("attack-segments4")?, Family::V4, &SEGMENTS)
}

#[test]
fn ipv6_first_packets_with_more_than_syn_stay_in_the_pod() -> Result<()> {
    none_leaves(&Siege::lay("attack-segments6")?, Family::V6, &SEGMENTS)
}

#[test]
fn frames_to_other_nodes_tunnels_and_from_others_addresses_stay_on_the_link() -> Result<()> {
    let siege = Siege::lay("attack-sources")?;
    for family in FAMILIES {
        let tunnel = siege.at("shop/vault", family, 15008);
        let other_node = siege.at("shop/web", family, PORT);
        for (to, port) in [tunnel, other_node].into_iter().zip(32000..) {
            for (way, _) in WAYS {
                let from = siege.at("shop/batch", family, port);
                let outcome = siege.by_hand("shop/batch", from, to, way)?;
                assert_eq!(outcome, "answer: none\n", "{way:?} to {to}");
            }
        }
        let before = siege.counter("guard_host_spoofed")?;
        for to in [siege.vault(family), siege.server(family)] {
            let from = siege.at("shop/frontend", family, 30000);
            let outcome = siege.by_hand("shop/batch", from, to, &["bypass"])?;
            assert_eq!(outcome, "answer: none\n", "as the frontend to {to}");
        }
        siege.counts_to("guard_host_spoofed", before + 2 * TRIES)?;
    }
    siege.holds()
}

#[test]
fn a_process_that_no_hook_sees_does_not_get_out() -> Result<()> {
    let siege = Siege::lay("attack-outside")?;
    for family in FAMILIES {
        let server = siege.server(family);
        // This test's own process is in no pod's cgroup.
        let connect = move || {
            TcpStream::connect_timeout(&server, Duration::from_secs(2)).map_err(|it| it.kind())
        };
        assert!(siege.0.pod("legacy/client").place.netns.run(connect)?.is_ok());
        let before = siege.counter("guard_pod_dropped")?;
        assert!(siege.0.pod("shop/batch").place.netns.run(connect)?.is_err());
        siege.counts_to("guard_pod_dropped", before + 1)?;
    }
    Ok(())
}
