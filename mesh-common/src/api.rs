//! The control API, `mesh.v1`, and its translation to and from the [model](crate::model).

mod explain;
mod from_wire;
mod to_wire;

pub use explain::{attached_policies, judgement};
pub use from_wire::InvalidResource;

/// The generated messages, clients and servers of `mesh.v1`.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("mesh.v1");
}
