//! Applications that listen in ways that few do.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{
    call_until_mtls,
    python::{python, serve_python},
    shop,
};

const CALL: &str = "
s = tcp(address(sys.argv[1])[0]); s.connect(address(sys.argv[1]))
print(talk(s))
";

#[test]
fn one_bound_to_the_pods_device_is_called_from_the_other_node() -> Result<()> {
    const BOUND: &str = "
l = socket(AF_INET6); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'eth0')
l.bind(('::', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    s.sendall(s.recv(100)); s.close()
";
    let mesh = shop("bound-listener").start()?;
    let web = mesh.pod("shop/web");
    web.serve_peer(8080, &["echo"])?;
    serve_python(web, 9000, BOUND)?;
    call_until_mtls(&mesh, "shop/frontend", &format!("{}:8080", web.ipv4()))?;
    for to in [format!("{}:9000", web.ipv4()), format!("[{}]:9000", web.ipv6())] {
        assert_eq!(python(mesh.pod("shop/frontend"), CALL, &[&to])?, "hello", "{to}");
    }
    Ok(())
}

/// Whether status names the port that keeps legacy/client out of the mesh, once it is to enter.
fn is_named(mesh: &Mesh, port: u16) -> Result<()> {
    mesh.objects().apply_namespace("legacy", true)?;
    let words = ["legacy/client".to_owned(), format!("port {port} is in use")];
    wait::until(&format!("status to name port {port}"), READY, || {
        let (status, code) = mesh.status("node-1")?;
        let text = status.to_string();
        Ok((code == 1 && words.iter().all(|word| text.contains(word))).then_some(()))
    })
    .with_context(|| format!("{:?}", mesh.status("node-1")))?;
    mesh.objects().apply_namespace("legacy", false)
}

#[test]
fn one_on_a_port_of_the_mesh_is_named() -> Result<()> {
    let mesh = shop("ports").start()?;
    let client = mesh.pod("legacy/client");
    for port in [15001, 15006, 15008] {
        client.serve_peer(port, &["echo"])?;
        is_named(&mesh, port)?;
        client.stop_servers();
    }
    Ok(())
}

#[test]
fn one_that_shares_a_port_of_the_mesh_is_named() -> Result<()> {
    const SHARED: &str = "
host, port = 'HOST', int(sys.argv[1])
l = socket(AF_INET6 if ':' in host else AF_INET); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
l.bind((host, port)); l.listen()
time.sleep(1000)
";
    let mesh = shop("shared-ports").start()?;
    let client = mesh.pod("legacy/client");
    // At the very address of the proxy it would get some of its connections.
    let own = client.ipv4().to_string();
    for (port, host) in [(15001, "::"), (15006, "::"), (15008, "::"), (15008, own.as_str())] {
        serve_python(client, port, &SHARED.replace("HOST", host))?;
        is_named(&mesh, port)?;
        client.stop_servers();
    }
    Ok(())
}
