//! Serves HTTP/2 connections: a check on the task of its connection for as long as it waits for nothing but its own
//! message, everything else on a task of its own.
//!
//! tonic's own server gives every call a task. Most calls are checks that are answered from memory within a few
//! microseconds; for them making a task, waking another thread for it and waking the connection again costs more than
//! the answer (`benches/check_access`).

mod awake;
mod calls;
mod origin;
mod protocol;
mod register;
mod sending;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
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
use self::register::{Entry, Register};
use super::tls::{Agreed, Tls};
use crate::caller::ClientCertificate;

pub(super) use self::origin::{BESIDE, COMPLETE_WITHIN, Leaving, Origin};
pub(super) use self::sending::TAKEN_WITHIN;

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
    /// How many connections. Whoever comes then takes the place of one by which nobody has called or, where there is
    /// none, waits until another goes.
    pub(super) connections: usize,
    /// How many of them one address may have, if there is such a limit.
    pub(super) per_address: Option<usize>,
    /// How long one may be open before it takes no new calls, if there is such a limit; and how long the calls under way
    /// have then.
    pub(super) age: Option<(Duration, Duration)>,
    /// How many streams on one of them. More than calls are taken at once, so that who refuses them says why.
    pub(super) streams: u32,
}

/// What can be served: a name for its bounds.
pub(super) trait Serves:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin>
    + Clone
    + Send
    + 'static
{
}

impl<S> Serves for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin>
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
    let register = Arc::new(Register::default());
    let share = limits.per_address;
    while let Some(accepted) = shutdown
        .run_until_cancelled(next(&listener, &room, &register, share))
        .await
    {
        match accepted {
            Ok((stream, peer, permit)) => {
                let registered = register.enter(peer);
                let (service, shutdown) = (service.clone(), shutdown.clone());
                let entry = Arc::clone(&registered.entry);
                let tls = tls.clone();
                connections.spawn(async move {
                    let served = connection(stream, tls, service, limits, shutdown, &entry);
                    let served = entry.close.run_until_cancelled(served);
                    if let Some(Err(error)) = served.await {
                        tracing::debug!(%error, "a connection has failed");
                    }
                    drop((registered, permit));
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

/// The next connection, its address, and its place. Where there is no place, one is made, or waited for.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    register: &Register,
    share: Option<usize>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let (stream, peer) = loop {
        let (stream, peer) = listener.accept().await?;
        // Before anybody loses a place to it.
        if share.is_none_or(|share| register.count(peer.ip()) < share) {
            break (stream, peer);
        }
        tracing::debug!(%peer, "an address has as many connections as it may: one more is closed");
    };
    if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
        return Ok((stream, peer.ip(), permit));
    }
    register.close_a_silent_one();
    let permit = Arc::clone(room).acquire_owned().await;
    Ok((stream, peer.ip(), permit.map_err(io::Error::other)?))
}

/// Serves one connection to its end: once keys are agreed on, where there is TLS, and the client has begun to speak.
async fn connection<S: Serves>(
    stream: TcpStream,
    tls: Option<Tls>,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
    entry: &Entry,
) -> io::Result<()> {
    // Answers are small, and wait for nothing.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        let Some(stream) = shutdown.run_until_cancelled(greeted(stream)).await else {
            return Ok(());
        };
        let origin = origin(None, entry);
        return http2(stream?, origin, service, limits, shutdown.cancelled_owned()).await;
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
    http2(stream, origin(certificate, entry), service, limits, closing).await
}

/// What the calls of a connection share, the register knows as well.
fn origin(certificate: Option<ClientCertificate>, entry: &Entry) -> Arc<Origin> {
    let origin = || Arc::new(Origin::new(certificate));
    Arc::clone(entry.origin.get_or_init(origin))
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
    origin: Arc<Origin>,
    service: S,
    limits: Limits,
    closing: impl Future<Output = ()>,
) -> io::Result<()> {
    let (aged, outlived) = lifetime(limits.age);
    let closing = async {
        tokio::select! {
            () = closing => {}
            () = aged => {}
        }
    };
    let calls = Calls::default();
    let ticking = Arc::clone(&origin);
    let connection = protocol::builder(calls.executor(), limits.streams)
        .serve_connection(TokioIo::new(stream), Calling::new(service, origin, &calls));
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
    tokio::select! {
        ended = ended => ended.map_err(io::Error::other),
        () = outlived => Err(io::Error::other("it is older than server.max_connection_age allows")),
        () = ticking.until_nobody_reads() => Err(io::Error::other("its client does not read answers")),
    }
}

/// Two ends of a connection by its age: of new calls on it, and of itself. All connections that a new replica gets at
/// once must not end at once, so each has up to a tenth more.
fn lifetime(
    age: Option<(Duration, Duration)>,
) -> (impl Future<Output = ()>, impl Future<Output = ()>) {
    let of = age.map(|(age, grace)| {
        let age = age.mul_f64(rand::random_range(1.0..1.1));
        (age, age + grace)
    });
    (after(of.map(|(age, _)| age)), after(of.map(|(_, end)| end)))
}

/// Comes back after this time; without one, never.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
