//! Which calls on one target crossed each other while the lease under which each was made was good.

use std::collections::BTreeMap;
use std::time::Duration;

use aks_access_broker::domain::access::RoleAtScope;
use aks_access_broker::domain::ids::{
    AssignmentName, ClusterId, InstanceId, Namespace, PrincipalId, RoleDefinitionId, Scope,
};
use aks_access_broker::domain::ownership::assignment_name;
use azure_emulator::{Call, Operation};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// How much later than the look at the lease a call is received, at most, where its broker does not stand still.
const ON_THE_WAY: SignedDuration = SignedDuration::from_millis(200);
/// How much later than its wake-up, at most, a broker makes a call that it was about to make when it was stopped.
const AFTER_WAKING: SignedDuration = SignedDuration::from_secs(1);

/// A time in which a broker stood still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standstill {
    /// Which broker: the object id in its tokens.
    pub(super) broker: Uuid,
    /// Just before it was stopped.
    pub(super) from: Timestamp,
    /// When it had stopped.
    pub(super) stopped: Timestamp,
    /// Just after it was let go on.
    pub(super) to: Timestamp,
}

/// One PUT or DELETE of a role assignment.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Whose role assignment: the principal, and the cluster in lower case.
    pub(super) target: (Uuid, String),
    /// Which broker made it.
    pub(super) broker: Uuid,
    /// When it was received.
    pub(super) received: Timestamp,
    /// When it was over for its caller.
    pub(super) closed: Timestamp,
    /// Its place in the history.
    pub(super) sequence: u64,
}

/// Finds the target of a role assignment by its name: a broker's names tell it to whoever knows the series.
pub(super) struct Names(BTreeMap<Uuid, (Uuid, String)>);

impl Names {
    /// All names that a broker can have used for these roles on these targets, at the cluster or in a namespace.
    pub(super) fn new(
        instance: InstanceId,
        targets: &[(Uuid, String)],
        roles: &[Uuid],
        namespaces: &[&str],
    ) -> Self {
        let mut names = BTreeMap::new();
        for (principal, cluster) in targets {
            let id = ClusterId::parse(cluster).expect("an ARM id");
            let below = namespaces.iter().map(|name| {
                let namespace = Namespace::parse(name).expect("a namespace");
                Scope::Namespace(id.clone(), namespace)
            });
            for scope in below.chain([Scope::Cluster(id.clone())]) {
                for role in roles {
                    let at = RoleAtScope {
                        role: RoleDefinitionId::new(*role),
                        scope: scope.clone(),
                    };
                    // One name in fifty is refused in this weather: nothing comes near the tenth.
                    for n in 0..10 {
                        let name: AssignmentName =
                            assignment_name(instance, &at, PrincipalId::new(*principal), n);
                        names.insert(name.guid(), (*principal, cluster.to_lowercase()));
                    }
                }
            }
        }
        Self(names)
    }

    /// The PUTs and DELETEs of a history.
    pub(super) fn made(&self, history: &[Call]) -> Vec<Made> {
        let changes = |call: &&Call| {
            matches!(
                call.operation,
                Operation::RoleAssignmentWrite | Operation::RoleAssignmentDelete
            )
        };
        history
            .iter()
            .filter(changes)
            .map(|call| self.read(call))
            .collect()
    }

    fn read(&self, call: &Call) -> Made {
        let path = call.path.split('?').next().unwrap_or_default();
        let name = path.rsplit('/').next().and_then(|name| name.parse().ok());
        let target = name.and_then(|name: Uuid| self.0.get(&name));
        Made {
            target: target
                .unwrap_or_else(|| panic!("a name that no broker uses: {}", call.path))
                .clone(),
            broker: call.principal.expect("a call with a token"),
            received: call.received.wall,
            closed: call.closed.map_or(Timestamp::MAX, |closed| closed.wall),
            sequence: call.sequence,
        }
    }
}

