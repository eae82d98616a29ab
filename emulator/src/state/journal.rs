//! Where changes outlive the process.
//!
//! A journal of one JSON record a line, not a snapshot a change: thousands of role assignments would make
//! each commit as slow as all of them. It is written before the caller is answered; a `kill -9` takes
//! nothing that the kernel has, so there is no fsync (a power cut is not what this is for).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::record::Record;

const FILE: &str = "journal.jsonl";

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// How much of it is whole lines, in bytes.
    length: u64,
}

impl Journal {
    /// The records that an earlier run left in `directory`; none if there was no earlier run.
    pub(crate) fn read(directory: &Path) -> io::Result<Vec<Record>> {
        let text = match fs::read_to_string(path_in(directory)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // A last line without an end was cut off by the kill, so nobody was told that it holds.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).map_err(io::Error::from))
            .collect()
    }

    /// Begins a journal in `directory` with `records`, in place of what was there, by rename: a kill in
    /// the middle leaves the old one whole.
    pub(crate) fn begin(directory: &Path, records: &[Record]) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let fresh = directory.join(format!("{FILE}.new"));
        let mut journal = Self {
            // For its owner only: the world's secrets are in it.
            file: OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?,
            length: 0,
        };
        journal.append(records)?;
        fs::rename(&fresh, path_in(directory))?;
        journal.file = OpenOptions::new().append(true).open(path_in(directory))?;
        Ok(journal)
    }

    /// Writes records down, all of them in one write.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        if let Err(error) = self.file.write_all(&lines) {
            // Half a line must not stay: the next one would be appended to it, and both be lost. If even that
            // fails, the next start says which line it cannot read.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += lines.len() as u64;
        Ok(())
    }
}

fn path_in(directory: &Path) -> PathBuf {
    directory.join(FILE)
}
