//! Which TCP sockets a network namespace has, asked of the kernel through sock_diag(7), and the
//! end of one of them.

use std::{io, net::SocketAddr};

use rtnetlink::sys::{Socket, SocketAddr as Kernel, protocols::NETLINK_SOCK_DIAG};

use crate::capture::netns::Netns;

mod message;

/// A state of TCP, as far as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It connects or is connected, and one direction at least is open.
    Open,
    /// It waits for connections.
    Listening,
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
    /// The interface that it is bound to (`SO_BINDTODEVICE`); 0 for none.
    pub interface: u32,
    /// What tells it from every other socket since the machine started. A connection that is
    /// still being accepted has that of the socket it becomes.
    pub cookie: u64,
    state: u8,
    has_owner: bool,
    id: Id,
}

/// How the kernel finds a socket again: `struct inet_diag_sockid`, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    family: u8,
    sockid: [u8; message::SOCKID],
}

/// Why sockets cannot be listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// A kernel that cannot list sockets.
    #[error(
        "this kernel cannot list TCP sockets: it needs CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG"
    )]
    NoDiag,
    /// A kernel that cannot end sockets.
    #[error(
        "this kernel cannot end connections: it was built without CONFIG_INET_DIAG_DESTROY; restart the programs that hold them"
    )]
    NoDestroy,
    /// No right.
    #[error("the agent may not end connections of this pod: it needs CAP_NET_ADMIN")]
    NotPermitted,
    /// Something else.
    #[error("cannot ask the kernel about TCP sockets: {0}")]
    Io(#[from] io::Error),
}

impl State {
    const ESTABLISHED: u32 = 1;
    const SYN_SENT: u32 = 2;
    const SYN_RECV: u32 = 3;
    const FIN_WAIT1: u32 = 4;
    const FIN_WAIT2: u32 = 5;
    const CLOSE_WAIT: u32 = 8;
    const LISTEN: u32 = 10;

    /// The bit of each state of include/net/tcp_states.h that this stands for.
    fn mask(self) -> u32 {
        let states: &[u32] = match self {
            Self::Open => &[
                Self::ESTABLISHED,
                Self::SYN_SENT,
                Self::SYN_RECV,
                Self::FIN_WAIT1,
                Self::FIN_WAIT2,
                Self::CLOSE_WAIT,
            ],
            Self::Listening => &[Self::LISTEN],
        };
        states.iter().map(|state| 1 << state).sum()
    }
}

impl TcpSocket {
    /// Whether a program still has it: one that is closed waits for the other side's end.
    pub fn is_held(&self) -> bool {
        self.has_owner || ![State::FIN_WAIT1, State::FIN_WAIT2].contains(&u32::from(self.state))
    }

    /// Whether somebody else has begun to open it, and the handshake is not over.
    pub fn is_being_opened(&self) -> bool {
        u32::from(self.state) == State::SYN_RECV
    }

    /// Whether its handshake is over.
    pub fn is_open(&self) -> bool {
        ![State::SYN_SENT, State::SYN_RECV].contains(&u32::from(self.state))
    }
}

/// Every TCP socket of a namespace in `state`, of both families.
///
/// # Errors
/// Where the kernel cannot be asked, as one without `CONFIG_INET_DIAG`.
pub fn tcp_sockets(netns: &Netns, state: State) -> Result<Vec<TcpSocket>, SockDiagError> {
    let socket = open(netns)?;
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        match ask(&socket, &message::dump(family, state), &mut sockets) {
            // A kernel without IPv6 has no sockets of it.
            Err(error) if is(&error, libc::ENOENT) && family == libc::AF_INET6 => {}
            Err(error) if is(&error, libc::ENOENT) => return Err(SockDiagError::NoDiag),
            other => other?,
        }
    }
    Ok(sockets)
}

