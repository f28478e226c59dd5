//! What went over a link: tcpdump records it, and this reads what was recorded.
//!
//! The file format is read here and not by a decoder, so that a test sees bytes and nobody's
//! interpretation of them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::process::{Background, Place};

/// How long tcpdump may take to begin.
const START: Duration = Duration::from_secs(10);

/// How long a packet may take from the link into the file.
const SETTLE: Duration = Duration::from_millis(200);

/// A recording that goes on.
#[derive(Debug)]
pub struct Recording {
    tcpdump: Background,
    file: PathBuf,
}

impl Recording {
    /// Records everything on the link `device` where `place` is, into `file`.
    pub fn start(place: &Place, device: &str, file: PathBuf) -> Result<Self> {
        let path = file.to_string_lossy().into_owned();
        // -Z root: else it drops to a user who may not write here. --immediate-mode, -U: each
        // packet at once, else what waits for a full block is lost when tcpdump ends.
        let mut command = vec!["tcpdump", "-i", device, "-s", "0", "-n", "-Z", "root"];
        command.extend(["--immediate-mode", "-U", "-w", &path]);
        let mut tcpdump = place.spawn(&command, &file.with_extension("log"))?;
        tcpdump.wait_for_line("listening on", START)?;
        Ok(Self { tcpdump, file })
    }

    /// Ends the recording and reads it.
    pub fn stop(mut self) -> Result<Capture> {
        // What is on its way from the kernel to tcpdump has no end that could be waited for.
        thread::sleep(SETTLE);
        self.tcpdump.interrupt()?;
        let bytes = fs::read(&self.file).with_context(|| format!("{}", self.file.display()))?;
        Capture::parse(&bytes)
    }
}

/// The TCP payload that a recording holds, put together again a direction.
#[derive(Debug, Default)]
pub struct Capture {
    packets: usize,
    streams: BTreeMap<(SocketAddr, SocketAddr), Stream>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Stream {
    /// Payload by sequence number relative to the first one seen.
    pieces: BTreeMap<u32, Vec<u8>>,
    first: Option<u32>,
}

impl Capture {
    /// Reads a file in the pcap format of microsecond or nanosecond stamps, Ethernet frames.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let magic = word(file, 0).context("an empty recording")?;
        // draft-ietf-opsawg-pcap: 24 bytes of header; 16 a packet, captured length at 8.
        if ![0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic) {
            bail!("not a pcap file of this machine's byte order: magic {magic:#x}");
        }
        let mut capture = Self::default();
        let mut rest = file.get(24..).context("a cut pcap header")?;
        while let Some(length) = word(rest, 8) {
            let end = 16 + usize::try_from(length)?;
            let frame = rest.get(16..end).context("a cut packet at the end of the recording")?;
            capture.packets += 1;
            capture.add(frame);
            rest = &rest[end..];
        }
        Ok(capture)
    }

    /// How many packets there are, of whatever kind.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Whether `needle` is in the payload of any connection, in one packet or across several.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.streams
            .values()
            .any(|stream| stream.bytes().windows(needle.len()).any(|window| window == needle))
    }

    /// What was sent to or from port `port`, each direction of each connection by itself.
    pub fn streams_of_port(&self, port: u16) -> Vec<Vec<u8>> {
        let ours = |ends: &(SocketAddr, SocketAddr)| ends.0.port() == port || ends.1.port() == port;
        self.streams
            .iter()
            .filter(|(ends, _)| ours(ends))
            .map(|(_, stream)| stream.bytes())
            .filter(|bytes| !bytes.is_empty())
            .collect()
    }

    fn add(&mut self, frame: &[u8]) {
        // What is no TCP over IP is not looked at: ARP, neighbour discovery.
        let Some((source, destination, segment)) = ip_packet(frame) else { return };
        let (Some(source_port), Some(destination_port), Some(sequence)) =
            (half(segment, 0), half(segment, 2), word_be(segment, 4))
        else {
            return;
        };
        let header = usize::from(segment[12] >> 4) * 4;
        let syn = segment[13] & 2 != 0;
        let payload = segment.get(header..).unwrap_or_default();
        let ends =
            (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
        let stream = self.streams.entry(ends).or_default();
        let first = *stream.first.get_or_insert(sequence.wrapping_add(u32::from(syn)));
        if !payload.is_empty() {
            stream.pieces.insert(sequence.wrapping_sub(first), payload.to_owned());
        }
    }
}

impl Stream {
    /// The payload in order; what was sent twice is there once.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (&at, piece) in &self.pieces {
            let known = bytes.len().saturating_sub(at as usize);
            bytes.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        bytes
    }
}

/// Source, destination and TCP segment of an Ethernet frame that holds one.
fn ip_packet(frame: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    const TCP: u8 = 6;
    let packet = frame.get(14..)?;
    match half(frame, 12)? {
        0x0800 => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            let total = usize::from(half(packet, 2)?);
            // Offloaded segments above 64 KiB say 0; padding of short frames is cut off.
            let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (packet.get(9) == Some(&TCP)).then_some(())?;
            Some((source.into(), destination.into(), packet.get(header..end)?))
        }
        0x86dd => {
            let length = usize::from(half(packet, 4)?);
            let end = if length == 0 { packet.len() } else { (40 + length).min(packet.len()) };
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (packet.get(6) == Some(&TCP)).then_some(())?;
            Some((source.into(), destination.into(), packet.get(40..end)?))
        }
        _ => None,
    }
    .filter(|(_, _, segment)| segment.len() >= 20)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word_be(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Two bytes in network order.
pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_out_of_order_and_twice_make_one_stream() {
        let mut stream = Stream::default();
        for (at, piece) in [(4, "efgh"), (0, "abcd"), (2, "cdef")] {
            stream.pieces.insert(at, piece.into());
        }
        assert_eq!(stream.bytes(), b"abcdefgh");
    }
}
