//! The transitions that Redis's scripts make: what each promises when its worker sleeps, dies or sends it twice.
//! Against a real Redis, one script at a time.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the Redis is every test's, and this one needs a part of it"
)]

#[path = "store_transitions/bench.rs"]
mod bench;
#[path = "store_transitions/clocks.rs"]
mod clocks;
#[path = "store_transitions/damage.rs"]
mod damage;
#[path = "store_transitions/ensured.rs"]
mod ensured;
#[path = "store_transitions/in_doubt.rs"]
mod in_doubt;
#[path = "store_transitions/kept.rs"]
mod kept;
#[path = "store_transitions/queues.rs"]
mod queues;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "store_transitions/refusals.rs"]
mod refusals;
#[path = "store_transitions/standing.rs"]
mod standing;
#[path = "store_transitions/trail.rs"]
mod trail;
#[path = "store_transitions/twice.rs"]
mod twice;
#[path = "store_transitions/unreadable.rs"]
mod unreadable;
#[path = "store_transitions/waits.rs"]
mod waits;

use aks_access_broker::domain::effect::Call;
use aks_access_broker::domain::grant::{Ending, GrantState};
use aks_access_broker::domain::job::JobState;
use aks_access_broker::domain::plan::Step;
use aks_access_broker::domain::role::{BuiltInRole, Role};
use aks_access_broker::store::{Begun, NewRevocation, Recorded, Revoked};

use bench::{Bench, CALL_TIMEOUT, LEASE, SETTLE};

const ALICE: u128 = 1;

/// A worker that sleeps through its lease, while nobody else takes the target over, finds its token in place.
#[tokio::test]
async fn i1_a_worker_that_overslept_its_lease_does_not_lose_its_target() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.short_pass().await;
    bench.until(pass.claimed.lease_end).await;

    assert_eq!(pass.begin(&bench).await, Begun::Lost);
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);

    let (due, ready) = (bench.due(ALICE).await, bench.ready("writes").await);
    assert!(
        due.is_some() || !ready.is_empty(),
        "job {} waits, and nobody looks at its target again",
        granted.job
    );
}

/// The next worker takes the dead one's calls for begun, for as long as they can take effect.
#[tokio::test]
async fn i4_intents_that_a_worker_left_are_unsettled_until_they_can_do_nothing_more() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let mut dies = bench.short_pass().await;
    assert_eq!(dies.begin(&bench).await, Begun::Begun);
    bench.is_given_up(&dies).await;

    let next = bench.pass().await;
    let effects = &next.claimed.target.effects;
    let settled = dies.claimed.lease_end + SETTLE;
    assert_eq!(effects.len(), 2);
    for effect in effects.values() {
        assert_eq!(effect.open, Some(Call::Put));
        // Counts from the lease's end. Redis's clock may have leapt ahead, so it counts at least from a call sent just
        // now.
        let deadline = effect.deadline.expect("it is not known what became of it");
        let latest = next.claimed.now + CALL_TIMEOUT + SETTLE;
        assert!(deadline >= settled && deadline <= latest, "{deadline}");
        assert_eq!(effect.put_until, Some(deadline));
    }
    assert_eq!(next.claimed.target.attempts, 2);
}

/// A worker comes late and reports while another is in the middle of a pass that would forget the same effect.
#[tokio::test]
async fn i4_what_a_late_worker_reports_is_not_forgotten_by_the_pass_that_it_crosses() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let late = bench.late_pass().await;

    let mut other = bench.pass().await;
    let mut conclusion = other.conclusion();
    conclusion.forget = other.claimed.target.effects.keys().copied().collect();
    // It knows them as settled, as it would long after.
    other.touched.clear();
    assert_eq!(late.record(&bench).await, Recorded::Lost);
    assert_eq!(
        other.record_as(&bench, &conclusion).await,
        Recorded::Recorded
    );

    let effects = bench.effects(ALICE).await;
    assert_eq!(effects.len(), 2, "the report is gone");
    assert!(effects.values().all(|effect| effect.deadline.is_some()));
    assert!(
        !bench.ready("deletes").await.is_empty() || !bench.ready("writes").await.is_empty(),
        "what the late one did is put right at once, not when its deadline is over"
    );
}

