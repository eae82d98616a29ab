//! Where sealed events go before Redis lets them go: structured logs, and a file.
//!
//! Logs are read by more people than the trail: they lack the caller's own words.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tracing::{debug, info};

use super::chain::Record;

/// The target of the log's events: `log.filter` decides by it.
pub const TARGET: &str = "audit";

/// Why events were not exported.
#[derive(Debug, Error)]
#[error("audit.file: {path:?} cannot be written: {source}")]
pub struct ExportError {
    path: PathBuf,
    source: io::Error,
}

/// Writes sealed events.
#[derive(Clone, Debug)]
pub struct Export {
    path: Option<PathBuf>,
}

impl Export {
    /// To the log, and to this file.
    #[must_use]
    pub const fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Writes events; once this is done they are on the file's disk.
    ///
    /// # Errors
    /// [`ExportError`]: some of them may be in the file, and come again.
    pub async fn write(&self, records: &[Record]) -> Result<(), ExportError> {
        if records.is_empty() {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let at = |source| ExportError {
                path: path.clone(),
                source,
            };
            append(path, records).await.map_err(at)?;
        }
        records.iter().for_each(log);
        Ok(())
    }
}

/// Opened for each round: whoever rotates the file renames it.
async fn append(path: &Path, records: &[Record]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .read(true)
        .append(true)
        .open(path)
        .await?;
    let mut lines = String::new();
    if !ends_its_last_line(&mut file).await? {
        lines.push('\n');
    }
    for record in records {
        lines.push_str(&serde_json::to_string(record)?);
        lines.push('\n');
    }
    file.write_all(lines.as_bytes()).await?;
    // What went wrong in the background is told here, and not by the sync.
    file.flush().await?;
    file.sync_data().await
}

/// Whoever died while it wrote left half a line, and the event comes again: on a line of its own.
async fn ends_its_last_line(file: &mut File) -> io::Result<bool> {
    if file.metadata().await?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1)).await?;
    file.read_exact(&mut last).await?;
    Ok(last == *b"\n")
}

fn log(record: &Record) {
    let text = |name: &str| record.event.get(name).and_then(Value::as_str);
    let detail = |name: &str| {
        let details = record.event.get("details");
        details.and_then(|details| details.get(name)?.as_str())
    };
    info!(
        target: TARGET,
        chain = record.chain,
        sequence = record.sequence,
        time = %record.time,
        actor = text("actor"),
        action = text("action"),
        outcome = text("outcome"),
        reason = text("reason"),
        principal = text("principal"),
        cluster = text("cluster"),
        grant = text("grant"),
        job = text("job"),
        resource = text("resource"),
        on_behalf_of = text("on_behalf_of"),
        azure_correlation_id = text("azure_correlation_id"),
        role = detail("role"),
        namespaces = detail("namespaces"),
        end = detail("end"),
        policies = detail("policies"),
        policy_errors = detail("policy_errors"),
        hash = record.hash,
    );
    if let Some(justification) = detail("justification") {
        debug!(target: TARGET, sequence = record.sequence, justification);
    }
}
