//! Ends the children that a killed `dev` left behind: they hold the state, and nobody would end them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::spawn_blocking;

use super::state_dir::{StateDir, StateDirError, at};

/// Ends every process that a pid file of this state directory names, if it is one of ours still.
pub(super) async fn end(state: &StateDir, grace: Duration) -> Result<(), StateDirError> {
    let pids = state.pids();
    // In the order of their names, which is that of ending: see `processes`.
    let mut files: Vec<_> = fs::read_dir(&pids)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(at(&pids))?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let path = file.path();
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        if let Some(process) = ours(&text, state.path()).map_err(at(&path))? {
            tracing::info!(pid = text.trim(), "ending what an earlier dev left running");
            spawn_blocking(move || end_one(&process, grace))
                .await
                .unwrap_or_else(|panicked| Err(panicked.into()))
                .map_err(at(&path))?;
        }
        fs::remove_file(&path).map_err(at(&path))?;
    }
    Ok(())
}

/// A handle on the process with this id, if it lives and was started with our state directory.
///
/// The handle is taken first: whatever its command line then says is said of the very process that is
/// signalled, even if the id has been given to another since the file was written.
fn ours(pid: &str, state: &Path) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let command_line = match fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(mentions(&command_line, state).then_some(handle))
}

/// Whether a command line has an argument that lies in the directory.
fn mentions(command_line: &[u8], directory: &Path) -> bool {
    command_line
        .split(|byte| *byte == 0)
        .filter_map(|argument| std::str::from_utf8(argument).ok())
        .any(|argument| {
            let argument = Path::new(argument);
            argument.starts_with(directory) && argument != directory
        })
}

/// Asks a process to end, and kills it if it has not after `grace`. Blocks.
fn end_one(process: &OwnedFd, grace: Duration) -> io::Result<()> {
    let grace = Timespec::try_from(grace).map_err(io::Error::other)?;
    signal(process, Signal::TERM)?;
    if !ends_within(process, Some(&grace))? {
        signal(process, Signal::KILL)?;
        ends_within(process, None)?;
    }
    Ok(())
}

/// Waits for the end of a process, at which its handle becomes readable; for ever without a limit.
fn ends_within(process: &OwnedFd, limit: Option<&Timespec>) -> io::Result<bool> {
    let mut watched = [PollFd::new(process, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut watched, limit))? > 0)
}

fn signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(process, signal) {
        // Ended by itself meanwhile.
        Err(Errno::SRCH) => Ok(()),
        sent => Ok(sent?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ours_by_an_argument_that_lies_in_the_directory() {
        let state = Path::new("/tmp/world");
        assert!(mentions(
            b"redis-server\0/tmp/world/redis/redis.conf\0",
            state
        ));
        assert!(!mentions(
            b"redis-server\0/tmp/world-2/redis/redis.conf\0",
            state
        ));
        assert!(!mentions(b"ls\0/tmp/world\0", state));
        assert!(!mentions(b"vi\0\xff/tmp/world/x\0", state));
        assert!(!mentions(b"", state));
    }
}