#[tokio::test]
async fn i5_a_revocation_that_comes_during_a_pass_is_carried_out_after_it() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    let revoked = bench.revoke(granted.grant).await;
    assert_eq!(bench.ready("deletes").await.len(), 0, "it is leased");
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert_eq!(
        bench.grant_now(granted.grant).await.state,
        GrantState::Revoking(Ending::Revoked),
        "a pass that saw it PENDING does not bring it back"
    );
    assert_eq!(bench.ready("deletes").await.len(), 1);

    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert_eq!(bench.job(revoked.job).await.state, JobState::Succeeded);
    assert_eq!(bench.job(granted.job).await.state, JobState::Superseded);
    assert_eq!(bench.due(ALICE).await, None);
}

/// Another caller revokes the grant, or its time is up, after the broker has read the lists and before the script runs.
#[tokio::test]
async fn i5_a_revocation_by_selector_waits_for_a_grant_that_another_caller_revokes_meanwhile() {
    let bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let first = bench.revoke(granted.grant).await;
    let second = NewRevocation {
        grants: Revoked::Selected(vec![granted.grant]),
        ..bench::revocation(granted.grant)
    };
    bench.store.accept_revocation(&second).await.unwrap();
    let job = bench.job(second.job).await;
    assert_eq!((job.state, job.matched_grants), (JobState::Queued, 0));

    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    for job in [first.job, second.job] {
        assert_eq!(bench.job(job).await.state, JobState::Succeeded);
    }
    // Once it has ended there is nothing to wait for.
    let third = NewRevocation {
        grants: Revoked::Selected(vec![granted.grant]),
        ..bench::revocation(granted.grant)
    };
    bench.store.accept_revocation(&third).await.unwrap();
    let job = bench.job(third.job).await;
    assert_eq!((job.state, job.total_targets), (JobState::Succeeded, 0));
}

/// Another cluster under the same id: what waited for the old one is over, and its backoff with it.
#[tokio::test]
async fn a_grant_on_another_cluster_under_the_same_id_ends_the_old_ones_and_waits_for_nothing() {
    let mut bench = Bench::start().await;
    let old = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    pass.waits.writes = Some(LEASE);
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert!(bench.ready("writes").await.is_empty(), "it backs off");

    let mut new = bench::reader(ALICE);
    new.cluster_uid = "another".to_owned();
    bench.store.accept_grant(&new).await.unwrap();
    let ended = bench.grant_now(old.grant).await;
    assert_eq!(ended.state, GrantState::Ended(Ending::Revoked));
    assert_eq!(
        ended.last_error.expect("it says why").reason,
        "CLUSTER_GONE"
    );
    assert_eq!(bench.job(old.job).await.state, JobState::Superseded);
    assert_eq!(bench.ready("writes").await.len(), 1);
    let audited: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    assert_eq!(audited, 3, "two grants accepted, one ended");
}

/// What a call did is not forgotten with the cluster: by the same id, it may have met the new one.
#[tokio::test]
async fn i4_effects_are_put_right_on_another_cluster_under_the_same_id() {
    let bench = Bench::start().await;
    bench.active(ALICE).await;
    bench.grant(ALICE).await;
    let mut crossed = bench.pass().await;
    crossed.steps = crossed.puts_again();
    assert_eq!(crossed.begin(&bench).await, Begun::Begun);

    let mut new = bench::reader(ALICE);
    new.access.role = Role::BuiltIn(BuiltInRole::RbacWriter);
    new.cluster_uid = "another".to_owned();
    bench.store.accept_grant(&new).await.unwrap();
    let pass = bench.pass().await;
    let effects = &pass.claimed.target.effects;
    assert_eq!(effects.len(), 2, "both of the old ones");
    for effect in effects.values() {
        assert_eq!(effect.open, Some(Call::Put));
        assert_eq!(effect.deadline, Some(crossed.claimed.lease_end + SETTLE));
    }
    let calls: Vec<Call> = pass.steps.iter().map(Step::call).collect();
    assert_eq!(calls, [Call::Delete, Call::Put, Call::Put]);
}

/// A replica that has not heard yet of the new cluster takes it for another one; it is the older.
#[tokio::test]
async fn i1_a_replica_that_remembers_the_old_cluster_does_not_end_the_new_ones_grants() {
    let bench = Bench::start().await;
    bench.grant(ALICE).await;
    let mut new = bench::reader(ALICE);
    new.cluster_uid = "another".to_owned();
    bench.store.accept_grant(&new).await.unwrap();
    let late = bench.grant(ALICE).await;

    for grant in [new.grant, late.grant] {
        assert_eq!(bench.grant_now(grant).await.state, GrantState::Pending);
    }
}
