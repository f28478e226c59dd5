//! Small messages back and forth.

use std::{
    io::{Read, Write, stdin},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// The size of a message, in bytes.
const MESSAGE: usize = 64;

#[tokio::main(flavor = "current_thread")]
pub async fn echo(listen: SocketAddr) -> Result<()> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        });
    }
}

pub fn ping(connect: SocketAddr, count: usize) -> Result<()> {
    let mut stream = open(connect)?;
    // The first round trips open tunnels and warm caches; they are not what is asked.
    for _ in 0..count / 10 {
        round_trip(&mut stream)?;
    }
    let mut micros = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        round_trip(&mut stream)?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    ensure!(!micros.is_empty(), "--count has to be at least 1");
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!("{}", serde_json::json!({ "p50_us": at(0.50), "p99_us": at(0.99) }));
    Ok(())
}

pub fn hold(connect: SocketAddr, count: usize) -> Result<()> {
    let mut held = (0..count).map(|_| open(connect)).collect::<Result<Vec<_>>>()?;
    for stream in &mut held {
        round_trip(stream)?;
    }
    println!("holding {count}");
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn open(connect: SocketAddr) -> Result<TcpStream> {
    let stream =
        TcpStream::connect(connect).with_context(|| format!("cannot connect to {connect}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn round_trip(stream: &mut TcpStream) -> Result<()> {
    let mut message = [7; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    Ok(())
}
