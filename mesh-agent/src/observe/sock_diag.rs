//! Which TCP sockets a network namespace has, asked of the kernel through sock_diag(7).
//!
//! Layouts and numbers: include/uapi/linux/{netlink,inet_diag}.h.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rtnetlink::sys::{Socket, SocketAddr as Kernel, protocols::NETLINK_SOCK_DIAG};

use crate::capture::netns::Netns;

/// A state of TCP, as far as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Both directions are open.
    Established = 1,
    /// It waits for connections.
    Listening = 10,
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// Its peer; unspecified where it listens.
    pub remote: SocketAddr,
    /// Its `SO_MARK`.
    pub mark: u32,
}

const HEADER: usize = 16;
const ENTRY: usize = 72;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const MARK: u16 = 15;

/// Every TCP socket of a namespace in `state`, of both families.
///
/// # Errors
/// Where the kernel cannot be asked, as one without `CONFIG_INET_DIAG`.
pub fn tcp_sockets(netns: &Netns, state: State) -> io::Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let socket = netns.run(|| Socket::new(NETLINK_SOCK_DIAG))??;
        socket.send_to(&request(family, state), &Kernel::new(0, 0), 0)?;
        loop {
            let (datagram, _) = socket.recv_from_full()?;
            if parse(&datagram, &mut sockets)? {
                break;
            }
        }
    }
    Ok(sockets)
}

/// A dump of all sockets of a family in a state.
fn request(family: i32, state: State) -> [u8; HEADER + 56] {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut request = [0; HEADER + 56];
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    request[HEADER] = family as u8;
    request[HEADER + 1] = libc::IPPROTO_TCP as u8;
    let states = 1_u32 << state as u32;
    request[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    request
}

/// Reads a datagram of answers; whether it was the last one.
fn parse(mut datagram: &[u8], sockets: &mut Vec<TcpSocket>) -> io::Result<bool> {
    while let Some(length) = word(datagram, 0) {
        let length = length as usize;
        let Some(message) = datagram.get(HEADER..length) else { break };
        match half(datagram, 4) {
            Some(DONE) => return Ok(true),
            Some(ERROR) => {
                let errno = word(message, 0).map_or(libc::EPROTO, |errno| -(errno as i32));
                // A kernel without IPv6 has no sockets of it.
                return match errno {
                    libc::ENOENT => Ok(true),
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
    let is_ipv4 = i32::from(message[0]) == libc::AF_INET;
    let address = |at: usize| -> Option<IpAddr> {
        Some(if is_ipv4 {
            Ipv4Addr::from(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?).into()
        } else {
            let octets = <[u8; 16]>::try_from(message.get(at..at + 16)?).ok()?;
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        })
    };
    let port = |at: usize| half(message, at).map(u16::from_be);
    Some(TcpSocket {
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        mark: mark(attributes).unwrap_or_default(),
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

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        path::Path,
    };

    use super::*;

    #[test]
    fn finds_sockets_of_both_families_with_their_mark() {
        let netns = Netns::open(Path::new("/proc/self/ns/net")).expect("the own namespace");
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(at).expect("loopback");
            let marked = socket2::SockRef::from(&listener).set_mark(77).is_ok();
            let local = listener.local_addr().expect("bound");
            let client = TcpStream::connect(local).expect("connected");
            let found = tcp_sockets(&netns, State::Listening).expect("listed");
            let found = found.iter().find(|socket| socket.local == local).expect("the listener");
            assert_eq!(found.mark, if marked { 77 } else { 0 });
            let own = client.local_addr().expect("connected");
            let found = tcp_sockets(&netns, State::Established).expect("listed");
            assert!(found.iter().any(|socket| (socket.local, socket.remote) == (own, local)));
        }
    }
}
