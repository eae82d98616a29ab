//! What nobody asks for: expiries, retries, and settle deadlines, from one clock.

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Reconciler;
use crate::audit::{BROKER, Event, Outcome};
use crate::domain::ids::JobId;
use crate::store::{DueExpiry, Expired, StoreError};

/// How many targets or grants one look takes up.
const AT_ONCE: u32 = 100;

/// Redis's clock and ours may differ by so much before somebody has to be told.
const CLOCKS_AGREE_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);

impl Reconciler {
    pub(super) async fn watch_the_clock(self: Arc<Self>, stop: CancellationToken) {
        loop {
            match self.look_at_the_clock().await {
                // A full look may have left something.
                Ok(true) if !stop.is_cancelled() => continue,
                Ok(_) => {}
                Err(error) => warn!(%error, "expiries and retries wait for Redis"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.poll) => {}
            }
        }
    }

    /// Does what is due, and says whether there may be more.
    async fn look_at_the_clock(&self) -> Result<bool, StoreError> {
        let woken = self.store.wake(AT_ONCE).await?;
        let own_now = Timestamp::now();
        let (due, redis_now) = self.store.due_expiries(own_now, AT_ONCE).await?;
        let apart = own_now.duration_since(redis_now).abs();
        if apart > CLOCKS_AGREE_WITHIN && !due.is_empty() {
            error!(
                apart_seconds = apart.as_secs(),
                "Redis's clock and this host's are apart; grants expire only when both say so"
            );
        }
        let mut expired = 0;
        for grant in &due {
            match self.expire(grant, own_now).await {
                Ok(true) => expired += 1,
                Ok(false) => {}
                Err(error) if error.is_passing() => return Err(error),
                // Damage of one grant's: it must not keep the others from ending (I6).
                Err(error) => error!(grant = %grant.grant, %error, "a grant cannot be ended"),
            }
        }
        if woken > 0 || expired > 0 {
            self.work.notify_one();
        }
        Ok(woken == AT_ONCE || expired == AT_ONCE)
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
