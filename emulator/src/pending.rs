//! Calls that are not decided yet, whether or not anybody still waits for them.
//!
//! A test that wants to ask what is true in the end must know that there is nothing left to come.

use tokio::sync::watch;

/// Counts calls being carried out.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    count: watch::Sender<usize>,
}

/// One undecided call; decided when dropped.
#[derive(Debug)]
pub(crate) struct Undecided {
    count: watch::Sender<usize>,
}

impl Pending {
    pub(crate) fn begin(&self) -> Undecided {
        self.count.send_modify(|count| *count += 1);
        Undecided {
            count: self.count.clone(),
        }
    }

    /// Waits until every call is decided.
    pub(crate) async fn none(&self) {
        // The sender lives in `self`, so the wait cannot end for want of one.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}
