//! The calls of one connection: which stay on its task, and how they go on there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::service::TowerToHyperService;
use tonic::body::Body;
use tower::Service;

use crate::caller::ClientCertificate;

/// The one RPC whose calls stay: it is answered from memory, as a rule, and at once.
const STAYS: &str = "/aks.access.v1.AccessBrokerService/CheckAccess";
/// So many calls of one connection are answered before their answers are sent and more are read.
const AT_ONCE: usize = 16;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;
type Queue = Mutex<VecDeque<Call>>;

/// Calls of one connection that have been read, not begun, and stay on its task. They end with it.
#[derive(Default)]
pub(super) struct Calls {
    queue: Arc<Queue>,
    next_stays: Arc<AtomicBool>,
}

impl Calls {
    /// Where HTTP/2 puts the calls that it has read. Each of them holds one of these: so that these do not hold the
    /// calls.
    pub(super) fn executor(&self) -> Handle {
        Handle {
            queue: Arc::downgrade(&self.queue),
            next_stays: Arc::clone(&self.next_stays),
        }
    }

    /// Puts a call there as HTTP/2 does.
    #[cfg(test)]
    pub(super) fn put(&self, call: impl Future<Output = ()> + Send + 'static) {
        self.next_stays.store(true, Ordering::Relaxed);
        self.executor().execute(call);
    }

    /// Begins the next few; those that have to wait go to `begun`. Whether any was answered, or is left.
    pub(super) fn begin(&self, begun: &mut FuturesUnordered<Begun>) -> bool {
        let mut has_answered = false;
        for _ in 0..AT_ONCE {
            let Some(mut call) = waiting(&self.queue).pop_front() else {
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
fn waiting(queue: &Queue) -> MutexGuard<'_, VecDeque<Call>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes calls for a connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Handle {
    queue: Weak<Queue>,
    next_stays: Arc<AtomicBool>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Handle {
    fn execute(&self, call: F) {
        if !self.next_stays.swap(false, Ordering::Relaxed) {
            tokio::spawn(call);
        } else if let Some(queue) = self.queue.upgrade() {
            waiting(&queue).push_back(Box::pin(call));
        }
    }
}

/// The service, as HTTP/2 calls it for one connection: once for each call, right before the call is given to the
/// executor.
pub(super) struct Calling<S> {
    service: TowerToHyperService<S>,
    certificate: Option<ClientCertificate>,
    next_stays: Arc<AtomicBool>,
}

impl<S> Calling<S> {
    pub(super) fn new(service: S, certificate: Option<ClientCertificate>, calls: &Calls) -> Self {
        Self {
            service: TowerToHyperService::new(service),
            certificate,
            next_stays: Arc::clone(&calls.next_stays),
        }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Calling<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <TowerToHyperService<S> as hyper::service::Service<Request<Body>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let stays = request.uri().path() == STAYS;
        self.next_stays.store(stays, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        self.service.call(request)
    }
}

/// A call that had to wait: for its message, as a rule, which comes a moment after its headers.
pub(super) struct Begun {
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
