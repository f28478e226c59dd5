//! Whose tunnels are whose.

use anyhow::{Context, Result};
use mesh_harness::{mesh::READY, objects};
use mesh_stories::{call_until_mtls, python::spawn_python, shop};

/// Holds three connections.
const HOLD: &str = "
held = [tcp('10.0.0.1') for _ in range(3)]
for s in held: s.connect(address(sys.argv[1])); talk(s)
print(len(held), 'held', flush=True)
time.sleep(1000)
";

#[test]
fn two_pods_of_one_account_have_tunnels_of_their_own() -> Result<()> {
    // A tunnel is a worker's.
    let mesh = shop("own-tunnels").agent_flags(&["--workers", "1"]).lay_out()?;
    let pods = ["shop/frontend", "shop/batch"].map(|name| mesh.pod(name));
    let yaml = objects::pod(pods[1]);
    let posing = yaml.replace("serviceAccountName: batch", "serviceAccountName: frontend");
    assert_ne!(yaml, posing);
    mesh.objects().apply("pod-shop-batch.yaml", &posing)?;
    mesh.start_daemons()?;
    let web = mesh.pod("shop/web");
    web.serve_peer(8080, &["echo"])?;
    let to = format!("{}:8080", web.ipv4());
    let mut held = Vec::new();
    for pod in pods {
        call_until_mtls(&mesh, &pod.name, &to)?;
        let mut program = spawn_python(pod, HOLD, &[&to])?;
        program.wait_for_line("3 held", READY).with_context(|| mesh.last_words())?;
        held.push(program);
    }
    let listed = web.run(&["ss", "-Htn", "state", "established", "sport", "=", ":15008"])?;
    let listed = listed.success()?;
    // Of a chosen state: two queues, the own address, the peer's.
    let peers = listed.lines().filter_map(|line| line.split_whitespace().nth(3));
    let mut callers: Vec<_> = peers.filter_map(|peer| Some(peer.rsplit_once(':')?.0)).collect();
    callers.sort_unstable();
    let mut expected = pods.map(|pod| pod.ipv4().to_string());
    expected.sort_unstable();
    assert_eq!(callers, expected, "{listed}");
    Ok(())
}
