//! A model of the protocol (design §5): crashes, late commits, lagging answers, refused names, lanes that are told to
//! wait, clusters that go and come again, workers that are suspended, records that are sent again, clocks that leap, a
//! Redis that is emptied, and requests without end, in every order that proptest can think of. The end must be exact
//! (I2), what was said to be over must stay over (I5), what ends access must never wait for anything else's wait, and
//! no job may be over while what it waits for stands.
//!
//! Each rule that this rests on can be taken out ([`mendings`]); the model has to find that.

mod azure;
mod clusters;
mod mendings;
mod pass;
mod queue;
mod record;
mod wishes;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::access::{Access, RoleAtScope};
use super::conclude::{FailedStep, Retry};
use super::effect::{Foreign, Known};
use super::grant::{Ending, Expiry, GrantState};
use super::ids::{
    AssignmentName, ClusterId, GrantId, InstanceId, Namespace, PrincipalId, TargetId,
};
use super::job::Failure;
use super::plan::Step;
use super::role::{BuiltInRole, Role};
use mendings::Mended;
use world::World;

const LEASE: i64 = 12;
const CALL_TIMEOUT: i64 = 3;
const SETTLE: i64 = 8;
const LAG: i64 = 11;
/// How long a target waits whose worker has died.
const PAUSE: i64 = 4;
/// How long a grant is tried.
const GIVE_UP: i64 = 100;
/// The longest that Azure tells a lane to wait.
const LONGEST_WAIT: i64 = 40;
/// How many names of a series a pass tries.
const MOST_NAMES: u32 = 8;

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
    /// A definite no, and the lane has to wait for so many seconds.
    Throttled(i64),
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
    Extend {
        which: u8,
        ttl: Option<i64>,
        /// By the external key, not by an `ExtendGrant`.
        asked_for_again: bool,
    },
    Revoke(u8),
    /// Every live grant, or every other one: one job.
    RevokeMany {
        every: usize,
    },
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
    /// A revocation by selector, of all that are live or going, or of every other one: one job.
    RevokeSelected {
        every: usize,
    },
    /// The answer to the last record of a worker was lost: its client sends it again.
    RecordAgain(bool),
    /// A machine sleeps for so many seconds, and a worker with it.
    Suspend(bool, i64),
    /// A failover to a Redis whose clock is so much ahead, or behind.
    SetTheClock(i64),
    RedisIsEmptied,
    RedisIsRestored,
    /// Azure refuses every new name, or no longer does.
    NamesAreRefused(bool),
    /// A request during each of so many passes.
    RequestsWithoutEnd {
        worker: bool,
        passes: usize,
    },
    ClusterGoes,
    /// Another cluster is made under the same id, where none stands.
    ClusterIsMadeAgain,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        2 => Just(Fate::AnswerLost),
        3 => (0..=SETTLE).prop_map(Fate::Late),
        1 => Just(Fate::NeverArrives),
        1 => Just(Fate::Refused),
        1 => (1..=LONGEST_WAIT).prop_map(Fate::Throttled),
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

