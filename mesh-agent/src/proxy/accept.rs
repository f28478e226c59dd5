//! Accepting: every connection becomes a task of the worker that accepted it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time,
};

use super::{dial, hbone, inbound, outbound, pod::ServedPod, worker::Context};

/// How long accepting pauses when the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Connections that the pod opened.
    Outbound,
    /// Plaintext that reaches the pod.
    Inbound,
    /// Tunnels that reach the pod.
    Hbone,
}

/// Accepts until the pod is stopped.
pub(super) async fn accept_loop(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    purpose: Purpose,
    listener: TcpListener,
) {
    let stopped = pod.stopped();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => return,
        };
        match accepted {
            Ok((stream, peer)) => start(&context, &pod, purpose, stream, peer),
            // The peer gave up first: nothing of ours is wrong.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                context.shared.observer.accept_failed();
                if context.shared.failed_accepts.is_due() {
                    let advice = "raise the agent's limit of open files if this goes on";
                    tracing::warn!(pod = %pod.pod.name, %error, "cannot accept; will try again, {advice}");
                }
                tokio::select! {
                    () = time::sleep(PAUSE) => {}
                    () = &mut stopped => return,
                }
            }
        }
    }
}

fn start(
    context: &Arc<Context>,
    pod: &Arc<ServedPod>,
    purpose: Purpose,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let (context, pod) = (context.clone(), pod.clone());
    // Small writes must not wait for acknowledgements: the application decides what to batch.
    // A socket that refuses this is already dead, and the first read says so.
    let _ = stream.set_nodelay(true);
    let _ = dial::keep_urgent_data(&stream);
    if let Purpose::Inbound = purpose {
        let _ = dial::keep_application_alive(&stream);
    }
    match purpose {
        Purpose::Outbound => tokio::spawn(outbound::serve(context, pod, stream, peer)),
        Purpose::Inbound => tokio::spawn(inbound::serve(context, pod, stream, peer)),
        Purpose::Hbone => tokio::spawn(hbone::server::serve(context, pod, stream, peer)),
    };
}
