//! What this process takes, as Linux counts it: `unsafe` is forbidden here, and so is an allocator that counts.

use std::fs;
use std::io;
use std::time::Duration;

/// Linux counts processor time in hundredths of a second, whatever its own clock does.
const TICK: Duration = Duration::from_millis(10);

/// The memory that it has, in bytes.
pub(crate) fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    let kib: Option<u64> = kib.and_then(|kib| kib.trim().parse().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("/proc/self/status does not say VmRSS"))
}

/// The processor time of all threads of this name so far.
pub(crate) fn processor_time(thread: &str) -> io::Result<Duration> {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end between the two looks.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        if head.split_once('(').is_some_and(|(_, name)| name == thread) {
            let used = tail.split(' ').skip(11).take(2);
            ticks += used.filter_map(|it| it.parse::<u32>().ok()).sum::<u32>();
        }
    }
    Ok(TICK * ticks)
}
