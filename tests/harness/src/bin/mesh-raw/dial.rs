//! An ordinary socket with unusual options.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    USAGE,
    hand::{PATIENCE, REQUEST},
};

/// Connects, asks and prints what came of it.
pub fn dial(from: &str, to: &str, how: &[&str]) -> Result<()> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
    let protocol = if how.contains(&"mptcp") { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(protocol))?;
    socket.set_reuse_address(true)?;
    let mut words = how.iter();
    while let Some(word) = words.next() {
        match *word {
            "mark" => socket.set_mark(words.next().context("a mark")?.parse()?)?,
            "transparent" if to.is_ipv4() => socket.set_ip_transparent_v4(true)?,
            "transparent" => socket.set_ip_transparent_v6(true)?,
            "mptcp" | "fastopen" => {}
            other => bail!("no such option: {other}\n{USAGE}"),
        }
    }
    // Somebody may have added the address a moment ago.
    socket.bind(&from.into())?;
    match talk(socket, to, how.contains(&"fastopen")) {
        Ok(heard) => println!("heard: {heard}"),
        Err(error) => println!("failed: {error}"),
    }
    Ok(())
}

fn talk(socket: Socket, to: SocketAddr, fast_open: bool) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut stream = if fast_open {
        // The request travels with the first packet where a cookie is known.
        socket.send_to_with_flags(REQUEST, &to.into(), libc::MSG_FASTOPEN)?;
        TcpStream::from(socket)
    } else {
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(REQUEST)?;
        stream
    };
    let mut heard = Vec::new();
    let ended = stream.read_to_end(&mut heard);
    // Who goes on to wait for us has said something nevertheless.
    if heard.is_empty() {
        ended?;
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}
