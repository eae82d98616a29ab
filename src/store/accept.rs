//! Accepting a wish: idempotency, wish, queue, job and audit event in one step.

use serde::Serialize;

use super::Store;
use super::codec::{GrantBody, JobBody, time_millis, write_json};
use super::error::StoreError;
use super::script::millis;
use crate::domain::access::{Access, PrincipalType};
use crate::domain::grant::Expiry;
use crate::domain::ids::{GrantId, JobId, RequestId, TargetId};

/// A grant to accept. Its ids are made by the caller, so that sending it again accepts it once.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// The grant's id.
    pub grant: GrantId,
    /// Its job's id.
    pub job: JobId,
    /// The idempotency key.
    pub request: RequestKey,
    /// Who, where.
    pub target: TargetId,
    /// The type that Azure wants beside the object id.
    pub principal_type: PrincipalType,
    /// What.
    pub access: Access,
    /// The cluster's `resourceUID` as just read: another one than before is another cluster.
    pub cluster_uid: String,
    /// Until when: a time, or so long after Redis accepts it.
    pub end: End,
    /// Why.
    pub justification: String,
    /// The audit event, as JSON.
    pub audit_event: String,
    /// The one, as JSON, of a grant of the target's that ends because its cluster is gone.
    pub gone_event: String,
}

/// When a new grant ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// So long after Redis accepts it.
    After(std::time::Duration),
    /// As said.
    At(Expiry),
}

/// One caller's idempotency key, with what it was used for.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// Who calls.
    pub caller: String,
    /// The key.
    pub id: RequestId,
    /// Whether the caller gave it.
    pub is_callers: bool,
    /// The hash of the payload, versioned.
    pub payload_hash: String,
}

/// A revocation to accept.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    /// Which grant.
    pub grant: GrantId,
    /// The job's id.
    pub job: JobId,
    /// The idempotency key.
    pub request: RequestKey,
    /// Why.
    pub justification: String,
    /// The audit event, as JSON.
    pub audit_event: String,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// It is durable; this is its job.
    New(JobId),
    /// It had been accepted before, with this job, and for this grant.
    Replayed(JobId, Option<GrantId>),
    /// Its idempotency key was used for another payload, with this job.
    Reused(JobId),
    /// There is no such grant.
    UnknownGrant(GrantId),
}

#[derive(Serialize)]
struct ReplayArgument<'a> {
    caller: &'a str,
    request_id: String,
    hash: &'a str,
}

#[derive(Serialize)]
struct GrantArgument<'a> {
    caller: &'a str,
    request_id: String,
    hash: &'a str,
    grant: String,
    job: String,
    target: String,
    uid: &'a str,
    grant_body: String,
    job_body: String,
    ttl: Option<u64>,
    expire: Option<i64>,
    audit_event: &'a str,
    gone_event: &'a str,
}

#[derive(Serialize)]
struct RevokeArgument<'a> {
    caller: &'a str,
    request_id: String,
    hash: &'a str,
    grant: String,
    job: String,
    job_body: String,
    by: &'a str,
    audit_event: &'a str,
}

impl RequestKey {
    fn job_body(&self, justification: &str) -> String {
        write_json(&JobBody {
            request_id: self.is_callers.then(|| self.id.to_string()),
            requested_by: self.caller.clone(),
            justification: justification.to_owned(),
        })
    }
}

impl Store {
    /// Looks whether an idempotency key was used before, and keeps its record alive: O(1). Comes before
    /// anything else is looked at, so that a replay is answered whatever has become of the cluster.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn replayed(&self, request: &RequestKey) -> Result<Option<Accepted>, StoreError> {
        let argument = ReplayArgument {
            caller: &request.caller,
            request_id: request.id.to_string(),
            hash: &request.payload_hash,
        };
        let answer: Vec<String> = self.run(&self.scripts.replay, &argument).await?;
        match answer.as_slice() {
            [word] if word == "new" => Ok(None),
            answer => self.accepted(answer).map(Some),
        }
    }

    /// Accepts a grant. O(effects of the target), one script; durable when it answers.
    ///
    /// # Errors
    /// [`StoreError::Full`] at Redis's memory limit; [`StoreError::Unavailable`] where it cannot be known
    /// whether it was accepted: send it again with the same ids.
    pub async fn accept_grant(&self, new: &NewGrant) -> Result<Accepted, StoreError> {
        let (ttl, expire) = match new.end {
            End::After(ttl) => (Some(millis(ttl)), None),
            End::At(expiry) => (None, expiry.time().map(time_millis)),
        };
        let body = GrantBody::new(
            &new.access,
            new.principal_type,
            &new.request.caller,
            &new.justification,
        );
        let argument = GrantArgument {
            caller: &new.request.caller,
            request_id: new.request.id.to_string(),
            hash: &new.request.payload_hash,
            grant: new.grant.to_string(),
            job: new.job.to_string(),
            target: new.target.to_string(),
            uid: &new.cluster_uid,
            grant_body: write_json(&body),
            job_body: new.request.job_body(&new.justification),
            ttl,
            expire,
            audit_event: &new.audit_event,
            gone_event: &new.gone_event,
        };
        let answer: Vec<String> = self.run(&self.scripts.accept_grant, &argument).await?;
        self.accepted(&answer)
    }

    /// Accepts the revocation of one grant. O(1), one script; durable when it answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it cannot be known whether it was accepted: send it again with
    /// the same ids.
    pub async fn accept_revocation(&self, new: &NewRevocation) -> Result<Accepted, StoreError> {
        let argument = RevokeArgument {
            caller: &new.request.caller,
            request_id: new.request.id.to_string(),
            hash: &new.request.payload_hash,
            grant: new.grant.to_string(),
            job: new.job.to_string(),
            job_body: new.request.job_body(&new.justification),
            by: &new.request.caller,
            audit_event: &new.audit_event,
        };
        let answer: Vec<String> = self.run(&self.scripts.accept_revoke, &argument).await?;
        self.accepted(&answer)
    }

    fn accepted(&self, answer: &[String]) -> Result<Accepted, StoreError> {
        let key = self.key("req");
        match answer {
            [word, job, _] if word == "accepted" => Ok(Accepted::New(parse(&key, job)?)),
            [word, job, of] if word == "replayed" => {
                let grant = (!of.is_empty()).then(|| parse(&key, of)).transpose()?;
                Ok(Accepted::Replayed(parse(&key, job)?, grant))
            }
            [word, job] if word == "reused" => Ok(Accepted::Reused(parse(&key, job)?)),
            [word, grant] if word == "unknown" => Ok(Accepted::UnknownGrant(parse(&key, grant)?)),
            other => Err(StoreError::Unreadable {
                key,
                problem: format!("a script answered {other:?}"),
            }),
        }
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &str,
    value: &str,
) -> Result<T, StoreError> {
    value
        .parse()
        .map_err(|error: T::Err| StoreError::Unreadable {
            key: key.to_owned(),
            problem: error.to_string(),
        })
}
