//! What the contract says has become of everything that was asked for so far: wishes, jobs, and the request ids
//! that were used.
//!
//! What is accepted counts at once. How far it has been carried out is known only from answers: until then a
//! grant or a job may be in any of several states, and it never goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::SystemTime;

use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::job::{self, Kind};
use aks_access_broker::grpc::proto::{ExtendGrantRequest, Grant as ToldGrant};
use aks_access_broker::grpc::proto::{GrantRequest, RevokeRequest};
use tonic::Code;
use uuid::Uuid;

use crate::company::{Company, Principal, Role};
use crate::faults::Faults;
use crate::pages::Place as PlaceInList;
use crate::support::refusal::Refusal;

/// Whether an answer agrees with the model; if not, what the model expects.
pub(crate) type Verdict = Result<(), String>;

/// What a call was answered.
pub(crate) type Told<T> = Result<T, Refusal>;

/// Nanoseconds since 1970.
pub(crate) type Time = i128;

/// When a call was under way, by this machine's clock, which is Redis's as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// How far apart two looks at one clock may be: Redis keeps its time for a moment, in milliseconds.
const SLACK: Time = 100_000_000;

/// How much earlier than it was an answer may say that it looked: the broker never tells a later moment than it is
/// sure of, and is sure of less on a machine that let it wait when it last heard Redis's time.
const UNSURE: Time = 2_000_000_000;

impl Window {
    pub(crate) fn new(from: SystemTime, to: SystemTime) -> Self {
        Self {
            from: ns(from.into()) - SLACK,
            to: ns(to.into()) + SLACK,
        }
    }

    pub(crate) fn contains(self, time: Time) -> bool {
        (self.from..=self.to).contains(&time)
    }

    /// Whether an answer that looked in this window may say that it looked then.
    pub(crate) fn may_be_as_of(self, time: Time) -> bool {
        (self.from - UNSURE..=self.to).contains(&time)
    }
}

pub(crate) fn ns(time: prost_types::Timestamp) -> Time {
    Time::from(time.seconds) * 1_000_000_000 + Time::from(time.nanos)
}

/// When a grant ends by itself; of two ends the later one counts, and never is the latest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum End {
    At(Time),
    Never,
}

/// What is wished of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// That it is there.
    Live,
    /// The same, but its end comes by itself at any moment: nothing is asked about such grants meanwhile.
    Due,
    /// That it is not: somebody revoked it.
    Revoked,
    /// That it is not: its end came.
    Expired,
}

/// One grant.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) id: String,
    pub(crate) principal: Principal,
    /// In lower case.
    pub(crate) cluster: String,
    pub(crate) role: Role,
    pub(crate) namespaces: BTreeSet<String>,
    pub(crate) justification: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) external_key: String,
    pub(crate) on_behalf_of: String,
    pub(crate) create_time: Time,
    pub(crate) end: End,
    pub(crate) fate: Fate,
    /// The furthest state that was told.
    pub(crate) state: State,
    /// The latest job that changes it is one of these.
    pub(crate) jobs: BTreeSet<String>,
    /// As it was told last, and when that was asked for.
    pub(crate) told: Option<(ToldGrant, Time)>,
}

/// One principal on one cluster.
pub(crate) type Target = (String, Uuid);

/// A role at the cluster, or at a namespace of it.
pub(crate) type Place = (Role, Option<String>);

impl Grant {
    pub(crate) fn target(&self) -> Target {
        (self.cluster.clone(), self.principal.id)
    }

    pub(crate) fn is_on(&self, (cluster, principal): &Target) -> bool {
        self.principal.id == *principal && self.cluster == *cluster
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.fate, Fate::Live | Fate::Due)
    }

    /// The states that it may be in.
    pub(crate) fn may_be(&self) -> Vec<State> {
        let way: &[State] = match self.fate {
            Fate::Live => &[State::Pending, State::Active],
            Fate::Due => &[
                State::Pending,
                State::Active,
                State::Revoking,
                State::Expired,
            ],
            Fate::Revoked => &[State::Revoking, State::Revoked],
            Fate::Expired => &[State::Revoking, State::Expired],
        };
        let come_to = way.iter().position(|state| *state == self.state);
        way[come_to.unwrap_or(0)..].to_vec()
    }

    /// The state in which it comes to rest.
    pub(crate) const fn rests_in(&self) -> State {
        match self.fate {
            Fate::Live | Fate::Due => State::Active,
            Fate::Revoked => State::Revoked,
            Fate::Expired => State::Expired,
        }
    }

    /// Everything that it calls for: its role at the cluster or at each of its namespaces, and *Cluster User*
    /// at the cluster, which every access implies.
    pub(crate) fn calls_for(&self) -> BTreeSet<Place> {
        let mut places = BTreeSet::from([(Role::ClusterUser, None)]);
        if self.namespaces.is_empty() {
            places.insert((self.role, None));
        }
        places.extend(
            self.namespaces
                .iter()
                .map(|name| (self.role, Some(name.clone()))),
        );
        places
    }
}

