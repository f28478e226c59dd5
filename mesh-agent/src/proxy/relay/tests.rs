//! Real sockets on loopback: what an application sees through a relay.

use std::{future::Future, io, net::Ipv4Addr};

use http::{Method, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Peer, Transferred, reset};
use crate::proxy::{hbone::Stream, meter::Meter, revoke::Leash};

/// Two ends of one TCP connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (one, other) = (one.expect("connect"), other.expect("accept").0);
    for end in [&one, &other] {
        end.set_nodelay(true).expect("nodelay");
    }
    (one, other)
}

/// Two applications with a relay between them.
struct Between {
    client: TcpStream,
    server: TcpStream,
    relay: JoinHandle<Transferred>,
}

async fn over_tcp() -> Between {
    let (client, accepted) = pair().await;
    let (dialled, server) = pair().await;
    Between {
        client,
        server,
        relay: tokio::spawn(super::tcp::relay(
            accepted,
            dialled,
            Leash::default(),
            Meter::default(),
        )),
    }
}

/// The two relays of a tunnel, without TLS.
async fn over_a_tunnel() -> Between {
    let (client, accepted) = pair().await;
    let (delivered, server) = pair().await;
    let (near, far) = pair().await;
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.expect("handshake");
        let (request, mut respond) =
            connection.accept().await.expect("a stream").expect("a request");
        let send = respond.send_response(Response::new(()), false).expect("response");
        let stream = Stream { send, receive: request.into_body(), lease: None };
        tokio::spawn(super::tunnel::relay(
            delivered,
            stream,
            Peer::Proxy,
            Leash::default(),
            Meter::default(),
        ));
        while connection.accept().await.is_some() {}
    });
    let (mut requests, connection) = h2::client::handshake(near).await.expect("h2");
    tokio::spawn(connection);
    let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80");
    let request = request.body(()).expect("a request");
    let (response, send) = requests.send_request(request, false).expect("send");
    let receive = response.await.expect("response").into_body();
    let relay = tokio::spawn(async move {
        let ended = super::tunnel::relay(
            accepted,
            Stream { send, receive, lease: None },
            Peer::Proxy,
            Leash::default(),
            Meter::default(),
        )
        .await;
        drop(requests);
        ended
    });
    Between { client, server, relay }
}

async fn both(story: impl AsyncFn(Between)) {
    story(over_tcp().await).await;
    story(over_a_tunnel().await).await;
}

/// Writes until nothing more is taken for a while.
async fn fill(writer: &TcpStream) {
    let block = vec![0xa5; 1 << 16];
    loop {
        let quiet = std::time::Duration::from_millis(200);
        let Ok(writable) = tokio::time::timeout(quiet, writer.writable()).await else { return };
        writable.expect("writable");
        match writer.try_write(&block) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("{error}"),
            _ => {}
        }
    }
}

/// Reads to the end of data, or to what broke it.
async fn read_all(mut reader: TcpStream) -> (usize, Option<io::ErrorKind>) {
    let mut said = Vec::new();
    let ended = within(reader.read_to_end(&mut said)).await;
    (said.len(), ended.err().map(|error| error.kind()))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, future).await.expect("not to hang")
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    both(async |Between { mut client, mut server, relay }| {
        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("shutdown");
        let mut question = Vec::new();
        within(server.read_to_end(&mut question)).await.expect("read");
        assert_eq!(question, b"question");

        server.write_all(b"a longer answer").await.expect("write");
        drop(server);
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.expect("read");
        assert_eq!(answer, b"a longer answer");

        let ended = within(relay).await.expect("relay");
        assert_eq!((ended.from_client, ended.to_client), (8, 15));
        assert_eq!(ended.broken, None);
    })
    .await;
}

