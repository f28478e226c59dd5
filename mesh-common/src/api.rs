//! The control API, `mesh.v1`, and its translation to and from the [model](crate::model).

mod explain;
mod from_wire;
mod route;
mod to_wire;

pub use explain::{attached_policies, judgement};
pub use from_wire::{InvalidResource, address};
pub use to_wire::octets;

/// The addresses that may be of interest to a node at once: more than its pods call in any quarter
/// of an hour, unless one of them tries all addresses there are.
pub const MOST_INTEREST: usize = 32_768;

/// The generated messages, clients and servers of `mesh.v1`.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("mesh.v1");
}
