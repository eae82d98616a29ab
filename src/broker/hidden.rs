//! What a caller may not see is answered as what is not there: in the same words, and after the same steps.
//!
//! Time would tell the one from the other otherwise. A refusal is written to Redis, which waits for the disk; what is
//! not there could be answered without. So both are written down, and what is looked up for a refusal is looked up for
//! what is not there as well. What policies want to know of the grant itself (its cluster's settings, its principal's
//! type) can only be looked up where there is one: for callers who might change grants on its cluster, that takes time.

use std::sync::Arc;

use super::permission::Denied;
use super::revoke::PATIENCE;
use super::{Broker, BrokerError};
use crate::caller::Caller;
use crate::caller::policy::{Action, Decision};
use crate::domain::grant::Grant;
use crate::domain::ids::GrantId;

impl Broker {
    /// One grant that a caller wants to change. Where there is none, what a refusal would look up is looked up too.
    ///
    /// # Errors
    /// [`BrokerError::GrantNotFound`], or what the store says.
    pub(super) async fn grant_to_change(
        &self,
        caller: &Arc<Caller>,
        action: Action,
        id: GrantId,
    ) -> Result<Grant, BrokerError> {
        let found = self.grant_of(id).await;
        if matches!(found, Err(BrokerError::GrantNotFound(_))) {
            let rules = self.policies.current();
            if let Some(sample) = self.samples(&rules).first() {
                let _ = rules.might(caller, action, sample);
            }
            if let Some(sight) = self.sight_within(caller, PATIENCE).await {
                sight.decide_of_nothing(Action::GetGrant);
            }
        }
        found
    }

    /// A grant that the caller may not change, or of which nobody can say whether it may: it hears of that if it sees
    /// the grant; else there is none.
    pub(super) async fn told_or_hidden(
        &self,
        caller: &Arc<Caller>,
        action: Action,
        grant: &Grant,
        error: BrokerError,
    ) -> BrokerError {
        let sight = self.sight_within(caller, PATIENCE).await;
        let seen = sight.map(|sight| sight.of_grant(Action::GetGrant, grant));
        if matches!(seen, Some(Ok(decision)) if decision.allowed) {
            return error;
        }
        let denied = match error {
            BrokerError::Denied(denied) => denied,
            error => {
                let decision = Arc::new(Decision::failed(error.to_string()));
                Box::new(Denied::new(
                    caller,
                    action,
                    Some(&grant.target.cluster),
                    decision,
                ))
            }
        };
        BrokerError::Hidden {
            as_if: Box::new(BrokerError::GrantNotFound(grant.id)),
            denied,
        }
    }
}

/// A refusal that is told as if nothing were there.
pub(super) fn hidden(error: BrokerError, as_if: BrokerError) -> BrokerError {
    match error {
        BrokerError::Denied(denied) => BrokerError::Hidden {
            as_if: Box::new(as_if),
            denied,
        },
        error => error,
    }
}
