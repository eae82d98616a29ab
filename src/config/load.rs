//! Reads the layers, and tells everything that is wrong with them at once.

use std::fs;
use std::path::{Path, PathBuf};

use figment::providers::{Env, Serialized};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::problem::{ConfigError, Problem};
use super::redact::without_secrets;
use super::section::Sections;
use super::{Config, defaults};

/// What every environment variable of the configuration begins with.
///
/// Two underscores: Kubernetes gives every pod `AKS_ACCESS_BROKER_PORT` and its like where a service has
/// that name, and those are not settings.
const ENV_PREFIX: &str = "AKS_ACCESS_BROKER__";

pub(super) const SECTIONS: [&str; 11] = [
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
pub(super) const SECRETS: [&str; 2] = [
    "azure.credential.client_secret.client_secret",
    "redis.password",
];

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
        problems.extend(unreadable_variables());
        figment = figment.merge(Env::prefixed(ENV_PREFIX).split("__").ignore(&SECRETS));
        for key in SECRETS {
            // Taken as it is: figment would read a secret of digits as a number, and drop its zeros.
            if let Ok(secret) = std::env::var(variable(key)) {
                figment = figment.merge(Serialized::default(key, secret));
            }
        }
        Self::extract(&defaults::below(figment), problems)
    }

    fn extract(figment: &Figment, problems: Vec<Problem>) -> Result<Self, ConfigError> {
        let mut sections = Sections::new(figment, problems);
        sections.tell_unknown();
        let server = sections.read("server");
        let limits = sections.read("limits");
        let authentication = sections.read("authentication");
        let policy = sections.read("policy");
        let audit = sections.read("audit");
        let redis = sections.read("redis");
        let azure = sections.read("azure");
        let reconciler = sections.read("reconciler");
        let view = sections.read("view");
        let log = sections.read("log");
        let metrics = sections.read("metrics");
        let whole = || {
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
        match whole() {
            Some(config) if sections.check(&config) => Ok(config),
            _ => Err(ConfigError::Problems(sections.into_problems())),
        }
    }

    /// What keeps `serve` from starting although everything is well-formed, if anything does.
    #[must_use]
    pub fn not_served_because(&self) -> Option<&'static str> {
        (self.server.tls.is_none() && !self.server.allow_plaintext).then_some(
            "serve does not start with this: there is no server.tls, and server.allow_plaintext, which accepts that, \
             is false",
        )
    }
}

/// Variables that figment would pass over or change in silence.
fn unreadable_variables() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().to_uppercase();
        let Some(key) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if key.split("__").any(str::is_empty) {
            let message = "unknown key: a part of the variable's name is empty";
            problems.push(Problem::new(&name, message));
        }
        if value.to_str().is_none() {
            problems.push(Problem::new(&name, "the variable's value is not UTF-8"));
        }
    }
    problems
}

/// The environment variable that sets a key.
pub(super) fn variable(key: &str) -> String {
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
                message: without_secrets(&error.without_snippet().to_string()).into_owned(),
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
