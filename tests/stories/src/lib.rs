//! What stories have in common: the shop that most of them are about, and a stranger at the door.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use mesh_harness::{Mesh, MeshBuilder, mesh::READY, wait};

pub mod ambient;
pub mod api_server;
pub mod certificates;
pub mod cluster;
pub mod python;
pub mod siege;
pub mod stranger;
pub mod traces;

/// The virtual address of the Service shop/web, in front of the pod shop/web on node-2.
pub const WEB: &str = "10.96.0.80";

/// A meshed namespace with a frontend and a batch job on node-1 and a web server on node-2, and
/// a namespace outside the mesh with a client on node-1.
pub fn shop(story: &str) -> MeshBuilder {
    Mesh::two_nodes(story)
        .meshed("shop")
        .pod("node-1", "shop/frontend")
        .pod("node-1", "shop/batch")
        .pod("node-2", "shop/web")
        .pod("node-1", "legacy/client")
        .service("shop/web", WEB, 80, 8080)
}

/// Calls the echo server at `to` until that goes over mTLS: until its agent has told the caller's that
/// the called pod is captured, plaintext is right.
pub fn call_until_mtls(mesh: &Mesh, caller: &str, to: &str) -> Result<()> {
    let of_caller = |flow: &mesh_harness::Flow| {
        flow.has(&[("source/pod", caller), ("security", "mtls"), ("reporter", "source")])
    };
    let count = || mesh.flows().map(|flows| flows.iter().filter(|flow| of_caller(flow)).count());
    let known = count()?;
    wait::until(&format!("{caller} to call {to} over mTLS"), READY, || {
        mesh.pod(caller).call_peer(to, &["echo", "10"])?.success()?;
        Ok((count()? > known).then_some(()))
    })
    .with_context(|| mesh.last_words())
}
