//! Attacks with everything else out of the way that would stop them, or keep answers from the
//! attacker: what is between him and the vault then is nodemesh alone.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_harness::{link::ip, objects::identity};
use mesh_stories::siege::{DELIVERY_MARK, Family, PORT, Siege, UNMESHED, assert_nothing};

const V4: Family = Family::V4;

#[test]
fn whoever_has_the_proxys_mark_is_who_he_is_and_goes_through_the_proxy() -> Result<()> {
    let siege = Siege::lay("attack-marked")?;
    siege.0.pod("shop/web").serve_http(PORT, "in the mesh")?;
    siege.0.pod("legacy/server").serve_http(PORT, UNMESHED)?;
    let batch = siege.at("shop/batch", V4, 0).to_string();
    let how = ["mark", DELIVERY_MARK, "transparent"];
    let open = [
        (siege.at("legacy/server", V4, PORT), UNMESHED),
        (siege.at("shop/web", V4, PORT), "in the mesh"),
    ];
    for (to, says) in open {
        let outcome = siege.dial("shop/batch", &batch, to, &how)?;
        assert!(outcome.contains(says), "{to}: {outcome}");
        let address = to.to_string();
        let flow = siege.0.flow(&[("destination/address", &address), ("reporter", "source")])?;
        assert_eq!(flow.field("source/identity"), identity("shop/batch"), "{flow}");
    }
    siege.0.agent("node-1").kill();
    for (to, says) in open {
        let outcome = siege.dial("shop/batch", &batch, to, &how)?;
        assert!(!outcome.contains(says), "{to} without the agent: {outcome}");
    }
    Ok(())
}

#[test]
fn what_was_admitted_is_forgotten_before_it_can_be_used_again() -> Result<()> {
    let siege = Siege::lay("attack-admitted")?;
    let (frontend, vault) = (siege.0.pod("shop/frontend"), siege.0.pod("shop/vault"));
    // A caller that closes first leaves no trace of its tuple; here the vault tells it.
    vault.serve_nginx(9000, "return 200 \"$remote_port\";")?;
    let open = siege.at("shop/vault", V4, 9000);
    let port = frontend.curl(&format!("http://{open}/"))?.parse()?;
    let admitted = siege.at("shop/frontend", V4, port);
    // The client's kernel does not know the address, and so does not answer for what is made by
    // hand there.
    siege.route_to("legacy/client", admitted.ip())?;
    let refused = siege.counter("inbound_refused")?;
    let outcome = siege.by_hand("legacy/client", admitted, open, &[])?;
    assert_eq!(outcome, "answer: reset\n", "as {admitted}");
    siege.counts_to("inbound_refused", refused + 1)
}

#[test]
fn a_loopback_that_every_kernel_takes_for_an_address_is_out_of_reach() -> Result<()> {
    let siege = Siege::lay("attack-open-loopback")?;
    let loopback = open_loopback(&siege)?;
    let batch = siege.at("shop/batch", V4, 30000);
    let outcome = siege.by_hand("shop/batch", batch, loopback, &["bypass"])?;
    assert_eq!(outcome, "answer: none\n");
    // Its own loopback, sent to the vault.
    let own = SocketAddr::new([127, 0, 0, 1].into(), 30000);
    for pod in ["shop/batch", "legacy/client"] {
        let outcome = siege.by_hand(pod, own, siege.vault(V4), &["bypass"])?;
        assert_eq!(outcome, "answer: none\n", "{pod}");
    }
    siege.counts_to("guard_host_dropped", 1)?;
    siege.counts_to("guard_host_spoofed", 1)
}

#[test]
fn a_loopback_address_gets_no_stranger_past_the_proxy() -> Result<()> {
    let siege = Siege::lay("attack-localnet")?;
    let loopback = open_loopback(&siege)?;
    let stranger = SocketAddr::new([10, 77, 1, 9].into(), 30000);
    siege.route_to("legacy/client", stranger.ip())?;
    let outcome = siege.by_hand("legacy/client", stranger, loopback, &[])?;
    assert_nothing(&outcome);
    siege.holds()
}

/// A loopback address that the node takes for one of the vault's, and that the kernels of both take
/// for no mistake: nothing else is in the way to it.
fn open_loopback(siege: &Siege) -> Result<SocketAddr> {
    let (vault, node) = (siege.0.pod("shop/vault"), siege.0.node("node-1"));
    for netns in [&vault.place.netns, &node.place.netns] {
        netns.set_sysctl("ipv4/conf/all/route_localnet", "1")?;
    }
    let loopback = SocketAddr::new([127, 0, 0, 9].into(), PORT);
    let (name, device) = (node.place.netns.name(), siege.link("shop/vault")?);
    let mac = siege.mac(vault.place.netns.name(), "eth0")?;
    ip(&format!("-n {name} route add {}/32 dev {device} table local", loopback.ip()))?;
    ip(&format!("-n {name} neigh add {} lladdr {mac} dev {device} nud permanent", loopback.ip()))?;
    Ok(loopback)
}
