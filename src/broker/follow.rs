//! Following what was accepted: jobs, as they are and as they change, and grants.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_stream::try_stream;
use futures::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::hidden::hidden;
use super::permission::allowed;
use super::record::{Of, of_question};
use super::{Broker, BrokerError};
use crate::caller::Caller;
use crate::caller::policy::Action;
use crate::domain::effect::{Effect, Known};
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::{GrantId, JobId};
use crate::domain::job::Job;
use crate::store::{Accepted, Change, Event, RequestKey, StoreError};

/// A watcher looks again after so long even if nothing was told: a change is never missed for good.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The same while the store is away.
const LOOK_FOR_THE_STORE: Duration = Duration::from_secs(1);

/// A grant, and those of its effects that are in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantWithEffects {
    /// The grant.
    pub grant: Grant,
    /// What carries it out, as far as is known for certain.
    pub effects: Vec<Effect>,
}

impl GrantWithEffects {
    /// A grant, and those of its target's effects that are in place for it. What stands after it has ended is
    /// in place for others.
    pub(super) fn new<'a>(grant: Grant, effects: impl Iterator<Item = &'a Effect>) -> Self {
        let calls_for = match grant.state {
            GrantState::Ended(_) => BTreeSet::new(),
            GrantState::Pending | GrantState::Active | GrantState::Revoking(_) => grant.calls_for(),
        };
        let in_place = |effect: &&Effect| {
            calls_for.contains(&effect.at)
                && effect.open.is_none()
                && matches!(effect.known, Known::Present | Known::Foreign(_))
        };
        Self {
            effects: effects.filter(in_place).cloned().collect(),
            grant,
        }
    }
}

impl Broker {
    /// One job, if the caller sees it.
    ///
    /// # Errors
    /// [`BrokerError::JobNotFound`], or what the store says.
    pub async fn get_job(&self, caller: &Arc<Caller>, id: JobId) -> Result<Job, BrokerError> {
        self.seen_job(caller, Action::GetJob, id).await
    }

    /// One job; where the caller does not see it, there is none, and that is written down.
    pub(super) async fn seen_job(
        &self,
        caller: &Arc<Caller>,
        action: Action,
        id: JobId,
    ) -> Result<Job, BrokerError> {
        let seen = self.look_at_job(caller, action, id).await;
        let event = || of_question(caller, action).by_job(id);
        self.recorded(Of::Question, event, seen).await
    }

    async fn look_at_job(
        &self,
        caller: &Arc<Caller>,
        action: Action,
        id: JobId,
    ) -> Result<Job, BrokerError> {
        let sight = self.sight(caller).await;
        let job = match self.job(id).await {
            // Whether it is there hears nobody of whom nobody can say whether he may.
            Err(BrokerError::JobNotFound(_)) if sight.is_partial() => {
                return Err(BrokerError::ClustersNotListed);
            }
            Err(error @ BrokerError::JobNotFound(_)) => {
                sight.decide_of_nothing(action);
                return Err(error);
            }
            job => job?,
        };
        let decision = self.of_job(&sight, action, &job).await?;
        let seen = allowed(caller, action, job.cluster.as_ref(), decision);
        seen.map_err(|error| hidden(error, BrokerError::JobNotFound(id)))?;
        Ok(job)
    }

    /// One job.
    pub(super) async fn job(&self, id: JobId) -> Result<Job, BrokerError> {
        self.store
            .job(id)
            .await?
            .ok_or(BrokerError::JobNotFound(id))
    }

