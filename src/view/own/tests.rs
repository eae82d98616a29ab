//! What our own record changes about what Azure's lists say.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::*;
use crate::domain::effect::{Call, Known};
use crate::domain::ids::{InstanceId, Scope};
use crate::domain::ownership::assignment_name;
use crate::domain::role::BuiltInRole;

const ME: PrincipalId = PrincipalId::new(Uuid::from_u128(7));
const LAG: SignedDuration = SignedDuration::from_mins(10);

fn cluster() -> ClusterId {
    ClusterId::parse(
        "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/\
         Microsoft.ContainerService/managedClusters/prod",
    )
    .unwrap()
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn effect(known: Known, changed: i64) -> Effect {
    let at = RoleAtScope {
        role: BuiltInRole::ClusterUser.id(),
        scope: Scope::Cluster(cluster()),
    };
    let name = assignment_name(InstanceId::new(Uuid::from_u128(9)), &at, ME, 0);
    Effect {
        known,
        ..Effect::untouched(name, at, 0, second(changed))
    }
}

fn record(uid: &str, effects: impl IntoIterator<Item = Effect>) -> TargetRecord {
    TargetRecord {
        now: second(0),
        cluster_uid: uid.to_owned(),
        earlier_uids: BTreeSet::new(),
        effects: effects
            .into_iter()
            .map(|effect| (effect.name, effect))
            .collect(),
    }
}

/// What is laid over a list of cluster `uid` that was read at that second: how many are there, how many are not.
fn laid_over(own: &Own, uid: &str, read: i64) -> (usize, usize) {
    let known = own.of(&cluster()).unwrap();
    let changes = known.changes(uid, second(read), LAG);
    (changes.present.len(), changes.absent.len())
}

fn own(records: impl IntoIterator<Item = TargetRecord>) -> Own {
    let own = Own::new(LAG, SignedDuration::from_mins(10));
    let target = TargetId {
        cluster: cluster(),
        principal: ME,
    };
    for record in records {
        own.put(&target, &record);
    }
    own
}

#[test]
fn within_the_lag_our_own_record_beats_the_list_and_after_it_the_list_beats_us() {
    let there = own([record("uid", [effect(Known::Present, 1_000)])]);
    let gone = own([record("uid", [effect(Known::Absent, 1_000)])]);
    // It counts when the list was read, not when somebody asks.
    for (read, counts) in [(900, 1), (1_000, 1), (1_599, 1), (1_600, 0)] {
        assert_eq!(laid_over(&there, "uid", read), (counts, 0), "{read}");
        assert_eq!(laid_over(&gone, "uid", read), (0, counts), "{read}");
    }
}

#[test]
fn on_a_cluster_that_took_the_place_of_another_nothing_of_the_old_one_is_there() {
    let there = own([record("old", [effect(Known::Present, 1_000)])]);
    let gone = own([record("old", [effect(Known::Absent, 1_000)])]);
    for (uid, expected) in [("old", 1), ("new", 0), ("", 1)] {
        assert_eq!(laid_over(&there, uid, 1_000), (expected, 0), "{uid:?}");
        assert_eq!(laid_over(&gone, uid, 1_000), (0, 1), "{uid:?}");
    }
}

#[test]
fn a_version_is_never_taken_back() {
    let long_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let old = Effect {
        changed: long_ago,
        ..effect(Known::Absent, 0)
    };
    let own = own([record("uid", [old])]);
    let clock = Clock {
        at: Instant::now(),
        time: Timestamp::now(),
    };
    own.0.clock.store(Arc::new(Some(clock)));
    let before = own.of(&cluster()).unwrap().version;
    own.tidy();
    let tidied = own.of(&cluster()).unwrap();
    assert!(tidied.targets.is_empty());
    assert_eq!(tidied.version, before);
}

#[test]
fn what_cannot_be_read_is_a_problem_until_it_can() {
    let own = own([]);
    let problem = StoreError::Unreadable {
        key: "target".to_owned(),
        problem: "of a newer format".to_owned(),
    };
    own.change(&cluster(), |cluster| {
        cluster.unreadable.insert(ME, Arc::new(problem));
    });
    assert!(own.of(&cluster()).unwrap().problem().is_some());
    let target = TargetId {
        cluster: cluster(),
        principal: ME,
    };
    own.put(&target, &record("uid", []));
    assert!(own.of(&cluster()).unwrap().problem().is_none());
}

#[test]
fn what_is_not_settled_is_nobodys_word() {
    for unsettled in [
        Effect {
            open: Some(Call::Delete),
            ..effect(Known::Present, 1_000)
        },
        Effect {
            deadline: Some(second(2_000)),
            may_be_gone: true,
            ..effect(Known::Present, 1_000)
        },
        effect(Known::NameRefused, 1_000),
    ] {
        let own = own([record("uid", [unsettled])]);
        assert_eq!(laid_over(&own, "uid", 1_000), (0, 0));
    }
}

/// However a PUT ends, what stood stands; after a DELETE nobody knows.
#[test]
fn what_stood_stands_while_it_is_written_again_and_what_was_gone_is_gone() {
    let written_again = Effect {
        open: Some(Call::Put),
        deadline: Some(second(2_000)),
        ..effect(Known::Present, 1_000)
    };
    let in_doubt = Effect {
        may_be_gone: true,
        ..written_again.clone()
    };
    let given_again = Effect {
        open: Some(Call::Put),
        stood: true,
        ..effect(Known::Absent, 1_000)
    };
    let never_there = Effect {
        open: Some(Call::Put),
        put_until: Some(second(900)),
        ..effect(Known::Absent, 1_000)
    };
    for (effect, expected) in [
        (written_again, (1, 0)),
        (in_doubt, (0, 0)),
        (given_again, (0, 1)),
        (never_there, (0, 0)),
    ] {
        let own = own([record("uid", [effect])]);
        assert_eq!(laid_over(&own, "uid", 1_000), expected);
    }
}

/// A list that was read after an assignment was made, and before its end was moved, tells of the old end.
#[test]
fn an_end_that_was_moved_is_ours_to_tell_as_long_as_a_list_may_not_show_it() {
    let moved = Effect {
        rewritten: Some(second(5_000)),
        holder_kind: Some(PrincipalType::Group),
        ..effect(Known::Present, 1_000)
    };
    let own = own([record("uid", [moved])]);
    for (read, expected) in [(5_000, (1, 0)), (5_599, (1, 0)), (5_600, (0, 0))] {
        assert_eq!(laid_over(&own, "uid", read), expected, "{read}");
    }
    let known = own.of(&cluster()).unwrap();
    let changes = known.changes("uid", second(5_000), LAG);
    assert_eq!(changes.present[0].holder_kind, Some(PrincipalType::Group));
}

#[test]
fn what_the_record_forgets_is_remembered_while_an_older_list_may_show_it() {
    let gone = record("uid", [effect(Known::Absent, 1_000)]);
    let known = own([gone.clone(), record("uid", [])]);
    assert_eq!(laid_over(&known, "uid", 1_000), (0, 1));
    // It is gone under another cluster's id all the more, and what is there again is there.
    let known = own([gone.clone(), record("new", [])]);
    assert_eq!(laid_over(&known, "new", 1_000), (0, 1));
    let known = own([gone, record("uid", [effect(Known::Present, 1_100)])]);
    assert_eq!(laid_over(&known, "uid", 1_100), (1, 0));
}

#[test]
fn each_change_has_a_later_version() {
    let own = own([record("uid", [effect(Known::Present, 1_000)])]);
    let before = own.of(&cluster()).unwrap().version;
    let target = TargetId {
        cluster: cluster(),
        principal: ME,
    };
    own.put(&target, &record("uid", []));
    assert!(own.of(&cluster()).unwrap().version > before);
}

#[test]
fn the_clock_that_says_most_is_believed_for_a_while() {
    let start = Instant::now();
    let after = |seconds: u64| start + Duration::from_secs(seconds);
    let clock = |at: Instant, time: i64| Clock {
        at,
        time: second(time),
    };
    let known = clock(start, 1_000);
    for (told, expected, has_jumped) in [
        // Its answer took two seconds to get here, and the next one none.
        (clock(after(10), 1_008), second(1_010), false),
        (clock(after(10), 1_010), second(1_010), false),
        (clock(after(10), 1_011), second(1_011), false),
        // What was known is too old to say better.
        (clock(after(40), 1_038), second(1_038), false),
        // The machine slept for an hour.
        (clock(after(10), 4_610), second(4_610), true),
    ] {
        let (clock, jumped) = known.or_later(told);
        assert_eq!(clock.then(told.at), Some(expected), "{told:?}");
        assert_eq!(jumped, has_jumped, "{told:?}");
    }
}
