//! What a policy refused once is refused in connect() the next time, for as long as that holds and
//! for nobody else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh,
    mesh::READY,
    objects::{self, identity},
    wait,
};
use mesh_stories::{WEB, python::python, shop};

/// The promise: permission that is given back works within this of the proxy's knowing.
const PROMISE: Duration = Duration::from_secs(1);
/// What a busy machine may take to run what is due, and this test to see it.
const SLACK: Duration = Duration::from_secs(2);

/// Calls one place again and again and says what became of each call.
const CALLS: &str = "
def call(place):
    s = tcp(place[0])
    try: s.connect(place)
    except OSError as error: return os.strerror(error.errno)
    try:
        s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
        return 'served' if s.recv(100) else 'closed'
    except OSError as error: return 'then ' + os.strerror(error.errno)
print('\\n'.join(call(address(sys.argv[1])) for _ in range(int(sys.argv[2]))))
";
/// The name of a port that says it is no HTTP, whose denials are answers of status 403.
const BYTES: &str = "tcp";
/// What connect() says of what a policy does not allow.
const EPERM: &str = "Operation not permitted";

/// What became of `count` calls, one after the other.
fn calls(mesh: &Mesh, caller: &str, place: &str, count: u32) -> Result<Vec<String>> {
    let seen = python(mesh.pod(caller), CALLS, &[place, &count.to_string()])?;
    Ok(seen.lines().map(str::to_owned).collect())
}

/// Waits until none of many calls is served and most fail in connect().
fn is_denied(mesh: &Mesh, caller: &str, place: &str) -> Result<()> {
    let mut last = Vec::new();
    wait::until(&format!("connect() of {caller} to {place} to fail"), READY, || {
        last = calls(mesh, caller, place, 20)?;
        let failed = last.iter().filter(|call| *call == EPERM).count();
        Ok((failed > 10 && !last.contains(&"served".to_owned())).then_some(()))
    })
    .with_context(|| format!("calls ended so: {last:?}\n{}", mesh.last_words()))
}

fn is_served(mesh: &Mesh, caller: &str, place: &str) -> Result<()> {
    assert_eq!(calls(mesh, caller, place, 3)?, ["served"; 3], "{caller} may call {place}");
    Ok(())
}

/// Waits until a call is served; how long after `since` that was.
fn is_served_again(mesh: &Mesh, caller: &str, place: &str, since: Instant) -> Result<Duration> {
    wait::until("a call to be served again", READY, || {
        Ok((calls(mesh, caller, place, 1)? == ["served"]).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    Ok(since.elapsed())
}

fn deny(app: &str) -> String {
    format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: \
         no-batch, namespace: shop }}\nspec:\n  selector:\n    matchLabels: {{ app: {app} }}\n  \
         action: DENY\n  rules:\n  - name: who\n    from:\n    - principals: [{}]\n",
        identity("shop/batch")
    )
}

/// The flow of a call that never had a port, and the kernel's count of such calls.
fn is_told(mesh: &Mesh, callee: &str, security: &str) -> Result<()> {
    let is_of_kernel = |flow: &&mesh_harness::Flow| {
        let fields = [("reporter", "source"), ("verdict", "DENIED"), ("source/pod", "shop/batch")];
        flow.has(&fields) && flow.field("source/address").is_empty()
    };
    let flow = wait::until("a flow of a call that the kernel refused", READY, || {
        Ok(mesh.flows()?.iter().rev().find(is_of_kernel).cloned())
    })
    .with_context(|| mesh.last_words())?;
    let expected = [
        ("source/identity", &*identity("shop/batch")),
        ("destination/identity", &identity(callee)),
        ("destination/pod", callee),
        ("security", security),
        ("reason", "denied by AuthorizationPolicy shop/no-batch rule who"),
    ];
    assert!(flow.has(&expected), "{flow}");

    wait::until("status to count the calls", READY, || {
        let (status, _) = mesh.status("node-1")?;
        let denied = status["counters"]["connect_denied"].as_u64().unwrap_or_default();
        // What is known to fail for another reason has its own counter.
        Ok((denied > 10 && status["counters"]["connect_refused"] == 0).then_some(()))
    })
    .with_context(|| format!("{:?}", mesh.status("node-1")))
}

