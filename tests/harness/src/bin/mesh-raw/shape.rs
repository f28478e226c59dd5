//! Packets in every shape that opens a TCP connection.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use crate::{USAGE, hand::REQUEST};

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PUSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
/// IPv6 extension headers (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// MP_CAPABLE of version 1 without keys, as a first packet has it (RFC 8684, section 3.1).
const MP_CAPABLE: [u8; 4] = [30, 4, 0x01, 0x01];
/// A Fast Open cookie of eight bytes (RFC 7413, section 4.1.1), and two times nothing.
const COOKIE: [u8; 12] = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
/// Where a packet is cut in two. Linux wants a whole TCP header in the first part over IPv6
/// (RFC 7112), and over IPv4 no more than a fragment at all.
const CUT4: usize = 8;
const CUT6: usize = 24;

/// Who calls whom.
pub struct Flow {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// Frames without their addresses: what they claim to be, and the rest.
pub type Frames = Vec<(u16, Vec<u8>)>;

/// The frames that open the connection, as `how` wants them.
pub fn first_frames(flow: &Flow, number: u32, how: &[&str]) -> Result<Frames> {
    let syn = first_segment(flow, number, how)?;
    let plain = flow.ethertype();
    let tagged = |tags: u16| {
        // Tags of the number zero, which mean no VLAN.
        let mut frame = vec![0, 0];
        for _ in 1..tags {
            frame.extend([0x81, 0, 0, 0]);
        }
        frame.extend(plain.to_be_bytes());
        frame.extend(flow.packet(&syn));
        vec![(VLAN, frame)]
    };
    // Options that are there to fill: padding, and routing by way of nobody.
    let padding = [1, 4, 0, 0, 0, 0];
    let nowhere = [0; 6];
    let behind = |headers: &[(u8, [u8; 6])]| {
        let (mut bytes, first) = (Vec::new(), headers.first().map_or(TCP, |(kind, _)| *kind));
        for (at, (_, content)) in headers.iter().enumerate() {
            bytes.extend([headers.get(at + 1).map_or(TCP, |(kind, _)| *kind), 0]);
            bytes.extend(content);
        }
        bytes.extend(&syn);
        vec![(plain, flow.ipv6(first, &bytes))]
    };
    let is_v6 = flow.to.is_ipv6();
    let wrapping = how.iter().find(|word| {
        !["bypass", "late", "data", "fastopen", "mptcp", "flags"].contains(word)
            && u8::from_str_radix(word, 16).is_err()
    });
    Ok(match (wrapping.copied(), is_v6) {
        (None, _) => vec![(plain, flow.packet(&syn))],
        (Some("tag"), _) => tagged(1),
        (Some("tags"), _) => tagged(2),
        (Some("options"), false) => vec![(plain, flow.ipv4(0, &[1; 4], &syn))],
        (Some("options" | "destination"), true) => behind(&[(DESTINATION, padding)]),
        (Some("hops"), true) => behind(&[(HOP_BY_HOP, padding)]),
        (Some("routing"), true) => behind(&[(ROUTING, nowhere)]),
        (Some("chain"), true) => {
            behind(&[(HOP_BY_HOP, padding), (DESTINATION, padding), (ROUTING, nowhere)])
        }
        (Some("atomic"), true) => vec![(plain, flow.ipv6(FRAGMENT, &fragment(0, false, &syn)))],
        (Some("fragments"), false) => vec![
            (plain, flow.ipv4(0x2000, &[], &syn[..CUT4])),
            (plain, flow.ipv4((CUT4 / 8) as u16, &[], &syn[CUT4..])),
        ],
        (Some("fragments"), true) => {
            // More than a header, so that there is something to cut.
            let syn = flow.segment(number, 0, SYN, &[1; 20], b"");
            vec![
                (plain, flow.ipv6(FRAGMENT, &fragment(0, true, &syn[..CUT6]))),
                (plain, flow.ipv6(FRAGMENT, &fragment(CUT6, false, &syn[CUT6..]))),
            ]
        }
        (Some(other), _) => bail!("no such shape of this family: {other}\n{USAGE}"),
    })
}

fn first_segment(flow: &Flow, number: u32, how: &[&str]) -> Result<Vec<u8>> {
    if let Some(at) = how.iter().position(|word| *word == "flags") {
        let flags = u8::from_str_radix(how.get(at + 1).context("flags")?, 16)?;
        return Ok(flow.segment(number, 0, flags, &[], b""));
    }
    let (options, data): (&[u8], &[u8]) = if how.contains(&"fastopen") {
        (&COOKIE, REQUEST)
    } else if how.contains(&"mptcp") {
        (&MP_CAPABLE, b"")
    } else if how.contains(&"data") {
        (&[], REQUEST)
    } else {
        (&[], b"")
    };
    Ok(flow.segment(number, 0, SYN, options, data))
}

/// A fragment header before a part that begins at `at`.
fn fragment(at: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let offset = (at as u16) | u16::from(more);
    let mut bytes = vec![TCP, 0];
    bytes.extend(offset.to_be_bytes());
    bytes.extend([0, 0, 0, 7]);
    bytes.extend(part);
    bytes
}

impl Flow {
    /// What its frames claim to be.
    pub fn ethertype(&self) -> u16 {
        if self.to.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// A TCP segment with a checksum.
    pub fn segment(
        &self,
        number: u32,
        acknowledged: u32,
        flags: u8,
        options: &[u8],
        data: &[u8],
    ) -> Vec<u8> {
        let words = 5 + options.len() / 4;
        let mut segment = Vec::new();
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(number.to_be_bytes());
        segment.extend(acknowledged.to_be_bytes());
        segment.extend([(words as u8) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(options);
        segment.extend(data);
        // The pseudo headers of both families add up to the same: what differs are zeros.
        let mut pseudo = octets(self.from.ip());
        pseudo.extend(octets(self.to.ip()));
        pseudo.extend([0, TCP]);
        pseudo.extend((segment.len() as u16).to_be_bytes());
        pseudo.extend(&segment);
        segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        segment
    }

    /// A packet as anybody sends it.
    pub fn packet(&self, segment: &[u8]) -> Vec<u8> {
        if self.to.is_ipv4() { self.ipv4(0, &[], segment) } else { self.ipv6(TCP, segment) }
    }

    /// `fragment` is the offset in units of eight bytes, with 0x2000 where more fragments follow.
    fn ipv4(&self, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header_length = 20 + options.len();
        let mut header = vec![0x40 | (header_length / 4) as u8, 0];
        header.extend(((header_length + payload.len()) as u16).to_be_bytes());
        header.extend(7_u16.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([64, TCP, 0, 0]);
        header.extend(octets(self.from.ip()));
        header.extend(octets(self.to.ip()));
        header.extend(options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(payload);
        header
    }

    fn ipv6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(octets(self.from.ip()));
        packet.extend(octets(self.to.ip()));
        packet.extend(payload);
        packet
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
