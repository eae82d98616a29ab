//! Which files may start tasks and threads, and why. `cli` starts and watches every background task.

use std::path::Path;

use super::reading::Named;

/// Files that start tasks or threads, or name a function that does; how often; and why the end of such a task does not
/// go unnoticed. A task that runs until the process ends does not belong here: return its future, and let `cli` spawn
/// it through `Tasks`.
pub(crate) const SPAWNS: &[(&str, usize, &str)] = &[
    (
        "broker/record.rs",
        1,
        "a refusal is written down though its caller goes away; a panic goes on in the call",
    ),
    (
        "caller/keys.rs",
        2,
        "a fetch of keys goes on though its caller goes away; a panic is an error of the call, and the next one fetches",
    ),
    (
        "caller/policy/mod.rs",
        1,
        "one look at the policies, which takes its time; a panic is told as what is wrong with them",
    ),
    (
        "cli/dev/children.rs",
        1,
        "keeps what a child prints, in dev mode alone, until the child ends",
    ),
    (
        "cli/dev/leftovers.rs",
        2,
        "waits for the end of one process, in dev mode alone",
    ),
    (
        "cli/mod.rs",
        1,
        "the runtime itself, which every command runs on",
    ),
    (
        "cli/tasks.rs",
        2,
        "the one place: its own `spawn`, and what it calls",
    ),
    (
        "grpc/connections.rs",
        2,
        "one task a connection; a panic is in the log, and the client's connection breaks",
    ),
    (
        "grpc/connections/calls.rs",
        2,
        "one task a call; a panic is in the log, and the caller's stream breaks",
    ),
    (
        "reconcile/mod.rs",
        3,
        "one task a pass; a panic is told with its target, and the lease ends by itself",
    ),
    (
        "telemetry/scrape.rs",
        1,
        "one task a connection, for ten seconds at most; a panic is in the log, and the scrape fails",
    ),
    (
        "store/link.rs",
        1,
        "one attempt to connect, for all who wait for it; a panic is an error of their calls",
    ),
    (
        "view/fresh.rs",
        2,
        "one read for all who wait for it, in which a panic goes on; and the end of a wait",
    ),
];

/// Functions that start a task or a thread.
const FUNCTIONS: &[&str] = &["spawn", "spawn_blocking", "spawn_local", "scope"];

/// Types with a method that starts a task or a thread.
const TYPES: &[&str] = &[
    "JoinMap",
    "JoinQueue",
    "JoinSet",
    "LocalPoolHandle",
    "LocalSet",
    "TaskTracker",
    "Runtime",
];

/// What is wrong with how often a file names something that starts tasks.
pub(crate) fn problem(file: &Path, paths: &[Named]) -> Option<String> {
    if file.file_name().is_some_and(|name| name == "tests.rs") {
        return None;
    }
    let found: Vec<String> = paths
        .iter()
        .filter(|path| starts_tasks(path))
        .map(|path| format!("line {}: {}", path.line, path.segments.join("::")))
        .collect();
    let listed = SPAWNS.iter().find(|(name, ..)| Path::new(name) == file);
    let expected = listed.map_or(0, |(_, count, _)| *count);
    (found.len() != expected).then(|| {
        format!(
            "names what starts tasks {} times, and tests/architecture/spawns.rs lists {expected}: a background task is \
             spawned by cli's Tasks, so that its end is not missed; list what is short-lived, with its reason ({})",
            found.len(),
            found.join("; ")
        )
    })
}

fn starts_tasks(path: &Named) -> bool {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    let is_function =
        segments.last().is_some_and(|last| FUNCTIONS.contains(last)) && segments != ["scope"];
    let is_type = segments.iter().any(|segment| TYPES.contains(segment));
    let is_handle = segments
        .windows(2)
        .any(|part| part == ["runtime", "Handle"])
        || segments
            .windows(2)
            .any(|part| part == ["runtime", "Builder"])
        || segments
            .windows(2)
            .any(|part| part == ["thread", "Builder"]);
    is_function || is_type || is_handle
}
