//! The node agent of nodemesh: captures pods, proxies their traffic, reports flows.

pub mod admin;
pub mod backoff;
pub mod bypass;
pub mod capture;
pub mod config;
pub mod control;
pub mod denials;
pub mod departure;
pub mod files;
pub mod http1;
pub mod identity;
pub mod liveness;
pub mod observe;
pub mod proxy;
pub mod snapshot;
pub mod status;
mod sys;
