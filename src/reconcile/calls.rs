//! The calls of a pass: their intents are written down first, and before each call that gives access the pass looks
//! whether it may still be given.

use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::apply::{Applied, failed, not_believed};
use super::lease::Moment;
use super::progress::{Progress, done};
use super::{Lease, Reconciler, events};
use crate::domain::conclude::Retry;
use crate::domain::effect::{Answer, Call, Effect};
use crate::domain::plan::{Step, put_with_next_name};
use crate::store::{Begun, LeaseCheck, StoreError};

/// At most so many names of one series are tried in a pass. One in a hundred is refused by chance; where so many are, the
/// names are not what is wrong, and the next ones wait for the backoff.
const MOST_NAMES: u32 = 8;

impl Reconciler {
    /// Makes the calls of `steps`, all of one kind, as far as their lane lets them through. What is not made is kept in
    /// `progress`.
    ///
    /// Where Redis does not answer, no further call is made; what was answered by Azure so far is still recorded, if Redis
    /// is back by then.
    ///
    /// # Errors
    /// [`StoreError`] where nothing is to be recorded: it is damaged, or in doubt.
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
                warn!(%error, "Redis does not answer in the middle of a pass; it makes no further calls");
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
        let mut steps = VecDeque::from(begun);
        while let Some(step) = steps.pop_front() {
            let may_call = !progress.is_told_to_wait(step.call())
                && self.may_go_on(&step, progress, lease, shutdown).await?;
            if !may_call {
                progress.left.push(step);
                progress.left.extend(steps);
                return Ok(());
            }
            self.call(step, progress, lease, shutdown).await?;
        }
        Ok(())
    }

    /// Makes the call of `step`, and where Azure refuses its name, of the same with the next names.
    async fn call(
        &self,
        step: Step,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut next = Some(step);
        let mut names = 0;
        while let Some(step) = next.take() {
            if names > 0 && !self.may_go_on(&step, progress, lease, shutdown).await? {
                progress.left.push(step);
                return Ok(());
            }
            names += 1;
            progress.is_sent(step.name());
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
        Ok(())
    }

    /// Whether the next call may be made; where it may not, whether the target has to be looked at again is kept in
    /// `progress`.
    async fn may_go_on(
        &self,
        step: &Step,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let goes_on = !(shutdown.is_cancelled() || progress.cluster_gone || progress.lost)
            && self.may_give(step, progress, lease).await?
            && self.lease_is_long_enough(progress, lease).await?;
        progress.unfinished |= !goes_on;
        Ok(goes_on)
    }

    /// Before each PUT the pass knows whether what it was claimed for has been taken back, or has reached its end (I5, I6);
    /// it then gives no more. What it takes away it may go on with: whatever has been asked for since waits for that.
    async fn may_give(
        &self,
        step: &Step,
        progress: &mut Progress,
        lease: &mut Lease,
    ) -> Result<bool, StoreError> {
        let Step::Put { description, .. } = step else {
            return Ok(true);
        };
        // begin has looked already, at the same moment.
        if !std::mem::take(&mut progress.has_just_begun) {
            let sent = Moment::now();
            match self
                .store
                .check_lease(&progress.target.id, lease.token)
                .await?
            {
                LeaseCheck::Lost => {
                    warn!("the lease was lost in mid-pass; nothing more is given");
                    progress.lost = true;
                    return Ok(false);
                }
                LeaseCheck::Held {
                    has_ended,
                    now,
                    left,
                } => {
                    lease.hears_the_time(sent, now);
                    if has_ended {
                        debug!("access has ended on the target in mid-pass; nothing more is given");
                        return Ok(false);
                    }
                    // By Redis's clock less is left than by ours: the machine was paused, or that clock has gone ahead.
                    if left <= self.call_timeout && !self.renew(progress, lease).await? {
                        return Ok(false);
                    }
                }
            }
        }
        let has_ended = description.has_ended(lease.redis_now());
        if has_ended {
            debug!(at = %step.at().scope, "its end has passed in mid-pass; it is not given any more");
        }
        Ok(!has_ended)
    }

    /// A call starts only if what is left of the lease exceeds the call's whole timeout; else the lease is
    /// lengthened first.
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
            lease.is_renewed(sent);
        } else {
            warn!("the lease was lost in mid-pass; nothing more is called");
            progress.lost = true;
        }
        Ok(renewed)
    }

    /// Begins all `steps`, or as many as the lane lets through now: what takes access away does not wait for
    /// what gives it, nor a large pass until everybody else's small ones are done. Answers with the steps
    /// whose calls may be made.
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
            Begun::Wait {
                writes, deletes, ..
            } => match call {
                Call::Put => writes,
                Call::Delete => deletes,
            },
            Begun::Lost | Begun::Moved => 0,
        };
        progress.left.extend(steps.split_off(free.min(steps.len())));
        if steps.is_empty() || self.begin(&steps, progress, lease).await? == Begun::Begun {
            return Ok(steps);
        }
        progress.left.append(&mut steps);
        Ok(steps)
    }

    /// Writes down the intents of `steps`; their calls may be made only where it answers `Begun`.
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
            // Whoever has the lease sees the same wishes. Perhaps nobody has, and it is still ours to hand back:
            // then the target has to be looked at again.
            Begun::Lost => {
                progress.lost = true;
                progress.unfinished = true;
                warn!("the lease was lost before these calls were begun");
            }
            // Record sees that the generation has moved, and queues the target.
            Begun::Moved => debug!("the wishes have changed since the claim"),
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
        info!(refused = %refused.name(), next = %next.name(), "Azure refuses a name; going on with the next");
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
