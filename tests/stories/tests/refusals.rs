//! Whoever may not is refused, and the log says so once, with both names.

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, objects::identity, wait};
use mesh_stories::{
    certificates::{Credentials, Validity, signed_by_mesh, signed_by_stranger},
    shop,
    stranger::{Outcome, connect},
};

/// A client at legacy/client, outside the mesh, that calls shop/web's HBONE port.
struct Door {
    mesh: Mesh,
    hbone: SocketAddr,
    authority: String,
}

impl Door {
    fn open(story: &str) -> Result<Self> {
        let mesh = shop(story).start()?;
        mesh.pod("shop/web").serve_http(8080, "hello")?;
        let address = mesh.pod("shop/web").ipv4();
        let authority = format!("{address}:8080");
        Ok(Self { mesh, hbone: SocketAddr::new(address, 15008), authority })
    }

    fn knock(&self, credentials: Option<Credentials>, authority: &str) -> Result<Outcome> {
        let netns = &self.mesh.pod("legacy/client").place.netns;
        connect(netns, self.hbone, credentials, authority)
    }

    /// Knocks three times and expects one line of the log, with `caller` and the pod's identity.
    fn is_refused_and_logged_once(
        &self,
        caller: &str,
        credentials: impl Fn() -> Result<Option<Credentials>>,
    ) -> Result<()> {
        for _ in 0..3 {
            let outcome = self.knock(credentials()?, &self.authority)?;
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        self.is_logged_once(caller)
    }

    fn is_logged_once(&self, caller: &str) -> Result<()> {
        let agent = self.mesh.agent("node-2");
        let callee = identity("shop/web");
        let lines = || agent.lines_with(&["refused", caller, &callee]);
        wait::until("a line about the refusal", READY, || Ok(lines().pop()))
            .with_context(|| agent.last_words())?;
        assert_eq!(lines().len(), 1, "{:#?}", lines());
        Ok(())
    }
}

#[test]
fn the_stranger_itself_works_with_a_good_certificate() -> Result<()> {
    let door = Door::open("good")?;
    let good = signed_by_mesh(&door.mesh, &identity("shop/frontend"), Validity::Current)?;
    assert_eq!(door.knock(Some(good), &door.authority)?, Outcome::Status(200));
    Ok(())
}

#[test]
fn no_certificate_is_refused() -> Result<()> {
    let door = Door::open("none")?;
    let caller = door.mesh.pod("legacy/client").ipv4().to_string();
    door.is_refused_and_logged_once(&caller, || Ok(None))
}

#[test]
fn an_expired_certificate_is_refused() -> Result<()> {
    let door = Door::open("expired")?;
    let frontend = identity("shop/frontend");
    door.is_refused_and_logged_once(&frontend, || {
        signed_by_mesh(&door.mesh, &frontend, Validity::Expired).map(Some)
    })
}

#[test]
fn a_certificate_of_another_authority_is_refused() -> Result<()> {
    let door = Door::open("authority")?;
    let frontend = identity("shop/frontend");
    door.is_refused_and_logged_once(&frontend, || signed_by_stranger(&frontend).map(Some))
}

#[test]
fn a_certificate_of_another_trust_domain_is_refused() -> Result<()> {
    let door = Door::open("trust-domain")?;
    let foreign = "spiffe://elsewhere.example/ns/shop/sa/frontend";
    door.is_refused_and_logged_once(foreign, || {
        signed_by_mesh(&door.mesh, foreign, Validity::Current).map(Some)
    })
}

#[test]
fn a_connect_to_what_is_not_the_pods_is_refused() -> Result<()> {
    let door = Door::open("authority-address")?;
    let frontend = identity("shop/frontend");
    let batch = format!("{}:8080", door.mesh.pod("shop/batch").ipv4());
    for _ in 0..3 {
        let good = signed_by_mesh(&door.mesh, &frontend, Validity::Current)?;
        let outcome = door.knock(Some(good), &batch)?;
        assert!(
            matches!(outcome, Outcome::Status(400..) | Outcome::Refused(_)),
            "asked for {batch}: {outcome:?}"
        );
    }
    door.is_logged_once(&frontend)
}

#[test]
fn a_wrong_join_token_is_refused_on_both_sides_of_the_log() -> Result<()> {
    let mesh = shop("token").start()?;
    let agent = mesh.agent("node-2");
    agent.stop()?;
    // A token of the right form that the controller never made.
    fs::write(mesh.layout().token("node-2"), format!("node-2.{}", "0".repeat(64)))?;
    fs::remove_dir_all(mesh.layout().agent_state().join("node-2"))?;
    agent.start()?;
    let refusals = || mesh.controller().lines_with(&["node-2", "token"]);
    wait::until("the controller to refuse the token", READY, || Ok(refusals().pop()))
        .with_context(|| mesh.last_words())?;
    wait::until("the agent to say why", READY, || Ok(agent.lines_with(&["token"]).pop()))
        .with_context(|| mesh.last_words())?;
    // The agent goes on trying; that is not told again and again.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(refusals().len(), 1, "{:#?}", refusals());

    mesh.issue_token("node-2")?;
    agent.stop()?;
    agent.start()?;
    mesh.wait_ready("node-2")
}

#[test]
fn a_token_of_another_node_does_not_make_an_agent_that_node() -> Result<()> {
    let mesh = shop("posing").start()?;
    let agent = mesh.agent("node-2");
    agent.stop()?;
    fs::copy(mesh.layout().token("node-1"), mesh.layout().token("node-2"))?;
    fs::remove_dir_all(mesh.layout().agent_state().join("node-2"))?;
    agent.start()?;
    // It may ask as node-1, whose pods it does not have; it never gets an identity of node-2's.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let state = mesh.layout().agent_state().join("node-2");
    let (status, _) = mesh.status("node-2")?;
    let web = identity("shop/web");
    assert!(!status["certificates"].to_string().contains(&web), "{status} {}", state.display());
    Ok(())
}

#[test]
fn nobody_makes_the_proxy_call_itself_while_a_pod_leaves() -> Result<()> {
    let mesh = shop("self-call").start()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_peer(7000, &["echo"])?;
    let peer = mesh_harness::binaries::find("mesh-peer")?.to_string_lossy().into_owned();
    let address = format!("{}:7000", web.ipv4());
    let mut held = frontend.spawn(&[peer.as_str(), "call", &address, "hold", "30"])?;
    held.wait_for_line("second 0", READY)?;
    mesh.objects().apply_namespace("shop", false)?;
    wait::until("shop/web to drain", READY, || {
        Ok(mesh.status("node-2")?.0.to_string().contains("draining").then_some(()))
    })?;

    let agent = mesh.agent("node-2").pid().context("the agent of node-2")?;
    let descriptors =
        || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{agent}/fd"))?.count()) };
    let before = descriptors()?;
    for port in [15001, 15006] {
        let url = format!("http://{}:{port}/", web.ipv4());
        assert_ne!(mesh.pod("legacy/client").try_curl(&url)?.code, 0, "{url} answered");
    }
    assert!(descriptors()? < before + 10, "the proxy has called itself");
    Ok(())
}
