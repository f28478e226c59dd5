//! Nodes and pods as network namespaces, real daemons in them, and what was seen.
//!
//! A story reads: lay out a [`Mesh`], start programs in its pods, look at what they and
//! `nodemesh flows` saw. Everything a mesh owns carries its id, so that many may share one
//! kernel, and all of it is gone when the mesh is dropped; what a killed run left behind goes
//! when the next one starts.

#![forbid(unsafe_code)]

pub mod binaries;
pub mod capture;
pub mod cgroup;
pub mod cleanup;
pub mod daemon;
pub mod flows;
pub mod layout;
pub mod ledger;
pub mod link;
pub mod mesh;
pub mod netns;
pub mod node;
pub mod objects;
pub mod pattern;
pub mod pod;
pub mod process;
pub mod tls;
pub mod wait;

pub use flows::Flow;
pub use mesh::{Mesh, MeshBuilder};
pub use pod::Pod;
pub use process::{Background, Seen};
