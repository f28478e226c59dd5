//! Sockets that daemons listen on, for callers of either family.
//!
//! A kubelet probes the first address of a pod, and what that is the cluster decides. So the default
//! is every address of both families, with one socket.

use std::{
    io::{Error, Result},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Waiting connections: what the standard library's listeners have room for.
const BACKLOG: i32 = 128;

/// Whether others may listen at an address too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One listener.
    Alone,
    /// Others of this account may: during an upgrade there are two.
    Shared,
}

/// Every address of both families.
pub const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// Listens at `address`, without blocking. `[::]` is for callers over IPv4 as well, whatever
/// `net.ipv6.bindv6only` says; where the kernel has no IPv6 it is for them alone, which is logged.
///
/// # Errors
/// Where the address cannot be listened on.
pub fn listen(address: SocketAddr, sharing: Sharing) -> Result<TcpListener> {
    let open = |address| open(address, sharing).map(TcpListener::from);
    open(address).or_else(|error| match without_ipv6(address, &error) {
        Some(fallback) => {
            tracing::warn!(
                "cannot listen at {address}: {error}; this node seems to have no IPv6, so it is \
                 {fallback} instead, where nobody comes over IPv6"
            );
            open(fallback)
        }
        None => Err(error),
    })
}

fn open(address: SocketAddr, sharing: Sharing) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Where to listen instead, if `error` says that there is no IPv6 and nobody wanted it in
/// particular. A kernel that was started with `ipv6.disable=1` makes no such sockets, sandboxes
/// bind none.
fn without_ipv6(address: SocketAddr, error: &Error) -> Option<SocketAddr> {
    let is_missing = matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EADDRNOTAVAIL)
    );
    let is_any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (is_missing && is_any).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, net::TcpStream};

    use super::*;

    #[test]
    fn any_address_is_reached_over_both_families() {
        for sharing in [Sharing::Alone, Sharing::Shared] {
            let listener = listen(any(0), sharing).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            for host in ["127.0.0.1", "::1"] {
                TcpStream::connect((host, port)).unwrap_or_else(|error| panic!("{host}: {error}"));
            }
        }
    }

    #[test]
    fn an_address_is_shared_only_with_whom_shares_it() {
        let alone = listen(any(0), Sharing::Alone).expect("a port");
        let at = alone.local_addr().expect("an address");
        let error = listen(at, Sharing::Alone).expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let shared = listen(any(0), Sharing::Shared).expect("a port");
        listen(shared.local_addr().expect("an address"), Sharing::Shared).expect("shared");
    }

    #[test]
    fn an_agent_from_before_shares_with_its_successor() {
        let address = (Ipv4Addr::UNSPECIFIED, 0).into();
        let before = listen(address, Sharing::Shared).expect("a port");
        let port = before.local_addr().expect("an address").port();
        listen(any(port), Sharing::Shared).expect("shared");
    }

    #[test]
    fn a_kernel_without_ipv6_is_served_over_ipv4() {
        let none = Error::from_raw_os_error(libc::EAFNOSUPPORT);
        let fallback = Some((Ipv4Addr::UNSPECIFIED, 15020).into());
        assert_eq!(without_ipv6(any(15020), &none), fallback);
        // Whoever asks for an address is told that it is not there.
        let asked = "[fd00::1]:15020".parse().expect("a literal");
        assert_eq!(without_ipv6(asked, &none), None);
        let taken = Error::from_raw_os_error(libc::EADDRINUSE);
        assert_eq!(without_ipv6(any(15020), &taken), None);
    }
}
