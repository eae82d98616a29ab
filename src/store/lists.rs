//! Lists of grants and jobs, newest first.
//!
//! Each grant and each job is entered into a list for each thing it is looked for by. A query is answered
//! from the shortest of the lists that hold all that it asks for; what else it asks for is looked at in
//! the records.

use redis::Value;
use serde::Serialize;

use super::accept::parse;
use super::codec::{self, Hash};
use super::error::StoreError;
use super::read::text;
use super::{NewGrant, Store};
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::{ClusterId, GrantId, JobId, PrincipalId, RequestId, TargetId};
use crate::domain::job::{Job, JobTarget};
use crate::domain::naming::ExternalKey;
use crate::domain::selector::GrantSelector;

/// Which grants a list is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lives {
    /// Those that call for access.
    Live,
    /// Those that are REVOKING: they no longer call for access, but may still give it.
    Revoking,
    /// Those that are going, or have ended.
    Past,
    /// All.
    Either,
}

impl Lives {
    /// The families of lists that they are in; the union of these is listed.
    const fn families(self) -> &'static [&'static str] {
        match self {
            Self::Live => &["grants:live:"],
            Self::Revoking => &["grants:going:"],
            Self::Past => &["grants:going:", "grants:past:"],
            Self::Either => &["grants:live:", "grants:going:", "grants:past:"],
        }
    }

    /// Whether a grant in this state is one of them. The record decides, not the list: a grant whose list names are
    /// damaged stays in its former lists.
    const fn includes(self, state: GrantState) -> bool {
        match self {
            Self::Live => state.is_live(),
            Self::Revoking => matches!(state, GrantState::Revoking(_)),
            Self::Past => !state.is_live(),
            Self::Either => true,
        }
    }
}

/// Which jobs are meant: those for which all that is there holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JobSelector {
    /// Jobs that are, or were, about this principal.
    pub principal: Option<PrincipalId>,
    /// Jobs that are, or were, about this cluster.
    pub cluster: Option<ClusterId>,
    /// The job that this caller's request of this id was answered with.
    pub request: Option<(String, RequestId)>,
}

/// Which rows a caller may see at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListScope {
    /// Any.
    All,
    /// Only what is the caller's own. Then its own lists are read, however much others have.
    Own {
        /// What is about this principal, the caller itself.
        principal: Option<PrincipalId>,
        /// What this caller asked for.
        caller: String,
    },
}

impl ListScope {
    /// The names of the lists of which a row has to be in one; none where any row may be seen.
    fn lists(&self) -> Vec<String> {
        match self {
            Self::All => Vec::new(),
            Self::Own { principal, caller } => {
                let mut lists = vec![by_caller(caller)];
                lists.extend(principal.map(by_principal));
                lists
            }
        }
    }
}

/// The lists that a grant is in: by which it can be found.
pub(super) fn lists_of(grant: &NewGrant) -> Vec<String> {
    let mut lists = vec![
        "all".to_owned(),
        by_principal(grant.target.principal),
        by_cluster(&grant.target.cluster),
        by_caller(&grant.request.caller),
    ];
    lists.extend(
        grant
            .labels
            .iter()
            .map(|(key, value)| by_label(key.as_str(), value.as_str())),
    );
    let external_key = grant.external_key.as_ref();
    lists.extend(external_key.map(|key| by_external_key(&grant.request.caller, key)));
    lists
}

/// The lists each of which holds every grant that `selector` means.
fn lists_for(selector: &GrantSelector) -> Vec<String> {
    let GrantSelector {
        principal,
        cluster,
        labels,
        requested_by,
        external_key,
        role: _,
        namespaces: _,
    } = selector;
    let mut lists = vec!["all".to_owned()];
    lists.extend(principal.map(by_principal));
    lists.extend(cluster.as_ref().map(by_cluster));
    lists.extend(
        labels
            .iter()
            .map(|(key, value)| by_label(key.as_str(), value.as_str())),
    );
    lists.extend(requested_by.as_deref().map(by_caller));
    lists.extend(
        external_key
            .iter()
            .map(|(caller, key)| by_external_key(caller, key)),
    );
    lists
}

