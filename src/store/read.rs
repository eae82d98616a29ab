//! Reading single records.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::Store;
use super::codec::{self, Hash};
use super::error::StoreError;
use crate::domain::effect::Effect;
use crate::domain::grant::Grant;
use crate::domain::ids::{AssignmentName, GrantId, JobId, TargetId};
use crate::domain::job::{Job, JobTarget};

/// What a target's record says of its effects.
#[derive(Clone, Debug)]
pub struct TargetRecord {
    /// Redis's time at the reading.
    pub now: Timestamp,
    /// The `resourceUID` of the cluster that they are at; empty where it is not known.
    pub cluster_uid: String,
    /// Those of clusters that stood under its id before.
    pub earlier_uids: BTreeSet<String>,
    /// Its effects, those included that are gone but may still show in Azure's lists.
    pub effects: BTreeMap<AssignmentName, Effect>,
}

impl TargetRecord {
    /// Whether a grant that has read this `resourceUID` ends those that are there, because it is of another
    /// cluster under the same id. One that stood there before is only remembered by somebody: none comes back.
    #[must_use]
    pub fn is_replaced_by(&self, uid: &str) -> bool {
        let are_known = !self.cluster_uid.is_empty() && !uid.is_empty();
        are_known && self.cluster_uid != uid && !self.earlier_uids.contains(uid)
    }
}

/// A job's hash, and some of its targets, each with its own fields.
type JobAnswer = (Fields, Vec<(Vec<u8>, Fields)>);

/// At most this many targets travel with a job.
const JOB_TARGETS: usize = 20;

#[derive(Serialize)]
struct JobArgument {
    job: String,
    after: String,
    count: usize,
}

/// A hash, as Redis has it.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The fields of a hash. What is no text was not written by a broker: it is told by its key, where the client would only
/// know that some answer is odd, and take the connection for broken.
pub(super) fn text(key: &str, fields: Fields) -> Result<HashMap<String, String>, StoreError> {
    let read = |(name, value)| Ok((String::from_utf8(name)?, String::from_utf8(value)?));
    let fields: Result<_, std::string::FromUtf8Error> = fields.into_iter().map(read).collect();
    fields.map_err(|error| StoreError::Unreadable {
        key: key.to_owned(),
        problem: error.to_string(),
    })
}

impl Store {
    /// One grant; `None` where there is none, or it ended longer ago than ended ones are kept. O(1).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError> {
        let key = self.key(&format!("grant:{id}"));
        let fields = self.hash(&key).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        codec::read_grant(id, &Hash::new(key, fields)?).map(Some)
    }

    /// One job with its first targets; `None` where there is none, or it was over longer ago than such
    /// are kept. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let broker = self.instance().await?;
        let read = self.read_job(id, None, JOB_TARGETS).await?;
        read.map(|(job, targets)| codec::read_job(broker, id, &job, targets))
            .transpose()
    }

    /// A job's record and some of its targets, all of one moment.
    pub(super) async fn read_job(
        &self,
        id: JobId,
        after: Option<&TargetId>,
        count: usize,
    ) -> Result<Option<(Hash, Vec<JobTarget>)>, StoreError> {
        let key = self.key(&format!("job:{id}"));
        let targets_key = format!("{key}:targets");
        let after = after.map(|after| format!("{} {}", after.cluster, after.principal));
        let argument = JobArgument {
            job: id.to_string(),
            after: after.unwrap_or_default(),
            count,
        };
        let (fields, rows): JobAnswer = self.run(&self.scripts.read_job, &argument).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        let fields = text(&key, fields)?;
        let job = Hash::new(key, fields)?;
        let targets = rows.into_iter().map(|(target, fields)| {
            let target = String::from_utf8_lossy(&target);
            let key = format!("{targets_key} {target}");
            let fields = text(&key, fields)?;
            // A target's fields are of the job's own format.
            codec::read_job_target(&target, &job.part(key, fields))
        });
        let targets = targets.collect::<Result<_, _>>()?;
        Ok(Some((job, targets)))
    }

    /// What is known of a target's effects; empty where there is no record. O(effects and grants of the
    /// target).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn target(&self, id: &TargetId) -> Result<TargetRecord, StoreError> {
        let key = self.key(&format!("target:{id}"));
        let mut read = redis::pipe();
        read.cmd("TIME").hgetall(&key);
        let ((seconds, micros), fields): ((i64, i32), Fields) = self.plain(&read).await?;
        let now = codec::redis_time(seconds, micros)?;
        let fields = text(&key, fields)?;
        if fields.is_empty() {
            return Ok(TargetRecord {
                now,
                cluster_uid: String::new(),
                earlier_uids: BTreeSet::new(),
                effects: BTreeMap::new(),
            });
        }
        let hash = Hash::new(key, fields)?;
        Ok(TargetRecord {
            now,
            cluster_uid: codec::cluster_uid(&hash),
            earlier_uids: codec::earlier_uids(&hash),
            effects: codec::read_effects(&hash)?,
        })
    }

    pub(super) async fn hash(&self, key: &str) -> Result<HashMap<String, String>, StoreError> {
        let mut read = redis::pipe();
        read.hgetall(key);
        let (fields,): (Fields,) = self.plain(&read).await?;
        text(key, fields)
    }
}
