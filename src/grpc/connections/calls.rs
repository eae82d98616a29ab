//! The calls of one connection: which stay on its task, and how they go on there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use tonic::body::Body;
use tower::Service;

use super::origin::Origin;
use super::sending::{Answering, Sending, Sent, Watched};

/// The one RPC whose calls stay: it is answered from memory, as a rule, and at once.
const STAYS: &str = "/aks.access.v1.AccessBrokerService/CheckAccess";
/// So many calls of one connection are answered before their answers are sent and more are read.
const AT_ONCE: usize = 16;

type Queue = Mutex<VecDeque<Watched>>;

/// What is known of the call that the executor is given next.
#[derive(Default)]
struct Next {
    stays: bool,
    sending: Arc<Sending>,
}

/// Calls of one connection that have been read, not begun, and stay on its task. They end with it.
#[derive(Default)]
pub(super) struct Calls {
    queue: Arc<Queue>,
    next: Arc<Mutex<Next>>,
}

impl Calls {
    /// Where HTTP/2 puts the calls that it has read. Each of them holds one of these: so that these do not hold the
    /// calls.
    pub(super) fn executor(&self) -> Handle {
        Handle {
            queue: Arc::downgrade(&self.queue),
            next: Arc::clone(&self.next),
        }
    }

    /// Puts a call there as HTTP/2 does.
    #[cfg(test)]
    pub(super) fn put(&self, call: impl Future<Output = ()> + Send + 'static) {
        held(&self.next).stays = true;
        self.executor().execute(call);
    }

    /// Begins the next few; those that have to wait go to `begun`. Whether any was answered, or is left.
    pub(super) fn begin(&self, begun: &mut FuturesUnordered<Begun>) -> bool {
        let mut has_answered = false;
        for _ in 0..AT_ONCE {
            let Some(mut call) = held(&self.queue).pop_front() else {
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
}

/// Nothing panics while it is held.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes calls for a connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Handle {
    queue: Weak<Queue>,
    next: Arc<Mutex<Next>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Handle {
    fn execute(&self, call: F) {
        let Next { stays, sending } = mem::take(&mut *held(&self.next));
        let call = Watched::new(call, sending);
        if !stays {
            tokio::spawn(call);
        } else if let Some(queue) = self.queue.upgrade() {
            held(&queue).push_back(call);
        }
    }
}

/// The service, as HTTP/2 calls it for one connection: once for each call, right before the call is given to the
/// executor.
pub(super) struct Calling<S> {
    service: S,
    origin: Arc<Origin>,
    next: Arc<Mutex<Next>>,
}

impl<S> Calling<S> {
    pub(super) fn new(service: S, origin: Arc<Origin>, calls: &Calls) -> Self {
        Self {
            service,
            origin,
            next: Arc::clone(&calls.next),
        }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Calling<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Unpin> + Clone,
{
    type Response = Response<Sent<Body>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let stays = request.uri().path() == STAYS;
        let sending = Arc::new(Sending::default());
        *held(&self.next) = Next {
            stays,
            sending: Arc::clone(&sending),
        };
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&self.origin));
        // Always ready: it takes what comes, and refuses in its answer.
        Answering::new(self.service.clone().call(request), sending)
    }
}

/// A call that had to wait: for its message, as a rule, which comes a moment after its headers.
pub(super) struct Begun {
    call: Option<Watched>,
    has_been_woken: bool,
}

impl Begun {
    const fn new(call: Watched) -> Self {
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
fn go_on(call: &mut Watched, context: &mut Context<'_>) -> Poll<()> {
    let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(call).poll(context)));
    polled.unwrap_or_else(|_| {
        tracing::error!("a call has panicked");
        Poll::Ready(())
    })
}
