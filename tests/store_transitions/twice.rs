//! Every script may be sent twice: an answer that got lost says nothing about what was done.

use std::num::NonZeroU32;
use std::time::Duration;

use aks_access_broker::domain::grant::{Expiry, GrantState};
use aks_access_broker::domain::ids::JobId;
use aks_access_broker::domain::job::JobState;
use aks_access_broker::domain::naming::ExternalKey;
use aks_access_broker::store::{
    Accepted, Begun, DueExpiry, End, Expired, NewExtension, Recorded, Revoked,
};
use jiff::Timestamp;
use uuid::Uuid;

use super::ALICE;
use super::bench::{Bench, ROOM, reader, refusal_of, request, revocation, terms};

const BOB: u128 = 2;

#[tokio::test]
async fn i3_a_grant_that_is_sent_twice_is_one_grant() {
    let mut bench = Bench::start().await;
    let new = bench.grant(ALICE).await;
    let again = bench.store.accept_grant(&new).await.unwrap();
    assert_eq!(again, Accepted::Replayed(new.job, Some(new.grant)));
    let other = reader(ALICE);
    let retried = aks_access_broker::store::NewGrant {
        request: new.request.clone(),
        ..other
    };
    let again = bench.store.accept_grant(&retried).await.unwrap();
    assert_eq!(again, Accepted::Replayed(new.job, Some(new.grant)));
    let grants: Vec<String> = bench.ask("KEYS", &["{aab:main}:grant:*"]).await;
    assert_eq!(grants.len(), 1);
}

#[tokio::test]
async fn i3_a_revocation_that_is_sent_twice_is_one_job() {
    let bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let new = revocation(granted.grant);
    for expected in [
        Accepted::New(new.job, Some(granted.grant)),
        Accepted::Replayed(new.job, Some(granted.grant)),
    ] {
        let accepted = bench.store.accept_revocation(&new).await.unwrap();
        assert_eq!(accepted, expected);
    }
    assert_eq!(bench.pass().await.claimed.target.jobs.len(), 1);
}

/// A platform that repeats a request every day gets its job, however long ago it was over.
#[tokio::test]
async fn i3_a_request_that_is_repeated_keeps_its_job_and_grant_as_long_as_its_record() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let revoked = bench.revoke(granted.grant).await;
    let mut pass = bench.pass().await;
    pass.begin(&bench).await;
    pass.all_answered();
    pass.record(&bench).await;

    for (request, job) in [
        (&granted.request, granted.job),
        (&revoked.request, revoked.job),
    ] {
        let replayed = bench.store.replayed(request).await.unwrap();
        assert_eq!(replayed, Some(Accepted::Replayed(job, Some(granted.grant))));
        let record = format!("{{aab:main}}:req:platform:{}", request.id);
        let record: i64 = bench.ask("PTTL", &[&record]).await;
        let (seconds, _): (i64, i64) = bench.ask("TIME", &[]).await;
        for member in [format!("job:{job}"), format!("grant:{}", granted.grant)] {
            let retired: f64 = bench.ask("ZSCORE", &["{aab:main}:retired", &member]).await;
            let kept = retired - 1_000.0 * f64::from(u32::try_from(seconds).unwrap());
            let record = f64::from(u32::try_from(record).unwrap());
            assert!(
                kept >= record - 1_000.0,
                "{member} is kept {kept} ms, its request {record} ms"
            );
        }
    }
}

#[tokio::test]
async fn i4_a_claim_that_is_sent_twice_is_one_claim() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    bench.grant(BOB).await;
    let terms = terms();
    let first = bench.pass_on(&terms).await.expect("a target is ready");
    let second = bench.pass_on(&terms).await.expect("the same is claimed");

    assert_eq!(second.claimed.target, first.claimed.target);
    assert_eq!(second.claimed.lease_end, first.claimed.lease_end);
    assert_eq!(
        bench.ready("writes").await.len(),
        1,
        "the other one is left"
    );
}

#[tokio::test]
async fn i4_intents_that_are_sent_twice_cost_their_calls_once() {
    let mut bench = Bench::start().await;
    bench.lane.writes.capacity = NonZeroU32::new(2).unwrap();
    bench.lane.writes.per_second = NonZeroU32::new(1).unwrap();
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    bench.revoke(granted.grant).await;
    assert_eq!(
        pass.begin(&bench).await,
        Begun::Begun,
        "they were written down before the wishes changed"
    );
}

