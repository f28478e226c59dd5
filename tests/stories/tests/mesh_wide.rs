//! Strict for the whole mesh, and what is nearer to a pod.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{python::python, shop};

const CONFIG: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: \
                      default }\nspec: { peer: { mode: STRICT } }\n";
const MESH: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: strict, \
                    namespace: nodemesh-system }\nspec: { mode: STRICT }\n";
const WEB: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata: { name: web, \
                   namespace: shop }\nspec: { selector: { matchLabels: { app: web } }, mode: \
                   PERMISSIVE }\n";

const CONNECT: &str = "
s = tcp('10.0.0.1')
code = s.connect_ex(address(sys.argv[1]))
print(errno.errorcode.get(code, 'connected'))
";

/// Waits until legacy/client is told this by both pods of the shop that serve.
fn becomes(mesh: &Mesh, web: &str, batch: &str) -> Result<()> {
    let mut last = Vec::new();
    wait::until(&format!("web to say {web} and batch {batch}"), READY, || {
        last.clear();
        for pod in ["shop/web", "shop/batch"] {
            let to = format!("{}:8080", mesh.pod(pod).ipv4());
            last.push(python(mesh.pod("legacy/client"), CONNECT, &[&to])?);
        }
        Ok((last == [web, batch]).then_some(()))
    })
    .with_context(|| format!("they said {last:?}; {}", mesh.last_words()))
}

#[test]
fn a_strict_mesh_refuses_plaintext_everywhere_but_where_a_nearer_policy_lets_it_in() -> Result<()> {
    let (open, closed) = ("connected", "ECONNREFUSED");
    let mesh = shop("mesh-wide").start()?;
    for pod in ["shop/web", "shop/batch"] {
        mesh.pod(pod).serve_http(8080, "hello")?;
    }
    becomes(&mesh, open, open)?;
    for (file, yaml) in [("config.yaml", CONFIG), ("mesh.yaml", MESH)] {
        mesh.objects().apply(file, yaml)?;
        becomes(&mesh, closed, closed)?;
        mesh.objects().apply("web.yaml", WEB)?;
        becomes(&mesh, open, closed)?;
        for pod in ["shop/web", "shop/batch"] {
            let url = format!("http://{}:8080/", mesh.pod(pod).ipv4());
            assert_eq!(mesh.pod("shop/frontend").curl(&url)?, "hello\n", "{pod} by {file}");
        }
        for file in [file, "web.yaml"] {
            mesh.objects().remove(file)?;
        }
        becomes(&mesh, open, open)?;
    }
    Ok(())
}
