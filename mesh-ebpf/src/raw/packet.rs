//! A frame on a pod's link, read as far as is needed to tell whether it opens a TCP connection.
//!
//! Read with a helper, never by pointer: a frame may be in pieces.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_sk_fullsock, programs::TcContext};
use mesh_common::bpf::{Address, Destination};

use super::Socket;

/// The length of an Ethernet header without a tag, and where the protocol is in it.
const ETHERNET: u32 = 14;
const ETHERTYPE: u32 = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Tags that are still in the frame: of VLANs (802.1Q) and of VLANs in VLANs (802.1ad).
const TAGS: [u16; 2] = [0x8100, 0x88a8];

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// IPv6 extension headers (RFC 8200, section 4; RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// How many extension headers are followed. Nobody has a reason to send that many.
const EXTENSIONS: usize = 8;

/// A TCP header up to its flags.
const TCP_FLAGS: usize = 14;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a frame is to a guard.
pub enum Frame {
    /// It opens no TCP connection.
    Other,
    /// It is of UDP, which the mesh does not carry.
    Udp,
    /// It is of SCTP, which the mesh does not carry either.
    Sctp,
    /// The first packet of a TCP connection.
    Syn {
        /// The address and port that call.
        client: Destination,
        /// The address and port that are called.
        server: Destination,
    },
    /// It may hide one: cut off before its flags, or wrapped in what nobody needs.
    Unreadable,
}

/// A frame, and the socket that it is from.
pub struct Packet<'a>(&'a TcContext);

/// Where the payload of an IP packet is.
struct Payload {
    at: u32,
    client: Address,
    server: Address,
}

impl<'a> Packet<'a> {
    /// The frame that the program was started for.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self(ctx)
    }

    /// The socket that sends it, if it is a full one.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        let sender = field!(self.0.skb.skb, __bindgen_anon_2.sk);
        if sender.is_null() {
            return None;
        }
        // SAFETY: the kernel's own pointer, which is not null.
        let socket = unsafe { bpf_sk_fullsock(sender) };
        (!socket.is_null()).then_some(Socket(socket))
    }

    /// Reads the frame. What it claims to be is in its own header: a raw socket may tell the
    /// kernel something else.
    #[inline(always)]
    pub fn read(&self) -> Frame {
        let Some(ethertype) = self.load::<2>(ETHERTYPE) else { return Frame::Other };
        let ethertype = u16::from_be_bytes(ethertype);
        match ethertype {
            IPV4 => self.ipv4(),
            IPV6 => self.ipv6(),
            // One tag is taken off before a program sees the frame. With two of the number zero
            // what is inside would be delivered like any other packet.
            _ if TAGS.contains(&ethertype) => Frame::Unreadable,
            _ => Frame::Other,
        }
    }

    #[inline(always)]
    fn ipv4(&self) -> Frame {
        let Some(header) = self.load::<20>(ETHERNET) else { return Frame::Unreadable };
        if header[9] != TCP {
            return other(header[9]);
        }
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        // In units of eight bytes.
        let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        self.tcp(
            offset,
            &Payload {
                at: ETHERNET + u32::from(header[0] & 0xf) * 4,
                client: Address::from_ipv4_word(word(12)),
                server: Address::from_ipv4_word(word(16)),
            },
        )
    }

    #[inline(always)]
    fn ipv6(&self) -> Frame {
        let Some(header) = self.load::<40>(ETHERNET) else { return Frame::Unreadable };
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let address = |at| Address([word(at), word(at + 4), word(at + 8), word(at + 12)]);
        let mut payload = Payload { at: ETHERNET + 40, client: address(8), server: address(24) };
        let mut protocol = header[6];
        for _ in 0..EXTENSIONS {
            if protocol == TCP {
                return self.tcp(0, &payload);
            }
            let length = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => {
                    let Some(extension) = self.load::<4>(payload.at) else {
                        return Frame::Unreadable;
                    };
                    let length = u32::from(extension[1]);
                    let offset = u16::from_be_bytes([extension[2], extension[3]]) >> 3;
                    if protocol == FRAGMENT && offset > 0 {
                        return later_fragment(offset);
                    }
                    let length = match protocol {
                        FRAGMENT => 8,
                        // In words of four bytes, without two.
                        AUTHENTICATION => length * 4 + 8,
                        // In words of eight bytes, without one.
                        _ => length * 8 + 8,
                    };
                    protocol = extension[0];
                    length
                }
                _ => return other(protocol),
            };
            payload.at += length;
        }
        Frame::Unreadable
    }

    #[inline(always)]
    fn tcp(&self, offset: u16, payload: &Payload) -> Frame {
        if offset > 0 {
            return later_fragment(offset);
        }
        let Some(header) = self.load::<TCP_FLAGS>(payload.at) else { return Frame::Unreadable };
        if header[13] & (SYN | ACK) != SYN {
            return Frame::Other;
        }
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]).into();
        Frame::Syn {
            client: Destination { address: payload.client, port: port(0) },
            server: Destination { address: payload.server, port: port(2) },
        }
    }

    /// So many bytes of the frame; `None` if it ends before.
    #[inline(always)]
    fn load<const LENGTH: usize>(&self, at: u32) -> Option<[u8; LENGTH]> {
        let mut bytes = [0_u8; LENGTH];
        // SAFETY: the helper takes this kind of context and writes exactly that many bytes.
        let result = unsafe {
            aya_ebpf::helpers::bpf_skb_load_bytes(
                self.0.as_ptr(),
                at,
                bytes.as_mut_ptr().cast(),
                LENGTH as u32,
            )
        };
        (result == 0).then_some(bytes)
    }
}

/// A packet of another protocol than TCP.
#[inline(always)]
fn other(protocol: u8) -> Frame {
    match protocol {
        UDP => Frame::Udp,
        SCTP => Frame::Sctp,
        _ => Frame::Other,
    }
}

/// A fragment that is not the first. Whoever puts a packet together refuses fragments that
/// overlap, so none can replace flags that were seen; one that starts inside of them gets no
/// chance to try (RFC 3128).
#[inline(always)]
fn later_fragment(offset: u16) -> Frame {
    if usize::from(offset) * 8 < TCP_FLAGS { Frame::Unreadable } else { Frame::Other }
}
