//! What somebody who has taken over a pod may try on the proxy and on what it admits, with NET_ADMIN
//! and NET_RAW in the pod. Nobody gets to an application that is not for him, or gets there as
//! somebody else.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use mesh_stories::siege::{DELIVERY_MARK, FAMILIES, Family, PORT, Siege, UNMESHED, assert_nothing};

#[test]
fn the_proxys_mark_is_nothing_to_anybody() -> Result<()> {
    let siege = Siege::lay("attack-mark")?;
    for family in FAMILIES {
        for pod in ["shop/batch", "legacy/client"] {
            let own = siege.at(pod, family, 0);
            let frontend = siege.at("shop/frontend", family, 1025);
            for from in [own, frontend] {
                let how = ["mark", DELIVERY_MARK, "transparent"];
                assert_nothing(&siege.dial(pod, &from.to_string(), siege.vault(family), &how)?);
            }
        }
    }
    siege.holds()
}

#[test]
fn unusual_sockets_are_the_proxys_like_any_other() -> Result<()> {
    let siege = Siege::lay("attack-sockets")?;
    // Data with the first packet, cookie or not, wherever it goes.
    siege.0.pod("shop/batch").place.netns.set_sysctl("ipv4/tcp_fastopen", "5")?;
    let more = siege.address("shop/batch", Family::V4).to_string();
    siege.run_in(
        "shop/batch",
        &[
            "ip mptcp limits set subflow 4 add_addr_accepted 4",
            &format!("ip mptcp endpoint add {more} dev eth0 subflow"),
        ],
    )?;
    let hows = [&["mptcp"][..], &["fastopen"]];
    for family in FAMILIES {
        for how in hows {
            assert_nothing(&siege.dial("shop/batch", family.any(), siege.vault(family), how)?);
            let before = siege.counter("captured")?;
            let outcome = siege.dial("shop/batch", family.any(), siege.server(family), how)?;
            assert!(outcome.contains(UNMESHED), "{family:?} {how:?}: {outcome}");
            siege.counts_to("captured", before + 1)?;
        }
    }
    siege.holds()?;
    // With nobody to carry them they get nowhere.
    siege.0.agent("node-1").kill();
    for family in FAMILIES {
        for how in hows {
            for to in [siege.vault(family), siege.server(family)] {
                let outcome = siege.dial("shop/batch", family.any(), to, how)?;
                assert!(outcome.starts_with("failed"), "{how:?} to {to}: {outcome}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_proxys_listeners_lead_nobody_anywhere() -> Result<()> {
    let siege = Siege::lay("attack-listeners")?;
    for family in FAMILIES {
        for port in [15001, 15006, 15008] {
            for pod in ["shop/batch", "legacy/client"] {
                for host in ["shop/batch", "shop/vault", "shop/web"] {
                    let to = siege.at(host, family, port);
                    assert_nothing(&siege.dial(pod, family.any(), to, &[])?);
                }
            }
            let loopback = match family {
                Family::V4 => IpAddr::from([127, 0, 0, 1]),
                Family::V6 => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
            };
            let loopback = SocketAddr::new(loopback, port);
            assert_nothing(&siege.dial("shop/batch", family.any(), loopback, &[])?);
        }
    }
    siege.holds()
}

#[test]
fn a_tuple_that_was_admitted_once_is_a_strangers_afterwards() -> Result<()> {
    let siege = Siege::lay("attack-replay")?;
    for family in FAMILIES {
        for tuple in tuples(&siege, family)? {
            for pod in ["shop/frontend", "shop/batch", "legacy/client"] {
                let outcome = siege.by_hand(pod, tuple, siege.vault(family), &["bypass"])?;
                assert_nothing(&outcome);
                if pod != "legacy/client" {
                    assert_eq!(outcome, "answer: none\n", "{pod} as {tuple}");
                }
            }
        }
    }
    siege.holds()
}

/// Where the frontend's connections to the vault came from, as far as the vault remembers.
fn tuples(siege: &Siege, family: Family) -> Result<Vec<SocketAddr>> {
    // nginx closes first, so that the vault remembers the tuple in TIME_WAIT.
    let (frontend, vault) = (siege.0.pod("shop/frontend"), siege.0.pod("shop/vault"));
    let url = siege.url(family);
    frontend.run(&["curl", "-sS", "-m", "5", "-H", "Connection: close", &url])?.success()?;
    let frontend = siege.address("shop/frontend", family);
    let sockets = vault.run(&["ss", "-Htan", "sport", "=", &format!(":{PORT}")])?.success()?;
    let mut tuples: Vec<SocketAddr> = Vec::new();
    for line in sockets.lines() {
        let peer = line.split_whitespace().nth(4).unwrap_or_default();
        let Ok(peer) = peer.parse::<SocketAddr>() else { continue };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        tuples.extend(Some(peer).filter(|peer| peer.ip() == frontend));
    }
    ensure!(!tuples.is_empty(), "no trace of the frontend: {sockets}");
    Ok(tuples)
}

#[test]
fn syn_cookies_and_odd_packets_of_strangers_do_not_get_to_the_application() -> Result<()> {
    let siege = Siege::lay("attack-cookies")?;
    for (family, stranger) in
        [(Family::V4, IpAddr::from([10, 77, 1, 9])), (Family::V6, "fd77:0:0:1::9".parse()?)]
    {
        // An address that is the client's on the node but unknown to its kernel, which so does not
        // answer for what is made by hand.
        siege.route_to("legacy/client", stranger)?;
        let from = SocketAddr::new(stranger, 30000);
        let outcome = siege.by_hand("legacy/client", from, siege.server(family), &[])?;
        assert!(outcome.contains(UNMESHED), "the client itself works: {outcome}");
        for cookies in ["1", "2"] {
            siege.0.pod("shop/vault").place.netns.set_sysctl("ipv4/tcp_syncookies", cookies)?;
            let shapes = [&[][..], &["options"], &["fragments"], &["fastopen"], &["mptcp"]];
            for (shape, port) in shapes.into_iter().zip(30001..) {
                let from = SocketAddr::new(stranger, port);
                for _ in 0..2 {
                    let outcome =
                        siege.by_hand("legacy/client", from, siege.vault(family), shape)?;
                    assert!(!outcome.contains("syn-ack"), "{family:?} {shape:?}: {outcome}");
                }
            }
        }
        siege.holds()?;
    }
    Ok(())
}

#[test]
fn anothers_loopback_is_out_of_reach() -> Result<()> {
    let siege = Siege::lay("attack-loopback")?;
    for (family, loopback) in
        [(Family::V4, IpAddr::from([127, 0, 0, 1])), (Family::V6, "::1".parse()?)]
    {
        for pod in ["shop/batch", "legacy/client"] {
            let from = siege.at(pod, family, 30000);
            let to = SocketAddr::new(loopback, PORT);
            let outcome = siege.by_hand(pod, from, to, &["bypass"])?;
            assert_eq!(outcome, "answer: none\n", "{pod}");
            // Its own loopback, sent to the vault.
            let from = SocketAddr::new(loopback, 30000);
            let outcome = siege.by_hand(pod, from, siege.vault(family), &["bypass"])?;
            assert_eq!(outcome, "answer: none\n", "{pod}");
        }
    }
    siege.holds()
}
