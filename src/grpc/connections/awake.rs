//! Wakes the task of a connection, and not while it is at work.
//!
//! Each answer that is written wakes it, and it sends them all before it rests. Woken while it runs, a task is put into
//! the queue once more, and another thread is woken to take it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake};

use futures::task::AtomicWaker;

const AT_WORK: u8 = 1;
const WOKEN: u8 = 2;

/// Stands between a task and what it waits for.
#[derive(Default)]
pub(super) struct Awake {
    outer: AtomicWaker,
    /// [`AT_WORK`], [`WOKEN`]
    state: AtomicU8,
}

impl Awake {
    /// The task is at work.
    pub(super) fn begin(&self, outer: &Context<'_>) {
        self.outer.register(outer.waker());
        self.state.store(AT_WORK, Ordering::SeqCst);
    }

    /// All that it was woken for is done next.
    pub(super) fn forget(&self) {
        self.state.fetch_and(!WOKEN, Ordering::SeqCst);
    }

    /// The task rests, unless it was woken meanwhile.
    pub(super) fn end(&self, outer: &Context<'_>) {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_it_rests_and_not_while_it_does_what_it_was_woken_for() {
        let count = Arc::new(Count::default());
        let outer = Waker::from(Arc::clone(&count));
        let outer = Context::from_waker(&outer);
        let awake = Arc::new(Awake::default());
        let woken = || count.0.load(Ordering::SeqCst);

        awake.begin(&outer);
        Arc::clone(&awake).wake();
        // All is looked at again after this.
        awake.forget();
        awake.end(&outer);
        assert_eq!(woken(), 0);

        Arc::clone(&awake).wake();
        assert_eq!(woken(), 1);

        awake.begin(&outer);
        awake.forget();
        // Too late to be looked at in this turn.
        Arc::clone(&awake).wake();
        assert_eq!(woken(), 1);
        awake.end(&outer);
        assert_eq!(woken(), 2);
    }
}