/// Each two calls on one target that were open at the same time, both under a good lease.
pub(super) fn crossings(
    made: &[Made],
    stood_still: &[Standstill],
    call_timeout: Duration,
) -> Vec<[Made; 2]> {
    let call_timeout = SignedDuration::try_from(call_timeout).expect("a short time");
    let mut by_target: BTreeMap<_, Vec<&Made>> = BTreeMap::new();
    for call in made {
        by_target.entry(&call.target).or_default().push(call);
    }
    let mut found = Vec::new();
    for calls in by_target.values_mut() {
        calls.sort_by_key(|call| call.received);
        let leased: Vec<_> = calls
            .iter()
            .filter(|call| !was_begun_before_a_standstill(call, calls, stood_still))
            .map(|call| {
                let good = call.received + (call_timeout - ON_THE_WAY);
                (*call, call.closed.min(good))
            })
            .collect();
        for (n, (call, good)) in leased.iter().enumerate() {
            let crossed = leased[n + 1..]
                .iter()
                .take_while(|(later, _)| later.received < *good);
            found.extend(crossed.map(|(later, _)| [(*call).clone(), (*later).clone()]));
        }
    }
    found
}

/// Whether its broker can have stood still between its look at the lease and the call: the call was received during
/// a standstill, or just after one in which no other call of the pass was open, and none has been made since.
fn was_begun_before_a_standstill(
    call: &Made,
    on_target: &[&Made],
    stood_still: &[Standstill],
) -> bool {
    let earlier = |other: &&&Made| {
        other.broker == call.broker
            && (other.received, other.sequence) < (call.received, call.sequence)
    };
    let own: Vec<&Made> = on_target.iter().filter(earlier).copied().collect();
    stood_still
        .iter()
        .filter(|still| still.broker == call.broker)
        .any(|still| {
            let during = still.from <= call.received && call.received <= still.to;
            let just_after = still.to < call.received && call.received < still.to + AFTER_WAKING;
            during || (just_after && !own.iter().any(|other| still.stopped < other.closed))
        })
}

const TIMEOUT: Duration = Duration::from_millis(700);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn call(broker: u128, received: i64, closed: i64) -> Made {
    Made {
        target: (Uuid::nil(), String::new()),
        broker: Uuid::from_u128(broker),
        received: at(received),
        closed: at(closed),
        sequence: received.unsigned_abs(),
    }
}

/// Broker 1 stands still.
fn still(from: i64, to: i64) -> Standstill {
    Standstill {
        broker: Uuid::from_u128(1),
        from: at(from),
        stopped: at(from + 5),
        to: at(to),
    }
}

fn crossed(made: &[Made], stood_still: &[Standstill]) -> usize {
    crossings(made, stood_still, TIMEOUT).len()
}

#[test]
fn calls_that_are_open_at_once_cross_unless_they_are_on_different_targets() {
    let mut made = [call(1, 0, 100), call(2, 100, 200), call(2, 150, 250)];
    assert_eq!(crossed(&made, &[]), 1);
    made[2].target.1 = "another".to_owned();
    assert_eq!(crossed(&made, &[]), 0);
}

#[test]
fn a_call_that_a_standstill_has_left_open_crosses_only_while_its_lease_must_be_good() {
    let stopped = still(50, 5_000);
    let made = |other| [call(1, 0, 5_000), call(2, other, other + 10)];
    assert_eq!(crossed(&made(499), &[stopped]), 1);
    assert_eq!(crossed(&made(501), &[stopped]), 0);
}

#[test]
fn only_what_was_begun_before_a_standstill_may_cross_after_it() {
    let stopped = still(50, 5_000);
    let others = call(2, 4_900, 5_400);
    let first = call(1, 5_010, 5_100);
    assert_eq!(crossed(&[others.clone(), first.clone()], &[stopped]), 0);
    let second = call(1, 5_110, 5_200);
    let made = [others.clone(), first.clone(), second];
    assert_eq!(crossed(&made, &[stopped]), 1, "it was looked at after it");
    let made = [call(1, 0, 60), others, first];
    assert_eq!(
        crossed(&made, &[stopped]),
        1,
        "the pass was in another call when it was stopped"
    );
}
