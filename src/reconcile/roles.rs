//! Whether a custom role may still be assigned, asked right before each PUT that assigns it (I8).
//!
//! Whoever may write role definitions may widen a custom role at any time. A definition that was read when the pass was
//! planned says little about the role that the PUT then assigns: between the two lie the lane's budget, other PUTs and
//! their time-outs. So the pass reads the definition after `begin`, past every cache, and the answer counts for a second.
//! Azure never changes the built-in roles that the broker assigns into something else: they are not read.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::apply::{classify, failed};
use super::lease::Moment;
use super::progress::Progress;
use super::{Lease, Reconciler};
use crate::azure::Purpose;
use crate::domain::access::RoleAtScope;
use crate::domain::conclude::Retry;
use crate::domain::ids::RoleDefinitionId;
use crate::domain::job::Failure;
use crate::domain::plan::Step;
use crate::domain::reason::Reason;
use crate::domain::role::BuiltInRole;
use crate::store::StoreError;

/// How long the definition of a custom role counts, from before it was asked for to the PUT.
const DEFINITION_COUNTS_FOR: Duration = Duration::from_secs(1);

/// How often a definition is read for one PUT at most. A read that is too old when the PUT could start is repeated; if
/// Azure or Redis answers so slowly every time, the PUT waits for the backoff.
const MOST_READS: u32 = 3;

/// What a pass has learnt of the custom roles that it assigns.
#[derive(Default)]
pub(super) struct RolesRead(BTreeMap<RoleDefinitionId, RoleRead>);

enum RoleRead {
    /// It may be assigned, as of this moment.
    Assignable(Moment),
    /// It may not, or Azure does not say. That counts for the rest of the pass.
    Refused(Failure, Retry),
}

/// Whether a pass may make a call now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MayCall {
    /// Yes.
    Yes,
    /// Not this one: `progress` has the reason. The pass goes on with the others.
    Refused,
    /// Neither this one nor any other of the pass.
    Stop,
}

impl Reconciler {
    /// Whether the pass may make the call of `step` now. What takes long comes first: what `may_go_on` checks must still
    /// hold when the call starts.
    ///
    /// # Errors
    /// [`StoreError`] where Redis cannot say.
    pub(super) async fn may_call(
        &self,
        step: &Step,
        progress: &mut Progress,
        lease: &mut Lease,
        shutdown: &CancellationToken,
    ) -> Result<MayCall, StoreError> {
        if progress.is_told_to_wait(step.call()) {
            return Ok(MayCall::Stop);
        }
        let Some(role) = custom_role(step) else {
            let may = self.may_go_on(step, progress, lease, shutdown).await?;
            return Ok(if may { MayCall::Yes } else { MayCall::Stop });
        };
        for _ in 0..MOST_READS {
            if !progress.has_to_stop(shutdown) && !progress.roles.has_just_read(role) {
                self.read_role(step, progress, lease).await;
            }
            if let Some(RoleRead::Refused(failure, retry)) = progress.roles.0.get(&role) {
                let refused = failed(step, failure.clone(), *retry);
                progress.failed.push(refused);
                return Ok(MayCall::Refused);
            }
            if !self.may_go_on(step, progress, lease, shutdown).await? {
                return Ok(MayCall::Stop);
            }
            if progress.roles.has_just_read(role) {
                return Ok(MayCall::Yes);
            }
        }
        let refused = failed(step, read_too_slowly(step.at()), Retry::Soon);
        progress.failed.push(refused);
        Ok(MayCall::Refused)
    }

    /// Looks at the custom roles of all `steps` before the first call. A pass that waits for this has called nothing yet,
    /// and may still be told to stop. Only a refusal counts: before its PUT each role is read again. Where Azure hangs, the
    /// pass looks at no more roles than one call's time allows: a revocation must not wait for all of them.
    pub(super) async fn look_at_roles(
        &self,
        steps: &[Step],
        progress: &mut Progress,
        lease: &Lease,
        shutdown: &CancellationToken,
    ) {
        let begun = Moment::now();
        for step in steps {
            if begun.elapsed() >= self.call_timeout {
                break;
            }
            let is_new =
                custom_role(step).is_some_and(|role| !progress.roles.0.contains_key(&role));
            if is_new && !progress.has_to_stop(shutdown) {
                self.read_role(step, progress, lease).await;
            }
        }
        let roles = &mut progress.roles.0;
        roles.retain(|_, read| matches!(read, RoleRead::Refused(..)));
    }

    async fn read_role(&self, step: &Step, progress: &mut Progress, lease: &Lease) {
        let asked = Moment::now();
        let read = match self.is_assignable(step.at(), progress, lease).await {
            Ok(()) => RoleRead::Assignable(asked),
            Err((failure, retry)) => RoleRead::Refused(failure, retry),
        };
        progress.roles.0.insert(step.at().role, read);
        // It took its time: what `begin` has checked may have changed.
        progress.has_just_begun = false;
    }

    async fn is_assignable(
        &self,
        at: &RoleAtScope,
        progress: &Progress,
        lease: &Lease,
    ) -> Result<(), (Failure, Retry)> {
        let target = &progress.target;
        let subscription = target.id.cluster.subscription();
        let read = self
            .azure
            .role_definition(subscription, at.role, Uuid::new_v4());
        let Some(read) = self.in_time(read).await else {
            return Err((read_too_slowly(at), Retry::Soon));
        };
        let definition = read.map_err(|error| {
            let now = lease.redis_now();
            classify(target, at, &error, Purpose::Grant, now)
        })?;
        definition.check_assignable().map(drop).map_err(|why| {
            let message = format!("{why}; it has been changed since the grant was accepted");
            let failure = Failure::lasting(Reason::RoleNotAllowed, message);
            (failure, Retry::Soon)
        })
    }
}

impl RolesRead {
    /// Whether a role was found assignable so lately that a PUT may rely on it.
    fn has_just_read(&self, role: RoleDefinitionId) -> bool {
        matches!(
            self.0.get(&role),
            Some(RoleRead::Assignable(asked)) if asked.elapsed() <= DEFINITION_COUNTS_FOR
        )
    }
}

/// The custom role that a step assigns. A DELETE assigns none: whatever has become of a role, it can be taken away.
fn custom_role(step: &Step) -> Option<RoleDefinitionId> {
    let role = step.at().role;
    let assigns = matches!(step, Step::Put { .. });
    (assigns && BuiltInRole::from_id(role).is_none()).then_some(role)
}

fn read_too_slowly(at: &RoleAtScope) -> Failure {
    let message = format!(
        "the definition of custom role {} could not be read within {} s before the role is assigned at {}; it is tried \
         again",
        at.role,
        DEFINITION_COUNTS_FOR.as_secs(),
        at.scope
    );
    Failure::passing(Reason::AzureUnavailable, message)
}
