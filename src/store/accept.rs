//! Accepting a wish: idempotency, wish, queue, job and audit event in one step.

use serde::Serialize;

use super::Store;
use super::codec::{GrantBody, JobBody, PrincipalBody, time_millis, write_json};
use super::error::StoreError;
use super::lists::{by_external_key, lists_of};
use super::script::millis;
use crate::domain::access::{Access, Principal};
use crate::domain::grant::Expiry;
use crate::domain::ids::{GrantId, JobId, Namespace, RequestId, TargetId};
use crate::domain::naming::{ExternalKey, Labels, OnBehalfOf};
use crate::telemetry::Loop;

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
    /// Who, as resolved.
    pub principal: Principal,
    /// What.
    pub access: Access,
    /// The cluster's `resourceUID` as just read: another one than before is another cluster.
    pub cluster_uid: String,
    /// Until when: a time, or so long after Redis accepts it.
    pub end: End,
    /// Why.
    pub justification: String,
    /// The caller's labels.
    pub labels: Labels,
    /// The caller's own name for it: while a live grant of the caller's has it, this is that grant.
    pub external_key: Option<ExternalKey>,
    /// For whom the caller acts.
    pub on_behalf_of: Option<OnBehalfOf>,
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
    /// The hash of the payload, versioned.
    pub payload_hash: String,
}

/// A later end of a grant, to accept.
#[derive(Clone, Debug)]
pub struct NewExtension {
    /// Which grant.
    pub grant: GrantId,
    /// The job's id.
    pub job: JobId,
    /// The idempotency key.
    pub request: RequestKey,
    /// Until when, if that is later than it ends now.
    pub end: End,
    /// Why.
    pub justification: String,
    /// Whether the caller may see the grant's last job. Then that is the answer where the end is the same.
    pub shows_job: bool,
    /// The audit event, as JSON.
    pub audit_event: String,
}

/// Which grants a revocation ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Revoked {
    /// This one, which has to be there.
    One(GrantId),
    /// Grants that a selector matched and that have not ended. The script ends the live ones. The job also waits for
    /// those that are already REVOKING. At most some thousands, because one script does it all, and Redis waits for it.
    Selected(Vec<GrantId>),
}

/// A revocation to accept.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    /// Which grants.
    pub grants: Revoked,
    /// The job's id.
    pub job: JobId,
    /// The idempotency key.
    pub request: RequestKey,
    /// Why.
    pub justification: String,
    /// How many more grants the selector matches that stay as they are, as far as the caller may know.
    pub left: u32,
    /// Whether the caller may see the job that ended, or is ending, the one grant. Then that is the answer if there is
    /// nothing left to end.
    pub shows_job: bool,
    /// The audit event, as JSON; each grant's own says which grant and which target.
    pub audit_event: String,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// It is durable; this is its job, and its grant where it is about one.
    New(JobId, Option<GrantId>),
    /// It had been accepted before, with this job, and for this grant.
    Replayed(JobId, Option<GrantId>),
    /// A revocation that changes nothing, now or before; a job from before says so, or when it will be so.
    Unchanged(JobId, Option<GrantId>),
    /// Its idempotency key was used for another payload, with this job.
    Reused(JobId),
    /// There is no such grant.
    UnknownGrant(GrantId),
    /// The grant is going, or has ended.
    EndedGrant(GrantId),
    /// The external key names a live grant of something else: this one.
    KeyInUse {
        /// The key.
        key: ExternalKey,
        /// The grant that has it.
        grant: GrantId,
    },
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
    wish: String,
    external: String,
    lists: Vec<String>,
    principal: String,
    grant_body: String,
    job_body: String,
    ttl: Option<u64>,
    expire: Option<i64>,
    audit_event: &'a str,
    gone_event: &'a str,
}

#[derive(Serialize)]
struct ExtendArgument<'a> {
    caller: &'a str,
    request_id: String,
    hash: &'a str,
    grant: String,
    job: String,
    job_body: String,
    ttl: Option<u64>,
    expire: Option<i64>,
    shows_job: bool,
    audit_event: &'a str,
}

#[derive(Serialize)]
struct RevokeArgument<'a> {
    caller: &'a str,
    request_id: String,
    hash: &'a str,
    grants: Vec<String>,
    selected: bool,
    left: u32,
    shows_job: bool,
    job: String,
    job_body: String,
    by: &'a str,
    audit_event: &'a str,
}

impl End {
    /// In milliseconds: so long from now, or at this time; neither: never.
    fn words(self) -> (Option<u64>, Option<i64>) {
        match self {
            Self::After(ttl) => (Some(millis(ttl)), None),
            Self::At(expiry) => (None, expiry.time().map(time_millis)),
        }
    }
}

