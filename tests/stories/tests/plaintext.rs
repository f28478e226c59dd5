//! Plaintext that stays in the kernel ends where a change takes its right, and nothing else does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_harness::{Background, Flow, Mesh, mesh::READY, wait};
use mesh_stories::shop;

/// The promise: within this of the agent's having the policy.
const PROMISE: Duration = Duration::from_secs(1);
/// What a busy machine may take to run what is due, and this test to see it.
const SLACK: Duration = Duration::from_secs(2);

/// A program in `pod` that holds a connection to the echo of `server` and ends with it.
fn hold(mesh: &Mesh, pod: &str, server: &str) -> Result<Background> {
    let address = mesh.pod(server).ipv4();
    let script = format!(
        "exec 3<>/dev/tcp/{address}/8080; echo hello >&3; read -r answer <&3; echo \"$answer\"; \
         cat <&3 >/dev/null"
    );
    let mut held = mesh.pod(pod).spawn(&["bash", "-c", &script])?;
    held.wait_for_line("hello", READY).with_context(|| mesh.last_words())?;
    Ok(held)
}

/// Applies a policy and waits until the agent of node-2 has it, as its stored snapshot says, which
/// is written half a second after.
fn apply(mesh: &Mesh, name: &str, yaml: &str) -> Result<Instant> {
    mesh.objects().apply("policy.yaml", yaml)?;
    let judged = |mesh: &Mesh| -> Result<bool> {
        let stored = mesh.layout().agent_state().join("node-2/snapshot.pb");
        let stored = std::fs::read(stored).unwrap_or_default();
        Ok(stored.windows(name.len()).any(|window| window == name.as_bytes()))
    };
    wait::until("the agent to have the policy", READY, || Ok(judged(mesh)?.then_some(())))
        .with_context(|| mesh.last_words())?;
    Ok(Instant::now())
}

/// Who has the address of a caller that proves nothing, its callee's node need not know.
fn is_from(mesh: &Mesh, flow: &Flow, caller: &str) {
    let address = format!("{}:", mesh.pod(caller).ipv4());
    assert!(flow.field("source/address").starts_with(&address), "{flow}");
}

fn ends_in_time(mesh: &Mesh, held: &mut Background, since: Instant) -> Result<()> {
    wait::until("the connection to end", READY, || held.ended())
        .with_context(|| mesh.last_words())?;
    let took = since.elapsed();
    assert!(took < PROMISE + SLACK, "it took {took:?}");
    Ok(())
}

const STRICT: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: \
                      now-strict, namespace: shop }\nspec: { mode: STRICT }\n";

#[test]
fn strict_ends_plaintext_and_not_what_is_from_before() -> Result<()> {
    let mesh = shop("plaintext-strict").pod("node-1", "legacy/early").lay_out()?;
    mesh.pod("shop/web").serve_peer(8080, &["echo"])?;
    let mut early = hold(&mesh, "legacy/early", "shop/web")?;
    mesh.start_daemons()?;
    let mut plain = hold(&mesh, "legacy/client", "shop/web")?;
    let mut meshed = hold(&mesh, "shop/frontend", "shop/web")?;

    wait::until("status to count it", READY, || {
        let (status, _) = mesh.status("node-2")?;
        let counts = [&status["plaintext"]["connections"], &status["plaintext"]["total"]];
        let open = [&status["pods"][0]["plaintext"], &status["pods"][0]["unmeshed"]];
        Ok((counts == [1, 2] && open == [1, 1]).then_some(()))
    })
    .with_context(|| format!("{:?}", mesh.status("node-2")))?;
    let since = apply(&mesh, "now-strict", STRICT)?;
    ends_in_time(&mesh, &mut plain, since)?;
    let flow = mesh.flow(&[
        ("destination/pod", "shop/web"),
        ("security", "plaintext"),
        ("verdict", "DENIED"),
    ])?;
    is_from(&mesh, &flow, "legacy/client");
    let flow = flow.to_string();
    assert!(flow.contains("revoked: denied by PeerPolicy shop/now-strict"), "{flow}");
    // Longer than until the last look.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(early.ended()?, None, "unmeshed lives on");
    assert_eq!(meshed.ended()?, None, "mTLS lives on");
    Ok(())
}

#[test]
fn a_denied_address_ends_and_an_allowed_one_lives_on() -> Result<()> {
    let mesh = shop("plaintext-deny").pod("node-1", "legacy/good").start()?;
    mesh.pod("shop/web").serve_peer(8080, &["echo"])?;
    let mut bad = hold(&mesh, "legacy/client", "shop/web")?;
    let mut good = hold(&mesh, "legacy/good", "shop/web")?;
    let deny = format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: \
         no-address, namespace: shop }}\nspec:\n  action: DENY\n  rules:\n  - name: who\n    from:\n\
         \x20   - ipBlocks: [{}/32]\n",
        mesh.pod("legacy/client").ipv4()
    );
    let since = apply(&mesh, "no-address", &deny)?;
    ends_in_time(&mesh, &mut bad, since)?;
    let flow = mesh.flow(&[("destination/pod", "shop/web"), ("verdict", "DENIED")])?;
    is_from(&mesh, &flow, "legacy/client");
    let flow = flow.to_string();
    assert!(flow.contains("AuthorizationPolicy shop/no-address rule who"), "{flow}");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(good.ended()?, None, "nothing denies it");
    Ok(())
}

#[test]
fn plaintext_in_the_kernel_needs_no_agent() -> Result<()> {
    let mesh = shop("plaintext-kill").start()?;
    mesh.pod("shop/web").serve_peer(8080, &["echo"])?;
    let address = mesh.pod("shop/web").ipv4();
    let script = format!(
        "exec 3<>/dev/tcp/{address}/8080; while echo hello >&3 && read -r answer <&3; do echo \
         heard $answer; sleep 0.1; done"
    );
    let mut held = mesh.pod("legacy/client").spawn(&["bash", "-c", &script])?;
    let mut goes_on = || {
        let heard = |held: &Background| held.log().matches("heard hello").count();
        let known = heard(&held);
        wait::until("the connection to go on", READY, || {
            assert_eq!(held.ended()?, None, "{}", held.log());
            Ok((heard(&held) > known + 20).then_some(()))
        })
    };
    goes_on()?;
    let counts = |mesh: &Mesh| -> Result<bool> {
        let (status, _) = mesh.status("node-2")?;
        Ok(status["pods"][0]["plaintext"] == 1)
    };
    wait::until("status to count it", READY, || Ok(counts(&mesh)?.then_some(())))?;
    mesh.agent("node-2").kill();
    goes_on()?;
    mesh.agent("node-2").start()?;
    mesh.wait_ready("node-2")?;
    goes_on()?;
    wait::until("the new agent to count it", READY, || Ok(counts(&mesh)?.then_some(())))
        .with_context(|| format!("{:?}", mesh.status("node-2")))
}
