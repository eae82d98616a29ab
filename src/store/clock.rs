//! What time brings: targets to look at again, and grants whose time is up.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tracing::error;

use super::Store;
use super::codec::{JobBody, redis_time, time_millis, write_json};
use super::error::StoreError;
use crate::domain::ids::{GrantId, JobId};
use crate::telemetry::{Loop, metrics};

/// A grant whose time is up, by the broker's own clock.
#[derive(Clone, Debug)]
pub struct DueExpiry {
    /// Which.
    pub grant: GrantId,
    /// When it ends.
    pub expire_time: Timestamp,
}

/// What became of an expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// The grant is going.
    Expired,
    /// One of the two clocks says that its time is not up.
    NotDue,
    /// It had ended, or is going already.
    Over,
}

#[derive(Serialize)]
struct LimitArgument {
    limit: u32,
}

#[derive(Serialize)]
struct ExpireArgument<'a> {
    grant: String,
    job: String,
    job_body: String,
    own_now: i64,
    audit_event: &'a str,
}

/// How long what is damaged is left alone before it is tried again.
const PUT_OFF: Duration = Duration::from_mins(1);

/// Redis's time in seconds and microseconds, and grants with their ends.
type DueAnswer = ((i64, i32), Vec<(Vec<u8>, f64)>);

/// A row of `expiries`.
fn due_expiry(grant: &[u8], score: f64) -> Result<DueExpiry, String> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "milliseconds fit an f64 exactly, and an i64"
    )]
    let millis = score as i64;
    Ok(DueExpiry {
        grant: GrantId::parse(&String::from_utf8_lossy(grant))
            .map_err(|error| error.to_string())?,
        expire_time: Timestamp::from_millisecond(millis).map_err(|error| error.to_string())?,
    })
}

/// What a run of `wake` has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Woken {
    /// How many members of `due` it looked at, each a lease or a bucket of a target. It has queued what they stand for.
    pub looked_at: u32,
    /// By how much Redis's clock has gone back since the last look; zero if it has not.
    pub clock_went_back: Duration,
}

impl Store {
    /// Queues up to `limit` leases and buckets whose time has come. Logs and puts off rows that cannot be read.
    /// O(limit), one script; O(all that waits) once after Redis's clock has gone back.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn wake(&self, limit: u32) -> Result<Woken, StoreError> {
        let (looked_at, went_back, damaged): (u32, u64, Vec<Vec<u8>>) = self
            .run(&self.scripts.wake, &LimitArgument { limit })
            .await?;
        self.tell_skipped_rows(Loop::Wake, &damaged);
        Ok(Woken {
            looked_at,
            clock_went_back: Duration::from_millis(went_back),
        })
    }

    /// Forgets up to `limit` grants and jobs that were over long enough ago, and says at how many it looked.
    /// Logs and puts off a row that cannot be read, and goes on with the others. O(limit), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn forget(&self, limit: u32) -> Result<u32, StoreError> {
        let argument = LimitArgument { limit };
        let (looked_at, damaged): (u32, Vec<Vec<u8>>) =
            self.run(&self.scripts.forget, &argument).await?;
        self.tell_skipped_rows(Loop::Forget, &damaged);
        Ok(looked_at)
    }

    /// The grants whose time is up at `own_now`, at most `limit`, the longest overdue first, and Redis's
    /// time. O(log grants + limit). A row that cannot be read is logged and put off: the grants behind
    /// it end all the same (I6).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn due_expiries(
        &self,
        own_now: Timestamp,
        limit: u32,
    ) -> Result<(Vec<DueExpiry>, Timestamp), StoreError> {
        let key = self.key("expiries");
        let mut read = redis::pipe();
        read.cmd("TIME")
            .cmd("ZRANGEBYSCORE")
            .arg(&key)
            .arg("-inf")
            .arg(time_millis(own_now))
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        let ((seconds, micros), due): DueAnswer = self.plain(&read).await?;
        let mut readable = Vec::with_capacity(due.len());
        for (grant, score) in due {
            match due_expiry(&grant, score) {
                Ok(due) => readable.push(due),
                Err(problem) => {
                    metrics().skipped_entry(Loop::Expire);
                    let entry = String::from_utf8_lossy(&grant);
                    error!(key, %entry, score, %problem, "the broker cannot read an expiry; it retries in a minute");
                    self.put_off(&grant, own_now).await?;
                }
            }
        }
        Ok((readable, redis_time(seconds, micros)?))
    }

    /// Looks at an expiry that could not be carried out again in a minute: until then it neither stands in
    /// front of the others nor fills the log. O(log grants).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn put_off_expiry(
        &self,
        due: &DueExpiry,
        own_now: Timestamp,
    ) -> Result<(), StoreError> {
        self.put_off(due.grant.to_string().as_bytes(), own_now)
            .await
    }

    async fn put_off(&self, member: &[u8], own_now: Timestamp) -> Result<(), StoreError> {
        let key = self.key("expiries");
        let later = own_now.saturating_add(PUT_OFF).unwrap_or(Timestamp::MAX);
        let mut write = redis::pipe();
        // Changes only a row that is still there, and never to an earlier time.
        write
            .cmd("ZADD")
            .arg(&key)
            .arg(&["XX", "GT"])
            .arg(time_millis(later))
            .arg(member);
        self.plain::<(u64,)>(&write).await.map(drop)
    }

    /// Ends a grant whose time is up, if both clocks say so. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn expire(
        &self,
        grant: GrantId,
        job: JobId,
        own_now: Timestamp,
        audit_event: &str,
    ) -> Result<Expired, StoreError> {
        let argument = ExpireArgument {
            grant: grant.to_string(),
            job: job.to_string(),
            job_body: write_json(&JobBody {
                request_id: None,
                requested_by: "expiry".to_owned(),
                justification: String::new(),
            }),
            own_now: time_millis(own_now),
            audit_event,
        };
        let answer: Vec<String> = self.run(&self.scripts.expire, &argument).await?;
        match answer.first().map(String::as_str) {
            Some("expired") => Ok(Expired::Expired),
            Some("not_due") => Ok(Expired::NotDue),
            Some("over") => Ok(Expired::Over),
            _ => Err(StoreError::Unreadable {
                key: self.key("expiries"),
                problem: format!("the script expire answered {answer:?}"),
            }),
        }
    }
}