/// A place's scope, in lower case.
pub(crate) fn scope(cluster: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(name) => format!("{cluster}/namespaces/{name}"),
        None => cluster.to_owned(),
    }
}

/// One job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    /// Empty where no request set it off.
    pub(crate) request_id: String,
    pub(crate) justification: String,
    /// Its targets, and the grants that it is about on each.
    pub(crate) targets: BTreeMap<Target, BTreeSet<String>>,
    /// Grants that it may be about as well, until its targets are told: they were not known to have ended.
    pub(crate) perhaps: BTreeSet<String>,
    /// It carries out a new grant, rather than a later end of one that was there.
    pub(crate) of_a_new_grant: bool,
    /// The final states that it may reach.
    pub(crate) may_end: BTreeSet<i32>,
    /// The furthest state that was told.
    pub(crate) state: job::State,
    /// The world has been at rest since: it is over.
    pub(crate) settled: bool,
    pub(crate) create_time: Option<Time>,
    pub(crate) attempts: i32,
}

pub(crate) fn is_final(state: job::State) -> bool {
    use job::State::{Failed, Succeeded, Superseded};
    matches!(state, Succeeded | Failed | Superseded)
}

impl Job {
    pub(crate) fn new(kind: Kind, request_id: &str, justification: &str) -> Self {
        Self {
            kind,
            request_id: request_id.to_owned(),
            justification: justification.to_owned(),
            targets: BTreeMap::new(),
            perhaps: BTreeSet::new(),
            of_a_new_grant: false,
            may_end: BTreeSet::from([job::State::Succeeded.into()]),
            state: job::State::Queued,
            settled: false,
            create_time: None,
            attempts: 0,
        }
    }

    pub(crate) fn about<'a>(mut self, grants: impl IntoIterator<Item = &'a Grant>) -> Self {
        for grant in grants {
            let row = self.targets.entry(grant.target()).or_default();
            row.insert(grant.id.clone());
        }
        self
    }

    pub(crate) fn is_over(&self) -> bool {
        is_final(self.state)
    }

    /// The states that it may be in.
    pub(crate) fn may_be(&self) -> BTreeSet<i32> {
        use job::State::{Queued, Retrying, Running};
        if self.is_over() {
            return BTreeSet::from([self.state.into()]);
        }
        let mut states = self.may_end.clone();
        if self.settled {
            return states;
        }
        states.extend([Running, Retrying].map(i32::from));
        if self.state == Queued {
            states.insert(Queued.into());
        }
        states
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = &String> {
        self.targets.values().flatten()
    }
}

/// A request by what it asks for: the same again has an equal one.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Payload {
    Grant(GrantRequest),
    Extend(ExtendGrantRequest),
    Revoke(RevokeRequest),
}

/// What a request id was used for.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub(crate) payload: Payload,
    pub(crate) job: String,
    /// The grant that was answered.
    pub(crate) grant: Option<String>,
    pub(crate) matched: i32,
}

/// Whether a request was made before.
pub(crate) enum Before {
    Never,
    /// The same one, and what came of it.
    Same(Box<Used>),
    /// Another one under its id.
    Another,
}

/// Everything that there is by the contract.
pub(crate) struct Model {
    pub(crate) company: Company,
    /// By id: the newest is the last.
    pub(crate) grants: BTreeMap<String, Grant>,
    /// By id: the newest is the last.
    pub(crate) jobs: BTreeMap<String, Job>,
    /// Grants whose wish has changed since the world was last at rest.
    pub(crate) changed: BTreeSet<String>,
    /// Jobs that are not known to be over.
    pub(crate) under_way: BTreeSet<String>,
    /// By request id. Nobody but one caller is there.
    pub(crate) requests: BTreeMap<String, Used>,
    /// What the server calls that caller.
    pub(crate) caller: Option<String>,
    /// What it calls itself, where it ends a grant.
    pub(crate) broker: Option<String>,
    /// By page token: where in which list the next page begins.
    pub(crate) tokens: BTreeMap<String, PlaceInList>,
    /// How often what was told.
    pub(crate) tally: BTreeMap<String, usize>,
}

