//! One pass over one target: plan → begin → apply → record.

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, instrument};

use super::progress::Progress;
use super::{Lease, Reconciler};
use crate::domain::effect::{Call, PassTime};
use crate::domain::grant::GrantState;
use crate::domain::plan::{Step, plan};
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
                    self.make_calls(puts, &mut progress, &mut lease, stop)
                        .await?;
                }
                Err(error) => progress.all_failed(&steps, &error, lease.redis_now()),
            }
        }
        self.record(progress, &lease).await
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
