//! A pod's link: the interface that has the pod's address, and where its other end is.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
};

use super::{
    netns::Netns,
    routing::{RoutingError, within},
};

/// A pod's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The interface in the pod that has the pod's address.
    pub interface: u32,
    /// Whether its frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// The interface in the agent's own namespace that it is a cable to, if it is one.
    pub peer: Option<u32>,
}

/// The link over which a pod with these addresses is reached; `None` if no interface has one.
///
/// # Errors
/// Where the kernel does not answer.
pub fn find(netns: &Netns, addresses: &[IpAddr]) -> Result<Option<PodLink>, RoutingError> {
    // The thread's own: the agent's namespace.
    let node = File::open("/proc/thread-self/ns/net")?;
    within(netns, async |handle| {
        let Some(interface) = interface_with(&handle, addresses).await? else { return Ok(None) };
        let Some(link) = link(&handle, interface).await? else { return Ok(None) };
        let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        let peer = match cable(&link) {
            Some((peer, namespace)) if Some(namespace) == id_of(&handle, node.as_fd()).await? => {
                Some(peer)
            }
            _ => None,
        };
        Ok(Some(PodLink { interface, is_ethernet, peer }))
    })
}

/// Addresses of a pod that are not in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The interface that has them.
    pub interface: String,
    /// Whether that has an address of the pod as well.
    pub is_pods_own: bool,
    /// The addresses, but for those that lead no further than the link.
    pub addresses: Vec<IpAddr>,
}

impl Aside {
    /// For people.
    pub fn note(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let name = &self.interface;
        if self.is_pods_own {
            return format!(
                "interface {name} also has {addresses}, which is not in the mesh: only the pod's \
                 own addresses are"
            );
        }
        let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses };
        format!(
            "interface {name} ({addresses}) is not in the mesh: the proxy does not see what \
             arrives there, and frames that leave there are not guarded"
        )
    }
}

/// What a pod with these addresses has besides them and loopback, by the order of its interfaces.
///
/// # Errors
/// Where the kernel does not answer.
pub fn asides(netns: &Netns, addresses: &[IpAddr]) -> Result<Vec<Aside>, RoutingError> {
    within(netns, async |handle| {
        let links = handle.link().get().execute().try_collect::<Vec<_>>().await;
        let links =
            links.map_err(|source| RoutingError::Refused { action: "list interfaces", source })?;
        let all = all_addresses(&handle).await?;
        let links = links.iter().filter(|it| !it.header.flags.contains(LinkFlags::Loopback));
        Ok(links.filter_map(|link| aside(link, &all, addresses)).collect())
    })
}

fn aside(link: &LinkMessage, all: &[AddressMessage], pods: &[IpAddr]) -> Option<Aside> {
    let interface = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let here = all.iter().filter(|it| it.header.index == link.header.index);
    let (own, others): (Vec<_>, Vec<_>) =
        here.filter_map(local).partition(|address| pods.contains(address));
    let is_link_local =
        |address: &IpAddr| matches!(address, IpAddr::V6(ipv6) if ipv6.is_unicast_link_local());
    let addresses: Vec<_> = others.into_iter().filter(|it| !is_link_local(it)).collect();
    let is_pods_own = !own.is_empty();
    // The kernel puts tunnels into every namespace that are neither up nor have an address.
    let is_in_use = !is_pods_own && link.header.flags.contains(LinkFlags::Up);
    let is_worth_it = is_in_use || !addresses.is_empty();
    is_worth_it.then_some(Aside { interface, is_pods_own, addresses })
}

async fn all_addresses(handle: &Handle) -> Result<Vec<AddressMessage>, RoutingError> {
    let all = handle.address().get().execute().try_collect().await;
    all.map_err(|source| RoutingError::Refused { action: "list addresses", source })
}

/// The interface's own address. Of a point-to-point interface `Address` is the other end's.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

async fn interface_with(
    handle: &Handle,
    addresses: &[IpAddr],
) -> Result<Option<u32>, RoutingError> {
    let all = all_addresses(handle).await?;
    let found = all.iter().find(|message| local(message).is_some_and(|it| addresses.contains(&it)));
    Ok(found.map(|message| message.header.index))
}

async fn link(handle: &Handle, interface: u32) -> Result<Option<LinkMessage>, RoutingError> {
    let mut found = handle.link().get().match_index(interface).execute();
    found
        .try_next()
        .await
        .map_err(|source| RoutingError::Refused { action: "look at the interface", source })
}

/// The other end of a pair of virtual interfaces, and the pod's name for the namespace it is in.
/// An interface on top of one of the node's own names that one the same way, and must not be
/// taken for a cable: what arrives there is everybody's.
fn cable(link: &LinkMessage) -> Option<(u32, i32)> {
    let (mut peer, mut namespace, mut is_pair) = (None, None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            LinkAttribute::LinkInfo(info) => {
                is_pair = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    is_pair.then_some(peer.zip(namespace)).flatten()
}

/// The pod's name for a namespace; `None` if it has none.
async fn id_of(handle: &Handle, namespace: BorrowedFd<'_>) -> Result<Option<i32>, RoutingError> {
    let refused = |source| RoutingError::Refused { action: "ask for a namespace's id", source };
    let mut question = NsidMessage::default();
    // Descriptors are never negative.
    question.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.clone().request(request).map_err(refused)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) => {
                let id = answer.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) => Some(*id),
                    _ => None,
                });
                return Ok(id.filter(|id| *id >= 0));
            }
            NetlinkPayload::Error(error) => {
                return Err(refused(rtnetlink::Error::NetlinkError(error)));
            }
            _ => {}
        }
    }
    Ok(None)
}
