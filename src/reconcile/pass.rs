//! One pass over one target: plan → begin → apply → record.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, instrument, warn};
use uuid::Uuid;

use super::apply::{Applied, failed, not_believed, sorted};
use super::progress::{Progress, done};
use super::{Lease, Reconciler, events};
use crate::azure::Purpose;
use crate::domain::access::RoleAtScope;
use crate::domain::conclude::{Conclusion, Retry, Terms, conclude};
use crate::domain::effect::{Answer, Call, Effect, PassTime};
use crate::domain::grant::GrantState;
use crate::domain::ids::RoleDefinitionId;
use crate::domain::job::Failure;
use crate::domain::plan::{Step, plan, put_with_next_name};
use crate::domain::reason::Reason;
use crate::domain::role::BuiltInRole;
use crate::domain::target::Target;
use crate::store::{Begun, PassRecord, Recorded, StoreError, TouchedEffect};

/// A revocation that has lasted so long is late, and said so loudly.
const LATE: SignedDuration = SignedDuration::from_mins(15);

impl Reconciler {
    /// Passes once over a claimed target.
    ///
    /// # Errors
    /// [`StoreError`] where the pass could not be recorded: its intents stay open, and whoever takes the
    /// target over settles them.
    #[instrument(skip_all, fields(target = %lease.claimed.target.id, generation = lease.claimed.target.generation))]
    pub(super) async fn pass(
        &self,
        mut lease: Lease,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let time = self.pass_time(&lease);
        let mut progress = Progress::new(lease.claimed.target.clone());
        warn_of_late_revocations(&progress.target, time.claimed);
        let steps = plan(&progress.target, self.instance, time);
        debug!(steps = steps.len(), "planned");
        let steps = self.assignable(steps, &mut progress, &lease).await;
        if !steps.is_empty() {
            // The token first: no call waits for Entra while its lease runs.
            match self.azure.fetch_access_token().await {
                Ok(()) => {
                    self.carry_out(steps, &mut progress, &mut lease, stop)
                        .await?;
                }
                Err(error) => progress.all_failed(&steps, &error, lease.redis_now()),
            }
        }
        self.record(progress, &lease).await
    }

