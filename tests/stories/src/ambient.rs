//! HBONE as Istio ambient's ztunnel speaks it, for stories about two meshes in one cluster.
//!
//! Frames, headers and settings are those of a ztunnel that was watched; docs/interop.md says which
//! one, and what was seen.

mod caller;
mod server;

pub use caller::{Answer, Caller};
pub use server::{Asked, Server, serve};

/// ztunnel's HTTP/2 windows and largest frame, on both sides.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const TUNNEL_WINDOW: u32 = 16 * 1024 * 1024;
const FRAME: u32 = 1024 * 1024;

/// The YAML of a pod as Istio's CNI plugin leaves it.
pub fn redirected(pod: &mesh_harness::Pod) -> String {
    let annotated = "  annotations: { ambient.istio.io/redirection: enabled }\n  labels:";
    mesh_harness::objects::pod(pod).replacen("  labels:", annotated, 1)
}
