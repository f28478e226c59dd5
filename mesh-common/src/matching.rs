//! Pure decisions: who may connect, where a request goes, which rule says so.

pub mod authorization;
pub mod route;
