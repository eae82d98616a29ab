//! The background tasks of a process. Each task has to go on until the process is told to end.
//!
//! A task may end before that, by a panic or by returning. Without this module that would go unnoticed: grants would no
//! longer expire, or the audit log would never be sealed again. So the end of a task ends the process, with an exit
//! code of its own, and the supervisor of the process (Kubernetes, say) starts it again.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::telemetry::panic_message;

/// The exit code if a background task has ended too soon; `EX_SOFTWARE` of `sysexits.h`.
pub(super) const EXIT_CODE: u8 = 70;

/// A background task has ended although the process was not told to end.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum TaskEnded {
    #[error("the background task {task:?} panicked: {message}")]
    Panicked { task: &'static str, message: String },
    #[error("the background task {task:?} returned although the process was not told to end")]
    Returned { task: &'static str },
}

/// Spawns the background tasks of a process, and watches them.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    shutdown: CancellationToken,
    /// The first task that ended too soon.
    first: watch::Sender<Option<TaskEnded>>,
}

impl Tasks {
    /// Makes tasks that have to go on until `shutdown`.
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            first: watch::Sender::new(None),
        }
    }

    /// The token that tells the tasks to end.
    pub(super) const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs a task that has nothing to finish. At shutdown it is dropped wherever it waits.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.shutdown.clone().run_until_cancelled_owned(task);
        self.spawn_to_its_end(name, task.map(drop));
    }

    /// Runs a task that watches for shutdown itself, and may have something to finish then. The handle waits for the
    /// task's end, whatever its cause.
    pub(super) fn spawn_to_its_end(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        tokio::spawn(async move {
            // The task may leave something half-changed. Nothing reads that any more, because the process ends.
            let how = AssertUnwindSafe(task).catch_unwind().await;
            tasks.report_end(name, how);
        })
    }

    /// Waits for the first task that ends before shutdown. If no task does, waits for ever.
    pub(super) async fn first_to_end(&self) -> TaskEnded {
        let mut first = self.first.subscribe();
        loop {
            if let Some(ended) = first.borrow_and_update().clone() {
                return ended;
            }
            if first.changed().await.is_err() {
                // `self` holds the sender, so this does not happen.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The first task that has ended before shutdown, if any.
    pub(super) fn ended(&self) -> Option<TaskEnded> {
        self.first.borrow().clone()
    }

    fn report_end(&self, task: &'static str, how: Result<(), Box<dyn Any + Send>>) {
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
            error!(error = %ended, "a background task panicked while the process was ending");
            return;
        }
        error!(error = %ended, "a background task has ended, so the process ends within server.drain");
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
    async fn a_task_that_panics_is_logged_with_its_name_and_message() {
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
    async fn a_task_that_returns_is_logged_as_well_and_the_first_counts() {
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
    async fn shutdown_ends_tasks_silently_and_waits_for_what_they_finish() {
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

    /// The process is ending already, but the operator has to learn of the panic.
    #[tokio::test]
    async fn a_panic_during_shutdown_is_logged_and_changes_nothing_else() {
        let (log, _guard) = Captured::begin();
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        shutdown.cancel();
        tasks.spawn_to_its_end("unlucky", panics()).await.unwrap();
        assert_eq!(tasks.ended(), None);
        assert!(log.text().contains("out of luck"), "{}", log.text());
    }
}
