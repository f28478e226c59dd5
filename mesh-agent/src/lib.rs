//! The node agent of nodemesh: captures pods, proxies their traffic, reports flows.

pub mod backoff;
pub mod files;
pub mod identity;
pub mod observe;
pub mod snapshot;
