//! TCPRoutes and TLSRoutes: where whole connections go, with programs that know nothing of them.

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh,
    mesh::READY,
    objects,
    process::{self, Seen},
    wait,
};
use mesh_stories::shop;

/// The Service shop/door, behind which there is nobody.
const DOOR: &str = "10.96.0.83";
const PORT: u16 = 443;
const TARGET: u16 = 8443;

const TCP: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: { name: tcp, namespace: shop, creationTimestamp: 2026-01-01T00:00:00Z }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: door }]
  rules:
";
const TLS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: { name: eu, namespace: shop, creationTimestamp: 2026-01-01T00:00:00Z }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: door, port: 443 }]
  hostnames: [\"*.eu.example.com\"]
  rules:
  - backendRefs: [{ name: one, port: 443 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: { name: shop, namespace: shop, creationTimestamp: 2026-01-01T00:00:00Z }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: door, port: 443 }]
  hostnames: [shop.eu.example.com]
  rules:
  - backendRefs: [{ name: two, port: 443 }]
";

/// Answers HTTPS requests with `$2`, as `$1` and `$3`, a port and a certificate with its key, say.
const SERVER: &str = "
import http.server, ssl, sys
class Named(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', str(len(sys.argv[2])))
        self.end_headers()
        self.wfile.write(sys.argv[2].encode())
server = http.server.ThreadingHTTPServer(('', int(sys.argv[1])), Named)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// `shop/one` on the caller's node and `shop/two` on the other one, which speak TLS.
fn two_servers(story: &str) -> Result<Mesh> {
    let mesh = shop(story)
        .pod("node-1", "shop/one")
        .pod("node-2", "shop/two")
        .service_with("shop/one", "10.96.0.84", "tls", PORT, TARGET)
        .service_with("shop/two", "10.96.0.85", "tls", PORT, TARGET)
        .start()?;
    let certificate = mesh.layout().run_dir().join("server.pem").to_string_lossy().into_owned();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-subj", "/CN=server", "-keyout", &certificate, "-out", &certificate]);
    process::run(&mut openssl, READY)?.success()?;
    for name in ["one", "two"] {
        let pod = mesh.pod(&format!("shop/{name}"));
        let port = TARGET.to_string();
        pod.serve(TARGET, &["/usr/bin/python3", "-c", SERVER, &port, name, &certificate])?;
    }
    mesh.objects().apply("door.yaml", &objects::service("shop/door", DOOR, PORT, TARGET, &[]))?;
    Ok(mesh)
}

fn get(mesh: &Mesh, host: &str) -> Result<Seen> {
    let resolve = format!("{host}:{PORT}:{DOOR}");
    let url = format!("https://{host}/");
    mesh.pod("shop/frontend").run(&["curl", "-skS", "-m", "10", "--resolve", &resolve, &url])
}

/// Waits until `host` is answered by `name`.
fn until_answered(mesh: &Mesh, host: &str, name: &str) -> Result<()> {
    wait::until(&format!("{host} to be {name}"), READY, || {
        Ok((get(mesh, host)?.stdout == name).then_some(()))
    })
    .with_context(|| mesh.last_words())
}

#[test]
fn connections_go_where_a_tcp_route_says() -> Result<()> {
    let mesh = two_servers("tcp-routes")?;
    let route = |one, two| {
        format!(
            "{TCP}  - backendRefs: [{{ name: one, port: 443, weight: {one} }}, {{ name: two, port: \
             443, weight: {two} }}]\n"
        )
    };
    mesh.objects().apply("route.yaml", &route(0, 1))?;
    until_answered(&mesh, "any.test", "two")?;
    let flow = mesh.flow(&[("destination/pod", "shop/two"), ("reporter", "source")])?;
    // The server resets its connection now and then, which is said as well.
    assert!(flow.field("reason").starts_with("TCPRoute shop/tcp"), "{flow}");
    assert_eq!(flow.field("service"), "shop/door", "{flow}");
    assert_eq!(flow.field("security"), "mtls", "{flow}");

    mesh.objects().apply("route.yaml", &route(1, 0))?;
    until_answered(&mesh, "any.test", "one")?;
    mesh.objects().apply("route.yaml", &route(1, 1))?;
    for name in ["one", "two"] {
        until_answered(&mesh, "any.test", name)?;
    }

    // The whole of it leads nowhere.
    mesh.objects()
        .apply("route.yaml", &format!("{TCP}  - backendRefs: [{{ name: no, port: 1 }}]\n"))?;
    wait::until("the connection to be refused", READY, || {
        Ok((get(&mesh, "any.test")?.code != 0).then_some(()))
    })?;
    let flow = mesh.flow(&[("verdict", "ERROR"), ("service", "shop/door")])?;
    let reason = "TCPRoute shop/tcp has no valid backend: Service shop/no does not exist";
    assert_eq!(flow.field("reason"), reason, "{flow}");
    Ok(())
}

#[test]
fn a_tls_route_goes_by_the_server_name_alone() -> Result<()> {
    let mesh = two_servers("tls-routes")?;
    mesh.objects().apply("route.yaml", TLS)?;
    until_answered(&mesh, "shop.eu.example.com", "two")?;
    assert_eq!(get(&mesh, "a.b.eu.example.com")?.stdout, "one");
    assert_eq!(get(&mesh, "SHOP.eu.example.com")?.stdout, "two");
    let flow = mesh.flow(&[("destination/pod", "shop/one"), ("reporter", "source")])?;
    assert!(flow.field("reason").starts_with("TLSRoute shop/eu"), "{flow}");

    assert_ne!(get(&mesh, "other.test")?.code, 0);
    let flow = mesh.flow(&[("reason", "no TLSRoute of this port is for other.test")])?;
    assert_eq!(flow.field("service"), "shop/door", "{flow}");
    // An address is no server name, and neither is a request without TLS.
    for url in [format!("https://{DOOR}/"), format!("http://{DOOR}:{PORT}/")] {
        let seen = mesh.pod("shop/frontend").run(&["curl", "-skS", "-m", "10", &url])?;
        assert_ne!(seen.code, 0, "{url}: {seen}");
        mesh.flow(&[("reason", "no TLSRoute of this port is for what names no server")])?;
    }
    Ok(())
}