#[tokio::test]
async fn i4_a_record_that_is_sent_twice_leaves_what_it_recorded() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    pass.all_answered();
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    let audited: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    let version = bench.job(granted.job).await.version;

    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert!(
        bench
            .effects(ALICE)
            .await
            .values()
            .all(|effect| !effect.is_unsettled())
    );
    assert_eq!(bench.job(granted.job).await.version, version);
    assert_eq!(bench.due(ALICE).await, None);
    let audited_again: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    assert_eq!(audited_again, audited);
}

#[tokio::test]
async fn i4_a_lost_lease_that_is_reported_twice_is_told_once() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let late = bench.late_pass().await;
    let _other = bench.pass().await;

    assert_eq!(late.record(&bench).await, Recorded::Lost);
    let audited: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    assert_eq!(late.record(&bench).await, Recorded::Lost);
    let audited_again: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    assert_eq!(audited_again, audited);
}

#[tokio::test]
async fn i6_an_expiry_that_is_sent_twice_is_one_job() {
    let mut bench = Bench::start().await;
    let mut new = reader(ALICE);
    new.end = End::At(Expiry::At(Timestamp::UNIX_EPOCH));
    bench.store.accept_grant(&new).await.unwrap();
    let job = JobId::new(Uuid::now_v7());
    let expire = async || {
        let now = Timestamp::now();
        bench.store.expire(new.grant, job, now, "{}").await.unwrap()
    };
    assert_eq!(expire().await, Expired::Expired);
    assert_eq!(expire().await, Expired::Over);
    let pass = bench.pass().await;
    assert_eq!(
        pass.claimed.target.jobs.len(),
        2,
        "the grant's, and the expiry's"
    );
    pass.record(&bench).await;
    assert_eq!(bench.job(job).await.state, JobState::Succeeded);
    assert!(matches!(
        bench.grant_now(new.grant).await.state,
        GrantState::Ended(_)
    ));
    let expiries: usize = bench.ask("ZCARD", &["{aab:main}:expiries"]).await;
    assert_eq!(expiries, 0);
}

/// How many entries the audit log has, sealed or not.
async fn audited(bench: &mut Bench) -> usize {
    let waiting: usize = bench.ask("XLEN", &["{aab:main}:audit"]).await;
    let sealed: usize = bench.ask("XLEN", &["{aab:main}:audit:sealed"]).await;
    waiting + sealed
}

#[tokio::test]
async fn i3_i10_an_extension_that_is_sent_twice_is_one_job_and_one_event() {
    let mut bench = Bench::start().await;
    let granted = bench.ending(ALICE, Duration::from_hours(1)).await;
    let new = NewExtension {
        shows_job: false,
        grant: granted.grant,
        job: JobId::new(Uuid::now_v7()),
        request: request(),
        end: End::After(Duration::from_hours(2)),
        justification: String::new(),
        audit_event: "{}".to_owned(),
    };
    let first = bench.store.accept_extension(&new).await.unwrap();
    assert_eq!(first, Accepted::New(new.job, Some(granted.grant)));
    let end = bench.grant_now(granted.grant).await.expiry;
    let before = audited(&mut bench).await;
    let again = bench.store.accept_extension(&new).await.unwrap();
    assert_eq!(again, Accepted::Replayed(new.job, Some(granted.grant)));
    assert_eq!(bench.grant_now(granted.grant).await.expiry, end);
    assert_eq!(audited(&mut bench).await, before);
}

#[tokio::test]
async fn i3_i10_a_revocation_by_selector_that_is_sent_twice_is_one_job_and_one_event_a_grant() {
    let mut bench = Bench::start().await;
    let granted = [bench.active(ALICE).await, bench.grant(BOB).await];
    let mut new = revocation(granted[0].grant);
    new.grants = Revoked::Selected(granted.iter().map(|it| it.grant).collect());
    let first = bench.store.accept_revocation(&new).await.unwrap();
    assert_eq!(first, Accepted::New(new.job, None));
    let before = (audited(&mut bench).await, bench.job(new.job).await);
    let again = bench.store.accept_revocation(&new).await.unwrap();
    assert_eq!(again, Accepted::Replayed(new.job, None));
    assert_eq!(
        (audited(&mut bench).await, bench.job(new.job).await),
        before
    );
}

