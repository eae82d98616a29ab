//! A running `dev`, for tests.
#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A `dev` that is ready. Dropped, it is asked to end.
pub(crate) struct Dev {
    process: Child,
    /// What `dev.json` says.
    pub(crate) world: Value,
    /// The line of `export …` that it printed.
    pub(crate) exports: String,
}

impl Dev {
    pub(crate) fn start(state: &Path) -> Self {
        let mut process = command(state)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let exports = lines
            .map(Result::unwrap)
            .find(|line| line.starts_with("export BROKER="));
        let Some(exports) = exports else {
            panic!("dev ended before it was ready: {:?}", process.wait());
        };
        let text = fs::read_to_string(state.join("dev.json")).unwrap();
        Self {
            process,
            world: serde_json::from_str(&text).unwrap(),
            exports,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub(crate) fn end_by(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    pub(crate) fn says(&self, key: &str) -> &str {
        self.world[key].as_str().unwrap()
    }

    /// The header with which one of the world's applications calls.
    pub(crate) fn authorization(&self, caller: &str) -> String {
        let token = self.world["tokens"][caller].as_str().unwrap();
        format!("authorization: Bearer {token}")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Asked, not killed: a test that fails leaves no children behind.
        if let Ok(None) = self.process.try_wait() {
            self.signal(Signal::TERM);
            let _ = self.process.wait();
        }
    }
}

pub(crate) fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"));
    command.arg("dev").arg("--state-dir").arg(state);
    command
}
