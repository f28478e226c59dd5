//! A node: a network namespace that routes for its pods, and a cgroup for all of them.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    cgroup,
    layout::{Layout, gateway, node_addresses, pod_addresses},
    link,
    netns::Netns,
    process::Place,
};

/// The name of a node's end of the link between nodes.
pub const UPLINK: &str = "eth0";

/// One of a mesh's two nodes.
#[derive(Debug)]
pub struct Node {
    /// `node-1`.
    pub name: String,
    /// Counts from 1; part of the addresses.
    pub number: u8,
    /// Where its daemons run.
    pub place: Place,
}

impl Node {
    /// Makes the namespace and the cgroup of node `number`, which is not linked to anything yet.
    pub fn create(layout: &Layout, number: u8) -> Result<Self> {
        let name = format!("node-{number}");
        let netns = Netns::create(&layout.netns(&name))?;
        for (setting, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // Loose: replies may take another way than strict mode would guess.
            ("ipv4/conf/all/rp_filter", "2"),
            ("ipv4/conf/default/rp_filter", "2"),
            // Nobody else is on these links; detection would only hold up the first packets.
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ] {
            netns.set_sysctl(setting, value)?;
        }
        // A cgroup of its own for daemons: those of pods stay free of what is not theirs.
        let cgroup = layout.node_cgroup(&name).join("daemons");
        cgroup::create(&cgroup)?;
        Ok(Self { name, number, place: Place { netns, cgroup } })
    }

    /// The address on the link between nodes.
    pub fn address(&self) -> Ipv4Addr {
        node_addresses(self.number).0
    }

    /// Joins two nodes by a link and routes each one's pods over it.
    pub fn join(&self, other: &Self) -> Result<()> {
        link::veth((&self.place.netns, UPLINK), (&other.place.netns, UPLINK))?;
        for (here, there) in [(self, other), (other, self)] {
            let (ipv4, ipv6) = node_addresses(here.number);
            let (via4, via6) = node_addresses(there.number);
            let (pods4, pods6) = pod_addresses(there.number, 0);
            link::batch(
                &here.place.netns,
                &format!(
                    "addr add {ipv4}/24 dev {UPLINK}\n\
                     addr add {ipv6}/64 dev {UPLINK} nodad\n\
                     route add {pods4}/24 via {via4}\n\
                     route add {pods6}/64 via {via6}\n"
                ),
            )?;
        }
        Ok(())
    }

    /// Links a pod's namespace to this node as point-to-point CNI plugins do: a veth pair, the
    /// whole world behind the node, nobody else on the link.
    pub fn link_pod(&self, pod: &Netns, host: u8) -> Result<()> {
        let outside = format!("pod{host}");
        let (ipv4, ipv6) = pod_addresses(self.number, host);
        let (via4, via6) = gateway(self.number);
        link::veth((pod, "eth0"), (&self.place.netns, &outside))?;
        link::batch(
            &self.place.netns,
            &format!(
                "addr add {via4}/32 dev {outside}\n\
                 addr add {via6}/128 dev {outside} nodad\n\
                 route add {ipv4}/32 dev {outside}\n\
                 route add {ipv6}/128 dev {outside}\n"
            ),
        )?;
        link::batch(
            pod,
            &format!(
                "addr add {ipv4}/32 dev eth0\n\
                 addr add {ipv6}/128 dev eth0 nodad\n\
                 route add {via4}/32 dev eth0\n\
                 route add {via6}/128 dev eth0\n\
                 route add default via {via4} dev eth0\n\
                 route add default via {via6} dev eth0\n"
            ),
        )
    }
}
