//! What an operator sets: one struct a section, each key with its default where it is declared.
//!
//! A YAML file first, then environment variables `AKS_ACCESS_BROKER__SECTION__KEY` over it. A key that
//! nobody knows is refused in both: a misspelt limit must not leave the default standing in silence.
//! `docs/configuration.md` lists every key, and a test holds it against these structs.

mod audit;
mod authentication;
mod azure;
mod check;
mod cloud;
mod defaults;
mod limits;
mod load;
mod log;
mod metrics;
mod policy;
mod problem;
mod reconciler;
mod redact;
mod redis;
mod secret;
mod section;
mod server;
mod text;
mod view;

use serde::Serialize;

pub use audit::Audit;
pub use authentication::Authentication;
pub use azure::{
    Azure, ClientSecretCredential, Credential, DeveloperToolsCredential, Endpoint, Endpoints,
    InvalidEndpoint, ManagedIdentityCredential, WorkloadIdentityCredential,
};
pub use cloud::{Cloud, Origins};
pub use limits::{FreshReads, Limits, Rate, ReadBudget};
pub use log::{Log, LogFormat};
pub use metrics::Metrics;
pub use policy::Policy;
pub use problem::{ConfigError, Problem};
pub use reconciler::{Bucket, LaneBudget, Reconciler};
pub use redis::{DurabilityException, Redis};
pub use secret::{Secret, SecretError};
pub use server::{Server, Tls};
pub use view::View;

/// The whole configuration, read and checked.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// How callers reach the broker, and how much they may ask of it at once.
    pub server: Server,
    /// How much one caller may ask.
    pub limits: Limits,
    /// How callers prove who they are.
    pub authentication: Authentication,
    /// Who may ask for what.
    pub policy: Policy,
    /// Where the audit trail goes.
    pub audit: Audit,
    /// Where what was accepted is kept.
    pub redis: Redis,
    /// The tenant, the subscriptions, and who the broker is there.
    pub azure: Azure,
    /// How Azure is made to agree with what was accepted.
    pub reconciler: Reconciler,
    /// What is known of who has what, and how old it may get.
    pub view: View,
    /// What is logged, and how.
    pub log: Log,
    /// Where the metrics are read.
    pub metrics: Metrics,
}

impl Config {
    /// The configuration as it takes effect, as YAML, without secrets.
    ///
    /// # Errors
    /// None that is known: every value can be written as YAML.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let text = serde_saphyr::to_string(self)?;
        Ok(redact::without_passwords(&text).into_owned())
    }
}

#[cfg(test)]
mod tests;
