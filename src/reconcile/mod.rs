//! Makes Azure agree with what was accepted: claims targets, and passes over them.
//!
//! Level-triggered: nothing here remembers what to do. Each pass works it out anew from the wishes, so a
//! process may die between any two lines, and another one goes on.

mod apply;
mod clock;
mod events;
mod pass;
mod progress;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};
use uuid::Uuid;

use crate::azure::Azure;
use crate::config;
use crate::domain::backoff::Backoff;
use crate::domain::ids::{InstanceId, LeaseToken};
use crate::store::{ClaimTerms, Claimed, Store, StoreError};

/// What every pass goes by.
pub struct Reconciler {
    store: Store,
    azure: Azure,
    settings: config::Reconciler,
    call_timeout: Duration,
    instance: InstanceId,
    turn: AtomicU64,
    work: Arc<Notify>,
}

/// A claim, and since when its lease counts.
struct Lease {
    claimed: Claimed,
    token: LeaseToken,
    /// When the claim was sent, or a little earlier.
    claimed_since: Instant,
    /// When the lease was last begun or lengthened, counted from before that was sent: what is left of it
    /// is never overrated.
    since: Instant,
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
        Self {
            store,
            azure,
            settings,
            call_timeout,
            instance,
            // Replicas that start together do not all begin with the same lane.
            turn: AtomicU64::new(rand::random_range(0..8)),
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
                        if let Err(error) = reconciler.pass(lease, &stop).await {
                            warn!(%error, "a pass could not be recorded; its lease ends by itself");
                        }
                        drop(worker);
                        reconciler.work.notify_one();
                    });
                    continue;
                }
                // The store itself logs that Redis is in doubt.
                Ok(None) | Err(StoreError::InDoubt(_)) => {}
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
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            backoff: self.backoff(),
            jitter: rand::random(),
        };
        let since = Instant::now();
        let claimed = self.store.claim(&terms, &self.settings.lane).await?;
        Ok(claimed.map(|claimed| Lease {
            claimed,
            token,
            claimed_since: since,
            since,
        }))
    }

    const fn backoff(&self) -> Backoff {
        Backoff {
            initial: self.settings.backoff_initial,
            max: self.settings.backoff_max,
        }
    }
}
