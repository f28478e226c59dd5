//! Routes of the Gateway API, from the folder to what an unmodified client gets.

use anyhow::Result;
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::shop;

/// The Service shop/api, which routes are attached to; its pod is on node-2.
const API: &str = "10.96.0.81";
/// The Service shop/near, which nobody calls by its own address.
const NEAR: &str = "10.96.0.82";

const HEAD: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: api, namespace: shop, creationTimestamp: 2026-01-01T00:00:00Z }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: api, port: 80 }]
  rules:
";
const RULES: &str = "  - matches: [{ path: { type: PathPrefix, value: /near } }]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: { set: [{ name: x-way, value: routed }] }
    - type: URLRewrite
      urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /far } }
    backendRefs: [{ name: near, port: 80 }]
  - matches: [{ path: { type: PathPrefix, value: /moved } }]
    filters:
    - type: RequestRedirect
      requestRedirect: { path: { type: ReplaceFullPath, replaceFullPath: /new }, statusCode: 301 }
  - matches: [{ path: { type: Exact, value: /api } }]
    backendRefs: [{ name: api, port: 80 }]
  - matches: [{ path: { type: Exact, value: /nowhere } }]
    backendRefs: [{ name: missing, port: 80 }]
";

fn routed(story: &str) -> Result<Mesh> {
    let mesh = shop(story)
        .pod("node-2", "shop/api")
        .pod("node-1", "shop/near")
        .service_with("shop/api", API, "http", 80, 8080)
        .service_with("shop/near", NEAR, "http", 80, 8080)
        .start()?;
    for pod in ["shop/api", "shop/near"] {
        let says = format!("return 200 \"{pod} $request_uri [$http_x_way]\\n\";");
        mesh.pod(pod).serve_nginx(8080, &says)?;
    }
    Ok(mesh)
}

/// Status, Location and body of each of these paths of the Service, over one connection.
fn get(mesh: &Mesh, paths: &[&str]) -> Result<Vec<String>> {
    let urls: Vec<_> = paths.iter().map(|path| format!("http://{API}{path}")).collect();
    let mut command = vec!["curl", "-sS", "-m", "10", "-w", "%{http_code} %{redirect_url}\\n"];
    command.extend(urls.iter().map(String::as_str));
    let seen = mesh.pod("shop/frontend").run(&command)?.success()?;
    Ok(seen.lines().map(|line| line.trim_end().to_owned()).collect())
}

#[test]
fn requests_go_where_routes_say_and_changes_reach_the_next_one() -> Result<()> {
    let mesh = routed("routes")?;
    assert_eq!(get(&mesh, &["/near/a"])?, ["shop/api /near/a []", "200"], "no route yet");
    mesh.objects().apply("route.yaml", &format!("{HEAD}{RULES}"))?;
    wait::until("the route to be in use", READY, || {
        Ok((get(&mesh, &["/near/a"])? == ["shop/near /far/a [routed]", "200"]).then_some(()))
    })?;
    let seen = get(&mesh, &["/api", "/near/b?q=1", "/moved/x"])?;
    assert_eq!(
        seen,
        [
            "shop/api /api []".to_owned(),
            "200".to_owned(),
            "shop/near /far/b?q=1 [routed]".to_owned(),
            "200".to_owned(),
            format!("301 http://{API}/new"),
        ]
    );
    // What no rule is for, and what leads to nobody.
    let seen = get(&mesh, &["/other", "/nowhere"])?;
    let codes: Vec<_> = seen.iter().filter(|line| line.len() == 3).collect();
    assert_eq!(codes, ["404", "500"], "{seen:?}");
    let flow = mesh.flow(&[("http/path", "/near/b"), ("reporter", "source")])?;
    assert_eq!(flow.field("destination/pod"), "shop/near", "{flow}");

    mesh.objects().remove("route.yaml")?;
    wait::until("the route to be gone", READY, || {
        Ok((get(&mesh, &["/near/a"])? == ["shop/api /near/a []", "200"]).then_some(()))
    })
}

#[test]
fn shares_follow_weights_without_a_request_that_fails() -> Result<()> {
    let mesh = routed("routes-weights")?;
    let rule = |api, near| {
        format!(
            "{HEAD}  - backendRefs: [{{ name: api, port: 80, weight: {api} }}, \
             {{ name: near, port: 80, weight: {near} }}]\n"
        )
    };
    mesh.objects().apply("route.yaml", &rule(1, 1))?;
    let paths = ["/a"; 60];
    let near = || -> Result<usize> {
        let seen = get(&mesh, &paths)?;
        assert_eq!(seen.iter().filter(|line| *line == "200").count(), paths.len(), "{seen:?}");
        Ok(seen.iter().filter(|line| line.starts_with("shop/near")).count())
    };
    wait::until("both to be called", READY, || Ok((near()? > 0).then_some(())))?;
    // 60 coins: fewer than 5 of either side once in ten thousand million runs.
    let share = near()?;
    assert!((5..=55).contains(&share), "{share}");
    mesh.objects().apply("route.yaml", &rule(0, 1))?;
    wait::until("the new one alone to be called", READY, || {
        Ok((near()? == paths.len()).then_some(()))
    })
}
