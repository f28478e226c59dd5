//! A policy that changes ends the connections that it no longer allows, and no others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_harness::{Background, Mesh, mesh::READY, objects::identity, wait};
use mesh_stories::{python::python, shop};

/// The promise: a connection that lost its right ends within this.
const PROMISE: Duration = Duration::from_secs(1);
/// What the folder's two looks and the way to the agent may take before the promise begins.
const PROPAGATION: Duration = Duration::from_secs(4);

/// How many policies the promise is measured with.
const ROUNDS: u32 = 4;
/// Asks a Redis whether it is there.
const PING: &str = "
s = tcp('10.0.0.1')
try:
    s.connect(address(sys.argv[1])); s.sendall(b'PING\\r\\n'); print(s.recv(100))
except OSError as error: print(error)
";

/// A program in `pod` that holds a connection to a Redis and ends with it.
fn hold(mesh: &Mesh, pod: &str, server: &str) -> Result<Background> {
    let address = mesh.pod(server).ipv4();
    let script = format!(
        "exec 3<>/dev/tcp/{address}/6379; printf 'PING\\r\\n' >&3; read -r answer <&3; \
         echo \"$answer\"; cat <&3 >/dev/null"
    );
    let held = mesh.pod(pod).spawn(&["bash", "-c", &script])?;
    wait::until("an answer on the connection", READY, || {
        Ok(held.log().contains("PONG").then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    Ok(held)
}

fn deny(name: &str, app: &str, caller: &str) -> String {
    format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  \
         namespace: shop\nspec:\n  selector:\n    matchLabels: {{ app: {app} }}\n  action: DENY\n  \
         rules:\n  - name: who\n    from:\n    - principals: [{}]\n",
        identity(caller)
    )
}

fn ends_in_time(mesh: &Mesh, mut held: Background, since: Instant) -> Result<()> {
    wait::until("the connection to end", READY, || held.ended())
        .with_context(|| mesh.last_words())?;
    let took = since.elapsed();
    assert!(took < PROPAGATION + PROMISE, "it took {took:?}");
    Ok(())
}

#[test]
fn connections_of_another_node_end_where_their_right_does() -> Result<()> {
    let mesh = shop("revoke").start()?;
    mesh.pod("shop/web").serve_redis(6379)?;
    let batch = hold(&mesh, "shop/batch", "shop/web")?;
    let mut frontend = hold(&mesh, "shop/frontend", "shop/web")?;

    mesh.objects().apply("deny.yaml", &deny("no-batch", "web", "shop/batch"))?;
    ends_in_time(&mesh, batch, Instant::now())?;
    let flow = mesh.flow(&[
        ("source/identity", &identity("shop/batch")),
        ("reporter", "destination"),
        ("verdict", "DENIED"),
    ])?;
    let flow = flow.to_string();
    assert!(
        flow.contains("revoked: denied by AuthorizationPolicy shop/no-batch rule who"),
        "{flow}"
    );
    // The caller's own node knows no more than that.
    let flow = mesh.flow(&[("reporter", "source"), ("verdict", "DENIED")])?.to_string();
    assert!(flow.contains("revoked: by a changed policy"), "{flow}");
    std::thread::sleep(PROMISE);
    assert_eq!(frontend.ended()?, None, "the frontend is still allowed");
    Ok(())
}

/// From the moment that the file is written: the folder's two looks and the way to the agent are
/// part of the second. Alone, or the second would be the machine's and not the mesh's.
#[test]
fn timed_a_connection_of_another_node_ends_within_a_second_of_the_policy() -> Result<()> {
    let mesh = shop("revoke-in-time").start()?;
    mesh.pod("shop/web").serve_redis(6379)?;
    let mut took = Vec::new();
    // The folder is looked at every so often: a few policies meet different moments.
    for round in 0..ROUNDS {
        let mut batch = hold(&mesh, "shop/batch", "shop/web")?;
        std::thread::sleep(PROMISE * round / ROUNDS);
        let written = Instant::now();
        mesh.objects().apply("deny.yaml", &deny("no-batch", "web", "shop/batch"))?;
        wait::until("the connection to end", READY, || batch.ended())
            .with_context(|| mesh.last_words())?;
        took.push(written.elapsed());
        mesh.objects().remove("deny.yaml")?;
        wait::until("batch to be let in again", READY, || {
            let address = format!("{}:6379", mesh.pod("shop/web").ipv4());
            let seen = python(mesh.pod("shop/batch"), PING, &[&address])?;
            Ok(seen.contains("PONG").then_some(()))
        })
        .with_context(|| mesh.last_words())?;
    }
    assert!(took.iter().all(|took| *took < PROMISE), "it took {took:?}");
    Ok(())
}

#[test]
fn connections_within_a_node_end_where_their_right_does() -> Result<()> {
    let mesh = shop("revoke-local").start()?;
    mesh.pod("shop/frontend").serve_redis(6379)?;
    let batch = hold(&mesh, "shop/batch", "shop/frontend")?;
    mesh.objects().apply("deny.yaml", &deny("no-batch", "frontend", "shop/batch"))?;
    ends_in_time(&mesh, batch, Instant::now())?;
    let flow = mesh.flow(&[("security", "local"), ("verdict", "DENIED")])?.to_string();
    assert!(flow.contains("revoked"), "{flow}");
    Ok(())
}

#[test]
fn audit_refuses_nothing_and_tells() -> Result<()> {
    let mesh = shop("audit").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let audit = deny("watch", "web", "shop/batch")
        .replace("  action: DENY", "  enforcement: AUDIT\n  action: DENY");
    mesh.objects().apply("audit.yaml", &audit)?;
    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    wait::until("a flow with the verdict AUDIT", READY, || {
        assert_eq!(mesh.pod("shop/batch").curl(&url)?, "hello\n");
        let flows = mesh.flows()?;
        Ok(flows.iter().any(|flow| flow.has(&[("verdict", "AUDIT")])).then_some(()))
    })
    .with_context(|| mesh.last_words())
}

#[test]
fn a_strict_pod_refuses_plaintext_and_serves_the_mesh() -> Result<()> {
    let mesh = shop("strict").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    assert_eq!(mesh.pod("legacy/client").curl(&url)?, "hello\n");
    let policy = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: strict, \
                  namespace: shop }\nspec: { mode: STRICT }\n";
    mesh.objects().apply("strict.yaml", policy)?;
    wait::until("plaintext to be refused", READY, || {
        let seen = mesh.pod("legacy/client").try_curl(&url)?;
        Ok((seen.code != 0).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    for caller in ["shop/frontend", "shop/batch"] {
        assert_eq!(mesh.pod(caller).curl(&url)?, "hello\n");
    }
    Ok(())
}
