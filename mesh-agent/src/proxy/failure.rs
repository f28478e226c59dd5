//! Why a connection was refused or failed: what flows say, and what to look at next.

use std::{
    fmt::Display,
    io,
    net::{IpAddr, SocketAddr},
};

use http::Method;
use mesh_common::identity::SpiffeId;

/// Why a connection did not get to its application.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// A policy refused; the text names it and the rule.
    #[error("{0}")]
    Denied(String),
    /// The far proxy refused, and does not say that a policy did.
    #[error("{0}")]
    Refused(String),
    /// The Service has no ready endpoint for that port.
    #[error("no ready endpoint for this port of the Service")]
    NoEndpoint,
    /// There are routes for the connections to this port, and none is for this one.
    #[error("no TLSRoute of this port is for {}", .0.as_deref().unwrap_or("what names no server"))]
    NoRoute(Option<String>),
    /// The route leads nowhere.
    #[error("{route} has no valid backend: {reason}")]
    NoBackend { route: String, reason: String },
    /// The address may be a pod's, and the caller is one that shall not speak plaintext to pods.
    #[error(
        "the controller does not say who has {0}, and the caller is strict; see `nodemesh status`"
    )]
    Unanswered(IpAddr),
    /// The application did not take the connection.
    #[error("cannot connect to {address}: {error}")]
    Connect { address: SocketAddr, error: String },
    /// The HBONE port of a pod cannot be reached.
    #[error(
        "cannot connect to {address} for HBONE: {error}; is the agent of that node running, and \
         does every NetworkPolicy of both pods allow TCP port 15008?"
    )]
    HboneConnect { address: SocketAddr, error: String },
    /// The tunnel was there and failed.
    #[error("tunnel to {address}: {error}")]
    Tunnel { address: SocketAddr, error: String },
    /// A tunnel that reached us did not get through its handshake.
    #[error("HBONE handshake: {0}")]
    Handshake(String),
    /// The far proxy could not connect to the application.
    #[error("{0}")]
    Upstream(String),
    /// The far proxy refused the CONNECT for another reason than policy.
    #[error("{0}")]
    Rejected(String),
    /// The mesh knows a pod there but not who it is.
    #[error(
        "the pod at {0} is captured but has no identity; is its controller older than this agent?"
    )]
    NoIdentity(SocketAddr),
    /// This agent has no certificate for the account yet.
    #[error("no certificate for {0} yet; see `nodemesh status` for why")]
    NoCertificate(SpiffeId),
    /// A caller asked for an address or port that this pod does not offer.
    #[error("{0} is not an address and port of this pod")]
    NotOurs(SocketAddr),
    /// A CONNECT whose authority is neither an address and port nor a port of the pod's Services.
    #[error("`{0}` is neither an address and a port nor a Service of this pod and its port")]
    BadAuthority(String),
    /// Nobody waits for the connection any more.
    #[error("the caller gave up before the connection was made")]
    CallerLeft,
    /// The pod ended while its connection was being made.
    #[error("the pod's network namespace is gone")]
    PodGone,
    /// Only CONNECT is understood in a tunnel.
    #[error("method {0} in a tunnel, where only CONNECT is understood")]
    NotConnect(Method),
}

impl Failure {
    pub(super) fn connect(address: SocketAddr, error: &io::Error) -> Self {
        Self::Connect { address, error: error.to_string() }
    }

    pub(super) fn hbone_connect(address: SocketAddr, error: &io::Error) -> Self {
        Self::HboneConnect { address, error: error.to_string() }
    }

    pub(super) fn tunnel(address: SocketAddr, error: &(impl Display + ?Sized)) -> Self {
        Self::Tunnel { address, error: error.to_string() }
    }

    pub(super) fn handshake(error: &(impl Display + ?Sized)) -> Self {
        Self::Handshake(error.to_string())
    }

    /// Whether another endpoint may be tried: no byte of the application went anywhere.
    pub(super) fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::HboneConnect { .. }
            | Self::Tunnel { .. }
            | Self::Upstream(_) => true,
            Self::Denied(_)
            | Self::Refused(_)
            | Self::NoEndpoint
            | Self::NoRoute(_)
            | Self::NoBackend { .. }
            | Self::Unanswered(_)
            | Self::Handshake(_)
            | Self::Rejected(_)
            | Self::NoIdentity(_)
            | Self::NoCertificate(_)
            | Self::NotOurs(_)
            | Self::BadAuthority(_)
            | Self::CallerLeft
            | Self::PodGone
            | Self::NotConnect(_) => false,
        }
    }

    /// Whether somebody decided this, rather than something being broken.
    pub(super) fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::Denied(_)
                | Self::Refused(_)
                | Self::Handshake(_)
                | Self::NotOurs(_)
                | Self::BadAuthority(_)
                | Self::NotConnect(_)
        )
    }
}
