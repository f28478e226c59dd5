//! A strict pod is healthy: the kubelet of its node reaches what probes name, and nobody else does.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, objects, process::Place, wait};
use mesh_stories::shop;

const STRICT: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: \
                      strict, namespace: shop }\nspec: { mode: STRICT }\n";
/// How the harness writes a container, and one with a probe of a port by its name.
const CONTAINER: &str = "  - { name: app, image: app }\n";
const PROBED: &str = "  - name: app\n    image: app\n    ports: [{ name: health, containerPort: \
                      8080 }]\n    readinessProbe: { httpGet: { path: /, port: health } }\n";

fn curl(place: &Place, url: &str) -> Result<i32> {
    Ok(place.run(&["curl", "--silent", "--max-time", "10", url])?.code)
}

/// What curl says of a connection that was refused.
const REFUSED: i32 = 7;

#[test]
fn a_strict_pod_is_probed_by_its_node_at_the_ports_that_it_names() -> Result<()> {
    let mesh: Mesh = shop("probes").start()?;
    let web = mesh.pod("shop/web");
    for port in [8080, 8081] {
        web.serve_http(port, "healthy")?;
    }
    let yaml = objects::pod(web);
    assert!(yaml.contains(CONTAINER), "{yaml}");
    mesh.objects().apply("pod-shop-web.yaml", &yaml.replace(CONTAINER, PROBED))?;
    mesh.objects().apply("strict.yaml", STRICT)?;

    let url = |host: &str, port: u16| format!("http://{host}:{port}/");
    let ipv4 = web.ipv4().to_string();
    let own = &mesh.node("node-2").place;
    wait::until("a port without a probe to be refused", READY, || {
        Ok((curl(own, &url(&ipv4, 8081))? == REFUSED).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    for host in [ipv4.clone(), format!("[{}]", web.ipv6())] {
        assert_eq!(curl(own, &url(&host, 8080))?, 0, "{host}: {}", mesh.last_words());
        assert_eq!(curl(own, &url(&host, 8081))?, REFUSED, "{host}");
        // Neither a pod of another node nor that node itself.
        assert_eq!(curl(&mesh.pod("legacy/client").place, &url(&host, 8080))?, REFUSED);
        assert_eq!(curl(&mesh.node("node-1").place, &url(&host, 8080))?, REFUSED);
    }
    mesh.flow(&[
        ("source/identity", "host:node-2"),
        ("destination/pod", "shop/web"),
        ("security", "plaintext"),
        ("verdict", "FORWARDED"),
    ])?;
    Ok(())
}
