//! Loops over many rows go on past one that cannot be read (design §5.17).

use aks_access_broker::domain::grant::{Ending, Expiry, GrantState};
use aks_access_broker::domain::ids::JobId;
use aks_access_broker::domain::job::JobState;
use aks_access_broker::store::{
    Accepted, Begun, End, Expired, NewRevocation, Recorded, Revoked, StoreError,
};

use jiff::Timestamp;
use uuid::Uuid;

use super::ALICE;
use super::bench::{Bench, SUBSCRIPTION, target_of, terms};

const BOB: u128 = 2;
const CAROL: u128 = 3;

impl Bench {
    /// Something else stands where a record should.
    async fn damage(&mut self, key: &str) {
        let key = format!("{{aab:main}}:{key}");
        let _: () = self.ask("SET", &[&key, "no such thing"]).await;
    }

    /// The same where there may be something already.
    async fn damage_over(&mut self, key: &str) {
        let _: i64 = self.ask("DEL", &[&format!("{{aab:main}}:{key}")]).await;
        self.damage(key).await;
    }

    /// Goes through passes until no target is ready; how many there were.
    async fn carry_out(&self) -> usize {
        let mut passes = 0;
        while let Some(mut pass) = self.pass_on(&terms()).await {
            passes += 1;
            assert_eq!(pass.begin(self).await, Begun::Begun);
            pass.all_answered();
            assert_eq!(pass.record(self).await, Recorded::Recorded);
        }
        passes
    }
}

#[tokio::test]
async fn i6_wake_skips_unreadable_rows_and_queues_the_others() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let target = target_of(ALICE);
    // A key of another type, a member without a target, and a member of an unknown kind.
    bench.damage(&format!("target:{}", target_of(BOB))).await;
    for member in [
        format!("deletes:{}", target_of(BOB)),
        "deletes:".to_owned(),
        "gibberish".to_owned(),
        format!("lease:{target}"),
    ] {
        let _: i64 = bench.ask("ZADD", &["{aab:main}:due", "1", &member]).await;
    }
    let _: i64 = bench
        .ask(
            "ZREM",
            &[
                &format!("{{aab:main}}:ready:{SUBSCRIPTION}:writes"),
                &target.to_string(),
            ],
        )
        .await;

    bench.store.wake(10).await.unwrap();
    assert_eq!(bench.ready("writes").await, [target.to_string()]);
    let now = bench.now().await;
    for member in [
        format!("deletes:{}", target_of(BOB)),
        "gibberish".to_owned(),
    ] {
        let due: Option<f64> = bench.ask("ZSCORE", &["{aab:main}:due", &member]).await;
        let due = due.expect("it is kept until it is mended");
        assert!(due > now + 50_000.0, "and not looked at again at once");
    }
}

/// A target, one of its grants, a waiting job or a lane is damaged. The other targets are claimed all the same.
#[tokio::test]
async fn i6_claim_skips_unreadable_rows_and_takes_the_others() {
    let mut bench = Bench::start().await;
    let alices = bench.grant(ALICE).await;
    let bobs = bench.grant(BOB).await;
    let carols = bench.grant(CAROL).await;
    bench.damage(&format!("target:{}", alices.target)).await;
    bench.damage(&format!("grant:{}", bobs.grant)).await;
    bench.damage(&format!("job:{}", carols.job)).await;
    let other_lane = "22222222-2222-4222-8222-222222222222";
    bench.damage(&format!("ready:{other_lane}:deletes")).await;
    bench.damage(&format!("lane:{other_lane}")).await;
    let _: i64 = bench.ask("SADD", &["{aab:main}:lanes", other_lane]).await;

    assert_eq!(bench.carry_out().await, 1);
    assert_eq!(
        bench.grant_now(carols.grant).await.state,
        GrantState::Active,
        "a job that cannot be read is no reason not to give what was asked for"
    );
    for principal in [ALICE, BOB] {
        let due = bench.due_for("lease", principal).await;
        assert!(due.is_some_and(|due| due > 0.0), "it is tried again");
    }

    // The operator restores the row.
    let grant = format!("{{aab:main}}:grant:{}", bobs.grant);
    let _: i64 = bench.ask("DEL", &[&grant]).await;
    let _: i64 = bench
        .ask(
            "ZADD",
            &[
                "{aab:main}:due",
                "XX",
                "1",
                &format!("lease:{}", bobs.target),
            ],
        )
        .await;
    bench.store.wake(10).await.unwrap();
    assert_eq!(bench.ready("writes").await, [bobs.target.to_string()]);
}

/// A job is damaged while a pass is under way. The pass gives the grant all the same, and other jobs end.
#[tokio::test]
async fn a_pass_is_recorded_past_a_job_that_cannot_be_read() {
    let mut bench = Bench::start().await;
    let first = bench.grant(ALICE).await;
    let second = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    bench.damage(&format!("job:{}", first.job)).await;
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    for grant in [first.grant, second.grant] {
        assert_eq!(bench.grant_now(grant).await.state, GrantState::Active);
    }
    assert_eq!(bench.job(second.job).await.state, JobState::Succeeded);
}