/// Ends `sockets`, which are of this namespace: both sides see a reset. How many there were; one
/// that has ended by itself is none.
///
/// # Errors
/// Where the kernel cannot or may not; those before are ended then.
pub fn destroy(netns: &Netns, sockets: &[TcpSocket]) -> Result<usize, SockDiagError> {
    let channel = open(netns)?;
    let mut ended = 0;
    for socket in sockets {
        match ask(&channel, &message::destroy(&socket.id), &mut Vec::new()) {
            Ok(()) => ended += 1,
            Err(error) if is(&error, libc::ENOENT) => {}
            Err(error) if is(&error, libc::EOPNOTSUPP) => return Err(SockDiagError::NoDestroy),
            Err(error) if is(&error, libc::EPERM) => return Err(SockDiagError::NotPermitted),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ended)
}

fn open(netns: &Netns) -> Result<Socket, SockDiagError> {
    match netns.run(|| Socket::new(NETLINK_SOCK_DIAG))? {
        Err(error) if is(&error, libc::EPROTONOSUPPORT) => Err(SockDiagError::NoDiag),
        other => Ok(other?),
    }
}

fn ask(socket: &Socket, request: &[u8], sockets: &mut Vec<TcpSocket>) -> io::Result<()> {
    socket.send_to(request, &Kernel::new(0, 0), 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if message::parse(&datagram, sockets)? {
            return Ok(());
        }
    }
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read},
        net::{Shutdown, TcpListener, TcpStream},
        path::Path,
    };

    use super::*;

    fn own() -> Netns {
        Netns::open(Path::new("/proc/self/ns/net")).expect("the own namespace")
    }

    /// Both ends of a connection over loopback.
    fn pair(at: &str) -> (TcpStream, TcpStream, TcpListener) {
        let listener = TcpListener::bind(at).expect("loopback");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        (client, server, listener)
    }

    fn find(netns: &Netns, stream: &TcpStream) -> Option<TcpSocket> {
        let ends = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
        let open = tcp_sockets(netns, State::Open).expect("listed");
        open.into_iter().find(|socket| (socket.local, socket.remote) == ends)
    }

    #[test]
    fn finds_sockets_of_both_families_with_their_mark() {
        let netns = own();
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let (client, server, listener) = pair(at);
            let marked = socket2::SockRef::from(&listener).set_mark(77).is_ok();
            let local = listener.local_addr().expect("bound");
            let found = tcp_sockets(&netns, State::Listening).expect("listed");
            let found = found.iter().find(|socket| socket.local == local).expect("the listener");
            assert_eq!(found.mark, if marked { 77 } else { 0 });
            let found = find(&netns, &client).expect("the client");
            assert_ne!(Some(found.cookie), find(&netns, &server).map(|server| server.cookie));
        }
    }

    #[test]
    fn what_a_program_closed_is_not_held() {
        let netns = own();
        let (client, server, _listener) = pair("127.0.0.1:0");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert!(find(&netns, &client).expect("half-closed").is_held());
        let id = find(&netns, &client).expect("half-closed").cookie;
        drop(client);
        let all = tcp_sockets(&netns, State::Open).expect("listed");
        let left = all.iter().find(|socket| socket.cookie == id);
        assert!(left.is_none_or(|socket| !socket.is_held()), "{left:?}");
        assert!(find(&netns, &server).is_some_and(|server| server.is_held()));
    }

    #[test]
    fn ends_the_very_socket_and_no_other() {
        let netns = own();
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let (mut client, mut server, _listener) = pair(at);
            let target = find(&netns, &client).expect("the client");
            let mut earlier = target;
            earlier.id.sockid[message::SOCKID - 8] ^= 1;
            let ended = destroy(&netns, &[earlier]).expect("asked");
            assert_eq!(ended, 0, "its cookie is another one");
            assert_eq!(destroy(&netns, &[target, target]).expect("asked"), 1);
            let error = client.read(&mut [0]).expect_err("ended");
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            let error = server.read(&mut [0]).expect_err("reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}