#[test]
fn a_pod_of_another_node_is_denied_in_connect_until_a_second_after_its_policy() -> Result<()> {
    let mesh = shop("denied-mtls").service_with("shop/web", WEB, BYTES, 80, 8080).start()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "hello")?;
    let places =
        [format!("{}:8080", web.ipv4()), format!("[{}]:8080", web.ipv6()), format!("{WEB}:80")];
    mesh.objects().apply("deny.yaml", &deny("web"))?;
    for place in &places {
        is_denied(&mesh, "shop/batch", place)?;
        is_served(&mesh, "shop/frontend", place)?;
        is_served(&mesh, "legacy/client", &places[0])?;
    }
    is_told(&mesh, "shop/web", "mtls")?;
    wait::until("curl to say so", READY, || {
        let url = format!("http://{}/", places[0]);
        let seen = mesh.pod("shop/batch").run(&["curl", "--silent", "--verbose", &url])?;
        assert_ne!(seen.code, 0, "{seen}");
        Ok(seen.stderr.contains(EPERM).then_some(()))
    })?;

    mesh.objects().remove("deny.yaml")?;
    // It is written half a second after the agent has it.
    let stored = mesh.layout().agent_state().join("node-2/snapshot.pb");
    wait::until("the agent to have lost the policy", READY, || {
        // Nobody's call may be what makes the proxy look again.
        calls(&mesh, "shop/batch", &places[0], 1)?;
        let stored = std::fs::read(&stored)?;
        Ok((!stored.windows(8).any(|window| window == b"no-batch")).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let took = is_served_again(&mesh, "shop/batch", &places[0], Instant::now())?;
    assert!(took < PROMISE + SLACK, "it took {took:?}");
    Ok(())
}

#[test]
fn a_pod_of_the_same_node_is_denied_in_connect_until_its_policy_goes() -> Result<()> {
    let mesh = shop("denied-local").pod("node-1", "shop/other").start()?;
    let frontend = mesh.pod("shop/frontend");
    frontend.serve_http(8080, "hello")?;
    let places = [format!("{}:8080", frontend.ipv4()), format!("[{}]:8080", frontend.ipv6())];
    mesh.objects().apply("deny.yaml", &deny("frontend"))?;
    for place in &places {
        is_denied(&mesh, "shop/batch", place)?;
        is_served(&mesh, "shop/other", place)?;
    }
    is_told(&mesh, "shop/frontend", "local")?;
    // The same port of another pod, and another port of the same pod, are other places.
    let refused = |place: &str| -> Result<()> {
        assert_ne!(calls(&mesh, "shop/batch", place, 1)?, [EPERM], "{place} was never denied");
        Ok(())
    };
    refused(&format!("{}:8080", mesh.pod("shop/other").ipv4()))?;

    mesh.objects().remove("deny.yaml")?;
    let stored = mesh.layout().agent_state().join("node-1/snapshot.pb");
    wait::until("the agent to have lost the policy", READY, || {
        let stored = std::fs::read(&stored)?;
        Ok((!stored.windows(8).any(|window| window == b"no-batch")).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    is_served(&mesh, "shop/batch", &places[0])
}

#[test]
fn a_service_is_denied_in_connect_only_where_no_endpoint_lets_the_caller_in() -> Result<()> {
    let mesh = shop("denied-service").pod("node-2", "shop/more").start()?;
    let (frontend, more) = (mesh.pod("shop/frontend"), mesh.pod("shop/more"));
    let endpoints = [frontend, mesh.pod("shop/web"), more];
    for pod in endpoints {
        pod.serve_http(8080, "hello")?;
    }
    let service = objects::service_with("shop/web", WEB, BYTES, 80, 8080, &endpoints);
    mesh.objects().apply("service-shop-web.yaml", &service)?;
    mesh.objects().apply("deny.yaml", &deny("web"))?;
    let frontend = deny("frontend").replace("name: no-batch", "name: no-batch-here");
    mesh.objects().apply("deny-frontend.yaml", &frontend)?;
    let virtual_ip = format!("{WEB}:80");
    for pod in ["shop/web", "shop/frontend"] {
        is_denied(&mesh, "shop/batch", &format!("{}:8080", mesh.pod(pod).ipv4()))?;
    }
    let mut seen = Vec::new();
    wait::until("calls that end both ways", READY, || {
        seen = calls(&mesh, "shop/batch", &virtual_ip, 30)?;
        let is_served = seen.contains(&"served".to_owned());
        Ok((is_served && seen.iter().any(|call| call.starts_with("then "))).then_some(()))
    })
    .with_context(|| format!("calls ended so: {seen:?}\n{}", mesh.last_words()))?;
    assert!(!seen.contains(&EPERM.to_owned()), "one endpoint lets it in: {seen:?}");

    let more = deny("more").replace("name: no-batch", "name: no-batch-more");
    mesh.objects().apply("deny-more.yaml", &more)?;
    is_denied(&mesh, "shop/batch", &virtual_ip)?;
    is_served(&mesh, "shop/web", &format!("{}:8080", mesh.pod("shop/more").ipv4()))
}
