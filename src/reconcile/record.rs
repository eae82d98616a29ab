//! Records a pass: what became of grants, jobs and effects, and when the target is looked at next.

use std::time::Duration;

use tracing::{info, warn};

use super::progress::Progress;
use super::{Lease, Reconciler, events};
use crate::domain::conclude::{Conclusion, Retry, Steps, Terms, conclude, concluded};
use crate::domain::effect::{Call, PassTime, PerCall};
use crate::domain::ids::AssignmentName;
use crate::domain::plan::needed_calls;
use crate::store::{NextLook, PassRecord, Recorded, StoreError, TouchedEffect};

impl Reconciler {
    /// Records a pass, and hands its target back.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(super) async fn record(
        &self,
        mut progress: Progress,
        lease: &Lease,
    ) -> Result<(), StoreError> {
        let time = self.pass_time(lease);
        if progress.cluster_gone {
            progress.all_went_with_the_cluster(time);
        }
        let waits = PerCall::from_fn(|call| self.wait(&progress, lease, call));
        let terms = Terms {
            time,
            grant_give_up: self.settings.grant_give_up,
            cluster_gone: progress.cluster_gone,
        };
        let steps = Steps {
            done: &progress.done,
            failed: &progress.failed,
            left: &progress.left,
            // Waiting for the lane's budget is not a failure.
            waiting: PerCall::from_fn(|call| {
                waits.get(call).is_some() && progress.failures(call) > 0
            }),
        };
        let conclusion = conclude(&progress.target, steps, terms);
        let looks = self.looks(&progress, &conclusion, &waits, time);
        let touched: Vec<TouchedEffect> = progress.touched.values().cloned().collect();
        let effects = progress.target.effects.values();
        let open: Vec<AssignmentName> = effects
            .filter(|effect| effect.open.is_some())
            .map(|effect| effect.name)
            .collect();
        let record = PassRecord {
            target: &progress.target.id,
            token: lease.token,
            generation: progress.target.generation,
            claimed: time.claimed,
            clock: self.last_settled_time().unwrap_or(lease.settled),
            effects: &touched,
            open: &open,
            conclusion: &conclusion,
            looks,
            again: progress.unfinished && !progress.cluster_gone,
            closings: &progress.closings,
            remaining: &progress.remaining,
            lease: self.settings.lease,
            settle: self.settings.settle_time,
            lag: self.settings.lag,
            grant_events: events::of_grants(&progress.target.id, &conclusion),
            lost_event: events::of_lost_lease(&progress.target.id),
            audit_events: progress.audit_events,
        };
        match self.store.record(&record).await? {
            Recorded::Recorded => say_what_changed(&conclusion),
            Recorded::Lost => {
                warn!(
                    "the worker lost its lease; another pass writes again what this pass touched"
                );
            }
        }
        Ok(())
    }

    /// What the next pass would do, knowing what this pass has found, and how long that waits.
    fn looks(
        &self,
        progress: &Progress,
        conclusion: &Conclusion,
        waits: &PerCall<Option<Duration>>,
        time: PassTime,
    ) -> PerCall<NextLook> {
        let after = concluded(&progress.target, conclusion);
        let needed = needed_calls(&after, self.instance, time);
        PerCall::from_fn(|call| NextLook {
            needed: *needed.get(call),
            wait: *waits.get(call),
            failures: progress.failures(call),
        })
    }

    /// How long calls of a kind wait. If calls failed: the shortest wait that one of them asks for, so that a failure
    /// that the operator has to mend holds up no other call. Else until the lane has budget again, or for the rest of
    /// an earlier wait.
    fn wait(&self, progress: &Progress, lease: &Lease, call: Call) -> Option<Duration> {
        if progress.cluster_gone {
            return None;
        }
        let failures = progress.failures(call);
        let jitter = rand::random();
        let wait = |retry: &Retry| match retry {
            Retry::Soon => self.backoff().wait(failures, jitter),
            Retry::Slowly => self.backoff().wait_slow(failures, jitter),
            Retry::After(wait) => *wait,
        };
        let failed = progress.failed.iter().filter(|failed| failed.call == call);
        let after_failure = failed.map(|failed| wait(&failed.retry)).min();
        let held_back = lease.claimed.waits.get(call).saturating_sub(lease.age());
        after_failure
            .or(*progress.budget_wait.get(call))
            .or(Some(held_back).filter(|wait| !wait.is_zero()))
    }
}

fn say_what_changed(conclusion: &Conclusion) {
    for change in conclusion
        .grants
        .iter()
        .filter(|change| change.from != change.to)
    {
        info!(grant = %change.id, from = ?change.from, to = ?change.to, "grant");
    }
}
