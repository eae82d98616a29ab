//! `ListGrants`, `ListJobs` and `ListJobTargets`: by page, newest first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::follow::GrantWithEffects;
use super::page::{InvalidPageToken, PageSize, key_in, token_behind};
use super::request::{GrantQuery, JobQuery, JobTargetQuery, RequestedPrincipal, RequestedSelector};
use super::roles::role_id;
use super::sight::Sight;
use super::{Broker, BrokerError, payload};
use crate::caller::Caller;
use crate::caller::policy::Action;
use crate::domain::grant::{Grant, Phase};
use crate::domain::ids::{GrantId, JobId, PrincipalId, TargetId};
use crate::domain::job::{Job, JobTarget};
use crate::domain::selector::GrantSelector;
use crate::store::{Found, JobSelector, ListScope, Lives, StoreError, TargetRecord};

/// How many records are looked at for one page before it is given as it is, shorter than asked for. So the cost of a page
/// has a bound, however little of what is there the caller sees.
pub(super) const MOST_LOOKED_AT: usize = 1_000;

/// The fewest records that are looked at in one go, and the most: one script does it, and Redis waits for it.
const LOOK: std::ops::RangeInclusive<usize> = 100..=250;

/// How many targets are read at a time.
const READ_AT_ONCE: usize = 32;

/// A page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// Newest first. May be fewer than asked for even where there are more.
    pub rows: Vec<T>,
    /// Where the next page begins; empty: there is none.
    pub next: String,
}

impl<T> Page<T> {
    /// The only page of a list without rows.
    const fn empty() -> Self {
        Self {
            rows: Vec::new(),
            next: String::new(),
        }
    }
}

impl Broker {
    /// A page of the grants that the caller sees, each with what is in place for it.
    ///
    /// # Errors
    /// [`BrokerError::PageToken`] for a token of another query.
    pub async fn list_grants(
        &self,
        caller: &Arc<Caller>,
        query: &GrantQuery,
    ) -> Result<Page<GrantWithEffects>, BrokerError> {
        let filter = filter_of(
            "grants",
            caller,
            &payload::of_selector(&query.selector),
            &query.phases,
        );
        let before = position(&query.token, &filter, GrantId::parse)?;
        let sight = self.sight(caller).await;
        let principal = match &query.selector.principal {
            Some(asked) => match self.whom(caller, &sight, Action::ListGrants, asked).await? {
                None => return Ok(Page::empty()),
                id => id,
            },
            None => None,
        };
        let selector = selector_of(caller, &query.selector, principal);
        let of = lives(&query.phases);
        let scope = sight.list_scope(&[Action::ListGrants], selector.cluster.as_ref());
        let page = page(
            query.size,
            &filter,
            before,
            |grant: &Grant| grant.id,
            |grant: &Grant| query.phases.contains(&grant.state.into()),
            |before, count| self.find_seen_grants(&sight, (&selector, &scope), of, before, count),
        )
        .await?;
        Ok(Page {
            rows: self.with_effects(page.rows).await?,
            next: page.next,
        })
    }

    /// A page of the jobs that the caller sees, without their targets.
    ///
    /// # Errors
    /// [`BrokerError::PageToken`] for a token of another query.
    pub async fn list_jobs(
        &self,
        caller: &Arc<Caller>,
        query: &JobQuery,
    ) -> Result<Page<Job>, BrokerError> {
        let JobQuery {
            principal,
            cluster,
            request_id,
            states,
            kinds,
            size,
            token,
        } = query;
        let asked = (principal, cluster, request_id, states, kinds);
        let filter = filter_of("jobs", caller, &[], &asked);
        let before = position(token, &filter, JobId::parse)?;
        let sight = self.sight(caller).await;
        let principal = match principal {
            Some(asked) => match self.whom(caller, &sight, Action::ListJobs, asked).await? {
                None => return Ok(Page::empty()),
                id => id,
            },
            None => None,
        };
        let selector = JobSelector {
            principal,
            cluster: cluster.clone(),
            request: request_id.map(|id| (caller.name().to_owned(), id)),
        };
        let scope = sight.list_scope(&[Action::ListJobs], cluster.as_ref());
        page(
            *size,
            &filter,
            before,
            |job: &Job| job.id,
            |job: &Job| {
                is_among(states.as_ref(), &job.state) && is_among(kinds.as_ref(), &job.kind)
            },
            |before, count| self.find_seen_jobs(&sight, &selector, &scope, before, count),
        )
        .await
    }

