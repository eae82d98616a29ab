//! What all calls of one connection share.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::caller::ClientCertificate;

/// How many calls of health and reflection one connection may have under way at once, watches included.
pub(in crate::grpc) const BESIDE: usize = 16;

/// How often a connection looks at what waits for its client. One clock for all of its calls: a timer of each call's own
/// costs a check more than its answer.
const TICK: Duration = Duration::from_millis(2_500);
/// A message that has taken so many ticks is late.
const TICKS_OF_A_MESSAGE: usize = 2;
/// An answer that has not left after so many ticks is not read.
const TICKS_OF_AN_ANSWER: usize = 14;

/// How long a message may take at most, once its call has begun.
pub(in crate::grpc) const COMPLETE_WITHIN: Duration = Duration::from_secs(5);

/// A connection, as its calls see it: each has it among its extensions.
pub(in crate::grpc) struct Origin {
    certificate: Option<ClientCertificate>,
    has_called: AtomicBool,
    beside: Arc<Semaphore>,
    ticks: AtomicUsize,
    ticked: Notify,
    /// How many pieces of answers are on their way, by the tick at which they were handed on.
    unsent: [AtomicUsize; TICKS_OF_AN_ANSWER + 2],
}

/// A piece of an answer on its way, for as long as this is held.
pub(in crate::grpc) struct Leaving {
    origin: Arc<Origin>,
    slot: usize,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(unsent) = self.origin.unsent.get(self.slot) {
            unsent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Origin {
    pub(super) fn new(certificate: Option<ClientCertificate>) -> Self {
        Self {
            certificate,
            has_called: AtomicBool::new(false),
            beside: Arc::new(Semaphore::new(BESIDE)),
            ticks: AtomicUsize::new(0),
            ticked: Notify::new(),
            unsent: array::from_fn(|_| AtomicUsize::new(0)),
        }
    }

    /// Ticks until an answer has not left for too long: then the client does not read, and nothing but the end of the
    /// connection gives back what HTTP/2 holds for it.
    pub(super) async fn until_nobody_reads(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            if self.tick() {
                return;
            }
        }
    }

    /// Whether an answer is as old as one may be.
    fn tick(&self) -> bool {
        let now = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        self.ticked.notify_waiters();
        // The slot that is used next has to be empty: what stands there was handed on long ago.
        let oldest = self.unsent.get((now + 1) % self.unsent.len());
        oldest.is_some_and(|oldest| oldest.load(Ordering::Relaxed) > 0)
    }

    /// Comes back when a message that begins now is late.
    pub(in crate::grpc) async fn late(&self) {
        let begun = self.ticks.load(Ordering::Relaxed);
        loop {
            let ticked = self.ticked.notified();
            if self.ticks.load(Ordering::Relaxed) >= begun + TICKS_OF_A_MESSAGE {
                return;
            }
            ticked.await;
        }
    }

    /// A piece of an answer is handed on.
    pub(in crate::grpc) fn leaving(self: &Arc<Self>) -> Leaving {
        let slot = self.ticks.load(Ordering::Relaxed) % self.unsent.len();
        if let Some(unsent) = self.unsent.get(slot) {
            unsent.fetch_add(1, Ordering::Relaxed);
        }
        Leaving {
            origin: Arc::clone(self),
            slot,
        }
    }

    /// The certificate that its client proved to have.
    pub(in crate::grpc) const fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// Somebody known has called: whoever needs room closes others first.
    pub(in crate::grpc) fn has_called(&self) {
        self.has_called.store(true, Ordering::Relaxed);
    }

    /// Whether nobody known has called by it.
    pub(super) fn is_silent(&self) -> bool {
        !self.has_called.load(Ordering::Relaxed)
    }

    /// A place for one more call of health or reflection; `None` where there is none.
    pub(in crate::grpc) fn ask_beside(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.beside).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_leave_ends_the_connection_and_one_that_does_not() {
        let origin = Arc::new(Origin::new(None));
        let forever = Duration::from_hours(1);
        // Each leaves in time, and there is always one.
        let busy = async {
            loop {
                let leaving = origin.leaving();
                tokio::time::sleep(TICK * 10).await;
                drop(leaving);
            }
        };
        let nobody_reads = origin.until_nobody_reads();
        tokio::select! {
            () = busy => {}
            () = nobody_reads => panic!("all answers have left"),
            () = tokio::time::sleep(forever) => {}
        }
        let start = Instant::now();
        let _leaving = origin.leaving();
        origin.until_nobody_reads().await;
        let took = start.elapsed();
        assert!(took > super::super::TAKEN_WITHIN, "{took:?}");
        assert!(took < super::super::TAKEN_WITHIN * 2, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_late_after_some_seconds() {
        let origin = Arc::new(Origin::new(None));
        let start = Instant::now();
        tokio::select! {
            () = origin.until_nobody_reads() => panic!("there is no answer"),
            () = origin.late() => {}
        }
        assert!(start.elapsed() <= COMPLETE_WITHIN);
        assert!(start.elapsed() * 2 >= COMPLETE_WITHIN);
    }
}