fn by_principal(id: PrincipalId) -> String {
    format!("principal:{id}")
}

fn by_cluster(id: &ClusterId) -> String {
    format!("cluster:{id}")
}

fn by_caller(caller: &str) -> String {
    format!("requested_by:{caller}")
}

/// Every id is of one length, so that no caller and id run together to another's.
fn by_request(caller: &str, id: RequestId) -> String {
    format!("request:{caller}:{id}")
}

/// No key has a `=` in it.
fn by_label(key: &str, value: &str) -> String {
    format!("label:{key}={value}")
}

/// The caller's length stands before it, so that no caller and key run together to another's.
pub(super) fn by_external_key(caller: &str, key: &ExternalKey) -> String {
    format!("external_key:{}:{caller}:{key}", caller.len())
}

#[derive(Serialize)]
struct ListArgument<'a> {
    record: &'a str,
    families: &'a [&'a str],
    names: &'a [String],
    own: &'a [String],
    before: String,
    count: usize,
}

/// Ids and records, as the script answers: see there.
type Rows = Vec<(Vec<u8>, Value)>;

/// Some of what a query means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<T, Id> {
    /// What was found, newest first; may be nothing even where more is to be found.
    pub rows: Vec<T>,
    /// How far was looked: what comes before this id has not been. `None`: everything was looked at.
    pub looked_to: Option<Id>,
}

impl<T, Id> Found<Result<T, StoreError>, Id> {
    /// The same, if each record can be read.
    fn all_readable(self) -> Result<Found<T, Id>, StoreError> {
        Ok(Found {
            rows: self.rows.into_iter().collect::<Result<_, _>>()?,
            looked_to: self.looked_to,
        })
    }
}

/// A record as the script answers it.
fn hash_of(key: String, record: Value) -> Result<Hash, StoreError> {
    let unreadable = |problem: String| StoreError::Unreadable {
        key: key.clone(),
        problem,
    };
    match record {
        Value::BulkString(problem) => {
            Err(unreadable(String::from_utf8_lossy(&problem).into_owned()))
        }
        record => {
            let fields = redis::from_redis_value(record);
            let fields = fields.map_err(|error: redis::ParsingError| unreadable(error.to_string()));
            let fields = text(&key, fields?)?;
            Hash::new(key, fields)
        }
    }
}

impl Store {
    /// Looks at `count` grants within `scope`, the newest whose ids come before `before`, and gives those of them that
    /// `selector` means. O(count), one script.
    ///
    /// # Errors
    /// [`StoreError`], also if one of the records cannot be read: a list never silently leaves one out.
    pub async fn find_grants(
        &self,
        selector: &GrantSelector,
        scope: &ListScope,
        of: Lives,
        before: Option<GrantId>,
        count: usize,
    ) -> Result<Found<Grant, GrantId>, StoreError> {
        let found = self
            .find_each_grant(selector, scope, of, before, count)
            .await?;
        found.all_readable()
    }

