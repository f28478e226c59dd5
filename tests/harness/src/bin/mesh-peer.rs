//! The other end of a connection in a story, for what curl and redis-cli cannot do: half-close,
//! resets, slow readers, a thousand connections at once, every byte checked.
//!
//! `mesh-peer serve ADDRESS BEHAVIOUR` prints how each connection ended; `mesh-peer call ADDRESS
//! BEHAVIOUR` prints what it saw and fails where that is not what the behaviour promises.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mesh_harness::pattern::Pattern;
use rustix::{
    event::epoll,
    net::sockopt::set_socket_linger,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

const USAGE: &str = "\
usage: mesh-peer serve ADDRESS echo | lines | banner TEXT | sum | send BYTES | reset
       mesh-peer call ADDRESS echo BYTES | hear | send BYTES | receive BYTES [slow] | many COUNT
                              | half-close | reset | hold SECONDS";

/// Read and write this much at a time: larger than any record or frame below.
const CHUNK: usize = 256 * 1024;

/// A peer that says nothing for this long is stuck.
const SILENCE: Duration = Duration::from_secs(60);

/// The seed of what the two sides send: the server's stream is not the client's.
const CLIENT: u64 = 1;
const SERVER: u64 = 2;

fn main() -> ExitCode {
    // A connection is a descriptor, and the usual soft limit is 1,024.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("mesh-peer: cannot raise the limit of open files: {error}");
    }
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve", address, behaviour @ ..] if !behaviour.is_empty() => serve(address, behaviour),
        ["call", address, behaviour @ ..] if !behaviour.is_empty() => call(address, behaviour),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, behaviour: &[&str]) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening at {address}"))?;
    if behaviour == ["lines"] {
        return lines(&listener);
    }
    thread::scope(|scope| {
        loop {
            let (stream, peer) = listener.accept()?;
            scope.spawn(move || match answer(&stream, behaviour) {
                Ok(said) => println!("{peer} ended: {said}"),
                Err(error) if is_reset(&error) => println!("{peer} ended: reset"),
                Err(error) => println!("{peer} ended: {error:#}"),
            });
        }
    })
}

/// Echoes on any number of connections without a thread for each.
fn lines(listener: &TcpListener) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = HashMap::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; CHUNK];
    epoll::add(&poll, listener, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let key = event.data.u64();
            let Some(mut stream) = streams.get(&key) else {
                let (stream, _) = listener.accept()?;
                let key = u64::try_from(stream.as_raw_fd())?;
                epoll::add(&poll, &stream, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
                streams.insert(key, stream);
                continue;
            };
            // What breaks ends by itself; the caller tells what it missed.
            let read = stream.read(&mut buffer).unwrap_or(0);
            if read == 0 || stream.write_all(&buffer[..read]).is_err() {
                streams.remove(&key);
            }
        }
    }
}

/// Serves one connection; how it ended.
fn answer(mut stream: &TcpStream, behaviour: &[&str]) -> Result<String> {
    match behaviour {
        ["echo"] => echo(stream),
        ["banner", text] => {
            writeln!(stream, "{text}")?;
            echo(stream)
        }
        // Answers only after the client's end: what half-close is for.
        ["sum"] => {
            let (bytes, _) = check(stream, CLIENT, Duration::ZERO)?;
            writeln!(stream, "{bytes} bytes, all as sent")?;
            stream.shutdown(Shutdown::Write)?;
            Ok(format!("eof after {bytes} bytes"))
        }
        ["send", bytes] => {
            send(stream, SERVER, bytes.parse()?)?;
            stream.shutdown(Shutdown::Write)?;
            let (back, _) = check(stream, CLIENT, Duration::ZERO)?;
            Ok(format!("eof after {back} bytes"))
        }
        ["reset"] => {
            let line = read_line(stream)?;
            set_socket_linger(stream, Some(Duration::ZERO))?;
            Ok(format!("reset by us after {line:?}"))
        }
        other => bail!("no such behaviour: {other:?}\n{USAGE}"),
    }
}

fn echo(mut stream: &TcpStream) -> Result<String> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => {
                stream.write_all(&buffer[..count])?;
                total += count;
            }
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(format!("eof after {total} bytes"))
}