/// Ending access is all or nothing: the script finds the damage before its first write.
#[tokio::test]
async fn i5_a_revocation_with_an_unreadable_target_leaves_nothing_half_done() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.damage(&format!("target:{}", granted.target)).await;
    let refused = bench
        .store
        .accept_revocation(&super::bench::revocation(granted.grant))
        .await;
    assert!(refused.is_err(), "{refused:?}");
    let grant = bench.grant_now(granted.grant).await;
    assert_eq!(grant.state, GrantState::Active);
    assert_eq!(grant.job, granted.job);
}

#[tokio::test]
async fn what_was_over_is_forgotten_past_what_cannot_be_read() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    bench.carry_out().await;
    bench
        .damage("grant:0190a7a0-0000-7000-8000-000000000000")
        .await;
    for member in ["grant:0190a7a0-0000-7000-8000-000000000000", "gibberish"] {
        let _: i64 = bench
            .ask("ZADD", &["{aab:main}:retired", "1", member])
            .await;
    }
    for member in [
        format!("grant:{}", granted.grant),
        format!("job:{}", granted.job),
    ] {
        let _: i64 = bench
            .ask("ZADD", &["{aab:main}:retired", "2", &member])
            .await;
    }
    bench.store.forget(10).await.unwrap();
    assert!(bench.store.grant(granted.grant).await.unwrap().is_none());
    assert!(bench.store.job(granted.job).await.unwrap().is_none());
}

/// A selector matches many grants. The script leaves the one on an unreadable target, and counts it as left.
#[tokio::test]
async fn i5_a_revocation_by_selector_skips_an_unreadable_target_and_ends_the_others() {
    let mut bench = Bench::start().await;
    let alices = bench.active(ALICE).await;
    let bobs = bench.active(BOB).await;
    bench.damage(&format!("target:{}", alices.target)).await;
    let both = NewRevocation {
        grants: Revoked::Selected(vec![alices.grant, bobs.grant]),
        ..super::bench::revocation(bobs.grant)
    };
    let accepted = bench.store.accept_revocation(&both).await.unwrap();
    assert_eq!(accepted, Accepted::New(both.job, None));
    let job = bench.job(both.job).await;
    assert_eq!((job.matched_grants, job.left_grants), (1, 1));
    let state = bench.grant_now(alices.grant).await.state;
    assert_eq!(state, GrantState::Active);
    bench.carry_out().await;
    let state = bench.grant_now(bobs.grant).await.state;
    assert_eq!(state, GrantState::Ended(Ending::Revoked));

    // If there is nothing else to end, the answer is an error, and not a job that is over.
    let alone = NewRevocation {
        grants: Revoked::Selected(vec![alices.grant]),
        ..super::bench::revocation(alices.grant)
    };
    let refused = bench.store.accept_revocation(&alone).await;
    assert!(refused.is_err(), "{refused:?}");
}

/// An error about bytes that are not text names the key, and does not look like trouble with the connection.
#[tokio::test]
async fn a_record_that_is_no_text_is_told_by_its_key() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let key = format!("{{aab:main}}:grant:{}", granted.grant);
    let mut set = redis::cmd("HSET");
    set.arg(&key).arg("body").arg(b"\xff\xfe");
    set.exec_async(&mut bench.raw).await.unwrap();
    let bobs = bench.grant(BOB).await;

    let claimed = bench.store.claim(&terms(), &bench.lane).await;
    match claimed {
        Err(StoreError::Unreadable { key: named, .. }) => assert_eq!(named, key),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.pass().await.claimed.target.id, bobs.target);
}

/// Lists are only an index: where one is none, what is in it ends all the same.
#[tokio::test]
async fn i5_i6_access_ends_whatever_has_become_of_the_lists_that_it_is_in() {
    let mut bench = Bench::start().await;
    let mut expiring = super::bench::reader(ALICE);
    expiring.end = End::At(Expiry::At(Timestamp::UNIX_EPOCH));
    bench.store.accept_grant(&expiring).await.unwrap();
    let revoked = bench.active(BOB).await;
    bench.damage_over("grants:live:all").await;

    let job = JobId::new(Uuid::now_v7());
    let now = Timestamp::now();
    let expired = bench.store.expire(expiring.grant, job, now, "{}").await;
    assert_eq!(expired.unwrap(), Expired::Expired);
    bench.revoke(revoked.grant).await;
    bench.carry_out().await;
    for (grant, ending) in [
        (expiring.grant, Ending::Expired),
        (revoked.grant, Ending::Revoked),
    ] {
        assert_eq!(
            bench.grant_now(grant).await.state,
            GrantState::Ended(ending)
        );
    }
}

/// A script that fails where it takes a target out of its queues leaves it to be looked at again.
#[tokio::test]
async fn i5_a_target_whose_other_queue_cannot_be_read_is_looked_at_again() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    bench
        .damage_over(&format!("ready:{SUBSCRIPTION}:writes"))
        .await;
    assert!(bench.pass_on(&terms()).await.is_none());
    let due = bench.due_for("lease", ALICE).await;
    assert!(due.is_some(), "nobody looks at it again");
}