    /// The same, with an error in the place of each record that cannot be read. By its lists, that grant matches. The
    /// error names the key.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn find_each_grant(
        &self,
        selector: &GrantSelector,
        scope: &ListScope,
        of: Lives,
        before: Option<GrantId>,
        count: usize,
    ) -> Result<Found<Result<Grant, StoreError>, GrantId>, StoreError> {
        let argument = ListArgument {
            record: "grant",
            families: of.families(),
            names: &lists_for(selector),
            own: &scope.lists(),
            before: before.map(|id| id.to_string()).unwrap_or_default(),
            count,
        };
        let mut found = self.look(&argument, codec::read_grant).await?;
        found.rows.retain(|read| match read {
            Ok(grant) => of.includes(grant.state) && selector.matches(grant),
            Err(_) => true,
        });
        Ok(found)
    }

    /// Looks at `count` jobs within `scope`, the newest whose ids come before `before`, and gives those of them that
    /// `selector` means, without their targets. A job that answered a request of the selector's is given whatever the
    /// scope is. O(count), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn find_jobs(
        &self,
        selector: &JobSelector,
        scope: &ListScope,
        before: Option<JobId>,
        count: usize,
    ) -> Result<Found<Job, JobId>, StoreError> {
        let broker = self.instance().await?;
        let mut names = vec!["all".to_owned()];
        names.extend(selector.principal.map(by_principal));
        names.extend(selector.cluster.as_ref().map(by_cluster));
        if let Some((caller, request)) = &selector.request {
            if let Some((id, hash)) = self.answer_to(caller, *request).await? {
                let is_meant =
                    before.is_none_or(|before| id < before) && self.is_in(&names, id).await?;
                let row = is_meant.then(|| codec::read_job(broker, id, &hash, Vec::new()));
                return Ok(Found {
                    rows: row.transpose()?.into_iter().collect(),
                    looked_to: None,
                });
            }
            names.push(by_request(caller, *request));
        }
        let argument = ListArgument {
            record: "job",
            families: &["jobs:"],
            names: &names,
            own: &scope.lists(),
            before: before.map(|id| id.to_string()).unwrap_or_default(),
            count,
        };
        let read = |id, hash: &Hash| codec::read_job(broker, id, hash, Vec::new());
        self.look(&argument, read).await?.all_readable()
    }

    /// Looks through lists, and reads the records that are in all of them. A record that cannot be read is an error
    /// that names its key, because a caller would take an incomplete list for a complete one.
    async fn look<T, Id>(
        &self,
        argument: &ListArgument<'_>,
        read: impl Fn(Id, &Hash) -> Result<T, StoreError>,
    ) -> Result<Found<Result<T, StoreError>, Id>, StoreError>
    where
        Id: Copy + std::str::FromStr<Err: std::fmt::Display>,
    {
        let answer: Rows = self.run(&self.scripts.list, argument).await?;
        let full = answer.len() == argument.count;
        let mut rows = Vec::new();
        let mut looked_to = None;
        for (id, record) in answer {
            let id = String::from_utf8_lossy(&id);
            let key = self.key(&format!("{}:{id}", argument.record));
            let id = parse(&key, &id)?;
            looked_to = Some(id);
            if record != Value::Nil {
                let hash = hash_of(key, record);
                rows.push(hash.and_then(|hash| read(id, &hash)));
            }
        }
        Ok(Found {
            rows,
            looked_to: looked_to.filter(|_| full),
        })
    }

    /// The job that a request was answered with, while its record is kept: it may be one that was there before.
    async fn answer_to(
        &self,
        caller: &str,
        id: RequestId,
    ) -> Result<Option<(JobId, Hash)>, StoreError> {
        let request = self.hash(&self.key(&format!("req:{caller}:{id}"))).await?;
        let Some(job) = request.get("job") else {
            return Ok(None);
        };
        let key = self.key(&format!("job:{job}"));
        let fields = self.hash(&key).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        Ok(Some((parse(&key, job)?, Hash::new(key, fields)?)))
    }

    /// Whether a job is in all of these lists.
    async fn is_in(&self, names: &[String], id: JobId) -> Result<bool, StoreError> {
        let mut read = redis::pipe();
        for name in names {
            read.zscore(self.key(&format!("jobs:{name}")), id.to_string());
        }
        let places: Vec<Option<f64>> = self.plain(&read).await?;
        Ok(places.iter().all(Option::is_some))
    }

    /// The first `count` targets of a job behind `after`, in the order of their clusters and principals; `None`
    /// where there is no such job. O(count), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn job_targets(
        &self,
        id: JobId,
        after: Option<&TargetId>,
        count: usize,
    ) -> Result<Option<Vec<JobTarget>>, StoreError> {
        let read = self.read_job(id, after, count).await?;
        Ok(read.map(|(_, targets)| targets))
    }
}
