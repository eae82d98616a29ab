//! Holds the code to the layering that `docs/architecture.md` draws.
//!
//! It reads tokens, not syntax trees: `crate::store` inside a macro's arguments is as much of an edge as
//! in a `use`, and a parser does not look in there.

#![allow(clippy::expect_used)] // clippy lets tests unwrap, but not the functions that they share

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/reading.rs"]
mod reading;
#[path = "architecture/refusals.rs"]
mod refusals;
#[path = "architecture/spawns.rs"]
mod spawns;

use reading::{Named, read};

/// The table of `docs/architecture.md`: which module may use which others.
const MAY_USE: &[(&str, &str)] = &[
    ("domain", ""),
    ("config", "domain"),
    ("telemetry", "config"),
    ("store", "domain config telemetry"),
    ("azure", "domain config telemetry"),
    ("kubernetes", "domain config telemetry"),
    ("view", "domain config telemetry store azure kubernetes"),
    ("caller", "domain config telemetry"),
    ("audit", "domain config telemetry store"),
    (
        "broker",
        "domain config telemetry store azure kubernetes view caller audit",
    ),
    (
        "reconcile",
        "domain config telemetry store azure kubernetes audit",
    ),
    ("grpc", "domain config telemetry caller broker"),
    ("hooks", "domain config telemetry caller broker"),
    (
        "cli",
        "domain config telemetry store azure kubernetes view caller audit broker reconcile grpc \
         hooks",
    ),
];

/// Crates that stop at a boundary, and the modules on this side of it.
const CRATE_STAYS_IN: &[(&str, &[&str])] = &[
    ("redis", &["store"]),
    ("reqwest", &["azure", "caller", "cli"]),
    ("jsonwebtoken", &["caller"]),
    ("cedar_policy", &["caller"]),
    ("miette", &["caller"]),
    ("azure_core", &["azure"]),
    ("azure_identity", &["azure"]),
    ("azure_emulator", &["cli"]),
    ("tonic", &["grpc", "cli"]),
    ("tonic_health", &["grpc", "cli"]),
    ("tonic_prost", &["grpc"]),
    ("tonic_reflection", &["grpc", "cli"]),
    ("tonic_types", &["grpc", "cli"]),
    ("prost", &["grpc"]),
    ("prost_types", &["grpc"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_prometheus", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("prometheus", &["telemetry"]),
];

/// What would make `domain` answer differently from one run to the next, or wait.
const NOT_IN_DOMAIN: &[&[&str]] = &[
    &["tokio"],
    &["tracing"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["SystemTime"],
    &["Instant"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["Uuid", "now_v7"],
    &["Uuid", "new_v4"],
    &["rand", "rng"],
    &["rand", "random"],
];

/// Names of modules that hold what the contract's compiler wrote.
const GENERATED: &[&str] = &["proto", "pb"];

/// Longer files hold more than one idea.
const MAX_LINES: usize = 500;

// --- What it may do ---------------------------------------------------------------------------------

/// What `module` may use; nothing is said of a module that the table lacks.
fn may_use(module: &str) -> Option<BTreeSet<&'static str>> {
    MAY_USE
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, others)| others.split_whitespace().collect())
}

/// What one file does that it may not. `file` is relative to `src`.
fn violations(file: &Path, source: &str) -> Vec<String> {
    let module = module_of(file);
    let segments: Vec<&str> = module.iter().map(String::as_str).collect();
    let reading = read(source, &segments);
    let mut found = Vec::new();
    if !reading.documented {
        found.push("no //! comment at its head says what it is for".to_owned());
    }
    let lines = source.lines().count();
    if lines > MAX_LINES {
        found.push(format!(
            "{lines} lines: more than {MAX_LINES} hold more than one idea"
        ));
    }
    let top = segments.first().copied().unwrap_or_default();
    if !top.is_empty() && may_use(top).is_none() {
        found.push(format!(
            "the module {top} is not in the table of docs/architecture.md"
        ));
    }
    found.extend(spawns::problem(file, &reading.paths));
    for path in &reading.paths {
        if let Some(problem) = problem_of(top, path, &reading.declared) {
            found.push(format!("line {}: {problem}", path.line));
        }
    }
    found
        .into_iter()
        .map(|problem| format!("src/{}: {problem}", file.display()))
        .collect()
}

fn problem_of(top: &str, path: &Named, declared: &BTreeSet<String>) -> Option<String> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    let written = segments.join("::");
    match segments.as_slice() {
        ["aks_access_broker", used, ..] if top.is_empty() && *used != "cli" => {
            return Some(format!("main goes through cli, not {written}"));
        }
        // lib.rs and main.rs are the root themselves.
        _ if top.is_empty() => return None,
        ["crate"] | ["crate", "*"] => {
            return Some("takes the crate's root; name the module that is meant".to_owned());
        }
        ["crate", _, rest @ ..]
            if top != "grpc" && GENERATED.iter().any(|name| rest.contains(name)) =>
        {
            return Some(format!("{written}: the contract's types stop at grpc"));
        }
        _ => {}
    }
    if let ["crate", used, ..] = segments.as_slice()
        && *used != top
        && !may_use(top).unwrap_or_default().contains(used)
    {
        return Some(format!("{top} may not use {used} ({written})"));
    }
    if path.imported || segments.len() > 1 {
        let stays = CRATE_STAYS_IN
            .iter()
            .find(|(name, _)| *name == segments[0] && !declared.contains(*name));
        if let Some((name, modules)) = stays
            && !modules.contains(&top)
        {
            return Some(format!(
                "{name} stays in {} ({written})",
                modules.join(", ")
            ));
        }
    }
    let impure = NOT_IN_DOMAIN
        .iter()
        .any(|banned| segments.windows(banned.len()).any(|part| part == *banned));
    (top == "domain" && impure)
        .then(|| format!("domain is pure and gets time and chance passed in ({written})"))
}