/// The caller's external key finds the existing grant. One request that is sent twice counts once.
#[tokio::test]
async fn i3_i10_a_grant_that_was_there_already_and_is_asked_for_twice_is_audited_once() {
    let mut bench = Bench::start().await;
    let order = || {
        let mut new = reader(ALICE);
        new.external_key = Some(ExternalKey::parse("order 66").unwrap());
        new
    };
    let first = order();
    bench.store.accept_grant(&first).await.unwrap();
    let same = order();
    let accepted = bench.store.accept_grant(&same).await.unwrap();
    assert_eq!(accepted, Accepted::New(first.job, Some(first.grant)));
    let before = audited(&mut bench).await;
    let again = bench.store.accept_grant(&same).await.unwrap();
    assert_eq!(again, Accepted::Replayed(first.job, Some(first.grant)));
    assert_eq!(audited(&mut bench).await, before);
}

#[tokio::test]
async fn i10_a_grant_that_ends_with_its_cluster_ends_once() {
    let mut bench = Bench::start().await;
    let old = bench.grant(ALICE).await;
    let mut new = reader(ALICE);
    new.cluster_uid = "another".to_owned();
    bench.store.accept_grant(&new).await.unwrap();
    let before = (audited(&mut bench).await, bench.job(old.job).await);
    let again = bench.store.accept_grant(&new).await.unwrap();
    assert_eq!(again, Accepted::Replayed(new.job, Some(new.grant)));
    assert_eq!(
        (audited(&mut bench).await, bench.job(old.job).await),
        before
    );
}

/// A refusal has no record besides its audit event, so only the token tells a second run that it was written.
#[tokio::test]
async fn i10_a_refusal_that_is_written_down_twice_is_one_event() {
    let mut bench = Bench::start().await;
    let refusal = refusal_of("somebody", "{}");
    let token = refusal.token;
    for _ in 0..2 {
        bench.store.write_refusal(&refusal, ROOM).await.unwrap();
    }
    assert_eq!(audited(&mut bench).await, 1);
    let another = refusal_of("somebody", "{}");
    bench.store.write_refusal(&another, ROOM).await.unwrap();
    assert_eq!(audited(&mut bench).await, 2, "another one is another event");
    let key = format!("{{aab:main}}:audit:written:{token}");
    let life: i64 = bench.ask("PTTL", &[&key]).await;
    assert!(life > 60_000, "it can be sent again: {life} ms");
}

/// A second run of `wake` finds nothing more that is due.
#[tokio::test]
async fn i5_targets_that_are_woken_twice_wait_once_and_are_claimed_once() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let dies = bench.short_pass().await;
    bench.is_given_up(&dies).await;
    assert_eq!(bench.store.wake(10).await.unwrap().looked_at, 0);
    assert_eq!(bench.ready("writes").await.len(), 1);
    let _other = bench.pass().await;
    assert_eq!(bench.store.wake(10).await.unwrap().looked_at, 0);
    assert!(bench.ready("writes").await.is_empty(), "it is leased");
}

#[tokio::test]
async fn what_is_forgotten_twice_is_forgotten_once_and_nothing_else_with_it() {
    let mut bench = Bench::start().await;
    let [over, live] = [bench.grant(ALICE).await, bench.grant(BOB).await];
    let member = format!("grant:{}", over.grant);
    let _: i64 = bench
        .ask("ZADD", &["{aab:main}:retired", "1", &member])
        .await;
    assert_eq!(bench.store.forget(10).await.unwrap(), 1);
    assert_eq!(bench.store.forget(10).await.unwrap(), 0);
    assert_eq!(bench.store.grant(over.grant).await.unwrap(), None);
    let live = bench.grant_now(live.grant).await;
    assert_eq!(live.state, GrantState::Pending);
}

/// A call that puts off an expiry runs twice. The second run never sets an earlier time than another call has set
/// since.
#[tokio::test]
async fn i6_an_expiry_that_is_put_off_twice_keeps_the_later_time() {
    let mut bench = Bench::start().await;
    let granted = bench.ending(ALICE, Duration::from_hours(1)).await;
    let end = bench.grant_now(granted.grant).await.expiry.time().unwrap();
    let due = DueExpiry {
        grant: granted.grant,
        expire_time: end,
    };
    let then = Timestamp::now();
    for _ in 0..2 {
        bench.store.put_off_expiry(&due, then).await.unwrap();
        let id = granted.grant.to_string();
        let score: f64 = bench.ask("ZSCORE", &["{aab:main}:expiries", &id]).await;
        let end = end.as_millisecond().to_string();
        assert_eq!(score.to_string(), end);
    }
}
