//! Secrets that must stay the same across restarts.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The text of a file in `directory`; made and left there, for its owner only, if there is none. Without a
/// directory it is made and forgotten.
pub(crate) fn keep<E: From<io::Error>>(
    directory: Option<&Path>,
    name: &str,
    make: impl FnOnce() -> Result<String, E>,
) -> Result<String, E> {
    let Some(directory) = directory else {
        return make();
    };
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let text = make()?;
    fs::create_dir_all(directory)?;
    let fresh = directory.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    // By rename, so that a kill in the middle leaves no half a key.
    fs::rename(&fresh, &path)?;
    Ok(text)
}
