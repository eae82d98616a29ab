//! Crashes, late commits, lagging answers, refused names and new wishes in every order that proptest
//! can think of, against a model of Azure and of the store: the end must be exact (I2), and what was
//! said to be over must stay over (I5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::access::{Access, PrincipalType, RoleAtScope};
use super::conclude::{Conclusion, FailedStep, Retry, Terms, conclude};
use super::effect::{Answer, Call, Effect, Foreign, Known, PassTime};
use super::grant::{Ending, Expiry, Grant, GrantState};
use super::ids::{
    AssignmentName, ClusterId, GrantId, InstanceId, JobId, Namespace, PrincipalId, TargetId,
};
use super::job::{Failure, JobKind, JobState, WaitingJob};
use super::ownership::Description;
use super::plan::{Step, plan, put_with_next_name};
use super::role::{BuiltInRole, Role};
use super::target::Target;

const LEASE: i64 = 12;
const CALL_TIMEOUT: i64 = 3;
const SETTLE: i64 = 8;
const LAG: i64 = 11;

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// Committed at once, but the answer is lost.
    AnswerLost,
    /// No answer; committed so many seconds after the sender gave up.
    Late(i64),
    NeverArrives,
    Refused,
    /// A DELETE that meets a replica which has not seen a recent PUT.
    Lagging,
}

/// How a pass leaves off.
#[derive(Clone, Copy, Debug)]
enum PassEnd {
    Records,
    Dies,
    /// Stops where it is, to go on at some later time.
    Stalls,
    /// Stops after it has looked at its lease and before it sends the next call.
    StallsBeforeSending,
}

#[derive(Clone, Debug)]
enum Action {
    Grant {
        access: u8,
        ttl: Option<i64>,
    },
    Revoke(u8),
    Wait(i64),
    Claim(bool),
    Begin(bool),
    Call(bool, Fate),
    Record(bool),
    Die(bool),
    /// A whole pass, or the beginning of one: its calls meet these fates in turn.
    Pass {
        worker: bool,
        fates: Vec<Fate>,
        ends: PassEnd,
    },
    /// Somebody else assigns, or takes away, the same role.
    Stranger {
        access: u8,
        conditional: bool,
    },
    StrangerLeaves,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        2 => Just(Fate::AnswerLost),
        3 => (0..=SETTLE).prop_map(Fate::Late),
        1 => Just(Fate::NeverArrives),
        1 => Just(Fate::Refused),
        2 => Just(Fate::Lagging),
    ]
}

