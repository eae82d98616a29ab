//! What the audit trail says (I10): one event for each decision and for each effect.
//!
//! Events are made here and appended by the store, in the script that does what they tell of: an event
//! cannot be missing, and none can tell of what did not happen. A moment later one replica seals them into a
//! hash chain, and exports them.

pub mod chain;
pub mod export;
pub mod sealer;
pub mod told;
pub mod verify;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::ids::{ClusterId, GrantId, JobId, TargetId};
use crate::domain::naming::OnBehalfOf;

/// How something ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// A request was accepted.
    Accepted,
    /// A request was refused.
    Refused,
    /// A change took effect.
    Applied,
    /// A change did not take effect.
    Failed,
    /// Nobody knows whether a change took effect.
    Unknown,
}

/// One event. Its time and its sequence number are the script's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Event<'a> {
    /// The calling application or user, or the broker itself.
    pub actor: String,
    /// An RPC's full name, `roleAssignments/write`, `grant/active`, …
    pub action: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// A stable reason; empty where there is nothing to say.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
    /// The principal's object id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// The cluster's ARM id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The grant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub grant: String,
    /// The job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// The object in Azure.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// For whom the actor acted, as it said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub on_behalf_of: String,
    /// Azure's correlation id.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub azure_correlation_id: &'a str,
    /// What else there is to say: `policies`, `role`, `namespaces`, `justification`, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<&'static str, String>,
}

/// The action of an event that reports an unreadable entry of the audit log, which the sealer has moved aside.
/// `details`: its place in the audit log as `sequence`, its `entry`, and the `problem`.
pub const DAMAGED: &str = "audit/damaged";

/// The longest text that a refused request leaves in a field of its event, in characters.
const MOST_OF_A_REFUSED_TEXT: usize = 200;

/// The broker's own name in the trail.
pub use crate::store::BROKER;

impl<'a> Event<'a> {
    /// An event about nothing in particular.
    #[must_use]
    pub fn new(actor: impl Into<String>, action: &'a str, outcome: Outcome) -> Self {
        Self {
            actor: actor.into(),
            action,
            outcome,
            reason: "",
            principal: String::new(),
            cluster: String::new(),
            grant: String::new(),
            job: String::new(),
            resource: String::new(),
            on_behalf_of: String::new(),
            azure_correlation_id: "",
            details: BTreeMap::new(),
        }
    }

    /// The same, about a cluster.
    #[must_use]
    pub fn on_cluster(mut self, cluster: &ClusterId) -> Self {
        self.cluster = cluster.to_string();
        self
    }

    /// The same, with one thing more to say; nothing, where there is nothing.
    #[must_use]
    pub fn with(mut self, name: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        if !what.is_empty() {
            self.details.insert(name, what);
        }
        self
    }

    /// The same, with the policies that decided and what could not be evaluated.
    #[must_use]
    pub fn decided_by(self, policies: &[String], errors: &[String]) -> Self {
        self.with("policies", policies.join(", "))
            .with("policy_errors", errors.join("; "))
    }

    /// The same, about a target.
    #[must_use]
    pub fn on(mut self, target: &TargetId) -> Self {
        self.principal = target.principal.to_string();
        self.cluster = target.cluster.to_string();
        self
    }

    /// The same, about a grant.
    #[must_use]
    pub fn about(mut self, grant: GrantId) -> Self {
        self.grant = grant.to_string();
        self
    }

    /// The same, with the job that carries it out.
    #[must_use]
    pub fn by_job(mut self, job: JobId) -> Self {
        self.job = job.to_string();
        self
    }

    /// The same, on somebody's behalf.
    #[must_use]
    pub fn on_behalf_of(mut self, whom: Option<&OnBehalfOf>) -> Self {
        self.on_behalf_of = whom.map(ToString::to_string).unwrap_or_default();
        self
    }

    /// The same with each text that the caller chose, or made long, cut short: of a refused request.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let texts = self.details.values_mut();
        for text in texts.chain([&mut self.on_behalf_of, &mut self.actor]) {
            if let Some((end, _)) = text.char_indices().nth(MOST_OF_A_REFUSED_TEXT) {
                text.truncate(end);
                text.push('…');
            }
        }
        self
    }

    /// As it is written down.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "strings alone, under names that are strings, which always serialise"
    )]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event is always JSON")
    }
}
