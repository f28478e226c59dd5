//! Interfaces of a pod that the mesh does not cover, and links that it cannot guard whole: status
//! says so, as information.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, link, mesh::READY, wait};
use mesh_stories::shop;

const STRICT: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: \
                      strict, namespace: shop }\nspec: { mode: STRICT }\n";

/// What status notes about a pod of node-1; nothing of it is a problem.
fn notes(mesh: &Mesh, pod: &str) -> Result<Vec<String>> {
    let (status, code) = mesh.status("node-1")?;
    assert_eq!(code, 0, "{status}");
    let pods = status["pods"].as_array().context("pods")?;
    let pod = pods.iter().find(|it| it["name"] == pod).with_context(|| status.to_string())?;
    let notes = pod["notes"].as_array().context("notes")?.iter();
    Ok(notes.filter_map(|note| note.as_str()).map(str::to_owned).collect())
}

#[test]
fn a_second_interface_is_not_in_the_mesh_and_status_says_so() -> Result<()> {
    let mesh = shop("second-interface").lay_out()?;
    let (frontend, client) = (mesh.pod("shop/frontend"), mesh.pod("legacy/client"));
    let (here, there) = (&frontend.place.netns, &client.place.netns);
    // As a CNI plugin for further networks makes them.
    link::veth((here, "net1"), (there, "net1"))?;
    link::batch(here, "addr add 192.0.2.1/24 dev net1\naddr add fd05::1/64 dev net1 nodad\n")?;
    link::batch(there, "addr add 192.0.2.2/24 dev net1\n")?;
    frontend.serve_peer(8080, &["echo"])?;
    mesh.objects().apply("strict.yaml", STRICT)?;
    mesh.start_daemons()?;

    let seen = notes(&mesh, "shop/frontend")?;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("net1 (192.0.2.1, fd05::1) is not in the mesh"), "{seen:?}");
    assert_eq!(notes(&mesh, "shop/batch")?, [""; 0]);
    let shown = mesh.nodemesh("node-1", &["status"])?.success()?;
    assert!(shown.contains("net1 (192.0.2.1, fd05::1) is not in the mesh"), "{shown}");

    // The pod's own address is strict. At the other one nobody asks the mesh.
    let call = |address: &str| client.call_peer(address, &["echo", "10"]);
    assert_ne!(call(&format!("{}:8080", frontend.ipv4()))?.code, 0);
    assert_eq!(call("192.0.2.1:8080")?.code, 0);
    // What the pod's programs open goes through the proxy, whichever way it takes from there.
    client.serve_peer(9090, &["echo"])?;
    assert_eq!(frontend.call_peer("192.0.2.2:9090", &["echo", "10"])?.code, 0);
    mesh.flow(&[("destination/address", "192.0.2.2:9090"), ("security", "plaintext")])?;

    // One that comes later is noted as well.
    link::veth((here, "net2"), (there, "net2"))?;
    wait::until("the new interface to be noted", READY, || {
        let seen = notes(&mesh, "shop/frontend")?;
        Ok(seen.iter().any(|note| note.contains("net2 (no address)")).then_some(()))
    })
}

#[test]
fn a_link_without_an_end_on_the_node_is_noted() -> Result<()> {
    let mesh = shop("no-other-end").lay_out()?;
    let batch = mesh.pod("shop/batch");
    let netns = &batch.place.netns;
    // What ipvlan, macvlan and SR-IOV have in common: no other end where the agent looks.
    link::ip(&format!("-n {} link del eth0", netns.name()))?;
    link::ip(&format!("netns exec {0} ip tuntap add eth0 mode tap", netns.name()))?;
    link::batch(
        netns,
        &format!(
            "link set eth0 up\naddr add {}/32 dev eth0\naddr add {}/128 dev eth0 nodad\n",
            batch.ipv4(),
            batch.ipv6()
        ),
    )?;
    mesh.start_daemons()?;
    let seen = notes(&mesh, "shop/batch")?;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("no veth pair") && seen[0].contains("CAP_NET_RAW"), "{seen:?}");
    assert_eq!(notes(&mesh, "shop/frontend")?, [""; 0]);
    Ok(())
}
