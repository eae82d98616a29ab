//! The background tasks of a process. Each of them has to go on until the process is told to end.
//!
//! One that ends before that, by a panic or by returning, would be missed by nobody: grants would not expire any more, or
//! the audit trail would never be sealed again. So its end is the end of the process, with an exit code of its own, and
//! whatever runs the process starts it again.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::telemetry::panic_message;

/// The exit code of a process one of whose background tasks has ended too soon; `EX_SOFTWARE` of `sysexits.h`.
pub(super) const EXIT_CODE: u8 = 70;

/// A background task has ended, though the process was not told to end.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum TaskEnded {
    #[error("the background task {task:?} panicked: {message}")]
    Panicked { task: &'static str, message: String },
    #[error("the background task {task:?} returned, though the process was not told to end")]
    Returned { task: &'static str },
}

/// Spawns the background tasks of a process, and watches them.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    shutdown: CancellationToken,
    /// The first that ended too soon.
    first: watch::Sender<Option<TaskEnded>>,
}

impl Tasks {
    /// Tasks that have to go on until `shutdown`.
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            first: watch::Sender::new(None),
        }
    }

    /// What tells the tasks to end.
    pub(super) const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs a task that has nothing to finish: at shutdown it is dropped wherever it waits.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.shutdown.clone().run_until_cancelled_owned(task);
        self.spawn_to_its_end(name, task.map(drop));
    }

    /// Runs a task that hears of shutdown by itself, and may have something to finish then. The handle waits for its
    /// end, however that comes.
    pub(super) fn spawn_to_its_end(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        tokio::spawn(async move {
            // What the task leaves behind half-changed is looked at by nobody any more: the process ends.
            let how = AssertUnwindSafe(task).catch_unwind().await;
            tasks.has_ended(name, how);
        })
    }

    /// Waits for a task that ends before shutdown; for ever, where none does.
    pub(super) async fn first_to_end(&self) -> TaskEnded {
        let mut first = self.first.subscribe();
        loop {
            if let Some(ended) = first.borrow_and_update().clone() {
                return ended;
            }
            if first.changed().await.is_err() {
                // The sender is this one's own.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The first task that has ended before shutdown, if one has.
    pub(super) fn ended(&self) -> Option<TaskEnded> {
        self.first.borrow().clone()
    }

    fn has_ended(&self, task: &'static str, how: Result<(), Box<dyn Any + Send>>) {
        let is_asked_for = self.shutdown.is_cancelled();
        let ended = match how {
            Ok(()) if is_asked_for => return,
            Ok(()) => TaskEnded::Returned { task },
            Err(panic) => TaskEnded::Panicked {
                task,
                message: panic_message(&*panic).to_owned(),
            },
        };
        if is_asked_for {
            error!(error = %ended, "while the process was ending anyway");
            return;
        }
        error!(error = %ended, "the process ends: what is under way is finished within server.drain");
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(ended);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use super::*;
    use crate::telemetry::Captured;

    fn panics() -> impl Future<Output = ()> {
        poll_fn(|_| panic!("out of {}", "luck"))
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_by_its_name_and_with_its_message() {
        let (log, _guard) = Captured::begin();
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("patient", pending());
        tasks.spawn("unlucky", panics());
        let expected = TaskEnded::Panicked {
            task: "unlucky",
            message: "out of luck".to_owned(),
        };
        assert_eq!(tasks.first_to_end().await, expected);
        assert_eq!(tasks.ended(), Some(expected.clone()));
        let told = log.text();
        assert!(
            told.contains("ERROR") && told.contains(&expected.to_string()),
            "{told}"
        );
    }

    #[tokio::test]
    async fn a_task_that_returns_is_told_as_well_and_the_first_counts() {
        let (log, _guard) = Captured::begin();
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn_to_its_end("short", ready(())).await.unwrap();
        tasks.spawn_to_its_end("unlucky", panics()).await.unwrap();
        let expected = TaskEnded::Returned { task: "short" };
        assert_eq!(tasks.first_to_end().await, expected);
        let told = log.text();
        assert!(
            told.contains("\"short\"") && told.contains("\"unlucky\""),
            "{told}"
        );
    }

    #[tokio::test]
    async fn shutdown_ends_tasks_in_silence_and_waits_for_what_they_finish() {
        let (log, _guard) = Captured::begin();
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn("follower", pending());
        let (told, mut has_finished) = watch::channel(false);
        let stop = shutdown.clone();
        let careful = tasks.spawn_to_its_end("careful", async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            told.send_replace(true);
        });
        shutdown.cancel();
        careful.await.unwrap();
        assert!(*has_finished.borrow_and_update());
        assert_eq!(tasks.ended(), None);
        assert_eq!(log.text(), "");
    }

    /// There is nothing left to end, but somebody has to hear of it.
    #[tokio::test]
    async fn a_panic_during_shutdown_is_told_and_ends_nothing_more() {
        let (log, _guard) = Captured::begin();
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        shutdown.cancel();
        tasks.spawn_to_its_end("unlucky", panics()).await.unwrap();
        assert_eq!(tasks.ended(), None);
        assert!(log.text().contains("out of luck"), "{}", log.text());
    }
}
