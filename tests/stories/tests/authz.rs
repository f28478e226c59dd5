//! `nodemesh authz`: what it foretells is what a connection gets.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, Seen, mesh::READY, objects::identity, wait};
use mesh_stories::shop;
use serde_json::Value;

/// Batch is denied, the frontend alone may at 8080, 9090 takes plaintext, and legacy's address is
/// only watched there.
fn policies(client: &str) -> String {
    format!(
        "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: {{ name: web, namespace: \
         shop }}\nspec: {{ mode: STRICT, ports: [{{ port: 9090, mode: PERMISSIVE }}] }}\n---\n\
         apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: \
         frontend, namespace: shop }}\nspec: {{ targetRef: {{ kind: Service, name: web }}, rules: \
         [{{ name: shop-window, from: [{{ serviceAccounts: [shop/frontend, shop/batch] }}] }}] \
         }}\n---\napiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: \
         no-batch, namespace: shop }}\nspec: {{ selector: {{ matchLabels: {{ app: web }} }}, \
         action: DENY, rules: [{{ from: [{{ principals: [{}] }}], to: [{{ ports: [8080] }}] }}] \
         }}\n---\napiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: \
         watch, namespace: shop }}\nspec: {{ action: DENY, enforcement: AUDIT, rules: [{{ from: [{{ \
         ipBlocks: [{client}/32] }}] }}] }}\n",
        identity("shop/batch")
    )
}

fn authz(mesh: &Mesh, node: &str, arguments: &[&str]) -> Result<Seen> {
    mesh.nodemesh(node, &[&["authz"], arguments].concat())
}

fn json(mesh: &Mesh, arguments: &[&str]) -> Result<(Value, i32)> {
    let words = [&["shop/web", "-o", "json"], arguments].concat();
    let seen = authz(mesh, "node-2", &words)?;
    Ok((serde_json::from_str(&seen.stdout).with_context(|| format!("{seen}"))?, seen.code))
}

#[test]
fn what_is_foretold_is_what_a_connection_gets() -> Result<()> {
    let mesh = shop("authz-foretold").start()?;
    let (web, client) = (mesh.pod("shop/web"), mesh.pod("legacy/client").ipv4().to_string());
    for port in [8080, 9090] {
        web.serve_http(port, "hello")?;
    }
    // The called pod's agent knows pods of other nodes only where its own call them.
    let identities = ["shop/frontend", "shop/batch"].map(|pod| (pod, identity(pod)));
    let says_who = |caller: &str| match identities.iter().find(|(pod, _)| *pod == caller) {
        Some((_, identity)) => ["--from", identity.as_str()],
        None => ["--from-ip", client.as_str()],
    };
    let open = json(&mesh, &[&says_who("legacy/client")[..], &["--port", "8080"]].concat())?;
    assert_eq!(
        (open.0["judgement"]["reason"].as_str(), open.1),
        (Some("allowed: no policy applies"), 0)
    );
    mesh.objects().apply("policies.yaml", &policies(&client))?;
    wait::until("the agent to have every policy", READY, || {
        Ok((json(&mesh, &[])?.0["policies"].as_array().map(Vec::len) == Some(3)).then_some(()))
    })
    .with_context(|| mesh.last_words())?;

    for (caller, port, foretold) in [
        ("shop/frontend", 8080, "allowed by AuthorizationPolicy shop/frontend rule shop-window"),
        ("shop/frontend", 9090, "allowed: no policy applies"),
        ("shop/batch", 8080, "denied by AuthorizationPolicy shop/no-batch rule 0"),
        ("shop/batch", 9090, "allowed: no policy applies"),
        (
            "legacy/client",
            8080,
            "denied by PeerPolicy shop/web: port 8080 is strict and the caller \
                                 speaks plaintext",
        ),
        (
            "legacy/client",
            9090,
            "allowed; without audit: denied by AuthorizationPolicy shop/watch \
                                 rule 0",
        ),
    ] {
        let text = port.to_string();
        let words = [&says_who(caller)[..], &["--port", &text]].concat();
        let (answer, code) = json(&mesh, &words)?;
        assert_eq!(answer["judgement"]["reason"], foretold, "{caller} to {port}: {answer}");
        let url = format!("http://{}:{port}/", web.ipv4());
        // Plaintext is refused by the kernel as soon as the agent has told it.
        wait::until(&format!("{caller} to {port} to get what is foretold"), READY, || {
            let is_answered = mesh.pod(caller).try_curl(&url)?.code == 0;
            Ok((is_answered == (code == 0)).then_some(()))
        })
        .with_context(|| mesh.last_words())?;
        if code == 1 && caller == "shop/batch" {
            let flow = mesh.flow(&[("source/pod", caller), ("verdict", "DENIED")])?.to_string();
            assert!(flow.contains(foretold), "{flow}");
        }
    }
    // Who is no pod here: an identity, and an address.
    let frontend = identity("shop/frontend");
    let (answer, code) = json(&mesh, &["--from", &frontend, "--port", "8080"])?;
    assert_eq!((code, &answer["judgement"]["address"]), (0, &"".into()), "{answer}");
    let (answer, code) = json(&mesh, &["--from-ip", &client, "--port", "9090"])?;
    assert_eq!(code, 0, "{answer}");
    assert!(answer["judgement"]["reason"].to_string().contains("shop/watch"), "{answer}");
    Ok(())
}

