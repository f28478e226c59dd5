//! Tunnels and WebSockets of HTTP/2 clients: what servers are asked, bytes, ends and resets both
//! ways, over each way to a server.

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use mesh_common::model::Timeouts;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{Loopback, http2_client, named, pair, rule, to};
use crate::{
    observe::flow::Verdict,
    proxy::{
        hbone::status,
        http::{network::Network, serve1, websocket::accept_of},
        relay,
    },
};

const PATIENCE: Duration = Duration::from_secs(10);
const WEBSOCKET: Protocol = Protocol::from_static("websocket");

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("not to hang")
}

/// What a server of HTTP/1.1 met.
#[derive(Debug, PartialEq)]
enum Met {
    Head(String),
    /// What a tunnel carried until it ended.
    Said(String),
    Broke(io::ErrorKind),
}

/// A server of HTTP/1.1 that goes on with another protocol where it is asked to, and says everything
/// back in capitals, the first words of its own before it. What it answers goes by path.
async fn server() -> (SocketAddr, mpsc::UnboundedReceiver<Met>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (met, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let met = met.clone();
            tokio::spawn(async move {
                let ended = answer(stream, &met).await;
                let _ = ended.map_err(|error| met.send(Met::Broke(error.kind())));
            });
        }
    });
    (address, receiver)
}

async fn answer(mut stream: TcpStream, met: &mpsc::UnboundedSender<Met>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
    let accept = key.map(accept_of).unwrap_or_default();
    let _ = met.send(Met::Head(head));
    let switch = |accept: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nhi "
        )
    };
    let answer = match &*path {
        "/other" => switch("AAAA"),
        "/plain" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "/forbidden" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        "/silent" => return std::future::pending().await,
        _ if accept.is_empty() => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi ".to_owned(),
        _ => switch(&accept),
    };
    stream.write_all(answer.as_bytes()).await?;
    match &*path {
        "/plain" | "/forbidden" | "/other" => return Ok(()),
        "/deaf" | "deaf.test:7" => return std::future::pending().await,
        "/endless" | "endless.test:7" => loop {
            stream.write_all(&[0; 10_000]).await?;
        },
        "/reset" | "reset.test:7" => {
            stream.read_u8().await?;
            relay::reset(stream);
            return Ok(());
        }
        _ => {}
    }
    let (mut said, mut buffer) = (String::new(), [0; 1000]);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..count]);
        stream.write_all(text.to_uppercase().as_bytes()).await?;
        said.push_str(&text);
    }
    stream.write_all(b"bye").await?;
    let _ = met.send(Met::Said(said));
    Ok(())
}

/// The ways to one server: straight, and through a tunnel.
fn ways(endpoint: SocketAddr) -> [Loopback; 2] {
    [false, true].map(|is_tunnelled| {
        let network = Loopback::new(&[("web", &[endpoint])]);
        Loopback { is_tunnelled, ..network }
    })
}

/// A CONNECT, or with a path an extended one, as `:protocol` says.
fn head(authority: &str, extended: Option<(Protocol, &str)>) -> Request<()> {
    let builder = Request::builder().method(Method::CONNECT).version(Version::HTTP_2);
    match extended {
        None => builder.uri(authority),
        Some((protocol, path)) => builder
            .uri(format!("http://{authority}{path}"))
            .extension(protocol)
            .header("sec-websocket-key", "not to cross")
            .header("sec-websocket-version", "13"),
    }
    .body(())
    .expect("a request")
}

/// The two kinds of tunnel, to what the server does under that name.
fn kinds(name: &str) -> [Request<()>; 2] {
    [head(&format!("{name}.test:7"), None), head("web", Some((WEBSOCKET, &format!("/{name}"))))]
}

/// An open tunnel.
struct Tunnel {
    head: http::response::Parts,
    send: SendStream<Bytes>,
    receive: RecvStream,
}

async fn opened((response, send): (ResponseFuture, SendStream<Bytes>)) -> Tunnel {
    let (head, receive) = within(response).await.expect("a response").into_parts();
    Tunnel { head, send, receive }
}

