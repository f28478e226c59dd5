//! A client for what an attacker in a pod does: frames of its own making, marks, sources that
//! are not its own. IPv4 only.
//!
//! `mesh-raw send` opens a TCP connection by hand, past the kernel's TCP, and prints `answer:
//! none`, `reset` or `syn-ack`, and then what it heard. `mesh-raw dial` uses an ordinary socket
//! with unusual options and prints `failed: why` or what it heard.

use std::{
    env,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

const USAGE: &str = "\
usage: mesh-raw send FROM-MAC TO-MAC FROM:PORT TO:PORT [bypass] [fragments | options | tags]
       mesh-raw dial FROM:PORT TO:PORT [mark MARK] [transparent]";

/// The pod's interface.
const INTERFACE: &str = "eth0";
/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the first packet is sent, and how long each may go without an answer, which takes
/// a millisecond on these links.
const TRIES: u32 = 3;
const TRY: Duration = Duration::from_millis(250);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["send", from_mac, to_mac, from, to, how @ ..] => by_hand(from_mac, to_mac, from, to, how),
        ["dial", from, to, how @ ..] => dial(from, to, how),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-raw: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dial(from: &str, to: &str, how: &[&str]) -> Result<()> {
    let (from, to): (SocketAddrV4, SocketAddrV4) = (from.parse()?, to.parse()?);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    let mut how = how.iter();
    while let Some(word) = how.next() {
        match *word {
            "mark" => socket.set_mark(how.next().context("a mark")?.parse()?)?,
            "transparent" => socket.set_ip_transparent_v4(true)?,
            other => bail!("no such option: {other}\n{USAGE}"),
        }
    }
    socket.bind(&from.into())?;
    let heard = socket.connect_timeout(&to.into(), PATIENCE).and_then(|()| {
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        Ok(heard)
    });
    match heard {
        Ok(heard) => println!("heard: {heard}"),
        Err(error) => println!("failed: {error}"),
    }
    Ok(())
}

/// One end of a connection that is made by hand.
struct Hand {
    socket: Socket,
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    from: SocketAddrV4,
    to: SocketAddrV4,
}

fn by_hand(from_mac: &str, to_mac: &str, from: &str, to: &str, how: &[&str]) -> Result<()> {
    let hand = Hand {
        socket: packet::open(INTERFACE, how.contains(&"bypass"))?,
        from_mac: mac(from_mac)?,
        to_mac: mac(to_mac)?,
        from: from.parse()?,
        to: to.parse()?,
    };
    let number = 1000;
    let mut answer = None;
    for _ in 0..TRIES {
        hand.send_first(&hand.segment(number, 0, SYN, b""), how)?;
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
    let theirs = answer.number.wrapping_add(1);
    hand.send(&hand.packet(0, &hand.segment(number + 1, theirs, ACK, b"")))?;
    let request = b"GET / HTTP/1.0\r\n\r\n";
    hand.send(&hand.packet(0, &hand.segment(number + 1, theirs, ACK | PUSH, request)))?;
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

/// A segment of the other side.
struct Answer {
    flags: u8,
    number: u32,
    data: Vec<u8>,
}

impl Hand {
    fn segment(&self, number: u32, acknowledged: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(number.to_be_bytes());
        segment.extend(acknowledged.to_be_bytes());
        segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(data);
        let mut pseudo = Vec::new();
        pseudo.extend(self.from.ip().octets());
        pseudo.extend(self.to.ip().octets());
        pseudo.extend([0, 6]);
        pseudo.extend((segment.len() as u16).to_be_bytes());
        pseudo.extend(&segment);
        segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        segment
    }

    fn packet(&self, fragment: u16, payload: &[u8]) -> Vec<u8> {
        self.packet_with(fragment, &[], payload)
    }

    /// An IPv4 packet; `fragment` is the offset in units of eight bytes, with 0x2000 where more
    /// fragments follow.
    fn packet_with(&self, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header_length = 20 + options.len();
        let mut header = vec![0x40 | (header_length / 4) as u8, 0];
        header.extend(((header_length + payload.len()) as u16).to_be_bytes());
        header.extend(7_u16.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([64, 6, 0, 0]);
        header.extend(self.from.ip().octets());
        header.extend(self.to.ip().octets());
        header.extend(options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(payload);
        header
    }

    fn send_first(&self, syn: &[u8], how: &[&str]) -> Result<()> {
        if how.contains(&"fragments") {
            self.send(&self.packet(0x2000, &syn[..8]))?;
            self.send(&self.packet(1, &syn[8..]))
        } else if how.contains(&"options") {
            self.send(&self.packet_with(0, &[1; 4], syn))
        } else if how.contains(&"tags") {
            // Two VLAN tags of the number zero, which mean no VLAN.
            let tagged = [&[0, 0, 0x81, 0, 0, 0, 0x08, 0][..], &self.packet(0, syn)].concat();
            self.send_as(0x8100, &tagged)
        } else {
            self.send(&self.packet(0, syn))
        }
    }

    fn send(&self, packet: &[u8]) -> Result<()> {
        self.send_as(0x0800, packet)
    }

    fn send_as(&self, ethertype: u16, payload: &[u8]) -> Result<()> {
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
        let (header, total) = (usize::from(packet.first()? & 0xf) * 4, packet.get(2..4)?);
        let packet = packet.get(..usize::from(u16::from_be_bytes([total[0], total[1]])))?;
        let address =
            |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let segment = packet.get(header..)?;
        let port = |at: usize| {
            Some(u16::from_be_bytes(<[u8; 2]>::try_from(segment.get(at..at + 2)?).ok()?))
        };
        let is_ours = *packet.get(9)? == 6
            && address(12)? == *self.to.ip()
            && address(16)? == *self.from.ip()
            && port(0)? == self.to.port()
            && port(2)? == self.from.port();
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

/// Sockets for whole frames, which no safe crate opens.
mod packet {
    #![allow(unsafe_code)]

    use std::{io, os::fd::AsRawFd};

    use rustix::net::netdevice::name_to_index;
    use socket2::{Domain, Protocol, Socket, Type};

    /// A socket for IPv4 frames of one interface; with `bypass` what it sends goes straight to
    /// the device, past every queue and hook.
    pub fn open(interface: &str, bypass: bool) -> io::Result<Socket> {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
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
}