fn call(address: &str, behaviour: &[&str]) -> Result<()> {
    let address: SocketAddr = address.parse().with_context(|| format!("address {address}"))?;
    match behaviour {
        ["many", count] => return many(address, count.parse()?),
        ["hold", seconds] => {
            let stream = connect(address)?;
            return hold(&stream, seconds.parse()?);
        }
        _ => {}
    }
    let stream = connect(address)?;
    match behaviour {
        ["echo", bytes] => {
            let bytes = bytes.parse()?;
            let writer = stream.try_clone()?;
            let sent = thread::spawn(move || {
                send(&writer, CLIENT, bytes)?;
                writer.shutdown(Shutdown::Write).context("half-closing")
            });
            let (back, _) = check(&stream, CLIENT, Duration::ZERO)?;
            sent.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
            expect_count(back, bytes)
        }
        ["hear"] => {
            println!("{}", read_line(&stream)?);
            Ok(())
        }
        ["send", bytes] => {
            send(&stream, CLIENT, bytes.parse()?)?;
            stream.shutdown(Shutdown::Write)?;
            println!("{}", read_line(&stream)?);
            Ok(())
        }
        ["receive", bytes, pace @ ..] => {
            let pause = if pace == ["slow"] { Duration::from_millis(5) } else { Duration::ZERO };
            let (seen, _) = check(&stream, SERVER, pause)?;
            expect_count(seen, bytes.parse()?)
        }
        // After our end the other direction has to go on.
        ["half-close"] => half_close(&stream),
        ["reset"] => {
            writeln!(&stream, "before the reset")?;
            let line = read_line(&stream);
            set_socket_linger(&stream, Some(Duration::ZERO))?;
            match line {
                Ok(line) => println!("reset by us after {line:?}"),
                Err(error) if is_reset(&error) => println!("reset by peer"),
                Err(error) => return Err(error),
            }
            Ok(())
        }
        other => bail!("no such behaviour: {other:?}\n{USAGE}"),
    }
}

fn half_close(mut stream: &TcpStream) -> Result<()> {
    stream.write_all(b"last words\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = String::new();
    stream.read_to_string(&mut back)?;
    println!("after half-close: {}", back.trim_end());
    Ok(())
}

/// Opens all connections before any is used, then uses every one.
fn many(address: SocketAddr, count: u64) -> Result<()> {
    let streams = (0..count)
        .map(|at| connect(address).with_context(|| format!("connection {at}")))
        .collect::<Result<Vec<_>>>()?;
    for (at, mut stream) in streams.iter().enumerate() {
        writeln!(stream, "connection {at}").with_context(|| format!("connection {at}"))?;
    }
    for (at, stream) in streams.iter().enumerate() {
        let line = read_line(stream).with_context(|| format!("connection {at}"))?;
        if line != format!("connection {at}") {
            bail!("connection {at} answered {line:?}");
        }
    }
    println!("{count} connections, each answered its own line");
    Ok(())
}

/// Keeps a connection and says once a second whether it still answers.
fn hold(mut stream: &TcpStream, seconds: u64) -> Result<()> {
    for second in 0..seconds {
        writeln!(stream, "second {second}")?;
        println!("{}", read_line(stream)?);
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, SILENCE)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

fn send(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        pattern.fill(&mut buffer[..count]);
        stream
            .write_all(&buffer[..count])
            .with_context(|| format!("sending, {left} of {bytes} bytes left"))?;
        left -= count as u64;
    }
    Ok(())
}

/// Reads to the end and compares every byte; how many there were, and in how many reads.
fn check(mut stream: &TcpStream, seed: u64, pause: Duration) -> Result<(u64, u64)> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let (mut total, mut reads) = (0, 0);
    loop {
        let count = stream.read(&mut buffer).with_context(|| format!("after {total} bytes"))?;
        if count == 0 {
            return Ok((total, reads));
        }
        if let Some(at) = pattern.first_difference(&buffer[..count]) {
            bail!("byte {} is not what was sent", total + at as u64);
        }
        total += count as u64;
        reads += 1;
        thread::sleep(pause);
    }
}

fn expect_count(seen: u64, expected: u64) -> Result<()> {
    if seen != expected {
        bail!("{seen} bytes came, {expected} were expected");
    }
    println!("{seen} bytes, all as sent");
    Ok(())
}

fn read_line(stream: &TcpStream) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        bail!("closed without a word");
    }
    Ok(line.trim_end().to_owned())
}

fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}
