//! Connections that `mesh-raw` makes by hand, past the kernel's TCP of the pod that it is in.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, Pod, binaries, link::ip};

/// The Ethernet address of an interface.
pub fn mac(netns: &str, interface: &str) -> Result<String> {
    let shown = ip(&format!("-n {netns} -o link show dev {interface}"))?;
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "link/ether").context("no Ethernet")?;
    Ok(words.next().context("no address")?.to_owned())
}

/// The node's end of a pod's link.
pub fn link_of(pod: &Pod) -> String {
    match pod.ipv4() {
        IpAddr::V4(address) => format!("pod{}", address.octets()[3]),
        IpAddr::V6(_) => unreachable!("the harness gives IPv4 first"),
    }
}

/// The command that opens a connection by hand in `pod`.
pub fn command(
    mesh: &Mesh,
    pod: &Pod,
    from: SocketAddr,
    to: SocketAddr,
    how: &[&str],
) -> Result<Vec<String>> {
    let own = mac(pod.place.netns.name(), "eth0")?;
    let gateway = mac(mesh.node(&pod.node).place.netns.name(), &link_of(pod))?;
    let raw = binaries::find("mesh-raw")?.to_string_lossy().into_owned();
    let mut words = vec![raw, "send".to_owned(), own, gateway, from.to_string(), to.to_string()];
    words.extend(how.iter().map(ToString::to_string));
    Ok(words)
}

/// Sends what is for `address` to `pod`, whose kernel does not know it and so does not answer for
/// what is made by hand there.
pub fn route_to(mesh: &Mesh, pod: &Pod, address: IpAddr) -> Result<()> {
    let node = mesh.node(&pod.node).place.netns.name();
    let (mac, device) = (mac(pod.place.netns.name(), "eth0")?, link_of(pod));
    ip(&format!("-n {node} route replace {address}/32 dev {device}"))?;
    ip(&format!("-n {node} neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
    Ok(())
}
