//! A child process: started, watched until it is ready, and ended.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use super::state_dir::{StateDir, StateDirError, at};

/// How many of its last lines are told of a child that did not become ready.
const LINES_TOLD: usize = 20;

/// A child process and its pid file.
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    output: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
    pid_file: PathBuf,
}

/// Why there is no such child, or no longer.
#[derive(Debug, Error)]
pub(super) enum ChildError {
    #[error("{program} cannot be started: {source}{remedy}")]
    NotStarted {
        program: String,
        source: io::Error,
        remedy: &'static str,
    },
    #[error("{name} ended before it was ready ({status}):\n{lines}")]
    NotReady {
        name: &'static str,
        status: String,
        lines: String,
    },
    #[error("{name} ended by itself ({status})")]
    Ended { name: &'static str, status: String },
    #[error("{name} said something unexpected: {message}")]
    Unexpected { name: &'static str, message: String },
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

impl Child {
    /// Starts a process and writes down its id. Its standard output is read here, and kept in a log.
    ///
    /// `name` sorts: what has to end first comes first, see [`leftovers`](super::leftovers).
    pub(super) fn start(
        state: &StateDir,
        name: &'static str,
        command: &mut Command,
        remedy: &'static str,
    ) -> Result<Self, ChildError> {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C is for `dev`, which ends the children in their order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ChildError::NotStarted {
                program: command
                    .as_std()
                    .get_program()
                    .to_string_lossy()
                    .into_owned(),
                source,
                remedy,
            })?;
        let pid_file = state.pids().join(format!("{name}.pid"));
        let id = process.id().unwrap_or_default();
        fs::write(&pid_file, format!("{id}\n")).map_err(at(&pid_file))?;
        let output = process.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self {
            name,
            process,
            output,
            log: state.join(&format!("{name}.log")),
            pid_file,
        })
    }

    /// Reads what the child prints until `is_ready` finds in a line what it looks for. What it prints from
    /// then on goes to its log: a pipe that nobody reads would stop it.
    pub(super) async fn ready<T>(
        &mut self,
        is_ready: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ChildError> {
        let mut log = File::create(&self.log).map_err(at(&self.log))?;
        let mut last = Vec::new();
        if let Some(mut output) = self.output.take() {
            while let Ok(Some(line)) = output.next_line().await {
                // A log that cannot be written is no reason to fail.
                let _ = writeln!(log, "{line}");
                if let Some(found) = is_ready(&line) {
                    tokio::spawn(keep(output, log));
                    return Ok(found);
                }
                last.push(line);
                if last.len() > LINES_TOLD {
                    last.remove(0);
                }
            }
        }
        Err(ChildError::NotReady {
            name: self.name,
            status: told(self.process.wait().await),
            lines: last.join("\n"),
        })
    }

    /// Says that the child printed something else than it should.
    pub(super) fn unexpected(&self, message: &impl ToString) -> ChildError {
        ChildError::Unexpected {
            name: self.name,
            message: message.to_string(),
        }
    }

    /// Waits for its end, which nobody asked for.
    pub(super) async fn ended(&mut self) -> ChildError {
        ChildError::Ended {
            name: self.name,
            status: told(self.process.wait().await),
        }
    }

    /// Asks it to end, and kills it if it has not after `grace`.
    pub(super) async fn end(mut self, grace: Duration) {
        // No id: it has ended and been waited for, and its id may be another's.
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && kill_process(pid, Signal::TERM).is_ok()
            && timeout(grace, self.process.wait()).await.is_err()
        {
            tracing::warn!(name = self.name, "killed: it did not end within {grace:?}");
            // It may have ended in this moment.
            let _ = self.process.kill().await;
        }
        // Left behind it would be looked at by the next `dev`, and found to be of nobody.
        let _ = fs::remove_file(&self.pid_file);
    }
}

async fn keep(mut output: Lines<BufReader<ChildStdout>>, mut log: File) {
    while let Ok(Some(line)) = output.next_line().await {
        let _ = writeln!(log, "{line}");
    }
}

fn told(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
