//! Work that time makes due, without a request: expiries, retries and settle deadlines.

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Reconciler;
use super::lease::Moment;
use crate::audit::{BROKER, Event, Outcome};
use crate::domain::ids::JobId;
use crate::store::{DueExpiry, Expired, StoreError, Woken};
use crate::telemetry::{Loop, metrics};

/// How many targets or grants one look takes up.
const AT_ONCE: u32 = 100;

/// How far Redis's clock and this host's may differ before the operator is told.
const CLOCKS_AGREE_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);

/// What the last look found about the two clocks. The log gets each change once, not a line at every look.
#[derive(Debug, Default)]
struct Clocks {
    apart: bool,
    leapt: bool,
}

impl Clocks {
    /// Compares the clocks. Returns whether they agree if that has changed, else `None`. The caller compares at every
    /// look, also when no grant is due: by a clock that is behind no grant is due, and the operator has to learn why
    /// grants outlive their end.
    fn compare(&mut self, own: Timestamp, redis: Timestamp) -> Option<bool> {
        let apart = own.duration_since(redis).abs() > CLOCKS_AGREE_WITHIN;
        let changed = apart != self.apart;
        self.apart = apart;
        changed.then_some(!apart)
    }

    /// Notes whether Redis's clock is ahead of where it should be. Returns true when a leap begins.
    const fn note_leap(&mut self, leapt: bool) -> bool {
        let is_news = leapt && !self.leapt;
        self.leapt = leapt;
        is_news
    }
}

impl Reconciler {
    pub(super) async fn watch_the_clock(self: Arc<Self>, stop: CancellationToken) {
        let mut clocks = Clocks::default();
        loop {
            match self.look_at_the_clock(&mut clocks).await {
                // A full look may have left something.
                Ok(true) if !stop.is_cancelled() => continue,
                Ok(_) => {}
                Err(error) if self.store.has_logged(&error) => {}
                Err(error) => warn!(%error, "expiries and retries wait for Redis"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.poll) => {}
            }
        }
    }

    /// Does what is due, and says whether there may be more.
    async fn look_at_the_clock(&self, clocks: &mut Clocks) -> Result<bool, StoreError> {
        let Woken {
            looked_at: woken,
            clock_went_back,
        } = self.store.wake(AT_ONCE).await?;
        if !clock_went_back.is_zero() {
            error!(
                by = ?clock_went_back,
                "Redis's clock has gone back, as after a failover to a host whose clock is behind. The broker has \
                 moved what waited by the same amount. Grants end late by as much as that clock is behind. Set the \
                 clock of Redis's host right"
            );
        }
        let own_now = Timestamp::now();
        let asked = Moment::now();
        let (due, redis_now) = self.store.due_expiries(own_now, AT_ONCE).await?;
        match clocks.compare(own_now, redis_now) {
            Some(false) => error!(
                own = %own_now, redis = %redis_now,
                "Redis's clock and this host's are more than 30 s apart. Grants expire only when both clocks say so. \
                 Set the wrong one right"
            ),
            Some(true) => info!("Redis's clock and this host's agree again"),
            None => {}
        }
        let settled = self.settled_time(asked, redis_now);
        if clocks.note_leap(!settled.behind.is_zero()) {
            error!(
                by = ?settled.behind,
                "Redis's clock has leapt ahead, as after a failover to a host whose clock is ahead. The broker judges \
                 settle deadlines by this host's clock until no earlier call can take effect. No grant ends early, \
                 because both clocks have to say so. The broker no longer writes access whose end has passed by \
                 Redis's clock. Set the clock of Redis's host right"
            );
        }
        let mut expired = 0;
        for grant in &due {
            match self.expire(grant, own_now).await {
                Ok(true) => expired += 1,
                Ok(false) => {}
                Err(error) if error.is_passing() => return Err(error),
                // One grant is damaged. The others must end all the same (I6).
                Err(error) => {
                    metrics().skipped_entry(Loop::Expire);
                    error!(grant = %grant.grant, %error, "the broker cannot end a grant; it tries again in a minute");
                    self.store.put_off_expiry(grant, own_now).await?;
                }
            }
        }
        if woken > 0 || expired > 0 {
            self.work.notify_one();
        }
        let forgotten = self.store.forget(AT_ONCE).await?;
        Ok([woken, expired, forgotten].contains(&AT_ONCE))
    }

    async fn expire(&self, due: &DueExpiry, own_now: Timestamp) -> Result<bool, StoreError> {
        let job = JobId::new(Uuid::now_v7());
        let event = Event::new(BROKER, "grant/expire", Outcome::Accepted)
            .about(due.grant)
            .by_job(job)
            .to_json();
        let expired = self.store.expire(due.grant, job, own_now, &event).await?;
        if expired == Expired::Expired {
            info!(grant = %due.grant, %job, expire_time = %due.expire_time, "a grant's time is up");
        }
        Ok(expired == Expired::Expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_reported_once_whichever_is_behind() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut clocks = Clocks::default();
        assert_eq!(clocks.compare(at(1_000), at(1_030)), None);
        assert_eq!(clocks.compare(at(1_000), at(1_031)), Some(false));
        assert_eq!(clocks.compare(at(2_000), at(2_031)), None);
        assert_eq!(clocks.compare(at(3_000), at(3_000)), Some(true));
        assert_eq!(clocks.compare(at(3_031), at(3_000)), Some(false));
    }
}