fn pass() -> impl Strategy<Value = Action> {
    let ends = prop_oneof![
        3 => Just(PassEnd::Records),
        1 => Just(PassEnd::Dies),
        2 => Just(PassEnd::Stalls),
        1 => Just(PassEnd::StallsBeforeSending),
    ];
    (any::<bool>(), proptest::collection::vec(fate(), 0..5), ends).prop_map(
        |(worker, fates, ends)| Action::Pass {
            worker,
            fates,
            ends,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (0..3_u8, proptest::option::of(1..60_i64))
            .prop_map(|(access, ttl)| Action::Grant { access, ttl }),
        2 => (0..6_u8).prop_map(Action::Revoke),
        5 => (1..=LEASE).prop_map(Action::Wait),
        8 => pass(),
        1 => any::<bool>().prop_map(Action::Claim),
        1 => any::<bool>().prop_map(Action::Begin),
        3 => (any::<bool>(), fate()).prop_map(|(worker, fate)| Action::Call(worker, fate)),
        2 => any::<bool>().prop_map(Action::Record),
        1 => any::<bool>().prop_map(Action::Die),
        1 => (0..3_u8, any::<bool>())
            .prop_map(|(access, conditional)| Action::Stranger { access, conditional }),
        1 => Just(Action::StrangerLeaves),
    ]
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn cluster() -> ClusterId {
    ClusterId::parse(
        "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/\
         Microsoft.ContainerService/managedClusters/one",
    )
    .unwrap()
}

fn target_id() -> TargetId {
    TargetId {
        cluster: cluster(),
        principal: PrincipalId::new(Uuid::from_u128(42)),
    }
}

fn access(which: u8) -> Access {
    let namespace = |name: &str| Namespace::parse(name).unwrap();
    let (role, namespaces) = match which {
        0 => (BuiltInRole::RbacReader, BTreeSet::new()),
        1 => (
            BuiltInRole::RbacWriter,
            BTreeSet::from([namespace("a"), namespace("b")]),
        ),
        _ => (BuiltInRole::RbacWriter, BTreeSet::from([namespace("b")])),
    };
    Access {
        role: Role::BuiltIn(role),
        namespaces,
    }
}

/// One refused name in four, for good.
fn is_refused(name: AssignmentName) -> bool {
    name.guid().as_u128().is_multiple_of(4)
}

struct Worker {
    token: u64,
    lease_end: i64,
    claimed: i64,
    target: Target,
    steps: Vec<Step>,
    begun: bool,
    /// It has looked at its lease and is about to send, however long it sleeps in between.
    cleared_to_send: bool,
    /// It has sent a call after its lease was over: it lives to report it.
    sent_late: bool,
    touched: BTreeMap<AssignmentName, Call>,
    unsent: BTreeSet<AssignmentName>,
    definite: BTreeSet<AssignmentName>,
    failed: Vec<FailedStep>,
}

#[derive(Default)]
struct Azure {
    ours: BTreeMap<AssignmentName, (RoleAtScope, Description)>,
    put_at: BTreeMap<AssignmentName, i64>,
    strangers: BTreeMap<RoleAtScope, Foreign>,
    late: Vec<(i64, Step)>,
}

impl Azure {
    fn commit(&mut self, step: &Step, now: i64) -> Answer {
        match step {
            Step::Put {
                name,
                at,
                description,
                ..
            } => {
                if is_refused(*name) {
                    return Answer::NameRefused;
                }
                if let Some(foreign) = self.strangers.get(at) {
                    return Answer::Foreign(foreign.clone());
                }
                if self
                    .ours
                    .iter()
                    .any(|(other, (place, _))| place == at && other != name)
                {
                    return Answer::Unexplained;
                }
                self.ours.insert(*name, (at.clone(), description.clone()));
                self.put_at.insert(*name, now);
                Answer::Written(description.clone())
            }
            Step::Delete { name, .. } => match self.ours.remove(name) {
                Some(_) => Answer::Deleted,
                None => Answer::NotThere,
            },
        }
    }

    fn arrive(&mut self, now: i64) {
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(time, _)| *time <= now);
        self.late = later;
        let due: Vec<(i64, Step)> = due;
        for (time, step) in due {
            self.commit(&step, time);
        }
    }
}

struct World {
    now: i64,
    azure: Azure,
    stored: Target,
    open: BTreeMap<AssignmentName, (Call, u64)>,
    lease: Option<(u64, i64)>,
    all: Vec<Grant>,
    ended_jobs: BTreeMap<JobId, JobState>,
    workers: [Option<Worker>; 2],
    next: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            azure: Azure::default(),
            stored: Target {
                id: target_id(),
                generation: 0,
                effects: BTreeMap::new(),
                grants: Vec::new(),
                jobs: Vec::new(),
                attempts: 0,
            },
            open: BTreeMap::new(),
            lease: None,
            all: Vec::new(),
            ended_jobs: BTreeMap::new(),
            workers: [None, None],
            next: 1,
        }
    }

    fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(u128::from(self.next))
    }

    fn job(&mut self, kind: JobKind, grant: GrantId) -> JobId {
        let id = JobId::new(self.id());
        self.stored.jobs.push(WaitingJob {
            id,
            kind,
            grants: BTreeSet::from([grant]),
        });
        id
    }

    fn grant(&mut self, which: u8, ttl: Option<i64>) {
        let id = GrantId::new(self.id());
        let job = self.job(JobKind::Grant, id);
        self.stored.grants.push(Grant {
            id,
            target: target_id(),
            principal_type: PrincipalType::User,
            access: access(which),
            state: GrantState::Pending,
            create_time: at(self.now),
            expiry: ttl.map_or(Expiry::Never, |ttl| Expiry::At(at(self.now + ttl))),
            update_time: at(self.now),
            end_time: None,
            was_active: false,
            requested_by: String::new(),
            ended_by: String::new(),
            justification: String::new(),
            job,
            last_error: None,
        });
        self.stored.generation += 1;
    }

    fn end(&mut self, id: GrantId, ending: Ending) {
        let Some(grant) = self.stored.grants.iter_mut().find(|grant| grant.id == id) else {
            return;
        };
        if grant.state.is_live() {
            grant.state = GrantState::Revoking(ending);
            self.stored.generation += 1;
        }
        self.job(JobKind::Revoke, id);
    }

    fn advance(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1;
            self.azure.arrive(self.now);
        }
        let over: Vec<GrantId> = self
            .stored
            .grants
            .iter()
            .filter(|grant| grant.state.is_live() && grant.expiry.is_over(at(self.now)))
            .map(|grant| grant.id)
            .collect();
        for id in over {
            self.end(id, Ending::Expired);
        }
    }

    fn claim(&mut self, worker: usize) {
        if self.workers[worker].is_some() || self.lease.is_some_and(|(_, end)| self.now < end) {
            return;
        }
        let lost_deadline = self.lease.map(|(_, end)| end + SETTLE);
        if let Some(deadline) = lost_deadline {
            for (name, (call, token)) in &mut self.open {
                if *token != 0 {
                    *token = 0;
                    self.stored
                        .effects
                        .get_mut(name)
                        .unwrap()
                        .lost(*call, at(deadline));
                }
            }
        }
        self.next += 1;
        let token = self.next;
        self.lease = Some((token, self.now + LEASE));
        self.workers[worker] = Some(Worker {
            token,
            lease_end: self.now + LEASE,
            claimed: self.now,

            target: self.stored.clone(),
            steps: Vec::new(),
            begun: false,
            cleared_to_send: false,
            sent_late: false,
            touched: BTreeMap::new(),
            unsent: BTreeSet::new(),
            definite: BTreeSet::new(),
            failed: Vec::new(),
        });
    }

    fn may_call(&self, worker: &Worker) -> bool {
        self.now + CALL_TIMEOUT < worker.lease_end
    }

    fn die(&mut self, index: usize) {
        if self.workers[index]
            .as_ref()
            .is_some_and(|worker| worker.sent_late)
        {
            self.record(index);
        }
        self.workers[index] = None;
    }

    fn holds(&self, worker: &Worker) -> bool {
        self.lease.is_some_and(|(token, _)| token == worker.token)
    }

    /// Writes down the intents of `steps`; refused if the lease is lost or the wishes have moved.
    fn write_intents(&mut self, worker: &mut Worker, steps: &[Step]) -> bool {
        if !self.holds(worker)
            || self.now >= worker.lease_end
            || self.stored.generation != worker.target.generation
        {
            return false;
        }
        for step in steps {
            let n = match step {
                Step::Put { n, .. } => *n,
                Step::Delete { name, .. } => self.stored.effects[name].n,
            };
            let fresh = || Effect::untouched(step.name(), step.at().clone(), n, at(self.now));
            self.stored.effects.entry(step.name()).or_insert_with(fresh);
            worker
                .target
                .effects
                .entry(step.name())
                .or_insert_with(fresh);
            self.open.insert(step.name(), (step.call(), worker.token));
            worker.touched.insert(step.name(), step.call());
            worker.unsent.insert(step.name());
        }
        true
    }

    fn begin(&mut self, index: usize) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        if worker.begun {
            self.workers[index] = Some(worker);
            return;
        }
        worker.steps = plan(&worker.target, instance(), self.pass_time(&worker));
        let steps = worker.steps.clone();
        worker.begun = true;
        if !self.write_intents(&mut worker, &steps) {
            worker.steps.clear();
        }
        self.workers[index] = Some(worker);
    }

    fn pass_time(&self, worker: &Worker) -> PassTime {
        PassTime {
            claimed: at(worker.claimed),
            now: at(self.now),
            lag: SignedDuration::from_secs(LAG),
        }
    }

    fn call(&mut self, index: usize, fate: Fate) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        if worker.steps.is_empty() || !(worker.cleared_to_send || self.may_call(&worker)) {
            self.workers[index] = Some(worker);
            return;
        }
        worker.cleared_to_send = false;
        worker.sent_late |= self.now >= worker.lease_end;
        let step = worker.steps.remove(0);
        worker.unsent.remove(&step.name());
        let answer = self.answer(&step, fate);
        let time = self.pass_time(&worker);
        if answer == Answer::Refused {
            worker.failed.push(failed(&step));
        }
        if !matches!(
            answer,
            Answer::Unknown { .. } | Answer::Unexplained | Answer::Refused | Answer::NotThere
        ) {
            worker.definite.insert(step.name());
        }
        let effect = worker.target.effects.get_mut(&step.name()).unwrap();
        effect.answered(step.call(), &answer, time);
        if answer == Answer::NotThere && effect.open.is_none() {
            worker.definite.insert(step.name());
        }
        if answer == Answer::NameRefused
            && let Some(next) = put_with_next_name(&worker.target, instance(), step.at())
            && self.write_intents(&mut worker, std::slice::from_ref(&next))
        {
            worker.steps.insert(0, next);
        }
        self.workers[index] = Some(worker);
    }

    fn answer(&mut self, step: &Step, fate: Fate) -> Answer {
        let unknown = Answer::Unknown {
            until: at(self.now + CALL_TIMEOUT + SETTLE),
        };
        match fate {
            Fate::Answered => self.azure.commit(step, self.now),
            Fate::AnswerLost => {
                self.azure.commit(step, self.now);
                unknown
            }
            Fate::Late(after) => {
                self.azure
                    .late
                    .push((self.now + CALL_TIMEOUT + after, step.clone()));
                unknown
            }
            Fate::NeverArrives => unknown,
            Fate::Refused => Answer::Refused,
            Fate::Lagging => {
                let fresh = self
                    .azure
                    .put_at
                    .get(&step.name())
                    .is_some_and(|put| self.now < put + LAG);
                if step.call() == Call::Delete && fresh {
                    Answer::NotThere
                } else {
                    self.azure.commit(step, self.now)
                }
            }
        }
    }

    fn record(&mut self, index: usize) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        for name in &worker.unsent {
            worker.touched.remove(name);
            // Withdrawn: what was open before is open again, what was not is not.
            let loaded = worker.target.effects[name].open;
            if self.holds(&worker) {
                match loaded {
                    Some(call) => self.open.insert(*name, (call, 0)),
                    None => self.open.remove(name),
                };
            }
        }
        if !self.holds(&worker) {
            self.report(&worker);
            return;
        }
        for name in worker.touched.keys() {
            let mut effect = worker.target.effects[name].clone();
            let stored = self.stored.effects[name].deadline;
            let kept =
                stored.filter(|d| !(worker.definite.contains(name) && *d <= at(worker.claimed)));
            effect.deadline = effect.deadline.max(kept);
            match effect.open {
                Some(call) => self.open.insert(*name, (call, 0)),
                None => self.open.remove(name),
            };
            self.stored.effects.insert(*name, effect);
        }
        let terms = Terms {
            time: self.pass_time(&worker),
            grant_give_up: Duration::from_secs(100),
            cluster_gone: false,
        };
        let conclusion = conclude(&worker.target, &worker.failed, terms);
        let moved = self.stored.generation != worker.target.generation;
        self.apply(&conclusion, moved);
        self.lease = None;
    }

    fn apply(&mut self, conclusion: &Conclusion, moved: bool) {
        let mut skipped = BTreeSet::new();
        for change in &conclusion.grants {
            let unsettled = change.settled.iter().any(|name| {
                self.open.contains_key(name)
                    || self
                        .stored
                        .effects
                        .get(name)
                        .is_some_and(Effect::is_unsettled)
            });
            let grant = self
                .stored
                .grants
                .iter_mut()
                .find(|grant| grant.id == change.id);
            let Some(grant) = grant.filter(|grant| {
                grant.state == change.from && !unsettled && !(moved && change.shared)
            }) else {
                skipped.insert(change.id);
                continue;
            };
            grant.state = change.to;
            grant.was_active |= change.to == GrantState::Active;
            grant.last_error.clone_from(&change.error);
            if matches!(change.to, GrantState::Ended(_)) {
                let ended = grant.clone();
                self.stored.grants.retain(|grant| grant.id != ended.id);
                self.nothing_is_left_of(&ended);
                self.all.push(ended);
            }
        }
        self.stored.generation += u64::from(conclusion.wishes_changed);
        for change in &conclusion.jobs {
            if change.to.is_final() && change.grants.is_disjoint(&skipped) {
                assert_eq!(
                    self.ended_jobs.insert(change.id, change.to),
                    None,
                    "a job ends once"
                );
                self.stored.jobs.retain(|job| job.id != change.id);
            }
        }
        for name in &conclusion.forget {
            if !self.open.contains_key(name)
                && self
                    .stored
                    .effects
                    .get(name)
                    .is_some_and(Effect::is_gone_and_settled)
            {
                self.stored.effects.remove(name);
            }
        }
    }

    /// I5: whoever is told that a grant has ended finds nothing that only it called for, now or later.
    fn nothing_is_left_of(&self, ended: &Grant) {
        let wishes = self.stored.wishes();
        for place in ended
            .calls_for()
            .iter()
            .filter(|place| !wishes.contains_key(place))
        {
            let there = self.azure.ours.values().any(|(at, _)| at == place);
            assert!(!there, "ended, but {place:?} is still assigned");
            let coming = self
                .azure
                .late
                .iter()
                .any(|(_, step)| step.at() == place && step.call() == Call::Put);
            assert!(
                !coming,
                "ended, but a late PUT of {place:?} is still to come"
            );
        }
    }

    /// A worker whose lease was lost records nothing; its report marks what it touched.
    fn report(&mut self, worker: &Worker) {
        for (name, call) in &worker.touched {
            let row = worker.target.effects[name].clone();
            let until = row.deadline.max(Some(at(self.now + SETTLE))).unwrap();
            let stored = self.stored.effects.entry(*name).or_insert(row);
            stored.lost(*call, until);
            if self.open.get(name).is_none_or(|(_, token)| *token == 0) {
                self.open.insert(*name, (*call, 0));
            }
        }
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Grant { access, ttl } => self.grant(*access, *ttl),
            Action::Revoke(which) => {
                let live: Vec<GrantId> = self.stored.grants.iter().map(|grant| grant.id).collect();
                if let Some(id) = live.get(usize::from(*which) % live.len().max(1)) {
                    self.end(*id, Ending::Revoked);
                }
            }
            Action::Wait(seconds) => self.advance(*seconds),
            Action::Claim(worker) => self.claim(usize::from(*worker)),
            Action::Begin(worker) => self.begin(usize::from(*worker)),
            Action::Call(worker, fate) => self.call(usize::from(*worker), *fate),
            Action::Record(worker) => self.record(usize::from(*worker)),
            Action::Die(worker) => self.die(usize::from(*worker)),
            Action::Pass {
                worker,
                fates,
                ends,
            } => {
                let worker = usize::from(*worker);
                self.claim(worker);
                self.begin(worker);
                for fate in fates {
                    self.call(worker, *fate);
                }
                match ends {
                    PassEnd::Records => self.record(worker),
                    PassEnd::Dies => self.die(worker),
                    PassEnd::Stalls => {}
                    PassEnd::StallsBeforeSending => {
                        if let Some(mut stalled) = self.workers[worker].take() {
                            stalled.cleared_to_send = self.may_call(&stalled);
                            self.workers[worker] = Some(stalled);
                        }
                    }
                }
            }
            Action::Stranger {
                access: which,
                conditional,
            } => {
                let place = access(*which)
                    .calls_for(&cluster())
                    .into_iter()
                    .next_back()
                    .unwrap();
                if !self.azure.ours.values().any(|(at, _)| *at == place) {
                    let name = AssignmentName::new(Uuid::from_u128(7));
                    self.azure.strangers.insert(
                        place,
                        Foreign {
                            name,
                            conditional: *conditional,
                        },
                    );
                }
            }
            Action::StrangerLeaves => self.azure.strangers.clear(),
        }
    }

    /// Lets everything come to rest in good weather.
    fn settle(&mut self) {
        self.die(1);
        for _ in 0..60 {
            self.record(0);
            self.advance(4);
            self.claim(0);
            self.begin(0);
            for _ in 0..20 {
                self.call(0, Fate::Answered);
            }
        }
        self.record(0);
    }

    fn check(&self) {
        let wishes = self.stored.wishes();
        // One that has left since a pass found it is for the sweep to notice.
        let foreign = |place: &RoleAtScope| {
            self.azure.strangers.contains_key(place)
                || self
                    .stored
                    .series(place)
                    .any(|effect| matches!(effect.known, Known::Foreign(_)))
        };
        let expected: BTreeMap<&RoleAtScope, Expiry> = wishes
            .iter()
            .filter(|(place, _)| !foreign(place))
            .map(|(place, wish)| (place, wish.expiry))
            .collect();
        let found: BTreeMap<&RoleAtScope, Expiry> = self
            .azure
            .ours
            .values()
            .map(|(place, description)| (place, description.expiry))
            .collect();
        assert_eq!(
            found, expected,
            "Azure holds exactly what the live grants call for"
        );
        assert!(
            self.stored.jobs.is_empty(),
            "jobs that never end: {:?}",
            self.stored.jobs
        );
        for grant in &self.stored.grants {
            assert_eq!(grant.state, GrantState::Active, "{grant:?}");
        }
    }
}

fn failed(step: &Step) -> FailedStep {
    FailedStep {
        at: step.at().clone(),
        call: step.call(),
        principal_type: None,
        failure: Failure {
            reason: "AUTHORIZATION_FAILED".to_owned(),
            message: "no".to_owned(),
            azure_correlation_id: String::new(),
            retryable: true,
            code: 9,
            metadata: BTreeMap::new(),
        },
        retry: Retry::Slowly,
    }
}

fn instance() -> InstanceId {
    InstanceId::new(Uuid::from_u128(9))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn i2_i5_every_order_of_faults_and_wishes_ends_exactly(actions in proptest::collection::vec(action(), 0..80)) {
        let mut world = World::new();
        for action in &actions {
            world.run(action);
        }
        world.settle();
        world.check();
    }
}