/// `grpc/service.rs` is the module `grpc::service`; `grpc/mod.rs` and `grpc.rs` are `grpc`.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || (module.len() == 1 && matches!(last, Some("lib" | "main"))) {
        module.pop();
    }
    module
}

// --- The promises -----------------------------------------------------------------------------------

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_module_keeps_to_the_table() {
    let src = root().join("src");
    let found: Vec<String> = rust_files(&src)
        .iter()
        .flat_map(|path| {
            let source = fs::read_to_string(path).expect("the file is readable");
            let file = path.strip_prefix(&src).expect("it was found below src");
            violations(file, &source)
        })
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_file_that_may_start_tasks_is_there() {
    for (file, count, reason) in spawns::SPAWNS {
        assert!(root().join("src").join(file).is_file(), "src/{file}");
        assert!(*count > 0 && !reason.is_empty(), "{file}");
    }
}

#[test]
fn the_emulators_files_stay_small() {
    let long: Vec<String> = rust_files(&root().join("emulator/src"))
        .iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(path)
                .expect("the file is readable")
                .lines()
                .count();
            (lines > MAX_LINES).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

#[test]
fn the_emulator_uses_nothing_of_the_brokers() {
    let manifest = fs::read_to_string(root().join("emulator/Cargo.toml")).expect("it is there");
    assert!(
        !manifest.contains("aks-access-broker"),
        "two that share code can be wrong together"
    );
}

type Edges = BTreeMap<String, BTreeSet<String>>;

fn table_of_the_test() -> Edges {
    let owned = |names: &str| names.split_whitespace().map(str::to_owned).collect();
    MAY_USE
        .iter()
        .map(|(module, others)| (String::from(*module), owned(others)))
        .collect()
}

fn architecture() -> String {
    fs::read_to_string(root().join("docs/architecture.md")).expect("it is there")
}

/// Rows `| a, b | c, d |` under the header `| module | may use |`.
fn table_of_the_document(document: &str) -> Edges {
    let rows = document
        .lines()
        .skip_while(|line| *line != "| module | may use |")
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = |cell: &str| -> BTreeSet<String> {
        cell.split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .filter(|name| name != "nothing of ours")
            .collect()
    };
    let mut table = Edges::new();
    for row in rows {
        let mut columns = row.trim_matches('|').split('|');
        let modules = cells(columns.next().unwrap_or_default());
        let others = cells(columns.next().unwrap_or_default());
        for module in modules {
            table.insert(module, others.clone());
        }
    }
    table
}

/// Arrows `a & b --> c & d` of the document's flowchart.
fn arrows_of_the_document(document: &str) -> Edges {
    let mut arrows = Edges::new();
    let flowchart = document
        .lines()
        .skip_while(|line| !line.starts_with("flowchart"))
        .take_while(|line| !line.starts_with("```"));
    for line in flowchart {
        if let Some((from, to)) = line.split_once(" --> ") {
            let names = |side: &str| -> Vec<String> {
                side.split('&').map(|name| name.trim().to_owned()).collect()
            };
            for from in names(from) {
                arrows.entry(from).or_default().extend(names(to));
            }
        }
    }
    arrows
}

/// Who reaches whom, over however many steps.
fn reach(edges: &Edges) -> Edges {
    let mut reach = edges.clone();
    loop {
        let mut next = reach.clone();
        for reached in next.values_mut() {
            for through in reached.clone() {
                reached.extend(reach.get(&through).cloned().unwrap_or_default());
            }
        }
        next.retain(|_, reached| !reached.is_empty());
        if next == reach {
            return reach;
        }
        reach = next;
    }
}

#[test]
fn the_documents_table_is_this_table() {
    assert_eq!(
        table_of_the_document(&architecture()),
        table_of_the_test(),
        "docs/architecture.md (left) and MAY_USE (right) differ"
    );
}

/// The picture leaves out arrows that others imply. It may neither add a way nor hide one.
#[test]
fn the_documents_picture_shows_the_same_ways() {
    assert_eq!(
        reach(&arrows_of_the_document(&architecture())),
        reach(&table_of_the_test()),
        "what docs/architecture.md's picture reaches (left) and what MAY_USE reaches (right) differ"
    );
}
