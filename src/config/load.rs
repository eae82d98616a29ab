//! Reads the layers, and tells everything that is wrong with them at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use figment::error::Kind;
use figment::providers::{Env, Serialized};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Config, check, defaults};

/// What every environment variable of the configuration begins with.
///
/// Two underscores: Kubernetes gives every pod `AKS_ACCESS_BROKER_PORT` and its like where a service has
/// that name, and those are not settings.
const ENV_PREFIX: &str = "AKS_ACCESS_BROKER__";

const SECTIONS: [&str; 11] = [
    "audit",
    "authentication",
    "azure",
    "limits",
    "log",
    "metrics",
    "policy",
    "reconciler",
    "redis",
    "server",
    "view",
];

/// The keys that hold a secret itself. They come from the environment, or not at all: configuration files
/// end up in repositories.
const SECRETS: [&str; 2] = [
    "azure.credential.client_secret.client_secret",
    "redis.password",
];

/// The keys that have no default, wherever what they are part of is set.
const REQUIRED: [&str; 8] = [
    "azure.tenant_id",
    "azure.subscriptions",
    "azure.credential",
    "azure.credential.client_secret.client_id",
    "azure.credential.workload_identity.client_id",
    "azure.credential.workload_identity.token_file",
    "server.tls.certificate_file",
    "server.tls.key_file",
];

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no YAML mapping.
    #[error("the configuration file {} is not a YAML mapping of sections: {message}", path.display())]
    NotYaml {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// Everything that is wrong with what was read.
    #[error("the configuration has {} problem(s):\n{}", .0.len(), lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| format!("  - {p}")).collect();
    lines.join("\n")
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in `server.listen`.
    pub key: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl Problem {
    /// The same, and where the key's value came from.
    fn told_with_origin(self, figment: &Figment) -> Self {
        let origin = match figment.find_metadata(&self.key) {
            Some(Metadata {
                source: Some(Source::Custom(variable)),
                ..
            }) => format!(" (from the environment: {variable})"),
            Some(metadata) if metadata.name.contains("environment") => {
                format!(" (from the environment: {})", variable(&self.key))
            }
            Some(Metadata {
                source: Some(Source::File(file)),
                ..
            }) => format!(" (in {})", file.display()),
            _ => return self,
        };
        Self {
            message: self.message + &origin,
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl Config {
    /// Reads `file`, where there is one, and the environment variables over it, and checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or everything that is wrong, at once.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        let mut problems = Vec::new();
        if let Some(path) = file {
            let layer = File::read(path)?;
            problems.extend(layer.secrets());
            figment = figment.merge(layer);
        }
        for section in SECTIONS {
            figment = figment.join(Serialized::default(section, Dict::new()));
        }
        figment = figment.merge(Env::prefixed(ENV_PREFIX).split("__").ignore(&SECRETS));
        for key in SECRETS {
            // Taken as it is: figment would read a secret of digits as a number, and drop its zeros.
            if let Ok(secret) = std::env::var(variable(key)) {
                figment = figment.merge(Serialized::default(key, secret));
            }
        }
        Self::extract(&defaults::below(figment), problems)
    }

    fn extract(figment: &Figment, mut problems: Vec<Problem>) -> Result<Self, ConfigError> {
        problems.extend(unknown_sections(figment));
        // Section by section, so that what is wrong in one does not hide what is wrong in the next.
        let server = section(figment, "server", &mut problems);
        let limits = section(figment, "limits", &mut problems);
        let authentication = section(figment, "authentication", &mut problems);
        let policy = section(figment, "policy", &mut problems);
        let audit = section(figment, "audit", &mut problems);
        let redis = section(figment, "redis", &mut problems);
        let azure = section(figment, "azure", &mut problems);
        let reconciler = section(figment, "reconciler", &mut problems);
        let view = section(figment, "view", &mut problems);
        let log = section(figment, "log", &mut problems);
        let metrics = section(figment, "metrics", &mut problems);
        let sections = || {
            Some(Self {
                server: server?,
                limits: limits?,
                authentication: authentication?,
                policy: policy?,
                audit: audit?,
                redis: redis?,
                azure: azure?,
                reconciler: reconciler?,
                view: view?,
                log: log?,
                metrics: metrics?,
            })
        };
        if let Some(config) = sections() {
            let found = check::problems(&config).into_iter();
            problems.extend(found.map(|problem| problem.told_with_origin(figment)));
            if problems.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigError::Problems(problems))
    }
}

/// Reads one section. serde stops at the first key that is wrong: that key is taken out and the rest read
/// again, so that the others are told as well.
fn section<T: DeserializeOwned>(
    figment: &Figment,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let told = problems.len();
    let mut value = figment.find_value(name).ok()?;
    loop {
        let errors = match value.deserialize::<T>() {
            Ok(section) => return (problems.len() == told).then_some(section),
            Err(errors) => errors,
        };
        for error in errors {
            if let Kind::MissingField(field) = &error.kind {
                problems.extend(missing(figment, name, &error.path, field));
                return None;
            }
            problems.push(problem(figment, name, &error));
            if !remove(&mut value, &error.path) {
                return None;
            }
        }
    }
}

/// The keys of a section that have to be set, and are not. serde stops at the first, and nothing can be put there to
/// get past it, so the others are looked for by name. A key that was set wrongly has been told already.
fn missing(figment: &Figment, section: &str, path: &[String], field: &str) -> Vec<Problem> {
    let first = [&[section.to_owned()], path, &[field.to_owned()]]
        .concat()
        .join(".");
    let mut keys = vec![first];
    for key in REQUIRED {
        let here = key.split('.').next() == Some(section);
        let is_part = key
            .rsplit_once('.')
            .is_some_and(|(of, _)| figment.find_value(of).is_ok());
        if here && is_part && keys[0] != key {
            keys.push(key.to_owned());
        }
    }
    keys.into_iter()
        .filter(|key| figment.find_value(key).is_err())
        .map(|key| {
            let message = match defaults::variable(figment, &key) {
                None => "required, and not set".to_owned(),
                Some(variable) => {
                    format!("required, and not set, nor is {variable} in the environment")
                }
            };
            Problem::new(key, message)
        })
        .collect()
}

/// Takes a key out; a list goes whole. Says whether there was one.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let (Value::Dict(_, keys), Some((first, rest))) = (value, path.split_first()) else {
        return false;
    };
    match keys.get_mut(first) {
        Some(below @ Value::Dict(..)) if !rest.is_empty() => remove(below, rest),
        _ => keys.remove(first).is_some(),
    }
}

fn unknown_sections(figment: &Figment) -> Vec<Problem> {
    let Ok(all) = figment.extract::<BTreeMap<String, Value>>() else {
        return Vec::new();
    };
    all.into_keys()
        .filter(|key| !SECTIONS.contains(&key.as_str()))
        .map(|key| {
            let message = format!("unknown section; expected one of {}", SECTIONS.join(", "));
            Problem::new(key, message)
        })
        .collect()
}

/// Says of figment's error which key it is about and where that came from.
fn problem(figment: &Figment, section: &str, error: &figment::Error) -> Problem {
    let path = [&[section.to_owned()], error.path.as_slice()].concat();
    let mut message = match &error.kind {
        // Here the path ends in the key already.
        Kind::UnknownField(_, expected) => {
            format!("unknown key; expected one of {}", expected.join(", "))
        }
        // figment's own words repeat the value, which here may be a secret that was meant for a key below.
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)
            if is_on_the_way_to_a_secret(&path) =>
        {
            format!("not what belongs here; expected {expected}")
        }
        kind => kind.to_string(),
    };
    if message.ends_with("expected a duration") {
        message.push_str(", as in 250ms, 20s, 5m or 24h");
    }
    let key = path.join(".");
    Problem::new(key, message).told_with_origin(figment)
}

