//! Where sealed events go before Redis lets them go: structured logs, and a file.
//!
//! Logs are read by more people than the trail: they lack the caller's own words.

use std::fs::Permissions;
use std::io::{self, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tracing::{debug, info, warn};

use super::chain::Record;
use crate::telemetry::Repeats;

/// The target of the log's events: `log.filter` decides by it.
pub const TARGET: &str = "audit";

/// The file holds the callers' own words, and who may do what: its owner alone reads it.
const MODE: u32 = 0o600;
/// The bits of a mode that give group and others something.
const OF_OTHERS: u32 = 0o077;
/// How often the log repeats that the file's mode cannot be changed.
const SAY_AGAIN: Duration = Duration::from_hours(1);

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
    told: Arc<Repeats>,
}

impl Export {
    /// To the log, and to this file.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            told: Arc::new(Repeats::every(SAY_AGAIN)),
        }
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
            self.append(path, records).await.map_err(at)?;
        }
        records.iter().for_each(log);
        Ok(())
    }

    /// Opened for each round: whoever rotates the file renames it.
    async fn append(&self, path: &Path, records: &[Record]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .read(true)
            .append(true)
            .mode(MODE)
            .open(path)
            .await?;
        if let Err(error) = close_to_others(&file).await
            && self.told.is_due("mode")
        {
            // The events are written all the same: an export that is missing is worse.
            warn!(
                ?path,
                %error,
                "audit.file can be read by others than its owner, and the broker cannot change that: change its mode \
                 to 0600, or its owner to the broker's user"
            );
        }
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
}

/// Takes the rights of group and others away from a file that was there before. Pipes and devices keep theirs.
async fn close_to_others(file: &File) -> io::Result<()> {
    let metadata = file.metadata().await?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() || mode & OF_OTHERS == 0 {
        return Ok(());
    }
    let closed = Permissions::from_mode(mode & !OF_OTHERS);
    file.set_permissions(closed).await
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

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn record() -> Record {
        Record {
            chain: "c".to_owned(),
            sequence: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            event: json!({"action": "a"}),
            previous: String::new(),
            hash: String::new(),
        }
    }

    #[tokio::test]
    async fn only_its_owner_can_read_the_file_whatever_mode_it_had() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("audit.jsonl");
        let export = Export::new(Some(path.clone()));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        export.write(&[record()]).await.unwrap();
        assert_eq!(mode(), 0o600);
        for wider in [0o644, 0o666, 0o640, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(wider)).unwrap();
            export.write(&[record()]).await.unwrap();
            assert_eq!(mode() & OF_OTHERS, 0, "{wider:o}");
        }
        // Rotated: the next one is as the first.
        fs::rename(&path, dir.path().join("old")).unwrap();
        export.write(&[record()]).await.unwrap();
        assert_eq!(mode(), 0o600);
        // What is no file of its own keeps its mode.
        let device = Export::new(Some("/dev/null".into()));
        let before = fs::metadata("/dev/null").unwrap().permissions().mode();
        // A device can have no place to read the last line from: only its mode counts here.
        let _ = device.write(&[record()]).await;
        let after = fs::metadata("/dev/null").unwrap().permissions().mode();
        assert_eq!(before, after);
    }
}
