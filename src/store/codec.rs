//! How the domain's types are written in Redis, and read back.
//!
//! Grants, jobs and targets are hashes whose fields scripts change one by one; what never changes of them
//! is one JSON `body`. Every hash carries its format's version in `v`; an unknown one is an error that
//! names the key.

mod effect;
mod grant;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use effect::read_job_effects;
pub(super) use effect::{read_effects, write_effect, write_job_effect};
pub(super) use grant::{GrantBody, PrincipalBody, read_grant};

use super::error::StoreError;
use crate::domain::access::Principal;
use crate::domain::effect::{Call, PerCall};
use crate::domain::freshness::ConsistencyToken;
use crate::domain::grant::{Ending, GrantState};
use crate::domain::ids::{GrantId, InstanceId, JobId, TargetId};
use crate::domain::job::{Failure, Job, JobKind, JobState, JobTarget, WaitingJob};

/// The version of every format here.
const VERSION: &str = "1";

/// One hash as Redis gives it, and its key for error messages.
pub(super) struct Hash {
    key: String,
    fields: HashMap<String, String>,
}

impl Hash {
    /// Checks the version first: nothing of an unknown format is guessed at.
    pub(super) fn new(key: String, fields: HashMap<String, String>) -> Result<Self, StoreError> {
        let hash = Self { key, fields };
        match hash.fields.get("v").map(String::as_str) {
            Some(VERSION) => Ok(hash),
            found => Err(hash.unreadable(format!(
                "its format is {}, and this broker reads format {VERSION}",
                found.unwrap_or("not given")
            ))),
        }
    }

    /// Fields of the same format that are kept elsewhere.
    pub(super) fn part(&self, key: String, mut fields: HashMap<String, String>) -> Self {
        fields.extend(self.fields.get("v").map(|v| ("v".to_owned(), v.clone())));
        Self { key, fields }
    }

    fn unreadable(&self, problem: impl std::fmt::Display) -> StoreError {
        StoreError::Unreadable {
            key: self.key.clone(),
            problem: problem.to_string(),
        }
    }

    /// A field that may be missing; an empty one counts as missing.
    fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Result<&str, StoreError> {
        self.get(name)
            .ok_or_else(|| self.unreadable(format!("it has no {name}")))
    }

    fn parsed<T>(&self, name: &str) -> Result<T, StoreError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.text(name)?
            .parse()
            .map_err(|error| self.unreadable(format!("{name}: {error}")))
    }

    fn number(&self, name: &str) -> Result<u32, StoreError> {
        self.get(name).map_or(Ok(0), |_| self.parsed(name))
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T, StoreError> {
        self.decode(name, self.text(name)?)
    }

    fn decode<T: for<'a> Deserialize<'a>>(&self, name: &str, value: &str) -> Result<T, StoreError> {
        serde_json::from_str(value).map_err(|error| self.unreadable(format!("{name}: {error}")))
    }

    fn time(&self, name: &str) -> Result<Timestamp, StoreError> {
        let millis = self.parsed(name)?;
        Timestamp::from_millisecond(millis)
            .map_err(|error| self.unreadable(format!("{name}: {error}")))
    }

    fn optional_time(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        self.get(name).map(|_| self.time(name)).transpose()
    }

    fn failure(&self, name: &str) -> Result<Option<Failure>, StoreError> {
        self.get(name)
            .map(|_| self.json::<StoredFailure>(name).map(Failure::from))
            .transpose()
    }

    fn principal(&self, name: &str) -> Result<Principal, StoreError> {
        self.json::<PrincipalBody>(name)?
            .principal()
            .map_err(|problem| self.unreadable(problem))
    }

    fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, StoreError> {
        let word = self.text(name)?;
        words
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, value)| *value)
            .ok_or_else(|| self.unreadable(format!("{name} is {word:?}, which nothing here means")))
    }

    /// The fields `{kind}:{name}`, by name.
    fn numbered(&self, kind: char) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter_map(move |(field, value)| {
            let name = field.strip_prefix(kind)?.strip_prefix(':')?;
            Some((name, value.as_str()))
        })
    }
}

