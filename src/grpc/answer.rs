//! Sends an answer in pieces, and counts its bytes until they have left.
//!
//! A caller that does not read its answers makes the server keep them. So an answer takes room for its bytes as a
//! message does, and each of them gives it back once it is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use http::HeaderMap;
use hyper::body::{Bytes, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::connections::{Leaving, Origin, TAKEN_WITHIN};
use super::limits::{Held, Taker, What};

/// How many bytes are handed to the connection at a time. It takes the next piece when it has room for more.
const PIECE: usize = 16 * 1024;

/// What an answer holds until it has left.
pub(super) enum Holds {
    /// Room for its bytes.
    Bytes(Taker),
    /// The places of a call of health or reflection.
    Places(Arc<Places>),
}

/// Of all calls of its kind, and of those of its connection.
pub(super) type Places = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// The body of an answer.
pub(super) struct Counted {
    body: Body,
    holds: Holds,
    origin: Option<Arc<Origin>>,
    /// What was taken from `body` and not handed on.
    rest: Bytes,
    /// How much of a long answer is still on its way.
    unsent: Option<Arc<Unsent>>,
    /// By when it has to have left.
    patience: Option<Pin<Box<Sleep>>>,
    is_over: bool,
}

/// Counts the messages of one answer that have not left entirely.
#[derive(Default)]
struct Unsent {
    messages: AtomicUsize,
    left: AtomicWaker,
}

/// The bytes of a message, and their room.
struct Message {
    bytes: Bytes,
    _held: Option<Held>,
    _places: Option<Arc<Places>>,
    _leaving: Option<Leaving>,
    unsent: Option<Arc<Unsent>>,
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(unsent) = &self.unsent
            && unsent.messages.fetch_sub(1, Ordering::AcqRel) == 1
        {
            unsent.left.wake();
        }
    }
}

impl Counted {
    /// Counts the bytes of `body`. `origin`: the connection that they leave by.
    pub(super) fn new(body: Body, holds: Holds, origin: Option<Arc<Origin>>) -> Self {
        Self {
            body,
            holds,
            origin,
            rest: Bytes::new(),
            unsent: None,
            patience: None,
            is_over: false,
        }
    }

    /// The same bytes, which hold their room until the last of them is dropped.
    fn counted(&mut self, bytes: Bytes) -> Result<Bytes, Status> {
        let (held, places) = match &self.holds {
            Holds::Bytes(taker) => (Some(taker.take(What::Bytes, bytes.len())?), None),
            Holds::Places(places) => (None, Some(Arc::clone(places))),
        };
        if bytes.len() > PIECE {
            let unsent = self.unsent.get_or_insert_default();
            unsent.messages.fetch_add(1, Ordering::AcqRel);
        }
        let unsent = self.unsent.clone().filter(|_| bytes.len() > PIECE);
        Ok(Bytes::from_owner(Message {
            bytes,
            _held: held,
            _places: places,
            _leaving: self.origin.as_ref().map(Origin::leaving),
            unsent,
        }))
    }

    fn piece(&mut self) -> Option<Bytes> {
        let length = self.rest.len().min(PIECE);
        (length > 0).then(|| self.rest.split_to(length))
    }

    /// Waits until what is long has left, for a while: so the call does not end before its caller has the answer, and
    /// does not wait for ever for one who does not read it.
    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(unsent) = &self.unsent else {
            return Poll::Ready(Ok(()));
        };
        unsent.left.register(context.waker());
        if unsent.messages.load(Ordering::Acquire) == 0 {
            self.patience = None;
            return Poll::Ready(Ok(()));
        }
        let patience = || Box::pin(sleep(TAKEN_WITHIN));
        let patience = self.patience.get_or_insert_with(patience);
        let late = patience.as_mut().poll(context);
        late.map(|()| Err(Status::cancelled("the caller does not read its answer")))
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.poll_left(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(late)) => return Poll::Ready(Some(Err(late))),
            Poll::Pending => return Poll::Pending,
        }
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(data) => match self.counted(data) {
                Ok(counted) => {
                    self.rest = counted;
                    let piece = self.piece().unwrap_or_default();
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                Err(refused) => {
                    self.is_over = true;
                    let mut trailers = HeaderMap::new();
                    let added = refused.add_header(&mut trailers);
                    Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
                }
            },
            Err(frame) => Poll::Ready(Some(Ok(frame))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.rest.is_empty() && self.body.is_end_stream())
    }
}
