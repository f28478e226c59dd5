//! An API server for tests: it speaks Kubernetes' own protocol over TLS, keeps its objects in
//! memory, and misbehaves when it is told to.
//!
//! It is here so that the controller and the command line tool run against it as they are, and it
//! is kept honest by Debian's kubectl and by kube-rs, which do too.
//!
//! What a real server does and this one does not: HTTP/2 and bodies in protobuf (which newer kubectl
//! sends for `create namespace` and its like); SPDY, in which older kubectl does `exec`; schemas of built-in kinds, whose unknown or mistyped
//! fields are stored as they come; warnings in answers; `/openapi/v3`; webhooks, which are stored and
//! never called; conversion between versions of custom resources beyond `apiVersion`; CEL functions
//! for URLs, addresses and semantic versions. Beside the garbage collector, the end of namespaces
//! and the furniture of new ones, no controller runs: a Deployment makes no pods.

mod accept;
mod admin;
mod api;
mod auth;
mod builtin;
mod cluster;
mod convert;
mod crd;
mod create;
mod defaults;
mod discovery;
mod effects;
mod envtest;
mod error;
mod exec;
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
    create::{create, is_own_definition},
    envtest::Envtest,
    fault::Failure,
    handle::{ApiServer, Counts},
};