const ENDINGS: [(&str, Ending); 3] = [
    ("REVOKED", Ending::Revoked),
    ("EXPIRED", Ending::Expired),
    ("FAILED", Ending::Failed),
];
const KINDS: [(&str, JobKind); 4] = [
    ("GRANT", JobKind::Grant),
    ("REVOKE", JobKind::Revoke),
    ("EXPIRE", JobKind::Expire),
    ("EXTEND", JobKind::Extend),
];
const STATES: [(&str, JobState); 6] = [
    ("QUEUED", JobState::Queued),
    ("RUNNING", JobState::Running),
    ("RETRYING", JobState::Retrying),
    ("SUCCEEDED", JobState::Succeeded),
    ("FAILED", JobState::Failed),
    ("SUPERSEDED", JobState::Superseded),
];
fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words
        .iter()
        .find(|(_, known)| known == value)
        .map_or("", |(word, _)| word)
}

/// A job state's word.
pub(super) fn job_state_word(state: JobState) -> &'static str {
    word_of(&STATES, &state)
}

/// A grant state as scripts compare it: its word, and the ending's.
pub(super) fn grant_state_words(state: GrantState) -> (&'static str, &'static str) {
    match state {
        GrantState::Pending => ("PENDING", ""),
        GrantState::Active => ("ACTIVE", ""),
        GrantState::Revoking(ending) => ("REVOKING", word_of(&ENDINGS, &ending)),
        GrantState::Ended(ending) => ("ENDED", word_of(&ENDINGS, &ending)),
    }
}

/// A call's word.
pub(super) const fn call_word(call: Call) -> &'static str {
    match call {
        Call::Put => "put",
        Call::Delete => "delete",
    }
}

/// What never changes of a job.
#[derive(Serialize, Deserialize)]
pub(super) struct JobBody {
    pub(super) request_id: Option<String>,
    pub(super) requested_by: String,
    pub(super) justification: String,
}

#[derive(Serialize, Deserialize)]
struct StoredFailure {
    reason: String,
    message: String,
    azure_correlation_id: String,
    retryable: bool,
    code: i32,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl From<StoredFailure> for Failure {
    fn from(stored: StoredFailure) -> Self {
        Self {
            reason: stored.reason,
            message: stored.message,
            azure_correlation_id: stored.azure_correlation_id,
            retryable: stored.retryable,
            code: stored.code,
            metadata: stored.metadata,
        }
    }
}

/// A failure as it is stored; empty for none.
pub(super) fn write_failure(failure: Option<&Failure>) -> String {
    failure.map_or_else(String::new, |failure| {
        write_json(&StoredFailure {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            azure_correlation_id: failure.azure_correlation_id.clone(),
            retryable: failure.retryable,
            code: failure.code,
            metadata: failure.metadata.clone(),
        })
    })
}

/// Strings, numbers, lists and maps with string keys: there is no way for them not to be JSON.
#[expect(
    clippy::expect_used,
    reason = "only types of this file, which always serialise"
)]
pub(super) fn write_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a stored type is always JSON")
}

pub(super) fn read_job(
    broker: InstanceId,
    id: JobId,
    hash: &Hash,
    targets: Vec<JobTarget>,
) -> Result<Job, StoreError> {
    let body: JobBody = hash.json("body")?;
    Ok(Job {
        id,
        kind: hash.one_of("kind", &KINDS)?,
        state: hash.one_of("state", &STATES)?,
        version: hash.parsed("version")?,
        request_id: body
            .request_id
            .map(|id| id.parse())
            .transpose()
            .map_err(|error| hash.unreadable(error))?,
        requested_by: body.requested_by,
        justification: body.justification,
        create_time: hash.time("created")?,
        finish_time: hash.optional_time("finished")?,
        next_attempt_time: hash.optional_time("next")?,
        attempts: hash.number("attempts")?,
        principal: hash
            .get("principal")
            .map(|_| hash.principal("principal"))
            .transpose()?,
        cluster: hash
            .get("cluster")
            .map(|_| hash.parsed("cluster"))
            .transpose()?,
        matched_grants: hash.number("matched")?,
        left_grants: hash.number("left")?,
        total_targets: hash.number("total")?,
        completed_targets: hash.number("done")?,
        last_error: hash.failure("error")?,
        consistency_token: hash
            .get("token")
            .map(|_| hash.parsed("token"))
            .transpose()?
            .map(|position| ConsistencyToken {
                broker,
                position,
                as_of: None,
            }),
        targets,
    })
}

