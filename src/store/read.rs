//! Reading single records.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use redis::AsyncCommands;
use serde::Serialize;
use uuid::Uuid;

use super::Store;
use super::codec::{self, Hash};
use super::error::StoreError;
use crate::domain::effect::Effect;
use crate::domain::grant::Grant;
use crate::domain::ids::{AssignmentName, GrantId, InstanceId, JobId, TargetId};
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

/// See [`Store::instance`].
pub(super) async fn instance(store: &Store) -> Result<InstanceId, StoreError> {
    let meta = store.key("meta");
    // Read first: a full Redis takes no writes, and a broker that was there before can start all the same.
    let instance = match meta_of(store, &meta).await? {
        (Some(version), Some(instance)) => (Some(version), Some(instance)),
        _ => make_meta(store, &meta).await?,
    };
    let unreadable = |problem: String| StoreError::Unreadable {
        key: meta.clone(),
        problem,
    };
    match instance {
        (Some(version), Some(instance)) if version == "1" => {
            InstanceId::parse(&instance).map_err(|error| unreadable(error.to_string()))
        }
        other => Err(unreadable(format!("its format and instance are {other:?}"))),
    }
}

/// The format of the broker's keys, and its instance id.
type Meta = (Option<String>, Option<String>);

async fn meta_of(store: &Store, meta: &str) -> Result<Meta, StoreError> {
    store
        .link
        .with(|mut connection| {
            let mut read = redis::cmd("HMGET");
            read.arg(meta).arg(&["v", "instance"]);
            async move { read.query_async(&mut connection).await }
        })
        .await
}

/// Makes what is missing: of two brokers that start at once, one's counts for both.
async fn make_meta(store: &Store, meta: &str) -> Result<Meta, StoreError> {
    let fresh = Uuid::new_v4().to_string();
    for (field, value) in [("v", "1"), ("instance", fresh.as_str())] {
        store
            .link
            .with(|mut connection| {
                let mut write = redis::cmd("HSETNX");
                write.arg(meta).arg(field).arg(value);
                async move { write.query_async::<()>(&mut connection).await }
            })
            .await?;
    }
    meta_of(store, meta).await
}

/// A job's hash, and some of its targets, each with its own fields.
type JobAnswer = (
    HashMap<String, String>,
    Vec<(String, HashMap<String, String>)>,
);

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
        let read = self.read_job(id, None, JOB_TARGETS).await?;
        read.map(|(job, targets)| codec::read_job(id, &job, targets))
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
        let job = Hash::new(key, fields)?;
        let targets = rows.into_iter().map(|(target, fields)| {
            // A target's fields are of the job's own format.
            let hash = job.part(format!("{targets_key} {target}"), fields);
            codec::read_job_target(&target, &hash)
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
        let ((seconds, micros), fields): ((i64, i32), Fields) = self
            .link
            .with(|mut connection| {
                let mut pipe = redis::pipe();
                pipe.cmd("TIME").hgetall(&key);
                async move { pipe.query_async(&mut connection).await }
            })
            .await?;
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
        let fields: Fields = self
            .link
            .with(|mut connection| {
                let key = key.to_owned();
                async move { connection.hgetall(key).await }
            })
            .await?;
        text(key, fields)
    }
}
