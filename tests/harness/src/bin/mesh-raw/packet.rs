//! Sockets for whole frames, which no safe crate opens.

#![allow(unsafe_code)]

use std::{io, os::fd::AsRawFd};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, Socket, Type};

/// A socket for frames of one interface that claim to be of one kind; with `bypass` what it sends
/// goes straight to the device, past every queue and hook.
pub fn open(interface: &str, ethertype: u16, bypass: bool) -> io::Result<Socket> {
    let protocol = ethertype.to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    let index = name_to_index(&socket, interface)?;
    if bypass {
        let on = 1_i32;
        // SAFETY: pointer and length are of an i32, which is what the option takes.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        check(result)?;
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: pointer and length are of a sockaddr_ll, which the family takes.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(result)?;
    Ok(socket)
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
