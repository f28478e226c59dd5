//! What a node did not know of until a pod called it: the first connection is no less safe.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{WEB, python::python, python::spawn_python, shop};
use rustix::process::{Pid, Signal, kill_process};

/// Opens many connections at once to each address, talks on all, and says how many answered.
const BURST: &str = "
import threading
answered = []
def call(to):
    s = tcp(to[0]); s.connect(to); talk(s); answered.append(to)
calls = [threading.Thread(target=call, args=(address(to),)) for to in sys.argv[1:] * 25]
for it in calls: it.start()
for it in calls: it.join()
print(len(answered))
";

/// After so long without a controller nobody waits for it.
const OUTAGE: Duration = Duration::from_secs(3);

/// How many resources there are that the agent of a node holds.
fn held(mesh: &Mesh, node: &str) -> Result<u64> {
    mesh.status(node)?.0["controller"]["resources"].as_u64().context("a number")
}

/// The `security` of the flows that frontend's proxy told of connections to these places.
fn securities(mesh: &Mesh, to: &[String]) -> Result<BTreeSet<String>> {
    let flows = mesh.flows()?.into_iter();
    let ours = flows.filter(|flow| {
        flow.has(&[("reporter", "source"), ("source/pod", "shop/frontend")])
            && to.iter().any(|to| flow.field("destination/address") == to)
    });
    Ok(ours.map(|flow| flow.field("security").to_owned()).collect())
}

#[test]
fn the_first_connections_to_a_pod_wait_until_it_is_known_for_one() -> Result<()> {
    let mesh = shop("on-demand").start()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_peer(8080, &["echo"])?;
    assert_eq!(held(&mesh, "node-1")?, 3, "its own pods");
    let controller = mesh.controller().pid().context("it runs")?;
    let controller = Pid::from_raw(i32::try_from(controller)?).context("a pid")?;

    // The answer takes a while, and all of the burst is there before it.
    let pods = [format!("{}:8080", web.ipv4()), format!("[{}]:8080", web.ipv6())];
    let to = [pods[0].as_str(), &pods[1], &format!("{WEB}:80")];
    kill_process(controller, Signal::STOP)?;
    let burst = spawn_python(frontend, BURST, &to);
    std::thread::sleep(Duration::from_millis(400));
    kill_process(controller, Signal::CONT)?;
    burst?.wait_for_line("75", READY).with_context(|| mesh.last_words())?;
    assert_eq!(securities(&mesh, &pods)?, BTreeSet::from(["mtls".to_owned()]));
    assert_eq!(held(&mesh, "node-1")?, 5, "shop/web, the pod and the Service");
    assert_eq!(held(&mesh, "node-2")?, 1, "nobody called from there");
    Ok(())
}

#[test]
fn without_a_controller_what_is_known_goes_on_and_the_rest_is_taken_for_outside() -> Result<()> {
    let mesh = shop("on-demand-alone").pod("node-2", "shop/other").start()?;
    let frontend = mesh.pod("shop/frontend");
    let at = |pod: &str| format!("{}:8080", mesh.pod(pod).ipv4());
    for pod in ["shop/web", "shop/other"] {
        mesh.pod(pod).serve_peer(8080, &["echo"])?;
    }
    assert_eq!(python(frontend, BURST, &[&at("shop/web")])?, "25");
    // On disk within a moment.
    std::thread::sleep(Duration::from_secs(2));
    mesh.controller().kill();
    std::thread::sleep(OUTAGE);
    let mtls = BTreeSet::from(["mtls".to_owned()]);
    assert_eq!(python(frontend, BURST, &[&at("shop/web")])?, "25");
    assert_eq!(securities(&mesh, &[at("shop/web")])?, mtls);

    mesh.agent("node-1").stop()?;
    mesh.agent("node-1").start()?;
    mesh.wait_ready("node-1")?;
    assert_eq!(python(frontend, BURST, &[&at("shop/web")])?, "25");
    assert_eq!(securities(&mesh, &[at("shop/web")])?, mtls, "also after a restart");

    // Nobody can say that it is a pod: it is taken for outside, and the flow says so.
    assert_eq!(python(frontend, BURST, &[&at("shop/other")])?, "25");
    let flow = mesh.flow(&[("destination/address", &at("shop/other")), ("reporter", "source")])?;
    assert!(flow.field("reason").contains("the controller does not say"), "{flow}");
    assert_eq!(flow.field("security"), "plaintext");
    Ok(())
}

#[test]
fn without_a_controller_a_strict_pod_speaks_to_nobody_it_does_not_know() -> Result<()> {
    let mesh = shop("on-demand-strict").pod("node-2", "shop/other").start()?;
    let (frontend, batch) = (mesh.pod("shop/frontend"), mesh.pod("shop/batch"));
    batch.serve_http(8080, "hello")?;
    let strict = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: strict, \
                  namespace: shop }\nspec: { mode: STRICT }\n";
    mesh.objects().apply("strict.yaml", strict)?;
    wait::until("node-1 to be strict", READY, || {
        let seen = mesh.pod("legacy/client").try_curl(&format!("http://{}:8080/", batch.ipv4()))?;
        Ok((seen.code != 0).then_some(()))
    })?;
    mesh.controller().kill();
    std::thread::sleep(OUTAGE);
    let other = mesh.pod("shop/other");
    other.serve_http(8080, "hello")?;
    assert_ne!(frontend.try_curl(&format!("http://{}:8080/", other.ipv4()))?.code, 0);
    let address = format!("{}:8080", other.ipv4());
    let flow = mesh.flow(&[("destination/address", &address), ("verdict", "ERROR")])?;
    assert!(flow.field("reason").contains("the caller is strict"), "{flow}");
    let batch = format!("http://{}:8080/", batch.ipv4());
    assert_eq!(frontend.curl(&batch)?, "hello\n", "pods of the node are known");
    Ok(())
}