async fn open(client: &mut SendRequest<Bytes>, request: Request<()>) -> Tunnel {
    opened(client.send_request(request, false).expect("it is open")).await
}

impl Tunnel {
    fn say(&mut self, what: &'static str) {
        self.send.send_data(Bytes::from_static(what.as_bytes()), false).expect("it is open");
    }

    async fn hear(&mut self, what: &str) {
        let mut heard = String::new();
        while heard.len() < what.len() {
            let data = within(self.receive.data()).await.expect("more").expect("no error");
            self.receive.flow_control().release_capacity(data.len()).expect("it is open");
            heard.push_str(&String::from_utf8_lossy(&data));
        }
        assert_eq!(heard, what);
    }

    /// Waits for a clean end, before which nothing comes.
    async fn ended(&mut self) {
        while let Some(data) = within(self.receive.data()).await {
            assert_eq!(data.expect("no error"), "");
        }
    }

    /// With what it is reset.
    async fn broken(mut self) -> Option<Reason> {
        loop {
            match within(self.receive.data()).await.expect("no clean end") {
                Ok(_) => {}
                Err(error) => return error.reason(),
            }
        }
    }
}

/// The flow of a tunnel, which ends behind that of its request.
async fn flow_of_tunnel(network: &Loopback) -> Arc<crate::observe::flow::Flow> {
    within(async {
        loop {
            if let Some(flow) = network.flows().into_iter().find(|flow| flow.http.is_none()) {
                return flow;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_ends_by_itself() {
    let (address, mut met) = server().await;
    for network in ways(address).map(Arc::new) {
        for (at, request) in kinds("echo").into_iter().enumerate() {
            let mut client = http2_client(&network).await;
            // The first words are there before the answer is.
            let (response, mut send) = client.send_request(request, false).expect("it is open");
            send.send_data(Bytes::from_static(b"early "), false).expect("it is open");
            let mut tunnel = opened((response, send)).await;
            assert_eq!(tunnel.head.status, StatusCode::OK);
            tunnel.hear("hi EARLY ").await;
            for _ in 0..50 {
                tunnel.say("more");
                tunnel.hear("MORE").await;
            }
            tunnel.send.send_data(Bytes::new(), true).expect("it is open");
            tunnel.hear("bye").await;
            tunnel.ended().await;

            let Some(Met::Head(head)) = met.recv().await else { panic!("no request") };
            let first = ["CONNECT echo.test:7 HTTP/1.1\r\n", "GET /echo HTTP/1.1\r\n"][at];
            assert!(head.starts_with(first), "{head}");
            let said = format!("early {}", "more".repeat(50));
            assert_eq!(met.recv().await, Some(Met::Said(said)));
        }
        let flows = within(async {
            while network.flows().len() < 4 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            network.flows()
        })
        .await;
        for (flow, (method, path)) in
            flows.iter().step_by(2).zip([("CONNECT", "echo.test:7"), ("GET", "/echo")])
        {
            let http = flow.http.as_deref().expect("a request");
            let method = Some(method.parse().expect("a method"));
            assert_eq!((&http.method, &*http.path), (&method, path));
            assert_eq!((http.status, http.protocol.as_str()), (Some(StatusCode::OK), "HTTP/2"));
        }
        for flow in flows.iter().skip(1).step_by(2) {
            assert_eq!((flow.bytes_sent, flow.bytes_received), (206, 212), "{flow:?}");
            assert_eq!((flow.verdict, &*flow.reason), (Verdict::Forwarded, ""));
        }
    }
}

#[tokio::test]
async fn a_websocket_is_opened_with_a_key_of_its_own() {
    let (address, mut met) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    let mut tunnel = open(&mut client, head("web", Some((WEBSOCKET, "/echo?q=1")))).await;
    tunnel.hear("hi ").await;
    let Some(Met::Head(asked)) = met.recv().await else { panic!("no request") };
    assert!(asked.starts_with("GET /echo?q=1 HTTP/1.1\r\nhost: web\r\n"), "{asked}");
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"] {
        assert!(asked.contains(&format!("{field}\r\n")), "{asked}");
    }
    assert!(!asked.contains("not to cross"), "{asked}");
    assert_eq!(asked.matches("sec-websocket-key: ").count(), 1, "{asked}");
    let headers = tunnel.head.headers;
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "connection", "upgrade"] {
        assert!(!headers.contains_key(name), "{headers:?}");
    }
}

#[tokio::test]
async fn what_opens_no_websocket_is_no_success() {
    let (address, _met) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    for (path, protocol, status, told) in [
        ("/other", WEBSOCKET, 502, "malformed_response"),
        ("/plain", WEBSOCKET, 502, "malformed_response"),
        ("/forbidden", WEBSOCKET, 403, ""),
        ("/echo", Protocol::from_static("connect-udp"), 501, "protocol_not_supported"),
    ] {
        let Tunnel { head, .. } = open(&mut client, head("web", Some((protocol, path)))).await;
        assert_eq!(head.status, status, "{path}");
        let says = head.headers.get("proxy-status").map(|it| it.to_str().expect("text"));
        assert!(says.unwrap_or_default().contains(told), "{path}: {says:?}");
    }
    let refused = open(&mut client, head("web", Some((WEBSOCKET, "/forbidden")))).await;
    let mut refused = Tunnel { send: refused.send, ..refused };
    refused.hear("no").await;
}

#[tokio::test]
async fn a_reset_by_the_client_resets_the_server() {
    let (address, mut met) = server().await;
    for network in ways(address).map(Arc::new) {
        for request in kinds("echo") {
            let mut client = http2_client(&network).await;
            let mut tunnel = open(&mut client, request).await;
            tunnel.hear("hi ").await;
            // As from a proxy it would say that policies changed; from a client it says nothing.
            tunnel.send.send_reset(status::revoked());
            assert!(matches!(within(met.recv()).await, Some(Met::Head(_))));
            assert_eq!(within(met.recv()).await, Some(Met::Broke(io::ErrorKind::ConnectionReset)));
        }
        let flow = flow_of_tunnel(&network).await;
        assert_eq!(flow.verdict, Verdict::Forwarded);
        assert!(flow.reason.starts_with("client: reset: "), "{flow:?}");
    }
}

#[tokio::test]
async fn a_reset_by_the_server_resets_the_client() {
    let (address, _met) = server().await;
    for network in ways(address).map(Arc::new) {
        let mut client = http2_client(&network).await;
        for (request, reason) in kinds("reset").into_iter().zip([
            Reason::CONNECT_ERROR,
            // RFC 8441, section 5.
            Reason::CANCEL,
        ]) {
            let mut tunnel = open(&mut client, request).await;
            tunnel.hear("hi ").await;
            tunnel.say("x");
            assert_eq!(tunnel.broken().await, Some(reason));
        }
    }
}

#[tokio::test]
async fn who_reads_nothing_slows_its_sender() {
    let (address, mut met) = server().await;
    for network in ways(address).map(Arc::new) {
        let mut client = http2_client(&network).await;
        for request in kinds("deaf") {
            let mut tunnel = open(&mut client, request).await;
            let mut sent = 0;
            loop {
                tunnel.send.reserve_capacity(100_000);
                let room = poll_fn(|cx| tunnel.send.poll_capacity(cx));
                match timeout(Duration::from_millis(300), room).await {
                    Ok(Some(Ok(room))) => {
                        tunnel.send.send_data(vec![0; room].into(), false).expect("it is open");
                        sent += room;
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => break,
                }
            }
            // The windows of each hop, and what sockets of loopback hold.
            assert!(sent < 20_000_000, "{sent}");
        }
        for request in kinds("endless") {
            let tunnel = open(&mut client, request).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(tunnel);
        }
        while within(met.recv()).await.is_some_and(|met| matches!(met, Met::Head(_))) {}
        let flow = flow_of_tunnel(&network).await;
        assert!(flow.bytes_received < 2_000_000, "{flow:?}");
    }
}

#[tokio::test]
async fn timeouts_of_a_rule_are_for_the_answer_alone() {
    let (address, _met) = server().await;
    let short = Some(Duration::from_millis(100));
    let mut rule = rule("", vec![to("web", 1)]);
    rule.timeouts = Timeouts { request: short, backend_request: short };
    for network in ways(address).map(|network| Arc::new(network.routed(vec![rule.clone()]))) {
        let mut client = http2_client(&network).await;
        for request in kinds("echo") {
            let mut tunnel = open(&mut client, request).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            tunnel.say("late");
            tunnel.hear("hi LATE").await;
        }
        let silent = open(&mut client, head("web", Some((WEBSOCKET, "/silent")))).await;
        assert_eq!(silent.head.status, StatusCode::GATEWAY_TIMEOUT);
    }
}

#[tokio::test]
async fn a_malformed_connect_is_refused() {
    let (address, mut met) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    let with = |mut request: Request<()>, name: &'static str, value: &'static str| {
        request.headers_mut().insert(name, value.parse().expect("a value"));
        request
    };
    for request in [
        head("no-port.test", None),
        with(head("echo.test:7", None), "content-length", "0"),
        with(head("echo.test:7", None), "host", "other.test:7"),
        with(head("web", Some((WEBSOCKET, "/echo"))), "content-length", "4"),
    ] {
        let said = format!("{request:?}");
        let Tunnel { head, .. } = open(&mut client, request).await;
        assert_eq!(head.status, StatusCode::BAD_REQUEST, "{said}");
        assert!(head.headers["proxy-status"].to_str().expect("text").contains("malformed_request"));
    }
    // What the client of these tests does not send, literally (RFC 7541, section 6.2.2); the first is
    // as it has to be.
    const METHOD: (&str, &str) = (":method", "CONNECT");
    const AUTHORITY: (&str, &str) = (":authority", "echo.test:7");
    for (fields, expected) in [
        (vec![METHOD, AUTHORITY], "200"),
        (vec![METHOD, AUTHORITY, (":path", "/")], "reset 1"),
        (vec![METHOD, AUTHORITY, (":scheme", "http")], "reset 1"),
        (vec![METHOD, AUTHORITY, (":protocol", "websocket")], "reset 1"),
        (vec![METHOD], "400"),
        (vec![METHOD, ("host", "echo.test:7")], "400"),
        (vec![(":method", "GET"), AUTHORITY, (":protocol", "websocket")], "reset 1"),
    ] {
        assert_eq!(raw(&network, &fields).await, expected, "{fields:?}");
    }
    let met: Vec<Met> = std::iter::from_fn(|| met.try_recv().ok()).collect();
    let heads = met.iter().filter(|met| matches!(met, Met::Head(_))).count();
    assert_eq!(heads, 1, "what is malformed goes no further: {met:?}");
}

/// What a request of these fields is answered, by hand: a status, or the code of a reset.
async fn raw(network: &Arc<Loopback>, fields: &[(&str, &str)]) -> String {
    let mut stream = super::connected2(network).await;
    let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, id];
        frame.extend_from_slice(payload);
        frame
    };
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| {
            let text = |it: &str| [&[it.len() as u8], it.as_bytes()].concat();
            [&[0][..], &text(name), &text(value)].concat()
        })
        .collect();
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    all.extend(frame(4, 0, 0, &[]));
    all.extend(frame(1, 4, 1, &block));
    stream.write_all(&all).await.expect("it reads");
    within(async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.expect("the frame");
            match (head[3], payload.first()) {
                // The static table has the commonest statuses (RFC 7541, appendix A).
                (1, Some(0x88)) => return "200".to_owned(),
                (1, Some(0x8c)) => return "400".to_owned(),
                (1, other) => panic!("{other:?}"),
                (3, _) => return format!("reset {}", payload[3]),
                _ => {}
            }
        }
    })
    .await
}

