//! One kind of call never waits for the other (design §5.14): a bucket of a target is put off, never the whole target.

use std::time::Duration;

use aks_access_broker::domain::conclude::MOST_PUT_OFF;
use aks_access_broker::domain::effect::{Answer, Call};
use aks_access_broker::domain::grant::{Ending, GrantState};
use aks_access_broker::domain::job::JobState;
use aks_access_broker::store::{Begun, Closing, LeaseCheck, Recorded};

use super::ALICE;
use super::bench::{Bench, CALL_TIMEOUT, LEASE, SETTLE, terms};

const HOUR: Duration = Duration::from_hours(1);

/// Azure tells the PUT of a grant to wait for an hour, while a DELETE of the same target has a settle deadline.
#[tokio::test]
async fn i5_a_settle_deadline_does_not_wait_for_the_writes() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut revoking = bench.pass().await;
    assert_eq!(revoking.begin(&bench).await, Begun::Begun);
    let until = revoking.claimed.now + CALL_TIMEOUT + SETTLE;
    for step in revoking.steps.clone() {
        revoking.answered(&step, &Answer::Unknown { until });
        revoking.answered(&step, &Answer::Deleted);
    }
    assert_eq!(revoking.record(&bench).await, Recorded::Recorded);

    let mut other = super::bench::reader(ALICE);
    other.access.role = super::Role::BuiltIn(super::BuiltInRole::RbacWriter);
    bench.store.accept_grant(&other).await.unwrap();
    let mut giving = bench.pass().await;
    assert!(giving.steps.iter().all(|step| step.call() == Call::Put));
    giving.closings.push(Closing {
        call: Call::Put,
        for_: HOUR,
    });
    giving.waits.writes = Some(HOUR);
    assert_eq!(giving.record(&bench).await, Recorded::Recorded);

    let now = bench.now().await;
    let latest = now + (CALL_TIMEOUT + SETTLE).as_secs_f64() * 1_000.0;
    for bucket in ["deletes", "writes"] {
        let due = bench.due_for(bucket, ALICE).await.expect("it is looked at");
        assert!(due <= latest, "{bucket} in {} ms", due - now);
    }
}

/// Azure tells the DELETEs of a target to wait. The PUTs for another grant of the target are made all the same.
#[tokio::test]
async fn a_grant_does_not_wait_for_the_deletes_of_its_target() {
    let bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut revoking = bench.pass().await;
    revoking.closings.push(Closing {
        call: Call::Delete,
        for_: HOUR,
    });
    revoking.waits.deletes = Some(HOUR);
    assert_eq!(revoking.record(&bench).await, Recorded::Recorded);
    assert!(bench.pass_on(&terms()).await.is_none(), "it waits");

    let mut other = super::bench::reader(ALICE);
    other.access.role = super::Role::BuiltIn(super::BuiltInRole::RbacWriter);
    bench.store.accept_grant(&other).await.unwrap();
    let mut giving = bench.pass().await;
    assert!(giving.claimed.waits.deletes + LEASE > HOUR);
    assert_eq!(giving.claimed.waits.writes, Duration::ZERO);
    giving.steps.retain(|step| step.call() == Call::Put);
    assert_eq!(giving.begin(&bench).await, Begun::Begun);
    giving.all_answered();
    giving.waits.deletes = Some(giving.claimed.waits.deletes);
    assert_eq!(giving.record(&bench).await, Recorded::Recorded);
    assert_eq!(bench.job(other.job).await.state, JobState::Succeeded);
    assert!(bench.pass_on(&terms()).await.is_none(), "the DELETEs wait");
}

/// An ending of access clears all waits of its target. A new grant does not.
#[tokio::test]
async fn i5_an_ending_of_access_clears_a_backoff_and_a_grant_does_not() {
    let bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    pass.waits.writes = Some(HOUR);
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    bench.grant(ALICE).await;
    assert!(bench.pass_on(&terms()).await.is_none(), "a grant waits");
    bench.revoke(granted.grant).await;
    let pass = bench.pass().await;
    assert_eq!(pass.claimed.waits.writes, Duration::ZERO);
    assert_eq!(pass.claimed.target.failures.writes, 0);
}

/// Before a PUT, a pass checks its lease and whether the desired state has changed.
#[tokio::test]
async fn i5_a_pass_sees_that_the_desired_state_has_changed() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.short_pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    let id = pass.claimed.target.id.clone();
    let check = async |bench: &Bench| bench.store.check_lease(&id, pass.token).await.unwrap();
    let held = async |bench: &Bench| match check(bench).await {
        LeaseCheck::Held {
            has_ended, left, ..
        } => (has_ended, left),
        LeaseCheck::Lost => panic!("it is ours"),
    };
    let (has_ended, left) = held(&bench).await;
    assert!(!has_ended);
    assert!(left <= Duration::from_millis(300));
    // What comes beside it is no reason to stop: a stream of requests would keep the target from being given anything.
    bench.grant(ALICE).await;
    let (has_ended, _) = held(&bench).await;
    assert!(!has_ended);
    bench.revoke(granted.grant).await;
    let (has_ended, _) = held(&bench).await;
    assert!(has_ended);
    bench.until(pass.claimed.lease_end).await;
    assert_eq!(check(&bench).await, LeaseCheck::Lost);
}

/// A record whose answer was lost is sent again after other passes have recorded.
#[tokio::test]
async fn i10_a_record_that_is_sent_again_after_others_writes_nothing() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut first = bench.pass().await;
    assert_eq!(first.begin(&bench).await, Begun::Begun);
    first.all_answered();
    assert_eq!(first.record(&bench).await, Recorded::Recorded);
    bench.revoke(granted.grant).await;
    let mut second = bench.pass().await;
    assert_eq!(second.begin(&bench).await, Begun::Begun);
    second.all_answered();
    assert_eq!(second.record(&bench).await, Recorded::Recorded);
    let audited: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    let effects = bench.effects(ALICE).await;

    assert_eq!(first.record(&bench).await, Recorded::Recorded);
    let audited_again: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    assert_eq!(audited_again, audited);
    assert_eq!(bench.effects(ALICE).await, effects, "nothing is in doubt");
    assert_eq!(bench.due(ALICE).await, None);
}

/// Requests for the same target keep coming, one during each pass. A revocation does not wait for all of them.
#[tokio::test]
async fn i5_a_revocation_ends_even_if_requests_keep_coming() {
    let bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let _stays = bench.active(ALICE).await;
    let revoked = bench.revoke(granted.grant).await;
    for _ in 0..MOST_PUT_OFF {
        pass_while_somebody_asks(&bench).await;
        let state = bench.grant_now(granted.grant).await.state;
        assert_eq!(state, GrantState::Revoking(Ending::Revoked));
    }
    pass_while_somebody_asks(&bench).await;
    let state = bench.grant_now(granted.grant).await.state;
    assert_eq!(state, GrantState::Ended(Ending::Revoked));
    assert_eq!(bench.job(revoked.job).await.state, JobState::Succeeded);
}

async fn pass_while_somebody_asks(bench: &Bench) {
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(bench).await, Begun::Begun);
    bench.grant(ALICE).await;
    pass.all_answered();
    assert_eq!(pass.record(bench).await, Recorded::Recorded);
}