#[test]
fn policies_are_listed_with_what_selects_and_in_the_order_in_which_they_are_asked() -> Result<()> {
    let mesh = shop("authz-listed").start()?;
    mesh.objects().apply("policies.yaml", &policies("10.9.9.9"))?;
    wait::until("the agent to have every policy", READY, || {
        Ok((json(&mesh, &[])?.0["policies"].as_array().map(Vec::len) == Some(3)).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let (answer, code) = json(&mesh, &[])?;
    assert_eq!((code, &answer["judgement"]), (0, &Value::Null), "{answer}");
    assert_eq!((&answer["source"], &answer["state"]), (&"agent".into(), &"captured".into()));
    assert_eq!(answer["peer_mode"]["from"], "PeerPolicy shop/web");
    assert_eq!(answer["peer_mode"]["ports"][0]["mode"], "PERMISSIVE");
    assert_eq!(answer["default_action"]["action"], "ALLOW");
    let policy = |at: usize| {
        let policy = &answer["policies"][at];
        ["name", "action", "enforcement", "attached_by"].map(|field| policy[field].as_str())
    };
    let expected = |texts: [&'static str; 4]| texts.map(Some);
    let selected = "namespace shop, selector app=web";
    assert_eq!(policy(0), expected(["shop/no-batch", "DENY", "ENFORCE", selected]));
    assert_eq!(policy(1), expected(["shop/frontend", "ALLOW", "ENFORCE", "Service shop/web"]));
    assert_eq!(policy(2), expected(["shop/watch", "DENY", "AUDIT", "namespace shop"]));
    assert_eq!(answer["policies"][1]["ports"], serde_json::json!([8080]));

    let table = authz(&mesh, "node-2", &["web", "-n", "shop"])?.success()?;
    for part in [
        "shop/web on node-2: captured\n",
        "peer mode  STRICT (PeerPolicy shop/web); port 9090: PERMISSIVE\n",
        "shop-window: service account shop/frontend or shop/batch to any port\n",
    ] {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
    let yaml = authz(&mesh, "node-2", &["shop/web", "-o", "yaml"])?.success()?;
    assert!(yaml.contains("pod: shop/web\n") && yaml.contains("mode: STRICT\n"), "{yaml}");
    Ok(())
}

#[test]
fn who_cannot_answer_says_who_can() -> Result<()> {
    let mesh = shop("authz-elsewhere").start()?;
    // An agent knows of other nodes' pods what its own call.
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    mesh.pod("shop/frontend").curl(&url)?;
    let fails = |arguments: &[&str], reason: &str| -> Result<()> {
        let seen = authz(&mesh, "node-1", arguments)?;
        assert_eq!((seen.code, seen.stdout.as_str()), (2, ""), "{seen}");
        assert!(seen.stderr.contains(reason), "{reason:?} in {seen}");
        Ok(())
    };
    fails(&["shop/web"], "shop/web is on node-2, whose agent was not asked")?;
    fails(&["shop/nobody"], "no agent that was asked knows a pod shop/nobody")?;
    fails(&["frontend"], "frontend: no namespace")?;
    fails(&["shop/frontend", "--port", "80"], "who calls?")?;
    fails(&["shop/frontend", "--from", "shop/nobody", "--port", "80"], "knows no pod shop/nobody")?;
    fails(&["shop/frontend", "--from", "spiffe://x", "--port", "80"], "spiffe://x")?;
    fails(&[], "required")?;

    let outside = authz(&mesh, "node-1", &["legacy/client"])?.success()?;
    assert!(outside.contains("not in the mesh"), "{outside}");
    mesh.agent("node-1").stop()?;
    fails(&["shop/frontend"], "no such socket; is the agent running")
}
