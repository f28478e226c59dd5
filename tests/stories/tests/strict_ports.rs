//! Peer modes of single ports: a strict one refuses plaintext before it is a connection, and the
//! others of the same pod stay in the kernel.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{python::python, shop};

const POLICY: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: web, \
                      namespace: shop }\nspec:\n  mode: PERMISSIVE\n  ports:\n  - { port: 8080, \
                      mode: STRICT }\n";

/// What connect() alone says.
const CONNECT: &str = "
s = tcp('10.0.0.1')
code = s.connect_ex(address(sys.argv[1]))
print(errno.errorcode.get(code, 'connected'))
";
/// Is refused 50 times; the microseconds of the quickest.
const QUICKEST: &str = "
took = []
for _ in range(50):
    with tcp('10.0.0.1') as s:
        start = time.perf_counter_ns()
        code = s.connect_ex(address(sys.argv[1]))
        took.append(time.perf_counter_ns() - start)
    assert code == errno.ECONNREFUSED, code
print(min(took) // 1000)
";
/// The promise, which the quickest of many has to keep however busy the machine is.
const PROMISE: u32 = 1_000;

fn address(mesh: &Mesh, port: u16) -> String {
    format!("{}:{port}", mesh.pod("shop/web").ipv4())
}

fn connect(mesh: &Mesh, port: u16) -> Result<String> {
    python(mesh.pod("legacy/client"), CONNECT, &[&address(mesh, port)])
}

#[test]
fn a_strict_port_refuses_at_once_and_the_other_passes_in_the_kernel() -> Result<()> {
    let mesh = shop("strict-port").start()?;
    let web = mesh.pod("shop/web");
    for port in [8080, 9090] {
        web.serve_http(port, &format!("port {port}"))?;
    }
    assert_eq!(connect(&mesh, 8080)?, "connected");
    let mut connected = 1;
    mesh.objects().apply("peer.yaml", POLICY)?;
    wait::until("plaintext to port 8080 to be refused", READY, || {
        let is_refused = connect(&mesh, 8080)? == "ECONNREFUSED";
        connected += u64::from(!is_refused);
        Ok(is_refused.then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let quickest = python(mesh.pod("legacy/client"), QUICKEST, &[&address(&mesh, 8080)])?;
    assert!(quickest.parse::<u32>()? < PROMISE, "the quickest refusal took {quickest} us");

    let url = |port| format!("http://{}:{port}/", web.ipv4());
    assert_eq!(mesh.pod("legacy/client").curl(&url(9090))?, "port 9090\n");
    // The agent reads the kernel's counters every two seconds.
    wait::until("the kernel to have counted it", READY, || {
        let (status, _) = mesh.status("node-2")?;
        Ok((status["counters"]["inbound_passed"] == connected + 1).then_some(()))
    })
    .with_context(|| format!("{:?}", mesh.status("node-2")))?;
    let proxied = mesh.flows()?.iter().any(|flow| flow.to_string().contains(":9090"));
    assert!(!proxied, "no proxy saw it: {:?}", mesh.flows()?);
    // Whoever proves who it is gets to both.
    for port in [8080, 9090] {
        assert_eq!(mesh.pod("shop/frontend").curl(&url(port))?, format!("port {port}\n"));
    }
    Ok(())
}
