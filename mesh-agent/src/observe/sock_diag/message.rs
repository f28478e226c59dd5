//! The messages of sock_diag(7), byte by byte.
//!
//! Layouts and numbers: include/uapi/linux/{netlink,sock_diag,inet_diag}.h.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Id, State, TcpSocket};

const HEADER: usize = 16;
/// `struct inet_diag_req_v2`, and where its fields are after the header.
const REQUEST: usize = 56;
const STATES: usize = HEADER + 4;
const ID: usize = HEADER + 8;
/// `struct inet_diag_msg`, and where its fields are.
const ENTRY: usize = 72;
const ENTRY_ID: usize = 4;
const INODE: usize = 68;
/// The attribute with the mark.
const MARK: u16 = 15;

/// The size of `struct inet_diag_sockid`, and where interface and cookie are in it.
pub(super) const SOCKID: usize = 48;
const INTERFACE: usize = 36;
const COOKIE: usize = 40;

/// A request.
pub(super) type Request = [u8; HEADER + REQUEST];

/// Asks for all sockets of a family in a state.
pub(super) fn dump(family: i32, state: State) -> Request {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut request = request(family, SOCK_DIAG_BY_FAMILY, REQUEST_AND_DUMP);
    request[STATES..STATES + 4].copy_from_slice(&state.mask().to_ne_bytes());
    request
}

/// Asks the kernel to end a socket, which it does only if it is the very same one.
pub(super) fn destroy(id: &Id) -> Request {
    const SOCK_DESTROY: u16 = 21;
    const REQUEST_AND_ACK: u16 = 5;
    let mut request = request(i32::from(id.family), SOCK_DESTROY, REQUEST_AND_ACK);
    request[ID..ID + SOCKID].copy_from_slice(&id.sockid);
    request
}

fn request(family: i32, kind: u16, flags: u16) -> Request {
    let mut request = [0; HEADER + REQUEST];
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[HEADER] = family as u8;
    request[HEADER + 1] = libc::IPPROTO_TCP as u8;
    request
}

/// Reads a datagram of answers into `sockets`; whether it was the last one.
pub(super) fn parse(mut datagram: &[u8], sockets: &mut Vec<TcpSocket>) -> io::Result<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    while let Some(length) = word(datagram, 0) {
        let length = length as usize;
        let Some(message) = datagram.get(HEADER..length) else { break };
        match half(datagram, 4) {
            Some(DONE) => return Ok(true),
            Some(ERROR) => {
                return match word(message, 0).map_or(libc::EPROTO, |errno| -(errno as i32)) {
                    // An acknowledgement.
                    0 => Ok(true),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            _ => sockets.extend(entry(message)),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `inet_diag_msg` with its attributes.
fn entry(message: &[u8]) -> Option<TcpSocket> {
    let attributes = message.get(ENTRY..)?;
    let family = message[0];
    let sockid: [u8; SOCKID] = message.get(ENTRY_ID..ENTRY_ID + SOCKID)?.try_into().ok()?;
    let address = |at: usize| -> Option<IpAddr> {
        Some(if i32::from(family) == libc::AF_INET {
            Ipv4Addr::from(<[u8; 4]>::try_from(sockid.get(at..at + 4)?).ok()?).into()
        } else {
            let octets = <[u8; 16]>::try_from(sockid.get(at..at + 16)?).ok()?;
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        })
    };
    let port = |at: usize| half(&sockid, at).map(u16::from_be);
    let cookie = sockid.get(COOKIE..)?.try_into().ok()?;
    Some(TcpSocket {
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        mark: mark(attributes).unwrap_or_default(),
        cookie: u64::from_ne_bytes(cookie),
        interface: word(&sockid, INTERFACE)?,
        state: message[1],
        has_owner: word(message, INODE)? != 0,
        id: Id { family, sockid },
    })
}

fn mark(mut attributes: &[u8]) -> Option<u32> {
    loop {
        let length = usize::from(half(attributes, 0)?);
        if half(attributes, 2)? == MARK {
            return word(attributes, 4);
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