impl Revoked {
    fn ids(&self) -> &[GrantId] {
        match self {
            Self::One(grant) => std::slice::from_ref(grant),
            Self::Selected(grants) => grants,
        }
    }
}

impl RequestKey {
    fn job_body(&self, justification: &str) -> String {
        write_json(&JobBody {
            request_id: Some(self.id.to_string()),
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
        let (ttl, expire) = new.end.words();
        let external = new.external_key.as_ref();
        let argument = GrantArgument {
            caller: &new.request.caller,
            request_id: new.request.id.to_string(),
            hash: &new.request.payload_hash,
            grant: new.grant.to_string(),
            job: new.job.to_string(),
            target: new.target.to_string(),
            uid: &new.cluster_uid,
            wish: wish_of(new),
            external: external
                .map(|key| by_external_key(&new.request.caller, key))
                .unwrap_or_default(),
            lists: lists_of(new),
            principal: write_json(&PrincipalBody::from(&new.principal)),
            grant_body: write_json(&GrantBody::new(new)),
            job_body: new.request.job_body(&new.justification),
            ttl,
            expire,
            audit_event: &new.audit_event,
            gone_event: &new.gone_event,
        };
        let answer: Vec<String> = self.run(&self.scripts.accept_grant, &argument).await?;
        match (answer.as_slice(), external) {
            ([word, grant], Some(key)) if word == "key_in_use" => Ok(Accepted::KeyInUse {
                key: key.clone(),
                grant: parse(&self.key("grants"), grant)?,
            }),
            (answer, _) => self.accepted(answer),
        }
    }

    /// Accepts a later end of a grant. O(jobs that wait for its target), one script; durable when it answers.
    ///
    /// # Errors
    /// [`StoreError::Full`] at Redis's memory limit; [`StoreError::Unavailable`] where it cannot be known
    /// whether it was accepted: send it again with the same ids.
    pub async fn accept_extension(&self, new: &NewExtension) -> Result<Accepted, StoreError> {
        let (ttl, expire) = new.end.words();
        let argument = ExtendArgument {
            caller: &new.request.caller,
            request_id: new.request.id.to_string(),
            hash: &new.request.payload_hash,
            grant: new.grant.to_string(),
            job: new.job.to_string(),
            job_body: new.request.job_body(&new.justification),
            ttl,
            expire,
            shows_job: new.shows_job,
            audit_event: &new.audit_event,
        };
        let answer: Vec<String> = self.run(&self.scripts.accept_extend, &argument).await?;
        self.accepted(&answer)
    }

    /// Accepts the revocation of one grant or of some: all of them, or, on an error, none. O(grants), one
    /// script; durable when it answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it cannot be known whether it was accepted: send it again with
    /// the same ids.
    pub async fn accept_revocation(&self, new: &NewRevocation) -> Result<Accepted, StoreError> {
        let argument = RevokeArgument {
            caller: &new.request.caller,
            request_id: new.request.id.to_string(),
            hash: &new.request.payload_hash,
            grants: new.grants.ids().iter().map(ToString::to_string).collect(),
            selected: matches!(new.grants, Revoked::Selected(_)),
            left: new.left,
            shows_job: new.shows_job,
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
            [word, job, of, damaged @ ..] if word == "accepted" || word == "replayed" => {
                self.tell_skipped_rows(Loop::Revoke, damaged);
                let grant = (!of.is_empty()).then(|| parse(&key, of)).transpose()?;
                let job = parse(&key, job)?;
                Ok(if word == "accepted" {
                    Accepted::New(job, grant)
                } else {
                    Accepted::Replayed(job, grant)
                })
            }
            [word, job, of] if word == "unchanged" => {
                let grant = (!of.is_empty()).then(|| parse(&key, of)).transpose()?;
                Ok(Accepted::Unchanged(parse(&key, job)?, grant))
            }
            [word, job] if word == "reused" => Ok(Accepted::Reused(parse(&key, job)?)),
            [word, grant] if word == "unknown" => Ok(Accepted::UnknownGrant(parse(&key, grant)?)),
            [word, grant] if word == "ended" => Ok(Accepted::EndedGrant(parse(&key, grant)?)),
            other => Err(StoreError::Unreadable {
                key,
                problem: format!("a script answered {other:?}"),
            }),
        }
    }
}

/// Who, where and what, as text: two grants of the same have the same.
fn wish_of(new: &NewGrant) -> String {
    let namespaces: Vec<&str> = new
        .access
        .namespaces
        .iter()
        .map(Namespace::as_str)
        .collect();
    format!(
        "{}|{}|{}",
        new.target,
        new.access.role.id(),
        namespaces.join(",")
    )
}

pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
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