    /// I8 again, before anything is applied: a custom role may have been changed since it was accepted.
    async fn assignable(
        &self,
        steps: Vec<Step>,
        progress: &mut Progress,
        lease: &Lease,
    ) -> Vec<Step> {
        let mut verdicts: BTreeMap<RoleDefinitionId, Result<(), (Failure, Retry)>> =
            BTreeMap::new();
        let mut passed = Vec::with_capacity(steps.len());
        for step in steps {
            let role = step.at().role;
            if step.call() == Call::Delete || BuiltInRole::from_id(role).is_some() {
                passed.push(step);
                continue;
            }
            let verdict = match verdicts.entry(role) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let now = lease.redis_now();
                    unknown.insert(self.is_assignable(&progress.target, step.at(), now).await)
                }
            };
            match verdict {
                Ok(()) => passed.push(step),
                Err((failure, retry)) => {
                    progress.failed.push(failed(&step, failure.clone(), *retry));
                }
            }
        }
        passed
    }

    async fn is_assignable(
        &self,
        target: &Target,
        at: &RoleAtScope,
        now: Timestamp,
    ) -> Result<(), (Failure, Retry)> {
        let subscription = target.id.cluster.subscription();
        let definition = self
            .azure
            .role_definition(subscription, at.role, Uuid::new_v4())
            .await
            .map_err(|error| sorted(target, at, &error, Purpose::Grant, now))?;
        definition.check_assignable().map(drop).map_err(|why| {
            let message = format!("{why}; it has been changed since the grant was accepted");
            let failure = Failure::lasting(Reason::RoleNotAllowed, message);
            (failure, Retry::Soon)
        })
    }

    async fn carry_out(
        &self,
        steps: Vec<Step>,
        progress: &mut Progress,
        lease: &mut Lease,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let steps = self.begin_what_may_go(steps, progress, lease).await?;
        for step in steps {
            let mut next = Some(step);
            while let Some(step) = next.take() {
                if progress.is_told_to_wait(step.call()) {
                    break;
                }
                let may_go_on = !(stop.is_cancelled() || progress.cluster_gone || progress.lost);
                if !may_go_on || !self.may_call(progress, lease).await? {
                    progress.unfinished = true;
                    return Ok(());
                }
                let sent = lease.redis_now();
                progress
                    .touched
                    .entry(step.name())
                    .and_modify(|touched| touched.sent = true);
                let applied = self.apply(&progress.target, &step, sent).await;
                if applied.cluster_may_be_gone && self.cluster_is_gone(&progress.target).await {
                    progress.cluster_gone = true;
                }
                let refused_name = applied.answer == Answer::NameRefused;
                self.take_in(&step, applied, progress, lease);
                if refused_name {
                    next = self.begin_next_name(&step, progress, lease).await?;
                }
            }
        }
        Ok(())
    }

    /// Begins all `steps`, or as many as the lane lets through now: what takes access away does not wait for
    /// what gives it, nor a large pass until everybody else's small ones are done. Answers with the steps
    /// whose calls may be made.
    async fn begin_what_may_go(
        &self,
        steps: Vec<Step>,
        progress: &mut Progress,
        lease: &Lease,
    ) -> Result<Vec<Step>, StoreError> {
        let (mut writes, mut deletes) = match self.begin(&steps, progress, lease).await? {
            Begun::Begun => return Ok(steps),
            Begun::Wait {
                writes, deletes, ..
            } => (writes, deletes),
            Begun::Lost | Begun::Moved => return Ok(Vec::new()),
        };
        let mut goes = |step: &Step| {
            let left = match step.call() {
                Call::Put => &mut writes,
                Call::Delete => &mut deletes,
            };
            let goes = *left > 0;
            *left = left.saturating_sub(1);
            goes
        };
        let some: Vec<Step> = steps.into_iter().filter(|step| goes(step)).collect();
        if some.is_empty() || self.begin(&some, progress, lease).await? != Begun::Begun {
            return Ok(Vec::new());
        }
        Ok(some)
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
            Begun::Wait { wait, .. } => progress.budget_wait = Some(wait),
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

    /// A call starts only if what is left of the lease exceeds the call's whole timeout; else the lease is
    /// lengthened first.
    async fn may_call(&self, progress: &Progress, lease: &mut Lease) -> Result<bool, StoreError> {
        self.store.check_known_doubt()?;
        let left = |since: Instant| self.settings.lease.saturating_sub(since.elapsed());
        if left(lease.since) > self.call_timeout {
            return Ok(true);
        }
        let since = Instant::now();
        if !self
            .store
            .renew(&progress.target.id, lease.token, self.settings.lease)
            .await?
        {
            warn!("the lease was lost in mid-pass; nothing more is called");
            return Ok(false);
        }
        // Redis's time at the claim stays what answers are judged by; only the lease counts anew.
        lease.since = since;
        Ok(left(lease.since) > self.call_timeout)
    }

    /// A 403 or a 404 may mean that the cluster is gone; only a read of the cluster itself says so.
    async fn cluster_is_gone(&self, target: &Target) -> bool {
        match self
            .azure
            .managed_cluster(&target.id.cluster, Uuid::new_v4())
            .await
        {
            Ok(_) => false,
            Err(error) => error.is_gone(),
        }
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
            touched.answered = effect.open.is_none() && applied.answer != Answer::Refused;
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

    async fn record(&self, mut progress: Progress, lease: &Lease) -> Result<(), StoreError> {
        let time = self.pass_time(lease);
        if progress.cluster_gone {
            progress.all_went_with_the_cluster(time);
        }
        let terms = Terms {
            time,
            grant_give_up: self.settings.grant_give_up,
            cluster_gone: progress.cluster_gone,
        };
        let conclusion = conclude(&progress.target, &progress.done, &progress.failed, terms);
        let touched: Vec<TouchedEffect> = progress.touched.values().cloned().collect();
        let failed = !progress.failed.is_empty() && !progress.cluster_gone;
        let record = PassRecord {
            target: &progress.target.id,
            token: lease.token,
            generation: progress.target.generation,
            claimed: time.claimed,
            effects: &touched,
            conclusion: &conclusion,
            wait: if failed {
                Some(self.wait(&progress))
            } else {
                progress.budget_wait
            },
            again: progress.unfinished && !progress.cluster_gone,
            reset_backoff: !failed,
            next_call: next_call(&progress.target),
            closings: &progress.closings,
            remaining: &progress.remaining,
            settle: self.settings.settle_time,
            lag: self.settings.lag,
            grant_events: events::of_grants(&progress.target.id, &conclusion),
            lost_event: events::of_lost_lease(&progress.target.id),
            audit_events: progress.audit_events,
        };
        match self.store.record(&record).await? {
            Recorded::Recorded => say_what_changed(&conclusion),
            Recorded::Lost => warn!("the lease was lost; what this pass touched is written again"),
        }
        Ok(())
    }

    /// The soonest that any failed step wants: what somebody else has to put right holds nothing up.
    fn wait(&self, progress: &Progress) -> Duration {
        let attempts = progress.target.attempts;
        let jitter = rand::random();
        let wait = |retry: &Retry| match retry {
            Retry::Soon => self.backoff().wait(attempts, jitter),
            Retry::Slowly => self.backoff().wait_slow(attempts, jitter),
            Retry::After(wait) => *wait,
        };
        let waits = progress.failed.iter().map(|failed| wait(&failed.retry));
        waits.min().unwrap_or(self.settings.backoff_initial)
    }

    fn pass_time(&self, lease: &Lease) -> PassTime {
        PassTime {
            claimed: lease.claimed.now,
            now: lease.redis_now(),
            lag: SignedDuration::try_from(self.settings.lag).unwrap_or(SignedDuration::MAX),
        }
    }
}

impl Lease {
    /// Redis's time now, or a little later: its time at the claim, and what has passed since before the
    /// claim was sent.
    fn redis_now(&self) -> Timestamp {
        self.claimed
            .now
            .saturating_add(self.claimed_since.elapsed())
            .unwrap_or(Timestamp::MAX)
    }
}

fn next_call(target: &Target) -> Call {
    let revoking = target
        .grants
        .iter()
        .any(|grant| matches!(grant.state, GrantState::Revoking(_)));
    let pending = target
        .grants
        .iter()
        .any(|grant| grant.state == GrantState::Pending);
    if pending && !revoking {
        Call::Put
    } else {
        Call::Delete
    }
}

fn warn_of_late_revocations(target: &Target, now: Timestamp) {
    let late = target.grants.iter().filter(|grant| {
        matches!(grant.state, GrantState::Revoking(_))
            && now.duration_since(grant.update_time) > LATE
    });
    for grant in late {
        let why = grant
            .last_error
            .as_ref()
            .map_or("", |failure| failure.message.as_str());
        error!(grant = %grant.id, since = %grant.update_time, why, "a revocation is late");
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
