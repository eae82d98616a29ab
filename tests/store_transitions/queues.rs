//! Which queue a target waits in, and what a lane lets through.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use aks_access_broker::domain::effect::Call;
use aks_access_broker::store::{Begun, Closing, Recorded};

use super::ALICE;
use super::bench::{Bench, SUBSCRIPTION, target_of, terms};

/// Revocations go first: a new grant does not stand in their queue because its target once was there.
#[tokio::test]
async fn a_new_grant_waits_among_the_writes_whatever_its_target_needed_last() {
    let mut bench = Bench::start().await;
    let first = bench.active(ALICE).await;
    bench.revoke(first.grant).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);

    let second = bench.grant(ALICE).await;
    let target = target_of(ALICE).to_string();
    assert_eq!(bench.ready("writes").await, std::slice::from_ref(&target));
    assert!(bench.ready("deletes").await.is_empty());
    // While a revocation is under way the target waits for either: neither is behind the other.
    bench.revoke(second.grant).await;
    assert!(bench.ready("writes").await.is_empty(), "nothing is given");
    bench.grant(ALICE).await;
    assert_eq!(bench.ready("deletes").await, std::slice::from_ref(&target));
    assert_eq!(bench.ready("writes").await, [target]);
}

/// A grant that comes during a pass is queued as a grant.
#[tokio::test]
async fn a_grant_that_comes_during_a_pass_waits_among_the_writes() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    bench.grant(ALICE).await;
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert_eq!(bench.ready("writes").await.len(), 1);
}

#[tokio::test]
async fn a_closed_lane_lets_no_call_through_that_was_claimed_before() {
    let bench = Bench::start().await;
    bench.grant(ALICE).await;
    bench.grant(2).await;
    let mut throttled = bench.pass().await;
    let mut other = bench.pass().await;
    throttled.closings.push(Closing {
        call: Call::Put,
        for_: Duration::from_mins(1),
    });
    throttled.waits.writes = Some(Duration::from_mins(1));
    assert_eq!(throttled.record(&bench).await, Recorded::Recorded);

    let Begun::Wait { wait, .. } = other.begin(&bench).await else {
        panic!("Azure said to wait");
    };
    assert!(wait > Duration::from_secs(50), "{wait:?}");
}

/// However many subscriptions there are: grants and revocations each begin with every one of them in turn.
#[tokio::test]
async fn lanes_take_turns_however_many_there_are() {
    for lanes in 1..=9_u64 {
        let bench = Bench::start().await;
        for lane in 0..lanes {
            for n in 0..u128::from(lanes) {
                let granted = bench.grant_in(lane, 2 * n).await;
                bench.revoke(granted.grant).await;
                bench.grant_in(lane, 2 * n + 1).await;
            }
        }
        let is_for_grants = |turn: &u64| turn % 8 == 7;
        let (grants, revocations): (Vec<u64>, Vec<u64>) = (0..8 * lanes).partition(is_for_grants);
        for turns in [&grants[..], &revocations[..usize::try_from(lanes).unwrap()]] {
            let mut seen = BTreeSet::new();
            for turn in turns {
                let mut terms = terms();
                terms.turn = *turn;
                let pass = bench.pass_on(&terms).await.expect("a target is ready");
                let target = pass.claimed.target.id;
                seen.insert(target.cluster.subscription());
            }
            assert_eq!(
                seen.len(),
                turns.len(),
                "of {lanes} lanes, at turns {turns:?}"
            );
        }
    }
}

/// A failover may bring a clock that is behind: what a lane was lent before it came does not starve it.
#[tokio::test]
async fn a_clock_that_goes_back_does_not_close_a_lane() {
    let mut bench = Bench::start().await;
    bench.lane.writes.per_second = NonZeroU32::new(10).unwrap();
    bench.grant(ALICE).await;
    let lane = format!("{{aab:main}}:lane:{SUBSCRIPTION}");
    let _: i64 = bench
        .ask(
            "HSET",
            &[&lane, "writes:tokens", "5", "writes:at", "99999999999999"],
        )
        .await;
    let mut pass = bench.pass_on(&terms()).await.expect("the lane is open");
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
}