    /// One job, then what it becomes, until it is over. May skip a state, never the last. Once it has told
    /// something, it waits for a store that is away or in doubt as long as a call may take, and then goes on.
    pub fn watch_job(
        &self,
        caller: Arc<Caller>,
        id: JobId,
    ) -> impl Stream<Item = Result<Job, BrokerError>> + Send + 'static + use<> {
        let broker = self.clone();
        try_stream! {
            // Subscribed before the first look: what changes in between is told.
            let mut changes = broker.changes.subscribe();
            let mut newest = None;
            let mut away_since = None;
            loop {
                // Each time: what a caller may see can change while it watches.
                let job = match broker.seen_job(&caller, Action::WatchJob, id).await {
                    Ok(job) => job,
                    Err(
                        error @ BrokerError::Store(StoreError::Unavailable(_) | StoreError::InDoubt(_)),
                    ) if newest.is_some() => {
                        let since: &mut Instant = away_since.get_or_insert_with(Instant::now);
                        if since.elapsed() >= broker.patience {
                            Err(error)?;
                        }
                        change_of(id, &mut changes, LOOK_FOR_THE_STORE).await;
                        continue;
                    }
                    Err(error) => Err(error)?,
                };
                away_since = None;
                let over = job.state.is_final();
                // A store that fell behind in a failover may have come to the end by fewer versions.
                if over || newest.is_none_or(|version| job.version > version) {
                    newest = Some(job.version);
                    yield job;
                }
                if over {
                    return;
                }
                change_of(id, &mut changes, LOOK_AGAIN).await;
            }
        }
    }

    /// One grant, with its effects in place, if the caller sees it.
    ///
    /// # Errors
    /// [`BrokerError::GrantNotFound`], or what the store says.
    pub async fn get_grant(
        &self,
        caller: &Arc<Caller>,
        id: GrantId,
    ) -> Result<GrantWithEffects, BrokerError> {
        let seen = self.seen_grant(caller, id).await;
        let event = || of_question(caller, Action::GetGrant).about(id);
        let grant = self.recorded(Of::Question, event, seen).await?;
        let record = self.store.target(&grant.target).await?;
        Ok(GrantWithEffects::new(grant, record.effects.values()))
    }

    async fn seen_grant(&self, caller: &Arc<Caller>, id: GrantId) -> Result<Grant, BrokerError> {
        let sight = self.sight(caller).await;
        let grant = match self.grant_of(id).await {
            Err(BrokerError::GrantNotFound(_)) if sight.is_partial() => {
                return Err(BrokerError::ClustersNotListed);
            }
            Err(error @ BrokerError::GrantNotFound(_)) => {
                sight.decide_of_nothing(Action::GetGrant);
                return Err(error);
            }
            grant => grant?,
        };
        let decision = sight.of_grant(Action::GetGrant, &grant)?;
        let cluster = Some(&grant.target.cluster);
        let seen = allowed(caller, Action::GetGrant, cluster, decision);
        seen.map_err(|error| hidden(error, BrokerError::GrantNotFound(id)))?;
        Ok(grant)
    }

    /// The job of a request about one grant that was accepted, now or before, and the grant as it is by now.
    pub(super) async fn accepted_with_grant(
        &self,
        key: &RequestKey,
        accepted: &Accepted,
    ) -> Result<(Job, Grant), BrokerError> {
        let job = self.accepted_job(key, accepted).await?;
        let (Accepted::New(_, Some(id))
        | Accepted::Replayed(_, Some(id))
        | Accepted::Unchanged(_, Some(id))) = accepted
        else {
            return Err(BrokerError::JobNotFound(job.id));
        };
        Ok((job, self.grant_of(*id).await?))
    }

    /// One grant as it is stored.
    pub(super) async fn grant_of(&self, id: GrantId) -> Result<Grant, BrokerError> {
        let grant = self.store.grant(id).await?;
        grant.ok_or(BrokerError::GrantNotFound(id))
    }

    /// The job of a request that was accepted, now or before.
    pub(super) async fn accepted_job(
        &self,
        key: &RequestKey,
        accepted: &Accepted,
    ) -> Result<Job, BrokerError> {
        match accepted {
            Accepted::New(job, _) | Accepted::Replayed(job, _) => self.job(*job).await,
            Accepted::Unchanged(job, _) => Ok(Job {
                // What the job ended, it ended for another request.
                matched_grants: 0,
                left_grants: 0,
                ..self.job(*job).await?
            }),
            Accepted::Reused(job) => Err(BrokerError::RequestIdReused {
                request: key.id,
                job: *job,
            }),
            Accepted::UnknownGrant(grant) => Err(BrokerError::GrantNotFound(*grant)),
            Accepted::EndedGrant(grant) => Err(BrokerError::GrantEnded(*grant)),
            Accepted::KeyInUse { key, grant } => Err(BrokerError::ExternalKeyInUse {
                key: key.clone(),
                grant: *grant,
            }),
        }
    }
}

/// Waits until a job may have changed, but no longer than `most`.
async fn change_of(id: JobId, changes: &mut Receiver<Event>, most: Duration) {
    let told = async {
        loop {
            match changes.recv().await {
                Ok(event) if !may_concern(&event.change, id) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                // The stream's reader has ended with the process; the server ends this watch.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    // A time-out looks again as well.
    let _ = tokio::time::timeout(most, told).await;
}

fn may_concern(change: &Change, id: JobId) -> bool {
    match change {
        Change::Job(other) => *other == id,
        Change::Effects(_) | Change::Other => false,
        Change::Lost | Change::Missed => true,
    }
}