    /// A page of a job's targets, in the order of their clusters and principals.
    ///
    /// # Errors
    /// [`BrokerError::JobNotFound`]; [`BrokerError::PageToken`] for a token of another query.
    pub async fn list_job_targets(
        &self,
        caller: &Arc<Caller>,
        query: &JobTargetQuery,
    ) -> Result<Page<JobTarget>, BrokerError> {
        let filter = format!("job targets {} {:?}", query.job, query.states);
        let mut after = match query.token.as_str() {
            "" => None,
            token => Some(
                key_in(token, &filter)?
                    .parse::<TargetId>()
                    .map_err(|_| InvalidPageToken)?,
            ),
        };
        self.seen_job(caller, Action::ListJobTargets, query.job)
            .await?;
        let mut rows: Vec<JobTarget> = Vec::new();
        let mut left = MOST_LOOKED_AT;
        loop {
            let look = (query.size.rows() + 1)
                .clamp(*LOOK.start(), *LOOK.end())
                .min(left);
            left -= look;
            let found = self
                .store
                .job_targets(query.job, after.as_ref(), look)
                .await?;
            let found = found.ok_or(BrokerError::JobNotFound(query.job))?;
            let is_last = found.len() < look;
            after = found.last().map(|target| target.id.clone()).or(after);
            for target in found {
                if !is_among(query.states.as_ref(), &target.state) {
                    continue;
                }
                if let Some(last) = rows.last().filter(|_| rows.len() == query.size.rows()) {
                    let next = token_behind(&last.id.to_string(), &filter);
                    return Ok(Page { rows, next });
                }
                rows.push(target);
            }
            if is_last || left == 0 {
                let next = after.as_ref().filter(|_| !is_last);
                let next = next.map(|id| token_behind(&id.to_string(), &filter));
                let next = next.unwrap_or_default();
                return Ok(Page { rows, next });
            }
        }
    }

    async fn find_seen_grants(
        &self,
        sight: &Sight,
        (selector, scope): (&GrantSelector, &ListScope),
        of: Lives,
        before: Option<GrantId>,
        count: usize,
    ) -> Result<Found<Grant, GrantId>, BrokerError> {
        let found = self
            .store
            .find_grants(selector, scope, of, before, count)
            .await?;
        let mut rows = Vec::with_capacity(found.rows.len());
        for grant in found.rows {
            if sight.of_grant(Action::ListGrants, &grant)?.allowed {
                rows.push(grant);
            }
        }
        let looked_to = found.looked_to;
        Ok(Found { rows, looked_to })
    }

    async fn find_seen_jobs(
        &self,
        sight: &Sight,
        selector: &JobSelector,
        scope: &ListScope,
        before: Option<JobId>,
        count: usize,
    ) -> Result<Found<Job, JobId>, BrokerError> {
        let found = self.store.find_jobs(selector, scope, before, count).await?;
        let mut rows = Vec::with_capacity(found.rows.len());
        let is_beyond_own = |job: &Job| match scope {
            ListScope::All => false,
            ListScope::Own { principal, caller } => {
                let of = job.principal.as_ref().map(|it| it.id);
                job.requested_by != *caller && (of.is_none() || of != *principal)
            }
        };
        for job in found.rows {
            // A job about the caller and others: its targets are not read.
            if is_beyond_own(&job) {
                continue;
            }
            if self.of_job(sight, Action::ListJobs, &job).await?.allowed {
                rows.push(job);
            }
        }
        let looked_to = found.looked_to;
        Ok(Found { rows, looked_to })
    }

    /// Who is meant in a list; `None`: somebody of whom the caller sees nothing, or nobody. The directory is asked only for
    /// callers that see others' rows.
    async fn whom(
        &self,
        caller: &Caller,
        sight: &Sight,
        action: Action,
        asked: &RequestedPrincipal,
    ) -> Result<Option<PrincipalId>, BrokerError> {
        if matches!(asked, RequestedPrincipal::ObjectId(..)) || sight.sees_others(action) {
            return Ok(Some(self.principals.id(asked).await?));
        }
        match self.own_name(caller, asked).await {
            // Whether it sees others' cannot be told at the moment.
            None if sight.is_partial() => Err(BrokerError::ClustersNotListed),
            own => Ok(own),
        }
    }

