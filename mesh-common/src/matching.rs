//! Pure decisions: who may connect, what a port speaks, where a request goes, which rule says so.

pub mod authorization;
pub mod protocol;
pub mod route;
