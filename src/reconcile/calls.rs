//! The calls of a pass. The pass writes down their intents first. Before each call that gives access it checks whether
//! the access may still be given.

use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::apply::{Applied, failed, not_believed};
use super::lease::Moment;
use super::progress::{Progress, done};
use super::roles::MayCall;
use super::{Lease, Reconciler, events};
use crate::domain::conclude::Retry;
use crate::domain::effect::{Answer, Call, Effect};
use crate::domain::plan::{Step, put_with_next_name};
use crate::store::{Begun, LeaseCheck, StoreError};

/// How many names of one series a pass tries at most. Azure refuses about one name in a hundred by chance. If it
/// refuses this many in a row, the names are not the cause, and the next ones wait for the backoff.
const MOST_NAMES: u32 = 8;

impl Reconciler {
    /// Makes the calls of `steps`, all of one kind, as far as their lane lets them through. `progress` keeps the steps
    /// that are left.
    ///
    /// If Redis does not answer, the pass makes no further call. It still records what Azure has answered so far, if Redis
    /// is back by then.
    ///
    /// # Errors
    /// [`StoreError`] if the pass must not record: Redis is in doubt, or a value is damaged.
    pub(super) async fn make_calls(
        &self,
        steps: Vec<Step>,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let planned = steps.clone();
        match self.call_each(steps, progress, lease, shutdown).await {
            Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_))) => {
                if !self.store.has_logged(&error) {
                    warn!(%error, "Redis does not answer in the middle of a pass; it makes no further calls");
                }
                progress.hand_back(planned);
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn call_each(
        &self,
        steps: Vec<Step>,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let begun = self.begin_what_may_go(steps, progress, lease).await?;
        self.look_at_roles(&begun, progress, lease, shutdown).await;
        let mut steps = VecDeque::from(begun);
        while let Some(step) = steps.pop_front() {
            let goes_on = self.call(step, progress, lease, shutdown).await?;
            if !goes_on {
                progress.left.extend(steps);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the call of `step`, if the pass may still make it. If Azure refuses the name, tries the same call with the
    /// next names. Returns whether the pass goes on with its other steps.
    async fn call(
        &self,
        step: Step,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let mut next = Some(step);
        let mut names = 0;
        while let Some(step) = next.take() {
            match self.may_call(&step, progress, lease, shutdown).await? {
                MayCall::Yes => {}
                MayCall::Refused => return Ok(true),
                MayCall::Stop => {
                    progress.left.push(step);
                    return Ok(false);
                }
            }
            names += 1;
            progress.mark_sent(step.name());
            let applied = self.apply(&progress.target, &step, lease.redis_now()).await;
            if applied.cluster_may_be_gone && self.cluster_is_gone(&progress.target).await {
                progress.cluster_gone = true;
            }
            let refused = applied.refused_name.clone();
            self.take_in(&step, applied, progress, lease);
            if let Some(failure) = refused {
                if names < MOST_NAMES {
                    next = self.begin_next_name(&step, progress, lease).await?;
                }
                if next.is_none() {
                    progress.failed.push(failed(&step, failure, Retry::Soon));
                }
            }
        }
        Ok(true)
    }

    /// Whether the pass may make the next call. If not, `progress` keeps that the target has to be looked at again.
    pub(super) async fn may_go_on(
        &self,
        step: &Step,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let goes_on = !progress.has_to_stop(shutdown)
            && self.may_give(step, progress, lease).await?
            && self.lease_is_long_enough(progress, lease).await?;
        progress.unfinished |= !goes_on;
        Ok(goes_on)
    }

    /// Before each PUT the pass checks whether access has ended on the target since the claim, or the access that it gives
    /// has reached its end (I5, I6). If so, the pass gives no more access. A new grant or extension does not stop it:
    /// otherwise a steady stream of them could keep the target without access. It may go on with DELETEs: later requests
    /// wait for them anyway.
    async fn may_give(
        &self,
        step: &Step,
        progress: &mut Progress,
        lease: &mut Lease,
    ) -> Result<bool, StoreError> {
        let Step::Put { description, .. } = step else {
            return Ok(true);
        };
        // `begin` has just checked the same.
        if !std::mem::take(&mut progress.has_just_begun) {
            let sent = Moment::now();
            match self
                .store
                .check_lease(&progress.target.id, lease.token)
                .await?
            {
                LeaseCheck::Lost => {
                    warn!(
                        "the worker lost its lease in the middle of a pass; the pass gives no more access"
                    );
                    progress.lost = true;
                    return Ok(false);
                }
                LeaseCheck::Held {
                    has_ended,
                    now,
                    left,
                } => {
                    lease.set_redis_time(sent, now);
                    if has_ended {
                        debug!(
                            "access ended on the target during the pass; the pass gives no more access"
                        );
                        return Ok(false);
                    }
                    // Redis's clock says that less is left than ours says: the machine was paused, or that clock leapt
                    // ahead.
                    if left <= self.call_timeout && !self.renew(progress, lease).await? {
                        return Ok(false);
                    }
                }
            }
        }
        let has_ended = description.expiry.has_passed(lease.redis_now());
        if has_ended {
            debug!(at = %step.at().scope, "the end of this access has passed; the pass does not give it");
        }
        Ok(!has_ended)
    }

    /// A call starts only if more is left of the lease than the call's whole timeout. If less is left, the pass renews
    /// the lease first.
    async fn lease_is_long_enough(
        &self,
        progress: &mut Progress,
        lease: &mut Lease,
    ) -> Result<bool, StoreError> {
        self.store.check_known_doubt()?;
        let is_long_enough = |lease: &Lease| lease.left(self.settings.lease) > self.call_timeout;
        if is_long_enough(lease) {
            return Ok(true);
        }
        Ok(self.renew(progress, lease).await? && is_long_enough(lease))
    }

    async fn renew(&self, progress: &mut Progress, lease: &mut Lease) -> Result<bool, StoreError> {
        let sent = Moment::now();
        let target = &progress.target.id;
        let renewed = self
            .store
            .renew(target, lease.token, self.settings.lease)
            .await?;
        if renewed {
            lease.mark_renewed(sent);
        } else {
            warn!(
                "the worker lost its lease in the middle of a pass; the pass makes no more calls"
            );
            progress.lost = true;
        }
        Ok(renewed)
    }

    /// Begins all `steps`, or as many as the lane lets through now. So DELETEs do not wait for PUTs, and a large pass
    /// does not wait until all small ones are done. Returns the steps whose calls may be made.
    async fn begin_what_may_go(
        &self,
        mut steps: Vec<Step>,
        progress: &mut Progress,
        lease: &Lease,
    ) -> Result<Vec<Step>, StoreError> {
        let Some(call) = steps.first().map(Step::call) else {
            return Ok(steps);
        };
        if progress.lost || progress.cluster_gone {
            progress.left.append(&mut steps);
            return Ok(steps);
        }
        let begun = self.begin(&steps, progress, lease).await?;
        let free = match begun {
            Begun::Begun => return Ok(steps),
            Begun::Wait { free, .. } => *free.get(call),
            Begun::Lost | Begun::Moved => 0,
        };
        progress.left.extend(steps.split_off(free.min(steps.len())));
        if steps.is_empty() || self.begin(&steps, progress, lease).await? == Begun::Begun {
            return Ok(steps);
        }
        progress.left.append(&mut steps);
        Ok(steps)
    }

    /// Writes down the intents of `steps`. The pass may make their calls only if this returns `Begun`.
    async fn begin(
        &self,
        steps: &[Step],
        progress: &mut Progress,
        lease: &Lease,
    ) -> Result<Begun, StoreError> {
        let now = lease.redis_now();
        let effects: Vec<(Effect, Call)> = steps
            .iter()
            .map(|step| (progress.effect(step, now), step.call()))
            .collect();
        let intents: Vec<(&Effect, Call)> = effects
            .iter()
            .map(|(effect, call)| (effect, *call))
            .collect();
        let begun = self
            .store
            .begin(&progress.target, lease.token, &intents, &self.settings.lane)
            .await?;
        match begun {
            Begun::Begun => {
                for (effect, call) in effects {
                    progress.intend(effect, call);
                }
                progress.has_just_begun = true;
            }
            // If another worker has the lease, it sees the same desired state. If the lease has only run out, this
            // worker still hands the target back, and the target has to be looked at again.
            Begun::Lost => {
                progress.lost = true;
                progress.unfinished = true;
                warn!("the worker lost its lease before it began these calls");
            }
            // `record` sees that the generation has changed, and queues the target.
            Begun::Moved => debug!("the desired state has changed since the claim"),
            Begun::Wait { wait, .. } => {
                for (_, call) in &effects {
                    *progress.budget_wait.get_mut(*call) = Some(wait);
                }
            }
        }
        Ok(begun)
    }

    async fn begin_next_name(
        &self,
        refused: &Step,
        progress: &mut Progress,
        lease: &Lease,
    ) -> Result<Option<Step>, StoreError> {
        let Some(next) = put_with_next_name(&progress.target, self.instance, refused.at()) else {
            return Ok(None);
        };
        info!(refused = %refused.name(), next = %next.name(), "Azure refuses a name; the broker tries the next one");
        let begun = self
            .begin(std::slice::from_ref(&next), progress, lease)
            .await?;
        Ok((begun == Begun::Begun).then_some(next))
    }

    fn take_in(&self, step: &Step, applied: Applied, progress: &mut Progress, lease: &Lease) {
        let time = self.pass_time(lease);
        progress
            .audit_events
            .push(events::of_step(&progress.target.id, step, &applied));
        if let Some(failed) = &applied.failed {
            let failure = &failed.failure;
            warn!(
                name = %step.name(), scope = %step.at().scope, call = ?step.call(), reason = %failure.reason,
                azure_correlation_id = %applied.correlation_id, "{}", failure.message
            );
        } else {
            info!(
                name = %step.name(), scope = %step.at().scope, call = ?step.call(),
                azure_correlation_id = %applied.correlation_id, "done"
            );
        }
        let Some(effect) = progress.target.effects.get_mut(&step.name()) else {
            return;
        };
        let before = effect.known.clone();
        effect.answered(step.call(), &applied.answer, time);
        progress
            .done
            .extend(done(step, &before, effect, &applied.answer));
        let disbelieved = applied.answer == Answer::NotThere && effect.open.is_some();
        if let Some(touched) = progress.touched.get_mut(&step.name()) {
            touched.effect = effect.clone();
            touched.landed |= matches!(applied.answer, Answer::Written(_));
            touched.unanswered = matches!(applied.answer, Answer::Unknown { .. });
        }
        if disbelieved {
            progress
                .failed
                .push(not_believed(step, &applied.correlation_id));
        }
        if let Some((name, n)) = applied.ours {
            progress.found(&Effect::untouched(name, step.at().clone(), n, time.now));
        }
        progress
            .remaining
            .extend(applied.remaining.map(|calls| (step.call(), calls)));
        progress.failed.extend(applied.failed);
        progress.closings.extend(applied.closing);
    }
}
