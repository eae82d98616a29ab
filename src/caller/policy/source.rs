//! Files of policies: read, named, and held against the schema.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use thiserror::Error;

/// What policies may speak of, in Cedar's own language.
pub const SCHEMA: &str = include_str!("../../../policies/access.cedarschema");
/// The policies that count where the configuration names no directory.
pub const DEFAULT: &str = include_str!("../../../policies/default.cedar");

/// More than this are no policies.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// Why policies are not taken.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The directory or a file in it cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Without a policy everything would be refused.
    #[error(
        "{0:?} has no file *.cedar: without a policy everything would be refused. `aks-access-broker policy default` \
         prints some to begin with"
    )]
    Empty(PathBuf),
    /// They are too long.
    #[error("{0:?} holds more than 4 MiB of policies")]
    TooLong(PathBuf),
    /// What they say makes no sense: each line says where.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
}

/// What was read at one time: the files' texts, by their names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Source(BTreeMap<String, String>);

impl Source {
    /// What the broker brings along.
    pub(super) fn shipped() -> Self {
        Self(BTreeMap::from([(
            "default.cedar".to_owned(),
            DEFAULT.to_owned(),
        )]))
    }

    /// One file.
    #[cfg(test)]
    pub(super) fn of(name: &str, text: &str) -> Self {
        Self(BTreeMap::from([(name.to_owned(), text.to_owned())]))
    }

    /// All files `*.cedar` of a directory, links followed.
    pub(super) fn read(directory: &Path) -> Result<Self, PolicyError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| PolicyError::Unreadable { path, source }
        };
        let mut files = BTreeMap::new();
        let mut left = MOST_BYTES;
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            let path = entry.map_err(at(directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.filter(|name| is_policy(name)) else {
                continue;
            };
            let metadata = fs::metadata(&path).map_err(at(&path))?;
            if !metadata.is_file() {
                let no_file = io::Error::other("it is no file");
                return Err(at(&path)(no_file));
            }
            left = left
                .checked_sub(metadata.len())
                .ok_or_else(|| PolicyError::TooLong(directory.to_owned()))?;
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            files.insert(name.to_owned(), text);
        }
        if files.is_empty() {
            return Err(PolicyError::Empty(directory.to_owned()));
        }
        Ok(Self(files))
    }

    /// The policies, each by its id, and what the validator only warns of.
    pub(super) fn parse(&self, schema: &Schema) -> Result<(PolicySet, Vec<String>), PolicyError> {
        let mut problems = Vec::new();
        let mut all = PolicySet::new();
        let mut files = BTreeMap::new();
        for (name, text) in &self.0 {
            let read = match text.parse::<PolicySet>() {
                Ok(read) => read,
                Err(error) => {
                    problems.push(at(name, text, &error));
                    continue;
                }
            };
            if read.templates().next().is_some() {
                problems.push(format!(
                    "{name}: it has a template (?principal, ?resource), which nobody fills in: write the policy out"
                ));
            }
            for (id, policy) in named(name, &read) {
                if let Some(other) = files.insert(id.clone(), name.as_str()) {
                    problems.push(format!(
                        "{name}: @id({id:?}) is the name of a policy in {other} already: give it another"
                    ));
                } else if let Err(error) = all.add(policy.new_id(PolicyId::new(&id))) {
                    problems.push(format!("{name}: {error}"));
                }
            }
        }
        let judged = Validator::new(schema.clone()).validate(&all, ValidationMode::Strict);
        let file_of = |id: &PolicyId| files.get::<str>(id.as_ref()).copied().unwrap_or_default();
        let text_of = |file: &str| self.0.get(file).map_or("", String::as_str);
        for error in judged.validation_errors() {
            let file = file_of(error.policy_id());
            problems.push(at(file, text_of(file), error));
        }
        if !problems.is_empty() {
            return Err(PolicyError::Wrong(problems));
        }
        let warnings = judged.validation_warnings().map(|warning| {
            let file = file_of(warning.policy_id());
            at(file, text_of(file), warning)
        });
        Ok((all, warnings.collect()))
    }
}

fn is_policy(name: &str) -> bool {
    // A name that begins with a dot is another program's: `..data` of a mounted ConfigMap, an editor's.
    !name.starts_with('.') && Path::new(name).extension().is_some_and(|it| it == "cedar")
}

/// The policies of a file, in its order, each with its id: its own, or the file's name and its place there.
fn named(file: &str, read: &PolicySet) -> Vec<(String, Policy)> {
    let mut policies: Vec<&Policy> = read.policies().collect();
    // Cedar numbers them as they stand: policy0, policy1, … policy10.
    let place = |policy: &Policy| {
        let id: &str = policy.id().as_ref();
        id.trim_start_matches("policy").parse::<usize>().ok()
    };
    policies.sort_by_key(|policy| place(policy));
    let named = policies.into_iter().zip(1..).map(|(policy, place)| {
        let own = policy.annotation("id").filter(|id| !id.is_empty());
        let id = own.map_or_else(|| format!("{file}#{place}"), str::to_owned);
        (id, policy.clone())
    });
    named.collect()
}

/// What is wrong, and where: `FILE:LINE:COLUMN: …`.
fn at(file: &str, text: &str, problem: &(impl Diagnostic + ?Sized)) -> String {
    let label = problem.labels().and_then(|mut labels| labels.next());
    let place = label.and_then(|label| text.get(..label.offset()));
    let place = place.map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        format!(":{line}:{column}")
    });
    let help = problem.help().map(|help| format!(" ({help})"));
    format!(
        "{file}{}: {problem}{}",
        place.unwrap_or_default(),
        help.unwrap_or_default()
    )
}
