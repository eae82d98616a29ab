//! Makes Azure agree with what was accepted: claims targets, and passes over them.
//!
//! Level-triggered: nothing here remembers what to do. Each pass works it out anew from the wishes, so a
//! process may die between any two lines, and another one goes on.

mod apply;
mod calls;
mod clock;
mod contained;
mod events;
mod lease;
mod pass;
mod progress;
mod record;
mod roles;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};
use uuid::Uuid;

use crate::azure::Azure;
use crate::config;
use crate::domain::backoff::Backoff;
use crate::domain::ids::{InstanceId, LeaseToken};
use crate::domain::settle_clock::{SettleClock, SettledTime, Told};
use crate::store::{ClaimTerms, Claimed, Store, StoreError};
use contained::contained;

use lease::{Lease, Moment};

/// What every pass goes by.
pub struct Reconciler {
    store: Store,
    azure: Azure,
    settings: config::Reconciler,
    call_timeout: Duration,
    instance: InstanceId,
    turn: AtomicU64,
    /// A std mutex: held for moments, never across an await.
    settle_clock: Mutex<SettleClock>,
    work: Arc<Notify>,
}

impl Reconciler {
    /// Makes a reconciler; `call_timeout` is how long one call to Azure may take, and `work` is notified
    /// when something has been accepted in this process, which then does not wait for the next poll.
    #[must_use]
    pub fn new(
        store: Store,
        azure: Azure,
        settings: config::Reconciler,
        call_timeout: Duration,
        instance: InstanceId,
        work: Arc<Notify>,
    ) -> Self {
        let hold = settings.lease.saturating_add(call_timeout);
        let hold = hold.saturating_add(settings.settle_time);
        Self {
            store,
            azure,
            settings,
            call_timeout,
            instance,
            // Replicas that start together do not all begin with the same lane.
            turn: AtomicU64::new(rand::random_range(0..8)),
            settle_clock: Mutex::new(SettleClock::new(hold)),
            work,
        }
    }

    /// Works until `stop`; then takes nothing new, and returns when every pass under way has recorded
    /// what it did and handed back the rest.
    pub async fn run(self, stop: CancellationToken) {
        let reconciler = Arc::new(self);
        let passes = TaskTracker::new();
        tokio::join!(
            Arc::clone(&reconciler).claim_until(stop.clone(), &passes),
            Arc::clone(&reconciler).watch_the_clock(stop),
        );
        passes.close();
        passes.wait().await;
    }

    async fn claim_until(self: Arc<Self>, stop: CancellationToken, passes: &TaskTracker) {
        let workers = Arc::new(Semaphore::new(self.settings.workers.get()));
        loop {
            // The worker first, the target second: a lease does not run while nobody is free.
            let worker = tokio::select! {
                () = stop.cancelled() => return,
                worker = Arc::clone(&workers).acquire_owned() => worker,
            };
            let Ok(worker) = worker else { return };
            match self.claim().await {
                Ok(Some(lease)) => {
                    let reconciler = Arc::clone(&self);
                    let stop = stop.clone();
                    passes.spawn(async move {
                        let target = lease.claimed.target.id.clone();
                        contained(&target, reconciler.pass(lease, &stop)).await;
                        drop(worker);
                        reconciler.work.notify_one();
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) if self.store.has_logged(&error) => {}
                Err(error @ StoreError::Unreadable { .. }) => {
                    error!(%error, "a target cannot be read; it is tried again when its lease ends");
                }
                Err(error) => warn!(%error, "no target can be claimed"),
            }
            drop(worker);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.work.notified() => {}
                () = tokio::time::sleep(self.settings.poll) => {}
            }
        }
    }

    async fn claim(&self) -> Result<Option<Lease>, StoreError> {
        let token = LeaseToken::new(Uuid::new_v4());
        let terms = ClaimTerms {
            token,
            lease: self.settings.lease,
            settle: self.settings.settle_time,
            call_timeout: self.call_timeout,
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            backoff: self.backoff(),
            jitter: rand::random(),
        };
        let sent = Moment::now();
        let claimed = self.store.claim(&terms, &self.settings.lane).await?;
        let settled = |claimed: &Claimed| self.settled_time(sent, claimed.now);
        Ok(claimed.map(|claimed| Lease::new(settled(&claimed), claimed, token, sent)))
    }

    /// Redis has just told its time, asked at `asked`: how much of it is believed when something is judged to be over.
    fn settled_time(&self, asked: Moment, redis: Timestamp) -> SettledTime {
        self.settle_clock().observe(Told {
            asked: asked.since_boot(),
            answered: Moment::now().since_boot(),
            redis,
            host: Timestamp::now(),
        })
    }

    /// What the settle clock believed at the last observation.
    fn last_settled_time(&self) -> Option<SettledTime> {
        self.settle_clock().last()
    }

    /// Nothing can panic half-way through a change, so a poisoned lock holds good data.
    fn settle_clock(&self) -> MutexGuard<'_, SettleClock> {
        self.settle_clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    const fn backoff(&self) -> Backoff {
        Backoff {
            initial: self.settings.backoff_initial,
            max: self.settings.backoff_max,
        }
    }
}
