//! The rule that keeps the application's replies inside the pod when the proxy delivers a
//! connection from the caller's own address.
//!
//! In the pod: `ip rule add fwmark MARK lookup TABLE` and, in that table, `local default dev
//! lo`, for each family of the pod. No iptables.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
};

use mesh_common::bpf::LOOPBACK;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        route::{RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use super::netns::Netns;

/// The mark of the sockets that deliver to an application, and only of those: the rule sends
/// everything that carries it to loopback. "mesh" in ASCII, so that it is recognised and no
/// other program's choice.
pub const DELIVERY_MARK: u32 = 0x6d65_7368;

/// The routing table; the number of the inbound port, so that it is recognised.
const TABLE: u32 = 15006;
/// Before any rule that a CNI is known to make in a pod, after the local table.
const PRIORITY: u32 = 100;

/// Why the rule or the route is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// No netlink in the pod's namespace.
    #[error("cannot talk to the kernel about routes in the pod: {0}")]
    Netlink(#[from] io::Error),
    /// The kernel refused.
    #[error(
        "cannot {action} in the pod: {source}; the agent needs CAP_NET_ADMIN and the kernel CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"
    )]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
}

/// Adds rule and route for each family in `addresses`; what is there already stays. Whether
/// anything was missing.
///
/// # Errors
/// Where the kernel refuses.
pub fn add(netns: &Netns, addresses: &[IpAddr]) -> Result<bool, RoutingError> {
    within(netns, async |handle| {
        let mut was_missing = false;
        for address in addresses {
            let rule = handle.rule().add().fw_mark(DELIVERY_MARK).table_id(TABLE);
            let rule = rule.priority(PRIORITY).action(RuleAction::ToTable);
            let added = match address {
                IpAddr::V4(_) => rule.v4().execute().await,
                IpAddr::V6(_) => rule.v6().execute().await,
            };
            was_missing |= tolerate(added, "add a rule", libc::EEXIST)?;
            let added = handle.route().add(route(address)).execute().await;
            was_missing |= tolerate(added, "add a route", libc::EEXIST)?;
        }
        Ok(was_missing)
    })
}

/// Removes rule and route of both families; what is not there is no error.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove(netns: &Netns) -> Result<(), RoutingError> {
    const FAMILIES: [(IpVersion, IpAddr); 2] = [
        (IpVersion::V4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (IpVersion::V6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ];
    within(netns, async |handle| {
        for (version, address) in FAMILIES {
            for rule in our_rules(&handle, version).await? {
                tolerate(handle.rule().del(rule).execute().await, "remove a rule", libc::ENOENT)?;
            }
            let removed = handle.route().del(route(&address)).execute().await;
            // Without IPv6 in the kernel there is neither table nor family.
            match tolerate(removed, "remove a route", libc::ESRCH) {
                Err(RoutingError::Refused { source, .. })
                    if address.is_ipv6() && errno(&source) == Some(libc::EOPNOTSUPP) => {}
                other => drop(other?),
            }
        }
        Ok(())
    })
}

async fn our_rules(handle: &Handle, version: IpVersion) -> Result<Vec<RuleMessage>, RoutingError> {
    use futures_util::TryStreamExt;
    let list = handle.rule().get(version).execute();
    let is_ours = |rule: &RuleMessage| {
        rule.attributes.contains(&RuleAttribute::FwMark(DELIVERY_MARK))
            && rule.attributes.contains(&RuleAttribute::Table(TABLE))
    };
    match list.try_collect::<Vec<_>>().await {
        Ok(rules) => Ok(rules.into_iter().filter(is_ours).collect()),
        Err(source) if errno(&source) == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(source) => Err(RoutingError::Refused { action: "list rules", source }),
    }
}

/// `local default dev lo` in our table.
fn route(family: &IpAddr) -> RouteMessage {
    macro_rules! local_default {
        ($builder:expr) => {
            $builder
                .table_id(TABLE)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .output_interface(LOOPBACK)
                .build()
        };
    }
    match family {
        IpAddr::V4(_) => local_default!(RouteMessageBuilder::<Ipv4Addr>::new()),
        IpAddr::V6(_) => local_default!(RouteMessageBuilder::<Ipv6Addr>::new()),
    }
}

/// Whether it was done, or not, for the one reason that is none to complain.
fn tolerate(
    result: Result<(), rtnetlink::Error>,
    action: &'static str,
    tolerated: i32,
) -> Result<bool, RoutingError> {
    match result {
        Ok(()) => Ok(true),
        Err(source) if errno(&source) == Some(tolerated) => Ok(false),
        Err(source) => Err(RoutingError::Refused { action, source }),
    }
}

/// The errno of the kernel's answer.
fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

/// Talks netlink from inside the namespace, on a thread and a runtime of its own: the caller may
/// be inside a runtime, where it must not start another.
pub(super) fn within<T: Send>(
    netns: &Netns,
    f: impl AsyncFnOnce(Handle) -> Result<T, RoutingError> + Send,
) -> Result<T, RoutingError> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            // Only the socket has to be made inside; it stays in its namespace for life.
            let (connection, handle, _messages) = netns.run(rtnetlink::new_connection)??;
            tokio::spawn(connection);
            f(handle).await
        })
    };
    thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
