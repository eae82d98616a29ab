//! `audit`: whether the trail is whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use thiserror::Error;

use crate::audit::chain::Record;
use crate::audit::verify::{Flaw, Verifier};
use crate::config::Config;
use crate::store::{Store, TrailEntry};

use super::{AnyError, ConfigFile, block_on};

/// How many events are read in one go.
const AT_ONCE: usize = 1_000;

/// `audit …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find events of the audit log that were damaged, changed, dropped or reordered: in files that
    /// `audit.file` named, in Redis, and between the two. Ends with status 1 where there are any.
    Verify(Verify),
}

/// `audit verify`
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    config: ConfigFile,
    /// Exported events, the oldest file first. With files and without a configuration Redis is not looked at.
    files: Vec<PathBuf>,
    /// A chain that there may be besides the one in Redis: the instance id of an earlier Redis. May be given more than
    /// once. Events of any other chain are told. Without a configuration, needed where files hold more than one chain.
    #[arg(long = "chain", value_name = "ID")]
    chains: Vec<String>,
}

#[derive(Debug, Error)]
enum VerifyError {
    #[error("{path:?} cannot be read: {source}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the trail is not whole: {0} flaws")]
    Flawed(usize),
}

impl Command {
    pub(super) fn run(self) -> Result<(), AnyError> {
        match self {
            Self::Verify(verify) => block_on(verify.run()),
        }
    }
}

impl Verify {
    async fn run(self) -> Result<(), AnyError> {
        let mut exported = Verifier::default();
        let mut chains: BTreeSet<String> = self.chains.iter().cloned().collect();
        for path in &self.files {
            let strange = read(path, &mut exported)?;
            if strange > 0 {
                say(&format!(
                    "{}: {strange} lines are no events, and were passed over",
                    path.display()
                ))?;
            }
        }
        let mut verifier = if self.files.is_empty() || self.config.path.is_some() {
            let (own, kept) = self.kept().await?;
            chains.insert(own);
            told("in files", &exported)?;
            told("in Redis", &kept)?;
            exported.add_all(kept);
            exported
        } else {
            told("in files", &exported)?;
            exported
        };
        verifier.expect_chains(&chains);
        let (_, flaws) = verifier.verdict();
        for flaw in &flaws {
            say(&flaw.to_string())?;
        }
        if flaws.is_empty() {
            return say("whole");
        }
        Err(Box::new(VerifyError::Flawed(flaws.len())))
    }

    /// The chain that Redis holds, by name, and what is there of it.
    async fn kept(&self) -> Result<(String, Verifier), AnyError> {
        let config = Config::load(self.config.path.as_deref())?;
        let store = Store::new(&config.redis, config.reconciler.retention)?;
        let chain = store.instance().await?.to_string();
        // Before the events: what is sealed meanwhile is behind them.
        let state = store.trail_state().await?;
        let mut verifier = Verifier::default();
        verifier.begin();
        let mut last = None;
        loop {
            let entries = store.sealed_behind(last, AT_ONCE).await?;
            for entry in &entries {
                match entry {
                    TrailEntry::Event(event) => {
                        if let Some(record) = Record::kept(&chain, event) {
                            verifier.take_as_written(&record, &event.event);
                        }
                    }
                    TrailEntry::Damaged(damaged) => verifier.take_damaged(&chain, damaged),
                }
            }
            let Some(end) = entries.last() else { break };
            last = Some(end.position());
        }
        if let Some(sequence) = state.head.sequence {
            // Up to where it was trimmed nothing is said of Redis; later events have to be there. It may have been
            // trimmed while it was read.
            let first = store.trail_state().await?.first;
            let first = first.unwrap_or(sequence + 1);
            verifier.expect(&chain, first, sequence, &state.head.hash);
            let waiting = state.last.saturating_sub(sequence);
            // Entries that were set aside do not wait; the event that reports them may still wait.
            let aside = state.head.aside.unwrap_or_default();
            if waiting > state.unsealed + aside.saturating_sub(sequence) {
                verifier.add(Flaw::Missing {
                    chain: chain.clone(),
                    first: sequence + 1,
                    last: state.last,
                });
            }
        }
        say(&format!(
            "{} events in Redis wait for their seal",
            state.unsealed
        ))?;
        Ok((chain, verifier))
    }
}

/// Takes a file's events, and says how many lines are none.
fn read(path: &Path, verifier: &mut Verifier) -> Result<usize, VerifyError> {
    verifier.begin();
    let at = |source| VerifyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = BufReader::new(File::open(path).map_err(at)?);
    let mut strange = 0;
    // Half a line may end in half a character.
    for line in file.split(b'\n') {
        let line = line.map_err(at)?;
        let is_event = std::str::from_utf8(&line).is_ok_and(|line| verifier.take_line(line));
        strange += usize::from(!is_event);
    }
    Ok(strange)
}

fn told(place: &str, verifier: &Verifier) -> Result<(), AnyError> {
    for extent in verifier.verdict().0 {
        say(&format!(
            "chain {} {place}: events {} to {}, the last with hash {}",
            extent.chain, extent.first, extent.last, extent.hash
        ))?;
    }
    Ok(())
}

fn say(line: &str) -> Result<(), AnyError> {
    Ok(writeln!(stdout(), "{line}")?)
}