/// A server of HTTP/2 that says everything back, and what it was asked; it may take extended CONNECTs.
async fn server2(extended: bool) -> (SocketAddr, mpsc::UnboundedReceiver<Request<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (asked, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                if extended {
                    builder.enable_connect_protocol();
                }
                let handshake = builder.handshake::<_, Bytes>(stream).await;
                let mut connection = handshake.expect("a handshake");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (parts, mut body) = request.into_parts();
                    let is_reset = parts.headers.contains_key("x-reset");
                    let _ = asked.send(Request::from_parts(parts, ()));
                    let response = Response::new(());
                    let mut send = respond.send_response(response, false).expect("it listens");
                    tokio::spawn(async move {
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            if is_reset {
                                return send.send_reset(Reason::ENHANCE_YOUR_CALM);
                            }
                            let _ = send.send_data(data, false);
                        }
                        if poll_fn(|cx| Poll::Ready(send.poll_reset(cx))).await.is_pending() {
                            let _ = send.send_trailers(HeaderMap::new());
                        }
                    });
                }
            });
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn a_server_that_is_declared_to_speak_http2_is_asked_by_it() {
    let (address, mut asked) = server2(true).await;
    for network in ways(address) {
        let network = Arc::new(Loopback { http2: vec![named("web")], ..network });
        let mut client = http2_client(&network).await;
        for (request, protocol) in kinds("echo").into_iter().zip([None, Some("websocket")]) {
            let mut tunnel = open(&mut client, request).await;
            assert_eq!(tunnel.head.status, StatusCode::OK);
            let request = asked.recv().await.expect("a request");
            assert_eq!(request.method(), Method::CONNECT);
            let said = request.extensions().get::<Protocol>().map(Protocol::as_str);
            assert_eq!(said, protocol);
            if protocol.is_some() {
                assert!(!request.headers().contains_key("sec-websocket-key"), "{request:?}");
            }
            for _ in 0..20 {
                tunnel.say("more");
                tunnel.hear("more").await;
            }
            tunnel.send.send_data(Bytes::new(), true).expect("it is open");
            tunnel.ended().await;
        }
        for (mut request, reason) in
            kinds("echo").into_iter().zip([Reason::CONNECT_ERROR, Reason::CANCEL])
        {
            request.headers_mut().insert("x-reset", "yes".parse().expect("a value"));
            let mut tunnel = open(&mut client, request).await;
            tunnel.say("x");
            assert_eq!(tunnel.broken().await, Some(reason));
            let _ = asked.recv().await;
        }
        // HTTP/1.1 has the same tunnels.
        let (mut client, accepted) = pair().await;
        let mesh: Arc<dyn Network> = network.clone();
        tokio::spawn(async move { serve1(mesh, &|| false, accepted).await });
        let request = b"CONNECT a.test:7 HTTP/1.1\r\nHost: a.test:7\r\n\r\nping";
        client.write_all(request).await.expect("it reads");
        client.shutdown().await.expect("it is open");
        let mut got = String::new();
        within(client.read_to_string(&mut got)).await.expect("a clean end");
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\nping"), "{got}");
        let request = asked.recv().await.expect("a request");
        assert_eq!((request.method(), &*request.uri().to_string()), (&Method::CONNECT, "a.test:7"));
    }
}

#[tokio::test]
async fn who_takes_no_extended_connect_is_asked_for_none() {
    let (address, mut asked) = server2(false).await;
    let network = Loopback::new(&[("web", &[address])]);
    let network = Arc::new(Loopback { http2: vec![named("web")], ..network });
    let mut client = http2_client(&network).await;
    let refused = open(&mut client, head("web", Some((WEBSOCKET, "/echo")))).await;
    assert_eq!(refused.head.status, StatusCode::NOT_IMPLEMENTED);
    assert!(asked.try_recv().is_err());
    let flows = network.flows();
    let http = flows[0].http.as_deref().expect("a request");
    assert_eq!(http.code, Some("protocol_not_supported"));
}
