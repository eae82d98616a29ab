//! Watches over answers that are being sent: one that its client does not take is given up after a while.
//!
//! HTTP/2 lets a client say how much it takes. Where it takes nothing, the call waits inside the library, which polls
//! nothing of ours: so whoever runs the call looks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// How long a client may take for the next piece of an answer.
pub(in crate::grpc) const TAKEN_WITHIN: Duration = Duration::from_secs(20);

/// How far the answer of one call has come.
#[derive(Default)]
pub(super) struct Sending {
    /// Twice the number of pieces that were handed on; and one where the last of them has not been taken.
    state: AtomicU64,
}

impl Sending {
    fn hands_on(&self) {
        let before = self.state.load(Ordering::Relaxed);
        self.state.store((before | 1) + 2, Ordering::Relaxed);
    }

    fn has_nothing(&self) {
        self.state.fetch_and(!1, Ordering::Relaxed);
    }

    /// What tells a piece that waits from every other; `None` where none does.
    fn waiting(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        (state & 1 == 1).then_some(state)
    }
}

/// The body of an answer that is watched over.
pub(super) struct Sent<B> {
    body: B,
    sending: Arc<Sending>,
}

impl<B: Body + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(_)) => self.sending.hands_on(),
            // It is asked only when what it handed on has been taken.
            Poll::Ready(None) | Poll::Pending => self.sending.has_nothing(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer to come, whose sending is watched over.
pub(super) struct Answering<F> {
    answer: F,
    sending: Arc<Sending>,
}

impl<F> Answering<F> {
    pub(super) const fn new(answer: F, sending: Arc<Sending>) -> Self {
        Self { answer, sending }
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = Result<Response<Sent<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        let sending = &self.sending;
        answer.map_ok(|response| {
            response.map(|body| Sent {
                body,
                sending: Arc::clone(sending),
            })
        })
    }
}

/// A call, from its headers to the last byte of its answer.
pub(super) struct Watched {
    call: Pin<Box<dyn Future<Output = ()> + Send>>,
    sending: Arc<Sending>,
    /// The piece that waits, and for how long it still may.
    patience: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Watched {
    pub(super) fn new(
        call: impl Future<Output = ()> + Send + 'static,
        sending: Arc<Sending>,
    ) -> Self {
        Self {
            call: Box::pin(call),
            sending,
            patience: None,
        }
    }
}

impl Future for Watched {
    type Output = ();

    /// Done when the call is, or when it is given up: dropping it resets its stream.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.call.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(waits) = self.sending.waiting() else {
            self.patience = None;
            return Poll::Pending;
        };
        let known = self.patience.as_ref().is_some_and(|(of, _)| *of == waits);
        if !known {
            self.patience = Some((waits, Box::pin(sleep(TAKEN_WITHIN))));
        }
        let Some((_, patience)) = &mut self.patience else {
            return Poll::Pending;
        };
        let late = patience.as_mut().poll(context);
        if late.is_ready() {
            tracing::debug!("a client does not take an answer: its stream is reset");
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, poll_fn, ready};

    use hyper::body::Bytes;
    use tokio::time::Instant;

    use super::*;

    /// Hands on so many pieces, and has nothing more to say for now.
    struct Pieces(usize);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.checked_sub(1) {
                None => Poll::Pending,
                Some(left) => {
                    self.0 = left;
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"piece")))))
                }
            }
        }
    }

    /// A call of whose answer `taken` pieces are taken, and then none.
    fn call(pieces: usize, taken: usize) -> Watched {
        let sending = Arc::new(Sending::default());
        let answer = ready(Ok::<_, Infallible>(Response::new(Pieces(pieces))));
        let answer = Answering::new(answer, Arc::clone(&sending));
        let call = async move {
            let mut body = answer.await.unwrap().into_body();
            for _ in 0..taken {
                poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            }
            pending::<()>().await;
        };
        Watched::new(call, sending)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_given_up_when_a_piece_of_its_answer_is_not_taken() {
        let start = Instant::now();
        call(3, 2).await;
        assert_eq!(start.elapsed(), TAKEN_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_has_nothing_to_send_may_wait_for_ever() {
        let forever = TAKEN_WITHIN * 100;
        for (pieces, taken) in [(0, 0), (0, 1), (2, 3)] {
            let call = tokio::time::timeout(forever, call(pieces, taken));
            assert!(call.await.is_err(), "{pieces} {taken}");
        }
    }
}