/// Whether a path names a key that holds a secret itself, or anything above one.
fn is_on_the_way_to_a_secret(path: &[String]) -> bool {
    SECRETS.iter().any(|secret| {
        let mut segments = secret.split('.');
        path.iter().all(|key| segments.next() == Some(key))
    })
}

/// The environment variable that sets a key.
fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// The configuration file as a layer.
struct File {
    path: PathBuf,
    sections: Dict,
}

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        // An empty file, or one of comments alone, is a mapping of nothing.
        let sections: Option<Dict> =
            serde_saphyr::from_str(&text).map_err(|error| ConfigError::NotYaml {
                path: path.to_owned(),
                // Without the lines around it, which may hold a secret.
                message: error.without_snippet().to_string(),
            })?;
        Ok(Self {
            path: path.to_owned(),
            sections: sections.unwrap_or_default(),
        })
    }

    /// Secrets that stand in the file.
    fn secrets(&self) -> Vec<Problem> {
        let whole = Value::from(self.sections.clone());
        SECRETS
            .into_iter()
            .filter(|key| whole.find_ref(key).is_some())
            .map(|key| {
                let message = format!(
                    "a secret does not belong in a configuration file: set {key}_file to a file of its own, \
                     or {} in the environment",
                    variable(key)
                );
                Problem::new(key, message)
            })
            .collect()
    }
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::from("configuration file", Source::File(self.path.clone()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.sections.clone()))
    }
}
