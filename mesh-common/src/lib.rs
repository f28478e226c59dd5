//! What every part of nodemesh agrees on.
//!
//! Nothing here does I/O but `listen`, which has a feature of its own. The layouts in [`bpf`] are
//! shared with the kernel programs and are `no_std`; everything else wants the `std` feature, and
//! the control API the `api` feature.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "api")]
pub mod api;
pub mod bpf;
#[cfg(feature = "std")]
pub mod identity;
#[cfg(feature = "listen")]
pub mod listen;
#[cfg(feature = "std")]
pub mod matching;
#[cfg(feature = "std")]
pub mod model;

/// Ports that nodemesh uses in a pod's network namespace or on a node.
pub mod ports {
    /// Listener in the pod for captured outbound connections.
    pub const OUTBOUND: u16 = 15001;
    /// Listener in the pod for inbound plaintext that the proxy has to judge.
    pub const INBOUND: u16 = 15006;
    /// HBONE, in the pod.
    pub const HBONE: u16 = 15008;
    /// The controller's gRPC.
    pub const CONTROLLER: u16 = 15012;
    /// Prometheus metrics of the agent, on the node.
    pub const METRICS: u16 = 15020;
    /// Readiness of the agent, on the node.
    pub const READINESS: u16 = 15021;
}

/// What nodemesh's own objects in a cluster are called: in deploy/, and in the code that makes,
/// looks for or removes them.
pub mod names {
    /// Deployment, Service, account, Role and Lease of the controller.
    pub const CONTROLLER: &str = "mesh-controller";
    /// DaemonSet, account and Role of the agents.
    pub const AGENT: &str = "mesh-agent";
    /// The Secret with the root of the certificate authority.
    pub const CA_SECRET: &str = "nodemesh-ca";
    /// The ConfigMap with the root certificates, which agents mount.
    pub const TRUST_BUNDLE: &str = "nodemesh-trust-bundle";
    /// The key of the ConfigMap.
    pub const TRUST_BUNDLE_KEY: &str = "root.crt";
    /// For whom an agent's token is good.
    pub const TOKEN_AUDIENCE: &str = "nodemesh-controller";
}

/// The label that opts a Namespace or a Pod in (`enabled`) or a Pod out (`disabled`).
pub const MESH_LABEL: &str = "nodemesh.dev/mesh";
/// The namespace that nodemesh itself runs in, which never enrols.
pub const SYSTEM_NAMESPACE: &str = "nodemesh-system";
/// The API group and version of the kinds that nodemesh defines.
pub const API_VERSION: &str = "nodemesh.dev/v1alpha1";