/// How far a clock is set. By a second ahead it is slewed rather than set: settle time and lag have that much to spare.
fn leap() -> impl Strategy<Value = i64> {
    prop_oneof![-2_000..=-1_i64, -20..=-1_i64, 2..=20_i64, 2..=2_000_i64]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (0..3_u8, proptest::option::of(1..60_i64))
            .prop_map(|(access, ttl)| Action::Grant { access, ttl }),
        2 => (0..6_u8, proptest::option::of(1..60_i64), any::<bool>()).prop_map(
            |(which, ttl, asked_for_again)| Action::Extend { which, ttl, asked_for_again }
        ),
        2 => (0..6_u8).prop_map(Action::Revoke),
        1 => (1..=2_usize).prop_map(|every| Action::RevokeMany { every }),
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
        1 => (1..=2_usize).prop_map(|every| Action::RevokeSelected { every }),
        1 => any::<bool>().prop_map(Action::RecordAgain),
        2 => (any::<bool>(), 1..=2 * LEASE).prop_map(|(worker, length)| Action::Suspend(worker, length)),
        1 => leap().prop_map(Action::SetTheClock),
        1 => Just(Action::RedisIsEmptied),
        1 => Just(Action::RedisIsRestored),
        1 => proptest::bool::weighted(0.7).prop_map(Action::NamesAreRefused),
        1 => (any::<bool>(), 1..=6_usize)
            .prop_map(|(worker, passes)| Action::RequestsWithoutEnd { worker, passes }),
        1 => Just(Action::ClusterGoes),
        2 => Just(Action::ClusterIsMadeAgain),
    ]
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// The same as a number.
fn seconds(time: Timestamp) -> i64 {
    time.as_second() - 1_800_000_000
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

impl Action {
    /// Failures of Redis, and events without a request.
    fn befall(&self, world: &mut World) {
        match self {
            Self::RecordAgain(worker) => world.record_again(usize::from(*worker)),
            Self::Suspend(worker, length) => world.suspend(usize::from(*worker), *length),
            Self::SetTheClock(by) => world.set_the_clock(*by),
            Self::RedisIsEmptied => world.empty_redis(),
            Self::RedisIsRestored => world.restore_redis(),
            Self::NamesAreRefused(refused) => world.azure.refuses_names = *refused,
            Self::RequestsWithoutEnd { worker, passes } => {
                world.requests_without_end(usize::from(*worker), *passes);
            }
            Self::ClusterGoes => world.azure.lose_cluster(world.now),
            Self::ClusterIsMadeAgain => world.make_the_cluster_again(),
            _ => {}
        }
    }
}

impl World {
    /// Passes in good weather, and another request before each is recorded.
    fn requests_without_end(&mut self, worker: usize, passes: usize) {
        for _ in 0..passes {
            self.claim(worker);
            self.begin(worker);
            for _ in 0..6 {
                self.call(worker, Fate::Answered);
            }
            self.grant(2, None);
            self.record(worker);
            self.advance(1);
        }
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Grant { access, ttl } => self.grant(*access, *ttl),
            Action::Extend {
                which,
                ttl,
                asked_for_again,
            } => {
                if let Some(id) = self.nth_grant(*which) {
                    self.extend(id, *ttl, *asked_for_again);
                }
            }
            Action::Revoke(which) => {
                if let Some(id) = self.nth_grant(*which) {
                    self.end(&[id], Ending::Revoked);
                }
            }
            Action::RevokeMany { every } => {
                let live = self
                    .stored
                    .grants
                    .iter()
                    .filter(|grant| grant.state.is_live());
                let ids: Vec<GrantId> = live.step_by(*every).map(|grant| grant.id).collect();
                self.end(&ids, Ending::Revoked);
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
                        self.clear_to_send(worker);
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
            Action::StrangerLeaves => self.azure.lose_strangers(self.now),
            Action::RevokeSelected { every } => self.end_selected(*every),
            action => action.befall(self),
        }
    }

    /// One of the grants that have not ended.
    fn nth_grant(&self, which: u8) -> Option<GrantId> {
        let grants = &self.stored.grants;
        let grant = grants.get(usize::from(which) % grants.len().max(1))?;
        Some(grant.id)
    }

    /// Lets everything come to rest in good weather.
    fn settle(&mut self) {
        self.restore_redis();
        self.azure.refuses_names = false;
        self.die(1);
        self.notice_the_cluster();
        for _ in 0..100 {
            self.record(0);
            if self.rests() {
                return;
            }
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
        for id in &self.accepted {
            let mut known = self.stored.grants.iter().chain(&self.all);
            assert!(
                known.any(|grant| grant.id == *id),
                "what was accepted is lost"
            );
        }
    }
}

fn failed(step: &Step, retry: Retry) -> FailedStep {
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
        retry,
    }
}

fn instance() -> InstanceId {
    InstanceId::new(Uuid::from_u128(9))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn i2_i5_every_order_of_faults_and_wishes_ends_exactly(actions in proptest::collection::vec(action(), 0..80)) {
        runs(Mended::ALL, &actions);
    }
}

fn runs(mended: Mended, actions: &[Action]) {
    let mut world = World::new(mended);
    for action in actions {
        world.run(action);
        world.what_is_said_is_so();
    }
    world.settle();
    world.check();
}

/// A worker slept before it sent a call, for so long that nobody waited for the call any more: what it made stands under a
/// name that was given up, until a conflict shows it.
#[test]
fn what_a_sleeper_made_is_found_by_the_conflict_that_it_makes() {
    let pass = |worker, fates: &[Fate], ends| Action::Pass {
        worker,
        fates: fates.to_vec(),
        ends,
    };
    let grant = |access| Action::Grant { access, ttl: None };
    let actions = [
        grant(1),
        Action::Claim(true),
        Action::Wait(2),
        grant(0),
        Action::Wait(10),
        pass(false, &[Fate::Answered; 3], PassEnd::StallsBeforeSending),
        Action::Wait(10),
        Action::Record(true),
        Action::Wait(8),
        pass(true, &[Fate::Answered], PassEnd::Stalls),
        pass(false, &[Fate::Late(0)], PassEnd::Records),
        Action::Wait(9),
        pass(true, &[], PassEnd::Records),
        Action::Wait(4),
        pass(false, &[Fate::Lagging], PassEnd::Records),
    ];
    runs(Mended::ALL, &actions);
}
