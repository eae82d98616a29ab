//! One pass over one target: plan → begin → apply → record.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, instrument};
use uuid::Uuid;

use super::apply::{classify, failed};
use super::progress::Progress;
use super::{Lease, Reconciler};
use crate::azure::Purpose;
use crate::domain::access::RoleAtScope;
use crate::domain::conclude::Retry;
use crate::domain::effect::{Call, PassTime};
use crate::domain::grant::GrantState;
use crate::domain::ids::RoleDefinitionId;
use crate::domain::job::Failure;
use crate::domain::plan::{Step, plan};
use crate::domain::reason::Reason;
use crate::domain::role::BuiltInRole;
use crate::domain::target::Target;
use crate::store::StoreError;

/// A revocation that has lasted so long is late, and said so loudly.
const LATE: SignedDuration = SignedDuration::from_mins(15);

impl Reconciler {
    /// Passes once over a claimed target. DELETEs go first, and never wait for what PUTs need.
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
        let mut progress = Progress::new(&lease.claimed);
        warn_of_late_revocations(&progress.target, time.claimed);
        let steps = plan(&progress.target, self.instance, time);
        debug!(steps = steps.len(), "planned");
        let steps = progress.hold_back_what_waits(steps, &lease.claimed.waits);
        if !steps.is_empty() {
            // The token first: no call waits for Entra while its lease runs.
            match self.azure.fetch_access_token().await {
                Ok(()) => {
                    let (deletes, puts): (Vec<Step>, Vec<Step>) = steps
                        .into_iter()
                        .partition(|step| step.call() == Call::Delete);
                    self.make_calls(deletes, &mut progress, &mut lease, stop)
                        .await?;
                    let puts = self.assignable(puts, &mut progress, &lease).await;
                    self.make_calls(puts, &mut progress, &mut lease, stop)
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
        puts: Vec<Step>,
        progress: &mut Progress,
        lease: &Lease,
    ) -> Vec<Step> {
        let mut verdicts: BTreeMap<RoleDefinitionId, Result<(), (Failure, Retry)>> =
            BTreeMap::new();
        let mut passed = Vec::with_capacity(puts.len());
        for step in puts {
            let role = step.at().role;
            if BuiltInRole::from_id(role).is_some() {
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
            .map_err(|error| classify(target, at, &error, Purpose::Grant, now))?;
        definition.check_assignable().map(drop).map_err(|why| {
            let message = format!("{why}; it has been changed since the grant was accepted");
            let failure = Failure::lasting(Reason::RoleNotAllowed, message);
            (failure, Retry::Soon)
        })
    }

    pub(super) fn pass_time(&self, lease: &Lease) -> PassTime {
        PassTime {
            claimed: lease.settled.now,
            now: lease.redis_now(),
            lag: SignedDuration::try_from(self.settings.lag).unwrap_or(SignedDuration::MAX),
        }
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
