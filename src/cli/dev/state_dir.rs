//! The state directory: who owns it, and what is written in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use thiserror::Error;

use super::description::Description;

/// The bits of a mode that give group and others something.
pub(super) const OF_OTHERS: u32 = 0o077;

/// Everything that a run leaves in its state directory. Secrets are in many of them: the broker's own, tokens of the
/// world's callers, and what the broker accepted.
const OURS: [&str; 11] = [
    "1-broker.log",
    "2-emulator.log",
    "3-redis.log",
    "broker.yaml",
    "ca.pem",
    "client-secret",
    "dev.json.new",
    "dev.lock",
    "emulator",
    "pids",
    "redis",
];

/// A state directory that is ours while this value lives.
pub(super) struct StateDir {
    path: PathBuf,
    /// Released by the system when the process ends, however it ends. Children do not inherit it.
    _lock: File,
    /// Removes the directory at the end, where nobody asked for one.
    temporary: Option<TempDir>,
}

/// Why the state directory cannot be used.
#[derive(Debug, Error)]
pub(super) enum StateDirError {
    #[error("{} is in use by another dev; end that one first, or choose another --state-dir", path.display())]
    InUse { path: PathBuf },
    #[error("the state directory cannot be used: {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("what dev.json says cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

impl StateDir {
    /// Takes the directory over, or makes one to be forgotten. Whatever an earlier run says of itself is
    /// removed before anything else happens.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, StateDirError> {
        let (path, temporary) = if let Some(path) = path {
            (path.to_owned(), None)
        } else {
            let made = TempDir::with_prefix("aks-access-broker-dev-");
            let made = made.map_err(at(&std::env::temp_dir()))?;
            (made.path().to_owned(), Some(made))
        };
        fs::create_dir_all(&path).map_err(at(&path))?;
        // Absolute and without links: the children's command lines are recognised by it.
        let path = path.canonicalize().map_err(at(&path))?;
        let lock = lock(&path)?;
        let state = Self {
            path,
            _lock: lock,
            temporary,
        };
        // Not before the lock: it would be the description of a world that is alive.
        state.forget_description()?;
        state.close_to_others()?;
        fs::create_dir_all(state.pids()).map_err(at(&state.pids()))?;
        Ok(state)
    }

    /// Takes away what other users may do with what an earlier run left. Only with names of ours: the directory may hold
    /// other things. What is written from now on is its owner's alone by the umask.
    fn close_to_others(&self) -> Result<(), StateDirError> {
        for name in OURS {
            close(&self.join(name))?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory goes with this run.
    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// A file or directory in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the children's process ids are.
    pub(super) fn pids(&self) -> PathBuf {
        self.join("pids")
    }

    /// Makes a directory in it.
    pub(super) fn make_dir(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.join(name);
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(path)
    }

    /// Writes a file in it that its owner alone may read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, StateDirError> {
        let path = self.join(name);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(at(&path))?;
        Ok(path)
    }

    fn description(&self) -> PathBuf {
        self.join("dev.json")
    }

    /// Writes `dev.json`: from now on the world is ready. By rename, so that nobody reads half of it.
    pub(super) fn publish(&self, world: &Description) -> Result<(), StateDirError> {
        let text = serde_json::to_string_pretty(world)?;
        let fresh = self.write("dev.json.new", &text)?;
        fs::rename(&fresh, self.description()).map_err(at(&fresh))
    }

    /// Removes `dev.json`, if there is one.
    pub(super) fn forget_description(&self) -> Result<(), StateDirError> {
        match fs::remove_file(self.description()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(at(&self.description())(error))
            }
            _ => Ok(()),
        }
    }
}

/// Takes the rights of group and others away: of a file, or of a directory and all in it. Follows no links.
fn close(path: &Path) -> Result<(), StateDirError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(at(path))?,
    };
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    if mode & OF_OTHERS != 0 {
        let permissions = fs::Permissions::from_mode(mode & !OF_OTHERS);
        fs::set_permissions(path, permissions).map_err(at(path))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(at(path))? {
            close(&entry.map_err(at(path))?.path())?;
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, StateDirError> {
    let path = directory.join("dev.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateDirError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// Says of an error where it happened.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    |source| StateDirError::Io { path, source }
}
