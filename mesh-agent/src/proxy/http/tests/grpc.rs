//! HTTP/2 and gRPC: four shapes of calls, flow control and cancellation from end to end, errors as
//! gRPC tells them.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response, StatusCode};
use mesh_common::model::{RouteKind, Timeouts};
use tokio::{sync::mpsc, time::timeout};

use super::{Loopback, attached, http2_client, named, rule, to};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that echoes what it gets as it gets it, under `/echo`; sends without end under `/endless`;
/// reads nothing under `/deaf`; refuses under `/refuse`. Says which streams were reset.
async fn server() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Reason>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (resets, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let resets = resets.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("a handshake");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond, resets.clone()));
                }
            });
        }
    });
    (address, receiver)
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    resets: mpsc::UnboundedSender<Reason>,
) {
    let path = request.uri().path().to_owned();
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    if path == "/refuse" {
        head.headers_mut().insert("grpc-status", 5.into());
        let _ = respond.send_response(head, true);
        return;
    }
    let mut send = respond.send_response(head, false).expect("the client listens");
    let mut body = request.into_body();
    match &*path {
        "/endless" => loop {
            send.reserve_capacity(10_000);
            let room = poll_fn(|cx| match (send.poll_reset(cx), send.poll_capacity(cx)) {
                (Poll::Ready(reason), _) => Poll::Ready(Err(reason)),
                (_, Poll::Ready(Some(Ok(room)))) => Poll::Ready(Ok(room)),
                _ => Poll::Pending,
            });
            match room.await {
                Ok(room) => {
                    let _ = send.send_data(vec![0; room.min(10_000)].into(), false);
                }
                Err(reason) => {
                    let _ = resets.send(reason.unwrap_or(Reason::CONNECT_ERROR));
                    return;
                }
            }
        },
        "/deaf" => {
            let reason = poll_fn(|cx| send.poll_reset(cx)).await;
            let _ = resets.send(reason.unwrap_or(Reason::CONNECT_ERROR));
            drop(body);
        }
        "/break" => {
            let _ = body.data().await;
            send.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
        _ => {
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                let _ = send.send_data(data, false);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", 0.into());
            let _ = send.send_trailers(trailers);
        }
    }
}

fn call(path: &str) -> Request<()> {
    let uri = format!("http://web{path}");
    let request = Request::post(uri).header("content-type", "application/grpc+proto");
    request.header("te", "trailers").body(()).expect("a request")
}

async fn chunk(body: &mut RecvStream) -> Bytes {
    let data = timeout(PATIENCE, body.data()).await.expect("it comes");
    let data = data.expect("there is more").expect("no error");
    body.flow_control().release_capacity(data.len()).expect("it is open");
    data
}

async fn status(body: &mut RecvStream) -> String {
    let trailers = timeout(PATIENCE, body.trailers()).await.expect("they come");
    let trailers = trailers.expect("no error").expect("there are some");
    trailers["grpc-status"].to_str().expect("text").to_owned()
}

#[tokio::test]
async fn messages_go_both_ways_at_once() {
    let (address, _resets) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    // The response begins before the request ends, and each message is echoed before the next.
    let (response, mut send) = client.send_request(call("/echo"), false).expect("it is open");
    let response = timeout(PATIENCE, response).await.expect("it comes").expect("a response");
    let mut body = response.into_body();
    for at in 0..50_u8 {
        send.send_data(vec![at; 100].into(), false).expect("it is open");
        assert_eq!(chunk(&mut body).await, vec![at; 100]);
    }
    send.send_data(Bytes::new(), true).expect("it is open");
    assert!(timeout(PATIENCE, body.data()).await.expect("it ends").is_none());
    assert_eq!(status(&mut body).await, "0");
    let flows = network.flows();
    let http = flows[0].http.as_deref().expect("a request");
    assert_eq!((http.protocol.as_str(), http.grpc_status), ("gRPC", Some(0)));
    assert_eq!((flows[0].bytes_sent, flows[0].bytes_received), (5000, 5000));
}

#[tokio::test]
async fn calls_share_a_connection_and_large_messages_pass() {
    let (address, _resets) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (response, mut send) = client.send_request(call("/echo"), false).expect("it is open");
        send.send_data(vec![7; 1_000_000].into(), true).expect("it is open");
        calls.push(response);
    }
    for call in calls {
        let mut body = timeout(PATIENCE, call).await.expect("it comes").expect("ok").into_body();
        let mut got = 0;
        while got < 1_000_000 {
            got += chunk(&mut body).await.len();
        }
        assert!(timeout(PATIENCE, body.data()).await.expect("it ends").is_none());
        assert_eq!(status(&mut body).await, "0");
    }
}

