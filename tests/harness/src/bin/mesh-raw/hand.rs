//! A TCP connection that is made by hand.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::Socket;

use crate::{
    packet,
    shape::{ACK, Flow, PUSH, RST, SYN, first_frames},
};

/// The pod's interface.
const INTERFACE: &str = "eth0";
/// How long a connection may say nothing.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How often the first packet is sent, and how long each may go without an answer, which takes
/// a millisecond on these links.
const TRIES: u32 = 3;
const TRY: Duration = Duration::from_millis(250);
/// How long a late acknowledgement lets the other side wait; less than it waits for one.
const LATE: Duration = Duration::from_secs(8);
/// What is said first.
pub const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// The sequence number of the first packet.
const NUMBER: u32 = 1000;

struct Hand {
    socket: Socket,
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    flow: Flow,
}

/// A segment of the other side.
struct Answer {
    flags: u8,
    number: u32,
    data: Vec<u8>,
}

/// Opens a connection and asks; prints what came of it.
pub fn send(from_mac: &str, to_mac: &str, from: &str, to: &str, how: &[&str]) -> Result<()> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
    let flow = Flow { from, to };
    let hand = Hand {
        socket: packet::open(INTERFACE, flow.ethertype(), how.contains(&"bypass"))?,
        from_mac: mac(from_mac)?,
        to_mac: mac(to_mac)?,
        flow,
    };
    let first = first_frames(&hand.flow, NUMBER, how)?;
    let mut answer = None;
    for _ in 0..TRIES {
        for (ethertype, frame) in &first {
            hand.send(*ethertype, frame)?;
        }
        answer = hand.hear(TRY)?;
        if answer.is_some() {
            break;
        }
    }
    let Some(answer) = answer else {
        println!("answer: none");
        return Ok(());
    };
    if answer.flags & (SYN | ACK) != SYN | ACK {
        println!("answer: reset");
        return Ok(());
    }
    println!("answer: syn-ack");
    if how.contains(&"late") {
        thread::sleep(LATE);
    }
    let theirs = answer.number.wrapping_add(1);
    hand.say(theirs, ACK, b"")?;
    hand.say(theirs, ACK | PUSH, REQUEST)?;
    let mut heard = Vec::new();
    while let Some(answer) = hand.hear(PATIENCE)? {
        heard.extend(answer.data);
        if answer.flags & RST != 0 {
            break;
        }
    }
    println!("heard: {}", String::from_utf8_lossy(&heard));
    Ok(())
}

impl Hand {
    /// A segment of the connection that is open.
    fn say(&self, theirs: u32, flags: u8, data: &[u8]) -> Result<()> {
        let segment = self.flow.segment(NUMBER + 1, theirs, flags, &[], data);
        self.send(self.flow.ethertype(), &self.flow.packet(&segment))
    }

    fn send(&self, ethertype: u16, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        frame.extend(self.to_mac);
        frame.extend(self.from_mac);
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        match self.socket.send(&frame) {
            // A guard dropped it, and the kernel says so.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            sent => sent.map(drop).context("sending a frame"),
        }
    }

    /// The next segment of this connection from the other side.
    fn hear(&self, patience: Duration) -> Result<Option<Answer>> {
        let end = Instant::now() + patience;
        let mut frame = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(length) = (&self.socket).read(&mut frame) else { return Ok(None) };
            if let Some(answer) = self.read(&frame[..length]) {
                return Ok(Some(answer));
            }
        }
    }

    fn read(&self, frame: &[u8]) -> Option<Answer> {
        let packet = frame.get(14..)?;
        let word = |bytes: &[u8], at: usize| {
            Some(u16::from_be_bytes(<[u8; 2]>::try_from(bytes.get(at..at + 2)?).ok()?))
        };
        let (protocol, client, server, segment) = match self.flow.to {
            SocketAddr::V4(_) => {
                let packet = packet.get(..usize::from(word(packet, 2)?))?;
                let header = usize::from(packet.first()? & 0xf) * 4;
                let address = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok();
                let (server, client) = (IpAddr::from(address(12)?), IpAddr::from(address(16)?));
                (*packet.get(9)?, client, server, packet.get(header..)?)
            }
            SocketAddr::V6(_) => {
                let packet = packet.get(..40 + usize::from(word(packet, 4)?))?;
                let address = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok();
                let (server, client) = (IpAddr::from(address(8)?), IpAddr::from(address(24)?));
                (*packet.get(6)?, client, server, packet.get(40..)?)
            }
        };
        let is_ours = protocol == 6
            && SocketAddr::new(server, word(segment, 0)?) == self.flow.to
            && SocketAddr::new(client, word(segment, 2)?) == self.flow.from;
        if !is_ours {
            return None;
        }
        Some(Answer {
            flags: *segment.get(13)?,
            number: u32::from_be_bytes(<[u8; 4]>::try_from(segment.get(4..8)?).ok()?),
            data: segment.get(usize::from(segment.get(12)? >> 4) * 4..)?.to_vec(),
        })
    }
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<_> = bytes.collect::<Result<_, _>>().with_context(|| format!("MAC {text}"))?;
    <[u8; 6]>::try_from(bytes).map_err(|_| anyhow::anyhow!("MAC {text}"))
}
