//! `exec` in a pod: the command runs on this machine, its standard streams are channels of a
//! WebSocket, as `v5.channel.k8s.io` has them. Older kubectl speaks SPDY, which is not here.

use std::{path::PathBuf, process::Stdio};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::mpsc::{Sender, channel},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::{cluster::Cluster, error::ApiError, request::Request};

/// The protocol, and which channel is what.
const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Says that the channel in the next byte has ended.
const CLOSE: u8 = 255;
const BUFFER: usize = 16 * 1024;

/// A command, and the file that it is.
#[derive(Clone, Debug)]
pub struct Exec {
    /// `None`: the image has no such file.
    program: Option<PathBuf>,
    command: Vec<String>,
}

/// What is to be run, of a pod that is there.
pub fn exec(cluster: &Cluster, request: &Request, pod: &Value) -> Result<Exec, ApiError> {
    if pod["status"]["phase"] != "Running" {
        return Err(ApiError::bad_request("cannot exec into a container in a completed pod"));
    }
    let command: Vec<_> = request.query.all("command").map(str::to_owned).collect();
    let Some(name) = command.first() else {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    };
    Ok(Exec { program: cluster.settings.programs.get(name).cloned(), command })
}

/// The answer that turns the connection into a WebSocket, on which the command runs.
pub fn switch(exec: Exec, headers: &HeaderMap, upgrade: OnUpgrade) -> Option<Response<()>> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    offered.split(',').find(|protocol| protocol.trim() == PROTOCOL)?;
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    tokio::spawn(async move {
        // A client that went away is nobody to tell.
        let Ok(upgraded) = upgrade.await else { return };
        let stream = TokioIo::new(upgraded);
        run(exec, WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
    });
    response.body(()).ok()
}

/// Runs the command until it ends or nobody listens.
async fn run(exec: Exec, socket: WebSocketStream<TokioIo<Upgraded>>) {
    let (mut to_client, mut from_client) = socket.split();
    let mut child = match start(&exec) {
        Ok(child) => child,
        Err(status) => {
            let _gone = to_client.send(frame(STATUS, status.to_string().as_bytes())).await;
            let _gone = to_client.close().await;
            return;
        }
    };
    let mut input = child.stdin.take();
    let (said, mut frames) = channel(1);
    forward(child.stdout.take(), STDOUT, said.clone());
    forward(child.stderr.take(), STDERR, said);
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => if to_client.send(frame).await.is_err() { return },
                None => break,
            },
            message = from_client.next() => match message {
                Some(Ok(message)) => feed(&mut input, &message.into_data()).await,
                // The child goes with what holds it.
                Some(Err(_)) | None => return,
            },
        }
    }
    let status = match child.wait().await {
        Ok(status) if status.success() => json!({ "metadata": {}, "status": "Success" }),
        Ok(status) => failure(&format!("command terminated with {status}")),
        Err(error) => failure(&error.to_string()),
    };
    let _gone = to_client.send(frame(STATUS, status.to_string().as_bytes())).await;
    let _gone = to_client.close().await;
}

fn start(exec: &Exec) -> Result<Child, Value> {
    let name = exec.command.first().map(String::as_str).unwrap_or_default();
    let Some(program) = &exec.program else {
        return Err(failure(&format!("exec: \"{name}\": stat {name}: no such file or directory")));
    };
    let mut command = Command::new(program);
    command.args(exec.command.iter().skip(1)).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| failure(&format!("exec: \"{name}\": {error}")))
}

fn failure(message: &str) -> Value {
    json!({ "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError" })
}

/// Standard input of the command: what the client sends on its channel, until it closes that.
async fn feed(input: &mut Option<ChildStdin>, message: &Bytes) {
    match (message.first(), message.get(1)) {
        (Some(&STDIN), _) => {
            if let Some(open) = input
                && open.write_all(&message[1..]).await.is_err()
            {
                // The command reads no more.
                *input = None;
            }
        }
        (Some(&CLOSE), Some(&STDIN)) => *input = None,
        _ => {}
    }
}

/// Sends what the command says on a channel.
fn forward<R>(stream: Option<R>, channel: u8, frames: Sender<Message>)
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let Some(mut stream) = stream else { return };
    tokio::spawn(async move {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if frames.send(frame(channel, &buffer[..read])).await.is_err() {
                return;
            }
        }
    });
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = vec![channel];
    frame.extend_from_slice(bytes);
    Message::binary(frame)
}
