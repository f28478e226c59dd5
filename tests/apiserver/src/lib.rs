//! An API server for tests: it speaks Kubernetes' own protocol over TLS, keeps its objects in
//! memory, and misbehaves when it is told to.
//!
//! It is here so that the controller and the command line tool run against it as they are, and it
//! is kept honest by Debian's kubectl and by kube-rs, which do too.

mod accept;
mod admin;
mod api;
mod auth;
mod builtin;
mod cluster;
mod convert;
mod crd;
mod defaults;
mod discovery;
mod effects;
mod error;
mod fault;
mod folder;
mod handle;
mod meta;
mod openapi;
mod patch;
mod pki;
mod rbac;
mod registry;
mod request;
mod route;
mod schema;
mod selector;
mod server;
mod store;
mod table;
mod token;
mod validate;

pub use self::{
    cluster::Settings,
    fault::Failure,
    handle::{ApiServer, Counts},
};
