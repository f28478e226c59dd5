//! What policies say is what happens on the wire, and as soon as it changes.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, objects, objects::identity, wait};
use mesh_stories::shop;

/// A policy of the namespace shop with this spec.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, \
         namespace: shop }}\nspec: {spec}\n"
    )
}

/// Whether `caller` gets an answer of shop/web at `port`.
fn is_answered(mesh: &Mesh, caller: &str, port: u16) -> Result<bool> {
    let url = format!("http://{}:{port}/", mesh.pod("shop/web").ipv4());
    Ok(mesh.pod(caller).try_curl(&url)?.code == 0)
}

/// Waits until each caller is answered at a port, or not, as expected.
fn becomes(mesh: &Mesh, expected: &[(&str, u16, bool)]) -> Result<()> {
    wait::until(&format!("{expected:?}"), READY, || {
        for (caller, port, answered) in expected {
            if is_answered(mesh, caller, *port)? != *answered {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .with_context(|| mesh.last_words())
}

fn denied(mesh: &Mesh, caller: &str, reason: &str) -> Result<()> {
    // Who has the address of a caller that proves nothing, its callee's node need not know.
    let address = format!("{}:", mesh.pod(caller).ipv4());
    let flow = wait::until(&format!("{caller} to be denied in a flow"), READY, || {
        let mut flows = mesh.flows()?.into_iter().rev();
        Ok(flows.find(|flow| {
            flow.has(&[("verdict", "DENIED")]) && flow.field("source/address").starts_with(&address)
        }))
    })
    .with_context(|| mesh.last_words())?;
    let flow = flow.to_string();
    assert!(flow.contains(reason), "{flow}");
    Ok(())
}

#[test]
fn a_mesh_that_denies_by_default_lets_in_what_is_allowed() -> Result<()> {
    let mesh = shop("default-deny").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    becomes(&mesh, &[("shop/frontend", 8080, true), ("legacy/client", 8080, true)])?;
    let config = "apiVersion: nodemesh.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: default \
                  }\nspec: { authorization: { default: DENY } }\n";
    mesh.objects().apply("config.yaml", config)?;
    becomes(&mesh, &[("shop/frontend", 8080, false), ("legacy/client", 8080, false)])?;
    denied(&mesh, "shop/frontend", "denied by MeshConfig default")?;
    denied(&mesh, "legacy/client", "denied by MeshConfig default")?;

    let allow = objects::allow("shop/web", "web", &[&identity("shop/frontend")]);
    mesh.objects().apply("allow.yaml", &allow)?;
    becomes(&mesh, &[("shop/frontend", 8080, true), ("shop/batch", 8080, false)])
}

#[test]
fn a_policy_for_a_service_is_for_its_port_alone() -> Result<()> {
    let mesh = shop("target-ref").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    mesh.pod("shop/web").serve_http(9090, "hello")?;
    let spec = "{ targetRef: { kind: Service, name: web }, action: DENY, rules: [{ from: [{ \
                serviceAccounts: [shop/batch] }] }] }";
    mesh.objects().apply("deny.yaml", &policy("no-batch", spec))?;
    becomes(
        &mesh,
        &[("shop/batch", 8080, false), ("shop/batch", 9090, true), ("shop/frontend", 8080, true)],
    )?;
    denied(&mesh, "shop/batch", "AuthorizationPolicy shop/no-batch rule 0")
}

#[test]
fn namespaces_and_not_principals_are_denied() -> Result<()> {
    let mesh = shop("not-forms").meshed("other").pod("node-1", "other/client").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let spec = "{ action: DENY, rules: [{ from: [{ namespaces: [other] }] }] }";
    mesh.objects().apply("deny.yaml", &policy("no-other", spec))?;
    becomes(
        &mesh,
        &[("other/client", 8080, false), ("shop/batch", 8080, true), ("legacy/client", 8080, true)],
    )?;
    denied(&mesh, "other/client", "AuthorizationPolicy shop/no-other")?;

    // Who proves nothing might be anyone, so is nobody that is excepted.
    let spec = format!(
        "{{ action: DENY, rules: [{{ from: [{{ notPrincipals: [{}] }}] }}] }}",
        identity("other/client")
    );
    mesh.objects().apply("deny.yaml", &policy("only-other", &spec))?;
    becomes(
        &mesh,
        &[
            ("other/client", 8080, true),
            ("shop/batch", 8080, false),
            ("legacy/client", 8080, false),
        ],
    )
}

#[test]
fn permission_given_back_is_effective_at_once() -> Result<()> {
    let mesh = shop("given-back").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let spec = "{ action: DENY, rules: [{ from: [{ namespaces: [shop] }] }] }";
    for _ in 0..3 {
        mesh.objects().apply("deny.yaml", &policy("nobody", spec))?;
        becomes(&mesh, &[("shop/frontend", 8080, false)])?;
        mesh.objects().remove("deny.yaml")?;
        becomes(&mesh, &[("shop/frontend", 8080, true)])?;
        // Nothing remembers the refusal: not one of the next calls meets it.
        for _ in 0..10 {
            assert!(is_answered(&mesh, "shop/frontend", 8080)?);
        }
    }
    Ok(())
}
