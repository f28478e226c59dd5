//! `nodemesh enroll`: honest about labels, and the end of what is from before the mesh by choice.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{
    python::{PRELUDE, PYTHON},
    shop,
};
use serde_json::Value;

/// Holds a connection to each argument, and says of each what becomes of it.
const HOLD: &str = "
held = {}
for to in sys.argv[1:]:
    held[to] = tcp(address(to)[0]); held[to].connect(address(to))
while held:
    for to, s in list(held.items()):
        try: talk(s); print('alive', to, flush=True)
        except OSError as e: del held[to]; print('ended', to, errno.errorcode[e.errno], flush=True)
    time.sleep(0.1)
";

fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// How many unmeshed connections status counts for a pod.
fn unmeshed(mesh: &Mesh, node: &str, pod: &str) -> Result<Option<u64>> {
    let (status, _) = mesh.status(node)?;
    let pods = status["pods"].as_array().context("a list of pods")?;
    let found = pods.iter().find(|it| it["name"] == pod);
    Ok(found.and_then(|it| it["unmeshed"].as_u64()))
}

fn json(mesh: &Mesh, node: &str, arguments: &[&str]) -> Result<Value> {
    let mut words = vec!["enroll", "-o", "json"];
    words.extend(arguments);
    let text = mesh.nodemesh(node, &words)?.success().with_context(|| mesh.last_words())?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn connections_from_before_are_counted_and_end_by_choice_alone() -> Result<()> {
    let mesh = shop("close-existing").lay_out()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_peer(8080, &["echo"])?;
    frontend.serve_peer(9000, &["echo"])?;
    let before = [at(web.ipv4(), 8080), at(web.ipv6(), 8080)];
    let own = ["127.0.0.1:9000".to_owned(), at(frontend.ipv4(), 9000)];
    let program = format!("{PRELUDE}\n{HOLD}");
    let mut command = vec![PYTHON, "-c", &program];
    command.extend(before.iter().chain(&own).map(String::as_str));
    let held = frontend.spawn(&command)?;
    let is_said = |word: &str, to: &str| held.log().contains(&format!("{word} {to}"));
    wait::until("every connection to be open", READY, || {
        Ok(before.iter().chain(&own).all(|to| is_said("alive", to)).then_some(()))
    })
    .with_context(|| held.log())?;
    mesh.start_daemons()?;

    assert_eq!(unmeshed(&mesh, "node-1", "shop/frontend")?, Some(2));
    assert_eq!(unmeshed(&mesh, "node-1", "shop/batch")?, Some(0));
    assert_eq!(unmeshed(&mesh, "node-2", "shop/web")?, Some(2));
    let asked = json(&mesh, "node-1", &["shop/frontend"])?;
    assert_eq!((&asked["unmeshed"], &asked["closed"]), (&2.into(), &0.into()), "{asked}");

    // A restart forgets nothing, and what the mesh carries is never taken for older than it.
    mesh.agent("node-1").kill();
    mesh.agent("node-1").start()?;
    mesh.wait_ready("node-1")?;
    let script = format!(
        "exec 3<>/dev/tcp/{}/8080; while echo hello >&3 && read -r answer <&3; do echo $answer; \
         sleep 0.1; done",
        web.ipv4()
    );
    let mut meshed = frontend.spawn(&["bash", "-c", &script])?;
    meshed.wait_for_line("hello", READY)?;
    assert_eq!(unmeshed(&mesh, "node-1", "shop/frontend")?, Some(2));

    let closed = json(&mesh, "node-1", &["frontend", "-n", "shop", "--close-existing"])?;
    assert_eq!((&closed["unmeshed"], &closed["closed"]), (&0.into(), &2.into()), "{closed}");
    for to in &before {
        wait::until("the connection to end", READY, || {
            Ok(held.log().contains(&format!("ended {to} ECONNABORTED")).then_some(()))
        })
        .with_context(|| held.log())?;
    }
    wait::until("the other side's to be gone as well", READY, || {
        Ok((unmeshed(&mesh, "node-2", "shop/web")? == Some(0)).then_some(()))
    })?;
    let known = meshed.log().len();
    wait::until("what the mesh carries to go on", READY, || {
        Ok((meshed.log().len() > known + 30).then_some(()))
    })
    .with_context(|| meshed.log())?;
    assert!(own.iter().all(|to| !is_said("ended", to)), "{}", held.log());
    let again = json(&mesh, "node-1", &["shop/frontend", "--close-existing"])?;
    assert_eq!(again["closed"], 0, "{again}");
    Ok(())
}

#[test]
fn enroll_says_what_the_labels_did_and_what_to_do() -> Result<()> {
    let mesh = shop("enroll").start()?;
    let seen = mesh.nodemesh("node-1", &["enroll", "shop/frontend"])?;
    assert_eq!(seen.code, 0, "{seen}");
    assert_eq!(seen.stdout, "shop/frontend: captured, no connections from before\n");

    let fails = |arguments: &[&str], code: i32, reason: &str| -> Result<()> {
        let words: Vec<_> = ["enroll"].into_iter().chain(arguments.iter().copied()).collect();
        let seen = mesh.nodemesh("node-1", &words)?;
        assert_eq!(seen.code, code, "{seen}");
        assert!(seen.stderr.contains(reason), "{seen}");
        Ok(())
    };
    let label = "kubectl label pod -n legacy client nodemesh.dev/mesh=enabled";
    fails(&["legacy/client", "--close-existing"], 1, label)?;
    fails(&["shop/nobody"], 1, "no agent that was asked knows a pod shop/nobody")?;
    fails(&["shop/web"], 1, "no agent that was asked knows a pod shop/web: look for it")?;
    // An agent knows the pods of other nodes that its own pods call.
    mesh.pod("shop/frontend").try_curl(&format!("http://{}:8080/", mesh.pod("shop/web").ipv4()))?;
    fails(&["shop/web"], 1, "shop/web is on node-2: run this command there")?;
    fails(&["-n", "nowhere"], 1, "no agent that was asked knows a pod in namespace nowhere")?;
    fails(&["frontend"], 2, "frontend: no namespace")?;
    fails(&[], 2, "required")?;

    let whole = mesh.nodemesh("node-1", &["enroll", "--namespace", "shop"])?.success()?;
    let names: Vec<_> = whole.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["shop/batch", "shop/frontend"], "those of node-1");

    mesh.agent("node-1").stop()?;
    fails(&["shop/frontend"], 1, "no such socket; is the agent running")
}
