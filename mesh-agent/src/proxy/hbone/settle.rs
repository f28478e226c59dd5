//! The beginning of an HTTP/2 connection: nobody uses it before its peer has said how many streams
//! it takes.
//!
//! h2 takes a peer for one that takes any number until it says otherwise. Connections that start
//! together would then get places that are not there, and h2 lets what has none wait until another
//! stream ends, which may be for ever.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};

use super::coalesce::{Coalesce, Flusher};

/// A connection over `io` as `builder` says, once its peer's settings are known.
///
/// # Errors
/// Where it ends before.
pub(in crate::proxy) async fn handshake<T>(
    mut builder: Builder,
    io: Coalesce<T>,
    flusher: &Flusher<T>,
) -> io::Result<(SendRequest<Bytes>, Connection<Coalesce<T>, Bytes>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    builder.initial_max_send_streams(0);
    let (request, mut connection) = builder.handshake(io).await.map_err(io::Error::other)?;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Err(ended.map_or_else(io::Error::other, |()| {
                io::Error::other("closed before it said how many streams it takes")
            })));
        }
        // What there is left to write is for whoever drives it from now on.
        if request.current_max_send_streams() > 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(flusher.poll_flush(cx))?;
        Poll::Pending
    })
    .await?;
    Ok((request, connection))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::proxy::hbone::coalesce::coalesce;

    /// An empty SETTINGS frame, and one that says that one stream is taken (RFC 9113, section 6.5).
    const ANY: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ONE: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];

    async fn streams_after(settings: &[u8]) -> usize {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let (io, flusher) = coalesce(near);
        let mut begun = std::pin::pin!(handshake(Builder::new(), io, &flusher));
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut begun).is_pending(), "nothing was said yet");
            tokio::task::yield_now().await;
        }
        far.write_all(settings).await.expect("written");
        let (request, _connection) = begun.await.expect("a connection");
        request.current_max_send_streams()
    }

    #[tokio::test]
    async fn nobody_uses_a_connection_before_it_is_known_how_many_streams_it_takes() {
        assert_eq!(streams_after(ONE).await, 1);
        assert_eq!(streams_after(ANY).await, usize::MAX);
    }

    #[tokio::test]
    async fn a_peer_that_ends_before_is_an_error() {
        let (near, far) = tokio::io::duplex(1 << 16);
        drop(far);
        let (io, flusher) = coalesce(near);
        assert!(handshake(Builder::new(), io, &flusher).await.is_err());
    }
}