impl Model {
    pub(crate) fn new(company: Company) -> Self {
        Self {
            company,
            grants: BTreeMap::new(),
            jobs: BTreeMap::new(),
            changed: BTreeSet::new(),
            under_way: BTreeSet::new(),
            requests: BTreeMap::new(),
            caller: None,
            broker: None,
            tokens: BTreeMap::new(),
            tally: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, told: String) {
        *self.tally.entry(told).or_default() += 1;
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Grant> {
        self.grants.values().filter(|grant| grant.is_live())
    }

    /// The live grants of one target.
    pub(crate) fn live_on(&self, target: &Target) -> impl Iterator<Item = &Grant> {
        self.live().filter(move |grant| grant.is_on(target))
    }

    /// The latest end of the live grants that call for a place; `None`: none does.
    pub(crate) fn wished_until(&self, target: &Target, place: &Place) -> Option<End> {
        self.live_on(target)
            .filter(|grant| grant.calls_for().contains(place))
            .map(|grant| grant.end)
            .max()
    }

    /// Whether somebody else gives just this.
    pub(crate) fn is_foreign(&self, target: &Target, place: &Place) -> bool {
        let (cluster, holder) = target;
        let scope = scope(cluster, place.1.as_deref());
        self.company.foreign.iter().any(|theirs| {
            theirs.holder == *holder && theirs.role == place.0 && theirs.scope == scope
        })
    }

    /// Whether everything that was asked of a target is known to be carried out.
    pub(crate) fn rests(&self, target: &Target) -> bool {
        let is_due = |grant: &Grant| grant.fate == Fate::Due && grant.is_on(target);
        let mut under_way = self.under_way.iter();
        !under_way.any(|id| self.jobs[id].targets.contains_key(target))
            && !self.grants.values().any(is_due)
    }

    pub(crate) fn before(&self, request_id: &str, payload: &Payload) -> Before {
        match self.requests.get(&request_id.to_lowercase()) {
            None => Before::Never,
            Some(used) if used.payload == *payload => Before::Same(Box::new(used.clone())),
            Some(_) => Before::Another,
        }
    }

    /// Notes a job that was accepted.
    pub(crate) fn begin(&mut self, id: &str, job: Job) -> Verdict {
        let newest = self.jobs.keys().next_back();
        if newest.is_some_and(|newest| newest.as_str() >= id) {
            return Err(format!(
                "a new job, whose id sorts behind {newest:?}, not {id}"
            ));
        }
        self.under_way.insert(id.to_owned());
        self.jobs.insert(id.to_owned(), job);
        Ok(())
    }

    /// Takes a live grant's wish back.
    pub(crate) fn end(&mut self, id: &str, fate: Fate, job: &str) {
        let Some(grant) = self.grants.get_mut(id) else {
            return;
        };
        // A later request, or its expiry, undoes what may not be carried out yet.
        for other in &self.under_way {
            let other = self.jobs.get_mut(other).expect("a job");
            let gives = matches!(other.kind, Kind::Grant | Kind::Extend);
            let is_done = other.of_a_new_grant && grant.state == State::Active;
            if gives && !is_done && other.targets.values().any(|of| of.contains(id)) {
                other.may_end.insert(job::State::Superseded.into());
            }
        }
        self.changed.insert(id.to_owned());
        grant.fate = fate;
        grant.jobs = BTreeSet::from([job.to_owned()]);
        if !grant.may_be().contains(&grant.state) {
            grant.state = State::Revoking;
        }
    }

    /// Notes that the world is at rest: everything that was asked for is carried out.
    pub(crate) fn settle(&mut self) {
        for id in &self.under_way {
            self.jobs.get_mut(id).expect("a job").settled = true;
        }
        for grant in self.grants.values_mut() {
            grant.state = grant.rests_in();
        }
    }

    /// Notes that a job is over: everything asked for is so.
    pub(crate) fn finish(&mut self, id: &str, state: job::State) {
        self.under_way.remove(id);
        let job = self.jobs.get_mut(id).expect("a job");
        job.state = state;
        job.may_end = BTreeSet::from([state.into()]);
        let gives = matches!(job.kind, Kind::Grant | Kind::Extend);
        let about: Vec<String> = job.grants().cloned().collect();
        for grant in about {
            let grant = self.grants.get_mut(&grant).expect("a grant");
            if gives && state == job::State::Succeeded && grant.state == State::Pending {
                grant.state = State::Active;
            }
            if !gives {
                grant.state = grant.rests_in();
            }
        }
    }
}

// --- Agreeing ---------------------------------------------------------------------------------------

pub(crate) fn agree<T: PartialEq + Debug>(what: &str, told: &T, expected: &T) -> Verdict {
    if told == expected {
        Ok(())
    } else {
        Err(format!("{what}: {expected:?}, not {told:?}"))
    }
}

pub(crate) fn holds(is_so: bool, expected: impl FnOnce() -> String) -> Verdict {
    if is_so { Ok(()) } else { Err(expected()) }
}

/// A refusal for one of these reasons: where several apply, the contract does not say which is told.
pub(crate) fn refused<T>(told: &Told<T>, reasons: &[(Code, &'static str)]) -> Verdict {
    match told {
        Err(refusal) if reasons.contains(&(refusal.code, refusal.reason.as_str())) => Ok(()),
        _ => Err(format!("a refusal, for one of these reasons: {reasons:?}")),
    }
}

/// A refusal that names these fields, all at once.
pub(crate) fn at_fault<T>(told: &Told<T>, faults: &Faults) -> Verdict {
    let expected = || format!("INVALID_REQUEST that names {faults:?}");
    let Err(refusal) = told else {
        return Err(expected());
    };
    let named: Faults = refusal.fields.iter().cloned().collect();
    let is_invalid = refusal.kind() == (Code::InvalidArgument, "INVALID_REQUEST");
    holds(is_invalid && named == *faults, expected)
}

pub(crate) fn served<T>(told: &Told<T>) -> Result<&T, String> {
    told.as_ref()
        .map_err(|_| "that it is served, not refused".to_owned())
}
