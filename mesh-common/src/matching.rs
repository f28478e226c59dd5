//! Pure decisions: who may connect, which rule says so.

pub mod authorization;