#[tokio::test]
async fn who_reads_nothing_slows_its_sender_on_either_side() {
    let (address, mut resets) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    let (response, mut send) = client.send_request(call("/deaf"), false).expect("it is open");
    let mut sent = 0;
    loop {
        send.reserve_capacity(100_000);
        match timeout(Duration::from_millis(500), poll_fn(|cx| send.poll_capacity(cx))).await {
            Ok(Some(Ok(room))) => {
                send.send_data(vec![0; room].into(), false).expect("it is open");
                sent += room;
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    // The windows of both hops, and what waits between them.
    assert!(sent < 2_000_000, "{sent}");
    drop((response, send));
    assert_eq!(timeout(PATIENCE, resets.recv()).await.expect("it comes"), Some(Reason::CANCEL));
    let (response, _send) = client.send_request(call("/endless"), false).expect("it is open");
    let body = timeout(PATIENCE, response).await.expect("it comes").expect("ok").into_body();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A client that cancels has the server's stream reset.
    drop((body, _send));
    assert_eq!(timeout(PATIENCE, resets.recv()).await.expect("it comes"), Some(Reason::CANCEL));
    let flows = network.flows();
    assert!(flows.iter().all(|flow| flow.bytes_received < 2_000_000), "{flows:?}");
    let code = |flow: &crate::observe::flow::Flow| flow.http.as_ref().and_then(|http| http.code);
    assert!(flows.iter().all(|flow| code(flow) == Some("client_left")), "{flows:?}");
}

#[tokio::test]
async fn a_server_that_breaks_off_breaks_the_client_off() {
    let (address, _resets) = server().await;
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    let (response, mut send) = client.send_request(call("/break"), false).expect("it is open");
    let response = timeout(PATIENCE, response).await.expect("it comes").expect("a head");
    send.send_data(Bytes::from_static(b"go on"), false).expect("it is open");
    let broken = timeout(PATIENCE, response.into_body().data()).await.expect("it ends");
    assert!(broken.expect("no clean end").is_err());
}

#[tokio::test]
async fn errors_are_told_as_grpc_tells_them() {
    let (address, _resets) = server().await;
    let short = Some(Duration::from_millis(50));
    let mut slow = rule("/endless", vec![to("web", 1)]);
    slow.timeouts = Timeouts { request: short, backend_request: None };
    let mut deaf = rule("/hang", vec![to("hang", 1)]);
    deaf.timeouts = Timeouts { request: None, backend_request: short };
    let rules =
        vec![rule("/refuse", vec![to("web", 1)]), rule("/empty", vec![to("none", 1)]), slow, deaf];
    // Takes connections and says nothing.
    let hang = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let hanging = hang.local_addr().expect("it is bound");
    let mut network = Loopback::new(&[("web", &[address]), ("hang", &[hanging])]);
    network.routes = Some(Arc::new(attached(RouteKind::Grpc, rules)));
    network.http2 = vec![named("hang")];
    let network = Arc::new(network);
    let mut client = http2_client(&network).await;
    for (path, expected) in [("/refuse", "5"), ("/other", "12"), ("/empty", "14"), ("/hang", "4")] {
        let (response, _) = client.send_request(call(path), true).expect("it is open");
        let response = timeout(PATIENCE, response).await.expect("it comes").expect("a response");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["grpc-status"], expected, "{path}");
        assert!(response.body().is_end_stream(), "{path}: trailers only");
    }
    // One that has begun to answer is cut.
    let (response, _) = client.send_request(call("/endless"), true).expect("it is open");
    let mut body = timeout(PATIENCE, response).await.expect("it comes").expect("ok").into_body();
    let cut = async { while body.data().await.is_some_and(|data| data.is_ok()) {} };
    timeout(PATIENCE, cut).await.expect("it ends");
    let codes: Vec<_> =
        network.flows().iter().map(|flow| flow.http.as_ref().and_then(|it| it.code)).collect();
    let expected = [
        None,
        Some("no_route"),
        Some("no_endpoint"),
        Some("backend_timeout"),
        Some("request_timeout"),
    ];
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_made_anew() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.expect("a handshake");
            let Some(Ok((_, mut respond))) = connection.accept().await else { continue };
            respond.send_response(Response::new(()), true).expect("the client listens");
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        }
    });
    let network = Arc::new(Loopback::new(&[("web", &[address])]));
    let mut client = http2_client(&network).await;
    for _ in 0..5 {
        let (response, _) = client.send_request(call("/"), true).expect("it is open");
        let response = timeout(PATIENCE, response).await.expect("it comes").expect("a response");
        assert_eq!(
            (response.status(), response.headers().get("proxy-status")),
            (StatusCode::OK, None)
        );
    }
}
