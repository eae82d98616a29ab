//! Pages of lists: the rows in the list's order, none left out, none twice; and where the next page begins.

use std::collections::BTreeSet;
use std::fmt::Debug;

use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::{
    GrantSelector, JobTarget, ListGrantsRequest, ListGrantsResponse, ListJobTargetsRequest,
    ListJobTargetsResponse, ListJobsRequest, ListJobsResponse, job,
};
use tonic::Code;
use uuid::Uuid;

use crate::faults::{self, Faults};
use crate::grant::Reason;
use crate::model::{
    Grant, Job, Model, Target, Told, Verdict, Window, agree, at_fault, holds, refused, served,
};
use crate::revoke::{canonical, lower};

pub(crate) const UNKNOWN_JOB: Reason = (Code::NotFound, "JOB_NOT_FOUND");

/// A query without its page.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Query {
    Grants(ListGrantsRequest),
    Jobs(ListJobsRequest),
    Targets(ListJobTargetsRequest),
}

impl Query {
    /// In one form for all the words that mean the same.
    fn of_grants(asked: &ListGrantsRequest) -> Self {
        Self::Grants(ListGrantsRequest {
            selector: asked.selector.as_ref().map(canonical),
            states: that_there_are(&states_or_live(&asked.states), &[State::Scheduled.into()]),
            ..ListGrantsRequest::default()
        })
    }

    fn of_jobs(asked: &ListJobsRequest) -> Self {
        Self::Jobs(ListJobsRequest {
            page_size: 0,
            page_token: String::new(),
            cluster: lower(asked.cluster.as_deref()),
            states: sorted(&asked.states),
            kinds: that_there_are(
                &asked.kinds,
                &[job::Kind::Offboard.into(), job::Kind::Repair.into()],
            ),
            ..asked.clone()
        })
    }

    fn of_targets(asked: &ListJobTargetsRequest) -> Self {
        Self::Targets(ListJobTargetsRequest {
            page_size: 0,
            page_token: String::new(),
            states: sorted(&asked.states),
            ..asked.clone()
        })
    }
}

/// What nothing ever is does not tell two queries apart, unless it is all that is asked for.
fn that_there_are(values: &[i32], never: &[i32]) -> Vec<i32> {
    let of_some = sorted(values)
        .into_iter()
        .filter(|value| !never.contains(value))
        .collect::<Vec<_>>();
    if of_some.is_empty() && !values.is_empty() {
        return never[..1].to_vec();
    }
    of_some
}

fn sorted(values: &[i32]) -> Vec<i32> {
    let values: BTreeSet<i32> = values.iter().copied().collect();
    values.into_iter().collect()
}

/// A place in a list: behind the last row that was told.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Place {
    pub(crate) query: Query,
    behind: Option<Row>,
}

/// A row's place in its list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    /// Of a grant or a job: the newest come first.
    Id(String),
    /// Of a job's target: in the order of clusters and principals.
    Target(Target),
}

impl Row {
    /// Whether it comes behind another one of the same list.
    fn is_behind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Id(id), Self::Id(other)) => id < other,
            (Self::Target(target), Self::Target(other)) => target > other,
            _ => false,
        }
    }
}

/// How certainly a row belongs to a list, as long as its state is not known for certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Belongs {
    Surely,
    Perhaps,
}

fn belongs<T: PartialEq>(asked: &[T], may_be: &[T]) -> Option<Belongs> {
    let among = may_be.iter().filter(|state| asked.contains(state)).count();
    match among {
        _ if asked.is_empty() || among == may_be.len() => Some(Belongs::Surely),
        0 => None,
        _ => Some(Belongs::Perhaps),
    }
}

/// Holds a page against the rows of the whole list behind it, in the list's order. A page may be shorter than
/// asked for, but leaves nothing out; the last one ends with the list.
fn page_agrees<R: PartialEq + Debug>(
    told: &[R],
    list: &[(R, Belongs)],
    size: i32,
    is_last: bool,
) -> Verdict {
    let most = if size == 0 { 50 } else { size };
    holds(
        i32::try_from(told.len()).is_ok_and(|rows| rows <= most),
        || format!("at most {most} rows"),
    )?;
    let mut rest = list.iter();
    for row in told {
        let skipped = rest.by_ref().take_while(|(next, _)| next != row);
        let missed: Vec<_> = skipped
            .filter(|(_, belongs)| *belongs == Belongs::Surely)
            .collect();
        holds(missed.is_empty(), || {
            format!("before {row:?}, or instead of it: {missed:?}; the list goes {list:?}")
        })?;
        holds(list.iter().any(|(known, _)| known == row), || {
            format!("{row:?} is none of the list {list:?}")
        })?;
    }
    let missed = rest.find(|(_, belongs)| *belongs == Belongs::Surely);
    holds(!is_last || missed.is_none(), || {
        format!("the list goes on with {missed:?}")
    })
}

