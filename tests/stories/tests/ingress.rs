//! An ingress controller in the mesh: an unmodified nginx as reverse proxy, for clients from outside,
//! in front of strict pods.

use anyhow::{Context, Result};
use mesh_harness::{Flow, Mesh, mesh::READY, objects::identity, wait};
use mesh_stories::{WEB, shop};

const POLICIES: &str = include_str!("../../../deploy/examples/ingress.yaml");
/// The only caller that the policies allow.
const CALLER: &str = "shop/ingress";
/// Sends every request to another Service.
const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: web, port: 80 }]
  rules:
  - backendRefs: [{ name: next, port: 80 }]
";
/// The port of the ingress that leads to the Service's cluster IP, and that to its pod's address.
const TO_SERVICE: u16 = 8080;
const TO_POD: u16 = 8081;

fn start(story: &str) -> Result<Mesh> {
    let mesh = shop(story)
        .pod("node-1", CALLER)
        .pod("node-2", "shop/next")
        .service_with("shop/next", "10.96.0.82", "http", 80, 8080)
        .start()?;
    for pod in ["shop/web", "shop/next"] {
        let says =
            format!("return 200 \"{pod} called by $remote_addr for $http_x_forwarded_for\\n\";");
        mesh.pod(pod).serve_nginx(8080, &says)?;
    }
    let upstreams =
        [(TO_SERVICE, WEB.to_owned()), (TO_POD, format!("{}:8080", mesh.pod("shop/web").ipv4()))];
    for (port, upstream) in upstreams {
        let location =
            format!("proxy_pass http://{upstream}; proxy_set_header x-forwarded-for $remote_addr;");
        mesh.pod(CALLER).serve_nginx(port, &location)?;
    }
    mesh.objects().apply("ingress.yaml", POLICIES)?;
    wait::until("the pods to be strict", READY, || {
        let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
        let seen = mesh.pod("legacy/client").try_curl(&url)?;
        Ok((seen.code == 7).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    Ok(mesh)
}

/// What a client outside of the mesh is answered at a port of the ingress, body and status.
fn call(mesh: &Mesh, port: u16) -> Result<String> {
    let url = format!("http://{}:{port}/", mesh.pod(CALLER).ipv4());
    let curl = ["curl", "-sS", "-m", "10", "-w", "%{http_code}", &url];
    mesh.pod("legacy/client").run(&curl)?.success()
}

/// What `pod` answers a client from outside by way of the ingress.
fn answer(mesh: &Mesh, pod: &str) -> String {
    let (caller, client) = (mesh.pod(CALLER).ipv4(), mesh.pod("legacy/client").ipv4());
    format!("{pod} called by {caller} for {client}\n200")
}

fn flow_of(mesh: &Mesh, protocol: &str) -> Result<Flow> {
    let (from, to) = (identity(CALLER), identity("shop/web"));
    mesh.flow(&[
        ("source/identity", &from),
        ("destination/identity", &to),
        ("reporter", "source"),
        ("protocol", protocol),
        ("security", "mtls"),
    ])
}

#[test]
fn an_ingress_controller_is_let_to_strict_pods_by_its_own_identity() -> Result<()> {
    let mesh = start("ingress")?;
    for port in [TO_SERVICE, TO_POD] {
        assert_eq!(call(&mesh, port)?, answer(&mesh, "shop/web"), "port {port}");
    }
    // Of requests to the Service it is known what they were; to the pod, that somebody called.
    let of_service = flow_of(&mesh, "HTTP/1.1")?;
    assert_eq!(of_service.field("service"), "shop/web", "{of_service}");
    assert_eq!(of_service.field("http/path"), "/", "{of_service}");
    let of_pod = flow_of(&mesh, "TCP")?;
    assert_eq!(of_pod.field("service"), "", "{of_pod}");

    // Others in the mesh are refused by the policy, and the ingress' own other ports are strict.
    let seen = mesh.pod("shop/batch").try_curl(&format!("http://{WEB}/"))?;
    assert!(seen.stderr.contains("403"), "{seen}");
    mesh.pod(CALLER).serve_http(9090, "admin")?;
    let admin = format!("http://{}:9090/", mesh.pod(CALLER).ipv4());
    let seen = mesh.pod("legacy/client").try_curl(&admin)?;
    assert_eq!(seen.code, 7, "{seen}");

    // One with hostNetwork cannot be in the mesh: it is refused like everybody else outside.
    for url in [format!("http://{}:8080/", mesh.pod("shop/web").ipv4()), admin] {
        let seen = mesh.node("node-1").place.run(&["curl", "-sS", "-m", "5", &url])?;
        assert_eq!(seen.code, 7, "{seen}");
    }
    Ok(())
}

#[test]
fn routes_hold_for_the_cluster_ip_alone_and_policies_for_both() -> Result<()> {
    let mesh = start("ingress-routes")?;
    mesh.objects().apply("route.yaml", ROUTE)?;
    wait::until("the route to be in use", READY, || {
        Ok((call(&mesh, TO_SERVICE)? == answer(&mesh, "shop/next")).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    assert_eq!(call(&mesh, TO_POD)?, answer(&mesh, "shop/web"), "no Service was called");
    mesh.objects().remove("route.yaml")?;
    wait::until("the route to be gone", READY, || {
        Ok((call(&mesh, TO_SERVICE)? == answer(&mesh, "shop/web")).then_some(()))
    })?;

    // The policy is that of the Service's pods, and they ask it whatever address was called.
    mesh.objects().apply("ingress.yaml", &POLICIES.replace("[shop/ingress]", "[shop/frontend]"))?;
    wait::until("both ways to be refused", READY, || {
        let seen = [call(&mesh, TO_SERVICE)?, call(&mesh, TO_POD)?];
        Ok((seen[0].ends_with("403") && seen[1].ends_with("502")).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let denied =
        mesh.flow(&[("source/pod", CALLER), ("verdict", "DENIED"), ("protocol", "TCP")])?;
    assert!(denied.field("reason").contains("AuthorizationPolicy shop/web"), "{denied}");
    Ok(())
}