#[tokio::test]
async fn a_reset_by_the_client_resets_the_server() {
    both(async |Between { mut client, mut server, relay }| {
        client.write_all(b"x").await.expect("write");
        within(server.read_u8()).await.expect("read");
        reset(client);
        let error = within(server.read_u8()).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_reset_by_the_server_resets_the_client() {
    both(async |Between { mut client, mut server, relay }| {
        server.write_all(b"x").await.expect("write");
        within(client.read_u8()).await.expect("read");
        reset(server);
        let error = within(client.read_u8()).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    const TOTAL: usize = 64 << 20;
    both(async |Between { mut client, mut server, relay }| {
        let writer = tokio::spawn(async move {
            let block = vec![0xa5; 1 << 16];
            for _ in 0..TOTAL / block.len() {
                client.write_all(&block).await.expect("write");
            }
            client.shutdown().await.expect("shutdown");
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(!writer.is_finished(), "nobody reads, and yet everything was taken");

        let mut received = 0;
        let mut block = vec![0; 1 << 16];
        loop {
            match within(server.read(&mut block)).await.expect("read") {
                0 => break,
                read => {
                    assert!(block[..read].iter().all(|byte| *byte == 0xa5));
                    received += read;
                }
            }
        }
        assert_eq!(received, TOTAL);
        writer.await.expect("writer");
        drop(server);
        assert_eq!(within(relay).await.expect("relay").from_client, TOTAL as u64);
    })
    .await;
}

#[tokio::test]
async fn a_reset_by_the_client_after_its_half_close_resets_the_server() {
    both(async |Between { mut client, mut server, relay }| {
        client.write_all(b"x").await.expect("write");
        client.shutdown().await.expect("shutdown");
        let mut question = Vec::new();
        within(server.read_to_end(&mut question)).await.expect("read");
        reset(client);
        // The server neither reads nor writes: it is told.
        within(super::failure(&server)).await;
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_reset_by_the_server_after_its_half_close_resets_the_client() {
    both(async |Between { mut client, mut server, relay }| {
        server.write_all(b"x").await.expect("write");
        server.shutdown().await.expect("shutdown");
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.expect("read");
        reset(server);
        within(super::failure(&client)).await;
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_reset_arrives_though_the_other_side_reads_nothing() {
    both(async |Between { client, server, relay }| {
        fill(&client).await;
        reset(client);
        within(super::failure(&server)).await;
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn single_bytes_for_a_slow_reader_arrive_and_disturb_nobody() {
    const TOTAL: usize = 200_000;
    both(async |Between { mut client, mut server, relay }| {
        for at in 0..TOTAL {
            client.write_u8(at as u8).await.expect("write");
            // Every byte travels by itself.
            tokio::task::yield_now().await;
        }
        client.shutdown().await.expect("shutdown");
        let mut received = Vec::new();
        within(server.read_to_end(&mut received)).await.expect("read");
        assert!(received.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        assert_eq!(received.len(), TOTAL);
        drop(server);
        assert_eq!(within(relay).await.expect("relay").broken, None);
    })
    .await;
}

/// What fits into every socket on the way.
const ANSWER: usize = 40_000;

#[tokio::test]
async fn an_answer_to_an_unread_request_arrives_before_the_reset() {
    both(async |Between { client, mut server, relay }| {
        fill(&client).await;
        server.write_all(&vec![0x5a; ANSWER]).await.expect("write");
        // What it has not read makes this a reset.
        drop(server);
        assert_eq!(read_all(client).await, (ANSWER, Some(io::ErrorKind::ConnectionReset)));
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn an_ended_answer_to_an_unread_request_arrives_with_its_end() {
    both(async |Between { client, mut server, relay }| {
        fill(&client).await;
        server.write_all(&vec![0x5a; ANSWER]).await.expect("write");
        server.shutdown().await.expect("shutdown");
        drop(server);
        assert_eq!(read_all(client).await, (ANSWER, None));
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn what_a_client_said_before_its_reset_arrives_before_it() {
    both(async |Between { mut client, server, relay }| {
        fill(&server).await;
        client.write_all(&vec![0x5a; ANSWER]).await.expect("write");
        drop(client);
        assert_eq!(read_all(server).await, (ANSWER, Some(io::ErrorKind::ConnectionReset)));
        assert!(within(relay).await.expect("relay").broken.is_some());
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_dies_is_no_end_of_data() {
    both(async |Between { mut client, mut server, relay }| {
        server.write_all(b"half of an answer").await.expect("write");
        let mut half = [0; 17];
        within(client.read_exact(&mut half)).await.expect("read");
        // Its sockets are closed as the kernel closes those of a process that was killed.
        relay.abort();
        let error = within(client.read_u8()).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}