impl Model {
    /// Where a page of this query begins, if no other field is at fault; the fault where the token is not one of
    /// its own.
    fn begins(&self, faults: Faults, query: &Query, token: &str) -> Result<Option<Row>, Faults> {
        match self.tokens.get(token) {
            _ if !faults.is_empty() => Err(faults),
            _ if token.is_empty() => Ok(None),
            Some(place) if place.query == *query => Ok(place.behind.clone()),
            _ => Err(BTreeSet::from(["page_token".to_owned()])),
        }
    }

    fn note_next(&mut self, query: Query, token: &str, behind: Option<Row>) {
        if !token.is_empty() {
            self.tokens
                .insert(token.to_owned(), Place { query, behind });
        }
    }

    pub(crate) fn list_grants(
        &mut self,
        asked: &ListGrantsRequest,
        told: &Told<ListGrantsResponse>,
        when: Window,
    ) -> Verdict {
        let query = Query::of_grants(asked);
        let begins = match self.begins(faults::of_grants_list(asked), &query, &asked.page_token) {
            Ok(begins) => begins,
            Err(faults) => return at_fault(told, &faults),
        };
        let answer = served(told)?;
        let selector = asked.selector.clone().unwrap_or_default();
        let list = self.list_of_grants(&selector, &asked.states, begins.as_ref());
        let rows = answer
            .grants
            .iter()
            .map(|grant| Row::Id(grant.grant_id.clone()));
        let rows: Vec<Row> = rows.collect();
        let is_last = answer.next_page_token.is_empty();
        page_agrees(&rows, &list, asked.page_size, is_last)?;
        for grant in &answer.grants {
            let states = states_or_live(&asked.states);
            holds(states.contains(&grant.state), || {
                format!("only grants in {states:?}")
            })?;
            self.grant_is_told(grant, when)?;
            self.effects_are_told(grant)?;
        }
        let behind = rows.last().cloned().or(begins);
        self.note_next(query, &answer.next_page_token, behind);
        Ok(())
    }

    fn list_of_grants(
        &self,
        selector: &GrantSelector,
        states: &[i32],
        begins: Option<&Row>,
    ) -> Vec<(Row, Belongs)> {
        let states = states_or_live(states);
        let row = |grant: &Grant| {
            let may_be: Vec<i32> = grant.may_be().into_iter().map(i32::from).collect();
            Some((Row::Id(grant.id.clone()), belongs(&states, &may_be)?))
        };
        let meant = self
            .grants
            .values()
            .rev()
            .filter(|grant| self.means(selector, grant));
        meant
            .filter_map(row)
            .filter(|(row, _)| begins.is_none_or(|last| row.is_behind(last)))
            .collect()
    }

    pub(crate) fn list_jobs(
        &mut self,
        asked: &ListJobsRequest,
        told: &Told<ListJobsResponse>,
        when: Window,
    ) -> Verdict {
        let query = Query::of_jobs(asked);
        let begins = match self.begins(faults::of_jobs_list(asked), &query, &asked.page_token) {
            Ok(begins) => begins,
            Err(faults) => return at_fault(told, &faults),
        };
        let answer = served(told)?;
        let row = |(id, job): (&String, &Job)| {
            let may_be: Vec<i32> = job.may_be().into_iter().collect();
            Some((Row::Id(id.clone()), belongs(&asked.states, &may_be)?))
        };
        let meant = self.jobs.iter().rev().filter(|(id, job)| {
            is_asked_for(asked, job) && self.answered(asked.request_id.as_deref(), id, job)
        });
        let list: Vec<_> = meant
            .filter_map(row)
            .filter(|(row, _)| begins.as_ref().is_none_or(|last| row.is_behind(last)))
            .collect();
        let rows: Vec<Row> = answer
            .jobs
            .iter()
            .map(|job| Row::Id(job.job_id.clone()))
            .collect();
        page_agrees(
            &rows,
            &list,
            asked.page_size,
            answer.next_page_token.is_empty(),
        )?;
        for job in &answer.jobs {
            holds(
                asked.states.is_empty() || asked.states.contains(&job.state),
                || format!("only jobs in {:?}", asked.states),
            )?;
            self.job_is_told(job, when)?;
        }
        let behind = rows.last().cloned().or(begins);
        self.note_next(query, &answer.next_page_token, behind);
        Ok(())
    }

