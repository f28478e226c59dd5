//! Bad objects are refused each for itself; a controller that is gone is not noticed.

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh,
    mesh::READY,
    objects::{allow, identity},
    wait,
};
use mesh_stories::{WEB, shop};

/// Gives the controller `yaml` and then a policy; once that policy works, everything before it
/// has been looked at, and the rest is served.
fn refuses_only(story: &str, yaml: &str, reason: &[&str]) -> Result<()> {
    let mesh = shop(story).start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    mesh.objects().apply("bad.yaml", yaml)?;
    let mut words = vec!["bad.yaml"];
    words.extend(reason);
    wait::until(&format!("the controller to say {words:?}"), READY, || {
        Ok(mesh.controller().lines_with(&words).pop())
    })
    .with_context(|| mesh.controller().last_words())?;
    let policy = allow("shop/web-callers", "web", &[&identity("shop/frontend")]);
    mesh.objects().apply("policy.yaml", &policy)?;
    is_refused(&mesh, "shop/batch")?;
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    Ok(())
}

fn is_refused(mesh: &Mesh, pod: &str) -> Result<()> {
    wait::until(&format!("{pod} to be refused"), READY, || {
        let seen = mesh.pod(pod).try_curl(&format!("http://{WEB}/"))?;
        Ok((seen.code != 0).then_some(()))
    })
}

#[test]
fn yaml_that_does_not_parse() -> Result<()> {
    refuses_only("broken-yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n", &["not YAML"])
}

#[test]
fn an_unknown_field() -> Result<()> {
    let policy = allow("shop/typo", "web", &[&identity("shop/batch")]);
    refuses_only("unknown-field", &policy.replace("action:", "akshun:"), &["akshun"])
}

#[test]
fn a_bad_address() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: { name: bad, namespace: shop }\nspec:\n  \
                clusterIP: 10.96.0.256\n  ports:\n  - { port: 80 }\n";
    refuses_only("bad-address", yaml, &["10.96.0.256"])
}

#[test]
fn one_bad_document_among_good_ones() -> Result<()> {
    let bad = "apiVersion: v1\nkind: Service\nmetadata: { name: bad, namespace: shop }\nspec:\n  \
               clusterIP: nonsense\n  ports:\n  - { port: 80 }\n";
    let good = allow("shop/web-callers", "web", &[&identity("shop/frontend")]);
    let mesh = shop("documents").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    mesh.objects().apply("mixed.yaml", &format!("{bad}---\n{good}"))?;
    is_refused(&mesh, "shop/batch").context("the good document is served")?;
    let lines = mesh.controller().lines_with(&["mixed.yaml", "nonsense"]);
    assert_eq!(lines.len(), 1, "{}", mesh.controller().last_words());
    Ok(())
}

#[test]
fn a_controller_that_is_gone_is_not_noticed_and_deltas_resume() -> Result<()> {
    let mesh = shop("controller-loss").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let call = || mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"));
    call()?;
    mesh.controller().kill();
    for _ in 0..20 {
        assert_eq!(call()?, "hello\n");
    }
    // Also across a restart of an agent: its snapshot and certificates are on disk.
    mesh.agent("node-1").kill();
    mesh.agent("node-1").start()?;
    wait::until("calls to work without the controller", READY, || {
        Ok((mesh.pod("shop/frontend").try_curl(&format!("http://{WEB}/"))?.code == 0).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    mesh.flow(&[("source/identity", &identity("shop/frontend")), ("security", "mtls")])?;

    let policy = allow("shop/web-callers", "web", &[&identity("shop/frontend")]);
    mesh.objects().apply("policy.yaml", &policy)?;
    mesh.start_controller()?;
    is_refused(&mesh, "shop/batch").context("a change made meanwhile arrives")?;
    assert_eq!(call()?, "hello\n");
    Ok(())
}
