//! Whose room a call takes.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::*;

fn stranger(n: u128) -> Caller {
    Caller::application(Uuid::nil(), Uuid::from_u128(n), Uuid::from_u128(n))
}

fn caller(n: u128, role: &str) -> Caller {
    stranger(n).with(BTreeSet::from([role.to_owned()]), BTreeSet::new(), false)
}

fn settings() -> config::Limits {
    let one = config::Rate {
        capacity: std::num::NonZeroU32::MIN,
        per_second: std::num::NonZeroU32::MIN,
    };
    config::Limits {
        grants: one,
        in_flight_per_caller: 1,
        ..config::Limits::default()
    }
}

fn limits(settings: config::Limits, calls: usize, bytes: usize) -> Arc<Limits> {
    Arc::new(Limits::new(settings, Most { calls, bytes }))
}

/// Room for one call.
fn called(limits: &Arc<Limits>, kind: Kind, caller: &Caller) -> Option<Held> {
    let taker = limits.admit(kind, caller).ok()?;
    taker.take(What::Calls, 1).ok()
}

#[test]
fn a_rate_is_a_callers_own_whatever_token_it_brings() {
    let limits = limits(settings(), 10, 10);
    let take = |caller: &Caller, kind| limits.allowance(caller).take(kind, 1).is_ok();
    assert!(take(&caller(1, "a"), Kind::Grant));
    assert!(!take(&caller(1, "b"), Kind::Grant));
    assert!(take(&caller(2, "a"), Kind::Grant));
    assert!(take(&caller(1, "a"), Kind::Revocation));
}

#[test]
fn revocations_find_room_where_nothing_else_does() {
    let few = limits(settings(), 2, 0);
    let first = called(&few, Kind::Check, &caller(1, "a")).unwrap();
    // Its share is used up, and there is room for others.
    assert!(called(&few, Kind::Check, &caller(1, "a")).is_none());
    let second = called(&few, Kind::Read, &caller(2, "a")).unwrap();
    assert!(called(&few, Kind::Check, &caller(3, "a")).is_none());
    let revocation = called(&few, Kind::Revocation, &caller(1, "a")).unwrap();
    assert!(called(&few, Kind::Revocation, &caller(2, "a")).is_none());
    drop((first, second, revocation));
    // Of a large reserve no caller has more than its part.
    let many = limits(settings(), 64, 0);
    let of_one: Vec<Held> =
        std::iter::from_fn(|| called(&many, Kind::Revocation, &caller(1, "a"))).collect();
    assert_eq!(of_one.len(), 2);
    assert!(called(&many, Kind::Revocation, &caller(2, "a")).is_some());
}

#[test]
fn callers_without_a_role_share_a_small_part_and_take_none_of_the_others() {
    let limits = limits(settings(), 32, 0);
    let strangers: Vec<Held> = (1..=32)
        .filter_map(|n| called(&limits, Kind::Check, &stranger(n)))
        .collect();
    assert_eq!(strangers.len(), 32 / SHARE_OF_STRANGERS);
    // Their revocations have a little room beside that, and take none of those who have a role, either.
    let revocation = called(&limits, Kind::Revocation, &stranger(40));
    assert!(revocation.is_some());
    assert!(called(&limits, Kind::Revocation, &stranger(41)).is_none());
    let known: Vec<Held> = (101..=132)
        .filter_map(|n| called(&limits, Kind::Check, &caller(n, "a")))
        .collect();
    assert_eq!(known.len(), 32);
}

#[test]
fn a_caller_by_certificate_is_no_stranger() {
    assert!(!Caller::certificate("spiffe://x/y").is_stranger());
    assert!(stranger(1).is_stranger());
    assert!(!caller(1, "a").is_stranger());
}

#[test]
fn bytes_are_held_as_they_grow_and_given_back_together() {
    let limits = limits(settings(), 8, 1_000);
    let taker = limits.admit(Kind::Check, &caller(1, "a")).unwrap();
    let mut held = taker.take(What::Bytes, 100).unwrap();
    held.grow_to(250).unwrap();
    assert_eq!(held.amount(), 250);
    // A quarter is one caller's.
    let refused = held.grow_to(251).unwrap_err();
    assert!(refused.message().contains("of yours"), "{refused}");
    assert_eq!(held.amount(), 250);
    drop(held);
    assert_eq!(taker.take(What::Bytes, 250).unwrap().amount(), 250);
}

#[test]
fn a_revocations_bytes_move_to_their_own_room_where_everybodys_is_full() {
    let settings = config::Limits {
        in_flight_per_caller: 8,
        ..config::Limits::default()
    };
    let limits = limits(settings, 8, 6_400);
    let others: Vec<Held> = (1..=4)
        .map(|n| {
            let taker = limits.admit(Kind::Check, &caller(n, "a")).unwrap();
            taker
                .take(What::Bytes, 1_600 - 10 * usize::from(n == 1))
                .unwrap()
        })
        .collect();
    let taker = limits.admit(Kind::Revocation, &caller(9, "a")).unwrap();
    let mut held = taker.take(What::Bytes, 10).unwrap();
    assert_eq!(held.pool, Pool::Everybody);
    held.grow_to(100).unwrap();
    assert_eq!((held.pool, held.amount()), (Pool::Revocations, 100));
    // What it held before is there for others again.
    let taker = limits.admit(Kind::Check, &caller(10, "a")).unwrap();
    assert!(taker.take(What::Bytes, 10).is_ok());
    drop((held, others));
}