    pub(crate) fn list_targets(
        &mut self,
        asked: &ListJobTargetsRequest,
        told: &Told<ListJobTargetsResponse>,
    ) -> Verdict {
        let query = Query::of_targets(asked);
        let begins = match self.begins(
            faults::of_job_targets_list(asked),
            &query,
            &asked.page_token,
        ) {
            Ok(begins) => begins,
            Err(faults) => return at_fault(told, &faults),
        };
        let id = asked.job_id.to_lowercase();
        if !self.jobs.contains_key(&id) {
            return refused(told, &[UNKNOWN_JOB]);
        }
        let answer = served(told)?;
        if !self.jobs[&id].perhaps.is_empty() {
            self.all_targets_are_told(&id, &answer.targets)?;
        }
        let job = &self.jobs[&id];
        let mut may_be = job.may_end.clone();
        if !job.is_over() {
            use job::State::{Queued, Retrying, Running};
            may_be.extend([Queued, Running, Retrying].map(i32::from));
        }
        let may_be: Vec<i32> = may_be.into_iter().collect();
        let list: Vec<_> = match belongs(&asked.states, &may_be) {
            None => Vec::new(),
            Some(belongs) => job
                .targets
                .keys()
                .map(|target| (Row::Target(target.clone()), belongs))
                .filter(|(row, _)| begins.as_ref().is_none_or(|last| row.is_behind(last)))
                .collect(),
        };
        let mut rows = Vec::new();
        for target in &answer.targets {
            holds(
                asked.states.is_empty() || asked.states.contains(&target.state),
                || format!("only targets in {:?}", asked.states),
            )?;
            rows.push(Row::Target(self.target_is_told(&id, job.state, target)?));
        }
        page_agrees(
            &rows,
            &list,
            asked.page_size,
            answer.next_page_token.is_empty(),
        )?;
        let behind = rows.last().cloned().or(begins);
        self.note_next(query, &answer.next_page_token, behind);
        Ok(())
    }

    /// The first 20 targets of a job, in their order.
    pub(crate) fn first_targets_are_told(
        &self,
        id: &str,
        told: &[JobTarget],
        state: job::State,
    ) -> Verdict {
        let targets = told
            .iter()
            .map(|target| self.target_is_told(id, state, target));
        let told: Vec<Target> = targets.collect::<Result<_, _>>()?;
        let expected: Vec<Target> = self.jobs[id].targets.keys().take(20).cloned().collect();
        agree("targets", &told, &expected)
    }
}

impl Model {
    /// Whether a request was answered with this job: one of ours, or one whose id the broker made.
    fn answered(&self, request_id: Option<&str>, id: &str, job: &Job) -> bool {
        let Some(request_id) = lower(request_id) else {
            return true;
        };
        match self.requests.get(&request_id) {
            Some(used) => used.job == id,
            None => job.request_id == request_id,
        }
    }
}

/// Without states: the live ones.
fn states_or_live(states: &[i32]) -> Vec<i32> {
    if states.is_empty() {
        return [State::Pending, State::Active, State::Scheduled]
            .map(i32::from)
            .to_vec();
    }
    states.to_vec()
}

fn is_asked_for(asked: &ListJobsRequest, job: &Job) -> bool {
    let principal = asked.principal.as_ref();
    let principal = principal.and_then(|named| Uuid::parse_str(&named.object_id).ok());
    let cluster = lower(asked.cluster.as_deref());
    let touches_principal = |id| job.targets.keys().any(|(_, principal)| *principal == id);
    principal.is_none_or(touches_principal)
        && cluster.is_none_or(|cluster| job.targets.keys().any(|(touched, _)| *touched == cluster))
        && (asked.kinds.is_empty() || asked.kinds.contains(&job.kind.into()))
}
