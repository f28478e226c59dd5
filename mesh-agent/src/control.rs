//! What makes the agent act: the stream from the controller, and the pods of this node that come
//! into the mesh and leave it.
//!
//! ```text
//! controller ── connection ──> snapshot ──> enrolment ──> kernel and proxy
//!      ^            ^                          │
//!      └ authority ─┴──── captured uids ───────┤
//!            ^                                 │
//!            └──────── wanted identities ──────┘
//! ```

pub mod connection;
pub mod denials;
pub mod enrolment;
pub mod kernel;
pub mod outage;
pub mod persist;
pub mod plaintext;
pub mod unserved;
