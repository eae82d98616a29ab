//! Serves HTTP/2 connections: a check on the task of its connection for as long as it waits for nothing but its own
//! message, everything else on a task of its own.
//!
//! tonic's own server gives every call a task. Most calls are checks that are answered from memory within a few
//! microseconds; for them making a task, waking another thread for it and waking the connection again costs more than
//! the answer (`benches/check_access`).

mod awake;
mod calls;
mod protocol;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::Service;

use self::awake::Awake;
use self::calls::{Calling, Calls};
use super::tls::{Agreed, Tls};
use crate::caller::ClientCertificate;

/// After accepting a connection has failed for want of something (file descriptors, memory), the next try is so much
/// later.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How long a client may take for the first thing that it has to say.
const FIRST_WORDS: Duration = Duration::from_secs(10);
/// What every HTTP/2 connection begins with, in bytes (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// So long the task of a connection goes on before others have their turn.
const TURN: Duration = Duration::from_millis(1);

/// How much is served at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many connections. Whoever comes then waits until another goes.
    pub(super) connections: usize,
    /// How many streams on one of them. More than calls are taken at once, so that who refuses them says why.
    pub(super) streams: u32,
}

/// What can be served: a name for its bounds.
pub(super) trait Serves:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Serves for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Accepts connections until `shutdown`, and comes back when the last call on the last of them is over.
pub(super) async fn serve<S: Serves>(
    listener: TcpListener,
    tls: Option<Tls>,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(limits.connections));
    while let Some(accepted) = shutdown.run_until_cancelled(next(&listener, &room)).await {
        match accepted {
            Ok((stream, permit)) => {
                let (service, shutdown) = (service.clone(), shutdown.clone());
                let served = connection(stream, tls.clone(), service, limits, shutdown);
                connections.spawn(async move {
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "a connection has failed");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
    // Whoever connects from here on is told at once that nobody listens.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is room for one.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Serves one connection to its end: once keys are agreed on, where there is TLS, and the client has begun to speak.
async fn connection<S: Serves>(
    stream: TcpStream,
    tls: Option<Tls>,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // Answers are small, and wait for nothing.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        let Some(stream) = shutdown.run_until_cancelled(greeted(stream)).await else {
            return Ok(());
        };
        return http2(stream?, None, service, limits, shutdown.cancelled_owned()).await;
    };
    let begun = async {
        let Agreed {
            stream,
            certificate,
            outdated,
        } = tls.accept(stream).await?;
        Ok::<_, io::Error>((greeted(stream).await?, certificate, outdated))
    };
    let Some(begun) = shutdown.run_until_cancelled(begun).await else {
        return Ok(());
    };
    let (stream, certificate, outdated) = begun?;
    let closing = async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = outdated.cancelled() => {}
        }
    };
    http2(stream, certificate, service, limits, closing).await
}

/// Waits until a client has said that it speaks HTTP/2: who connects and says nothing is not kept.
async fn greeted<T>(stream: T) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut reader, writer) = split(stream);
    let mut preface = [0; PREFACE];
    timeout(FIRST_WORDS, reader.read_exact(&mut preface)).await??;
    // It is read once more by who knows what it has to be.
    Ok(join(io::Cursor::new(preface).chain(reader), writer))
}

/// Serves HTTP/2 to its end, or after `closing` until the calls under way are over.
async fn http2<S: Serves>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    certificate: Option<ClientCertificate>,
    service: S,
    limits: Limits,
    closing: impl Future<Output = ()>,
) -> io::Result<()> {
    let calls = Calls::default();
    let connection = protocol::builder(calls.executor(), limits.streams).serve_connection(
        TokioIo::new(stream),
        Calling::new(service, certificate, &calls),
    );
    let mut connection = pin!(connection);
    let mut closing = pin!(closing.fuse());
    let mut begun = FuturesUnordered::new();
    let awake = Arc::new(Awake::default());
    let waker = Waker::from(Arc::clone(&awake));
    let ended = poll_fn(|outer| {
        awake.begin(outer);
        let mut context = Context::from_waker(&waker);
        let turn = Instant::now();
        loop {
            awake.forget();
            if closing.poll_unpin(&mut context).is_ready() {
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(&mut context) {
                return Poll::Ready(ended);
            }
            let mut has_answered = calls.begin(&mut begun);
            while let Poll::Ready(Some(())) = begun.poll_next_unpin(&mut context) {
                has_answered = true;
            }
            if !has_answered {
                awake.end(outer);
                return Poll::Pending;
            }
            if turn.elapsed() >= TURN {
                awake.end(outer);
                outer.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    });
    ended.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
