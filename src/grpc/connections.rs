//! Serves HTTP/2 connections: each call on the task of its connection for as long as it waits for nothing but its own
//! message, and only then on a task of its own.
//!
//! tonic's own server gives every call a task. Most calls are checks that are answered from memory within a few
//! microseconds; for them making a task, waking another thread for it and waking the connection again costs more than
//! the answer (`benches/check_access`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// How often an idle connection is asked whether it still lives. Load balancers drop silent ones, in
/// Azure after four minutes.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// How long it has to answer.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// After accepting a connection has failed for want of something (file descriptors, memory), the next try is so much
/// later.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// The headers of one call, in bytes. Tokens are long where somebody is in many groups; what is too long for a token is
/// refused by whoever reads tokens, with a reason, where HTTP/2 alone would only end the stream.
const LARGEST_HEADERS: u32 = 128 * 1024;
/// So many calls of one connection are answered before their answers are sent and more are read.
const AT_ONCE: usize = 16;

/// Accepts connections until `shutdown`, and comes back when the last call on the last of them is over.
pub(super) async fn serve<S>(listener: TcpListener, service: S, shutdown: CancellationToken)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let connections = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                // Answers are small, and wait for nothing.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection was gone at once");
                    continue;
                }
                let connection = connection(stream, service.clone(), shutdown.clone());
                connections.spawn(connection);
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

/// Serves one connection to its end.
async fn connection<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
    let calls = Calls::default();
    let connection = http2::Builder::new(calls.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        // Calls that are too many are refused by the guard, which says so; streams that wait say nothing.
        .max_concurrent_streams(None)
        .max_header_list_size(LARGEST_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let mut closing = pin!(shutdown.cancelled_owned().fuse());
    let mut begun = FuturesUnordered::new();
    let awake = Arc::new(Awake::default());
    let waker = Waker::from(Arc::clone(&awake));
    let ended = poll_fn(|outer| {
        awake.begin(outer);
        let mut context = Context::from_waker(&waker);
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
        }
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection has failed");
    }
}

/// Wakes the task of a connection, and not while it is at work: each answer that is written wakes it, and it sends them
/// all before it rests. Woken while it runs, a task is put into the queue once more, and another thread is woken to take
/// it.
#[derive(Default)]
struct Awake {
    outer: AtomicWaker,
    /// [`AT_WORK`], [`WOKEN`]
    state: AtomicU8,
}

const AT_WORK: u8 = 1;
const WOKEN: u8 = 2;

impl Awake {
    /// The task is at work.
    fn begin(&self, outer: &Context<'_>) {
        self.outer.register(outer.waker());
        self.state.store(AT_WORK, Ordering::SeqCst);
    }

    /// All that it was woken for is done next.
    fn forget(&self) {
        self.state.fetch_and(!WOKEN, Ordering::SeqCst);
    }

    /// The task rests, unless it was woken meanwhile.
    fn end(&self, outer: &Context<'_>) {
        if self.state.swap(0, Ordering::SeqCst) & WOKEN != 0 {
            outer.waker().wake_by_ref();
        }
    }
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::SeqCst) & AT_WORK == 0 {
            self.outer.wake();
        }
    }
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls of one connection that have been read and not begun. Cheap to clone; clones share them.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<VecDeque<Call>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.waiting().push_back(Box::pin(call));
    }
}

impl Calls {
    /// Begins the next few; those that have to wait go to `begun`. Whether any was answered, or is left.
    fn begin(&self, begun: &mut FuturesUnordered<Begun>) -> bool {
        let mut has_answered = false;
        for _ in 0..AT_ONCE {
            let Some(mut call) = self.waiting().pop_front() else {
                return has_answered;
            };
            // Whoever has to wait is polled once more, and leaves its waker then.
            let mut context = Context::from_waker(Waker::noop());
            match go_on(&mut call, &mut context) {
                Poll::Ready(()) => has_answered = true,
                Poll::Pending => begun.push(Begun::new(call)),
            }
        }
        true
    }

    /// Nothing panics while it is held.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that had to wait: for its message, as a rule, which comes a moment after its headers.
struct Begun {
    call: Option<Call>,
    has_been_woken: bool,
}

impl Begun {
    const fn new(call: Call) -> Self {
        Self {
            call: Some(call),
            has_been_woken: false,
        }
    }
}

impl Future for Begun {
    type Output = ();

    /// Done when it is answered or, once its message is there and it waits for something else, has a task of its own.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let is_woken = std::mem::replace(&mut self.has_been_woken, true);
        let Some(call) = &mut self.call else {
            return Poll::Ready(());
        };
        if go_on(call, context).is_ready() {
            return Poll::Ready(());
        }
        if !is_woken {
            return Poll::Pending;
        }
        self.call.take().map(tokio::spawn);
        Poll::Ready(())
    }
}

/// Polls a call. A panic ends it, as it would on a task of its own, and not the connection's others.
fn go_on(call: &mut Call, context: &mut Context<'_>) -> Poll<()> {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
    polled.unwrap_or_else(|_| {
        tracing::error!("a call has panicked");
        Poll::Ready(())
    })
}