    async fn with_effects(&self, grants: Vec<Grant>) -> Result<Vec<GrantWithEffects>, BrokerError> {
        let targets: BTreeSet<TargetId> = grants.iter().map(|grant| grant.target.clone()).collect();
        let read = |id: TargetId| async move {
            let record = self.store.target(&id).await?;
            Ok::<_, StoreError>((id, record))
        };
        let records: BTreeMap<TargetId, TargetRecord> = stream::iter(targets)
            .map(read)
            .buffer_unordered(READ_AT_ONCE)
            .try_collect()
            .await?;
        let beside = |grant: Grant| {
            let effects = records[&grant.target].effects.values();
            GrantWithEffects::new(grant, effects)
        };
        Ok(grants.into_iter().map(beside).collect())
    }
}

/// A selector as it was asked for → one that says who is meant.
pub(super) fn selector_of(
    caller: &Caller,
    asked: &RequestedSelector,
    principal: Option<PrincipalId>,
) -> GrantSelector {
    let key = asked.external_key.clone();
    GrantSelector {
        principal,
        cluster: asked.cluster.clone(),
        role: asked.role.map(role_id),
        namespaces: asked.namespaces.clone(),
        labels: asked.labels.clone(),
        requested_by: asked.requested_by.clone(),
        external_key: key.map(|key| (caller.name().to_owned(), key)),
    }
}

/// Reads on until the page is full, nothing is left, or enough was looked at.
async fn page<T, Id, R>(
    size: PageSize,
    filter: &str,
    mut before: Option<Id>,
    id_of: impl Fn(&T) -> Id,
    is_asked_for: impl Fn(&T) -> bool,
    find: impl Fn(Option<Id>, usize) -> R,
) -> Result<Page<T>, BrokerError>
where
    Id: Copy + ToString,
    R: Future<Output = Result<Found<T, Id>, BrokerError>>,
{
    let mut rows = Vec::new();
    let mut left = MOST_LOOKED_AT;
    while left > 0 {
        let look = (size.rows() + 1)
            .clamp(*LOOK.start(), *LOOK.end())
            .min(left);
        left -= look;
        let found = find(before, look).await?;
        for row in found.rows.into_iter().filter(&is_asked_for) {
            if let Some(last) = rows.last().filter(|_| rows.len() == size.rows()) {
                let next = token_behind(&id_of(last).to_string(), filter);
                return Ok(Page { rows, next });
            }
            rows.push(row);
        }
        before = found.looked_to;
        if before.is_none() {
            break;
        }
    }
    let next = before.map(|id| token_behind(&id.to_string(), filter));
    Ok(Page {
        rows,
        next: next.unwrap_or_default(),
    })
}

/// What a page token is bound to: everything that is asked, and who asks.
pub(super) fn filter_of(
    list: &str,
    caller: &Caller,
    parts: &[String],
    besides: &impl std::fmt::Debug,
) -> String {
    format!("{list} {:?} {parts:?} {besides:?}", caller.name())
}

/// Where a page begins; `None`: at the newest.
pub(super) fn position<Id, E>(
    token: &str,
    filter: &str,
    parse: impl Fn(&str) -> Result<Id, E>,
) -> Result<Option<Id>, InvalidPageToken> {
    match token {
        "" => Ok(None),
        token => parse(&key_in(token, filter)?)
            .map(Some)
            .map_err(|_| InvalidPageToken),
    }
}

fn is_among<T: Ord>(asked: Option<&BTreeSet<T>>, found: &T) -> bool {
    asked.is_none_or(|asked| asked.contains(found))
}

/// In which lists grants of these phases are.
fn lives(phases: &BTreeSet<Phase>) -> Lives {
    let live = phases.iter().any(|phase| Phase::LIVE.contains(phase));
    let past = phases.iter().any(|phase| !Phase::LIVE.contains(phase));
    match (live, past) {
        (true, true) => Lives::Either,
        (_, false) => Lives::Live,
        (false, true) => Lives::Past,
    }
}
