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

/// One container with a probe of each kind that opens a connection.
const EACH_KIND: &str = "  - name: app\n    image: app\n    readinessProbe: { httpGet: { path: /, \
                         port: 8080 } }\n    livenessProbe: { tcpSocket: { port: 8082 } }\n    \
                         startupProbe: { grpc: { port: 8083 } }\n";

/// Exits as curl does.
const CONNECT: &str = "exec /usr/bin/python3 -c '
import socket, sys
host, port = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if \":\" in host else socket.AF_INET)
s.settimeout(10)
sys.exit(7 if s.connect_ex((host.strip(\"[]\"), int(port))) else 0)
' \"$1\" \"$2\"";
/// What a kubelet does for each, as a shell says it of `$1` and `$2`, an address and a port.
const PROBES: [(u16, &str); 3] = [
    (8080, "curl --silent --fail --max-time 10 http://$1:$2/"),
    // Connects and hangs up.
    (8082, CONNECT),
    // A request over HTTP/2, without TLS.
    (8083, "curl --silent --fail --max-time 10 --http2-prior-knowledge http://$1:$2/"),
];

#[test]
fn each_kind_of_probe_reaches_a_strict_pod_from_its_node_alone() -> Result<()> {
    let mesh = shop("probe-kinds").start()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "healthy")?;
    web.serve_http(8081, "not probed")?;
    web.serve_peer(8082, &["echo"])?;
    web.serve_nginx_http2(8083, "return 200;")?;
    let yaml = objects::pod(web);
    assert!(yaml.contains(CONTAINER), "{yaml}");
    mesh.objects().apply("pod-shop-web.yaml", &yaml.replace(CONTAINER, EACH_KIND))?;
    mesh.objects().apply("strict.yaml", STRICT)?;
    let probe = |node: &str, (port, command): (u16, &str), host: &str| -> Result<i32> {
        let port = port.to_string();
        Ok(mesh.node(node).place.run(&["sh", "-c", command, "probe", host, &port])?.code)
    };
    let ipv4 = web.ipv4().to_string();
    let (_, http) = PROBES[0];
    wait::until("a port without a probe to be refused", READY, || {
        Ok((probe("node-2", (8081, http), &ipv4)? == REFUSED).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    for host in [ipv4, format!("[{}]", web.ipv6())] {
        for kind in PROBES {
            let code = probe("node-2", kind, &host)?;
            assert_eq!(code, 0, "{kind:?} of {host}: {}", mesh.last_words());
            assert_eq!(probe("node-1", kind, &host)?, REFUSED, "{kind:?} of {host}");
        }
    }
    Ok(())
}