/// One target of a job, from its own fields.
pub(super) fn read_job_target(target: &str, hash: &Hash) -> Result<JobTarget, StoreError> {
    let grants: Vec<String> = hash.json("g")?;
    let grants: Result<BTreeSet<GrantId>, _> = grants.iter().map(|id| id.parse()).collect();
    let id: Result<TargetId, _> = target.parse();
    Ok(JobTarget {
        id: id.map_err(|error| hash.unreadable(error))?,
        principal: hash.principal("q")?,
        state: hash.one_of("s", &STATES)?,
        attempts: hash.number("a")?,
        next_attempt_time: hash.optional_time("n")?,
        last_error: hash.failure("x")?,
        grants: grants.map_err(|error| hash.unreadable(error))?,
        effects: read_job_effects(hash)?,
    })
}

#[derive(Deserialize)]
struct StoredWaiting {
    kind: String,
    grants: Vec<String>,
}

/// The jobs that wait for a target.
pub(super) fn read_waiting_jobs(hash: &Hash) -> Result<Vec<WaitingJob>, StoreError> {
    let read = |(id, value): (&str, &str)| {
        let waiting: StoredWaiting = hash.decode(id, value)?;
        let kind = KINDS
            .iter()
            .find(|(word, _)| *word == waiting.kind)
            .ok_or_else(|| hash.unreadable(format!("job {id} is of kind {:?}", waiting.kind)))?;
        let grants: Result<BTreeSet<GrantId>, _> =
            waiting.grants.iter().map(|id| id.parse()).collect();
        Ok(WaitingJob {
            id: id.parse().map_err(|error| hash.unreadable(error))?,
            kind: kind.1,
            grants: grants.map_err(|error| hash.unreadable(error))?,
        })
    };
    hash.numbered('j').map(read).collect()
}

pub(super) fn generation(hash: &Hash) -> Result<u64, StoreError> {
    hash.get("generation")
        .map_or(Ok(0), |_| hash.parsed("generation"))
}

/// The `resourceUID` of the cluster that a target's record is about; empty where it is not known.
pub(super) fn cluster_uid(hash: &Hash) -> String {
    hash.get("uid").unwrap_or_default().to_owned()
}

/// Those of the clusters that stood under its id before.
pub(super) fn earlier_uids(hash: &Hash) -> BTreeSet<String> {
    hash.numbered('u').map(|(uid, _)| uid.to_owned()).collect()
}

pub(super) fn attempts(hash: &Hash) -> Result<u32, StoreError> {
    hash.number("attempts")
}

/// How many passes in a row have failed at calls of each kind.
pub(super) fn failures(hash: &Hash) -> Result<PerCall<u32>, StoreError> {
    Ok(PerCall {
        writes: hash.number("f:writes")?,
        deletes: hash.number("f:deletes")?,
    })
}

/// How often in a row the end of each grant was put off.
pub(super) fn put_off(hash: &Hash) -> Result<BTreeMap<GrantId, u32>, StoreError> {
    let read = |(id, times): (&str, &str)| {
        let id = id.parse().map_err(|error| hash.unreadable(error))?;
        let times = times.parse().map_err(|error| hash.unreadable(error))?;
        Ok((id, times))
    };
    hash.numbered('o').map(read).collect()
}

pub(super) fn parse_target(text: &str) -> Result<TargetId, StoreError> {
    text.parse().map_err(
        |error: crate::domain::ids::InvalidTargetId| StoreError::Unreadable {
            key: "the queue".to_owned(),
            problem: error.to_string(),
        },
    )
}

/// What Redis answers to `TIME`.
pub(super) fn redis_time(seconds: i64, micros: i32) -> Result<Timestamp, StoreError> {
    Timestamp::new(seconds, micros.saturating_mul(1000)).map_err(|error| StoreError::Unreadable {
        key: "Redis's clock".to_owned(),
        problem: error.to_string(),
    })
}

/// A time as scripts count.
pub(super) fn time_millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}
