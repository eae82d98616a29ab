//! Grants that are found again by their callers' own names, and ends that move while somebody is at work.

use std::time::Duration;

use aks_access_broker::domain::effect::Answer;
use aks_access_broker::domain::grant::{Ending, Expiry, GrantState};
use aks_access_broker::domain::ids::{GrantId, JobId};
use aks_access_broker::domain::job::JobState;
use aks_access_broker::domain::naming::ExternalKey;
use aks_access_broker::domain::selector::GrantSelector;
use aks_access_broker::store::{
    Accepted, Begun, End, Expired, ListScope, Lives, NewExtension, NewGrant, Recorded,
};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::ALICE;
use super::bench::{Bench, reader, request};

const HOUR: Duration = Duration::from_hours(1);

/// What the platform calls by this name, for so long.
fn order(ttl: Duration) -> NewGrant {
    NewGrant {
        external_key: Some(ExternalKey::parse("order 66").unwrap()),
        end: End::After(ttl),
        ..reader(ALICE)
    }
}

fn extension(grant: GrantId, ttl: Duration) -> NewExtension {
    NewExtension {
        shows_job: false,
        grant,
        job: JobId::new(Uuid::now_v7()),
        request: request(),
        end: End::After(ttl),
        justification: String::new(),
        audit_event: "{}".to_owned(),
    }
}

async fn accepted(bench: &Bench, new: &NewGrant) -> (JobId, GrantId) {
    match bench.store.accept_grant(new).await.unwrap() {
        Accepted::New(job, Some(grant)) => (job, grant),
        other => panic!("{other:?}"),
    }
}

/// The last event of the audit trail.
async fn last_event(bench: &mut Bench) -> Value {
    let newest: Vec<(String, Vec<String>)> = bench
        .ask("XREVRANGE", &["{aab:main}:audit", "+", "-", "COUNT", "1"])
        .await;
    let fields = &newest[0].1;
    let event = fields.iter().position(|field| field == "event").unwrap();
    serde_json::from_str(&fields[event + 1]).unwrap()
}

/// The pass that makes the grant active has written its old end; the new one is still to be written.
#[tokio::test]
async fn i2_a_later_end_that_is_asked_for_while_the_grant_is_being_made_is_done_when_it_is_written()
{
    let mut bench = Bench::start().await;
    let first = order(HOUR);
    let (_, grant) = accepted(&bench, &first).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    let (later, same) = accepted(&bench, &order(2 * HOUR)).await;
    assert_eq!(same, grant);
    pass.all_answered();
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert_eq!(bench.grant_now(grant).await.state, GrantState::Active);

    let mut unlucky = bench.pass().await;
    assert_eq!(unlucky.steps.len(), 2, "both say the old end");
    assert_eq!(unlucky.begin(&bench).await, Begun::Begun);
    for step in unlucky.steps.clone() {
        unlucky.answered(&step, &Answer::Refused);
    }
    unlucky.waits.writes = Some(Duration::from_millis(1));
    assert_eq!(unlucky.record(&bench).await, Recorded::Recorded);
    let state = bench.job(later).await.state;
    assert!(!state.is_final(), "{state:?}, and no end is written");

    let (seconds, micros): (i64, i64) = bench.ask("TIME", &[]).await;
    let now = Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap();
    bench.until(now + Duration::from_millis(2)).await;
    assert_eq!(bench.store.wake(1).await.unwrap().looked_at, 1);
    let mut lucky = bench.pass().await;
    assert_eq!(lucky.begin(&bench).await, Begun::Begun);
    lucky.all_answered();
    assert_eq!(lucky.record(&bench).await, Recorded::Recorded);
    assert_eq!(bench.job(later).await.state, JobState::Succeeded);
}

/// I10: whoever looks for what was done to a grant finds each extension of it.
#[tokio::test]
async fn i10_an_extension_is_audited_with_its_grant_and_whose_it_is() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let new = extension(granted.grant, HOUR);
    bench.store.accept_extension(&new).await.unwrap();
    let event = last_event(&mut bench).await;
    assert_eq!(event["grant"], granted.grant.to_string());
    assert_eq!(event["cluster"], granted.target.cluster.to_string());
    assert_eq!(event["principal"], granted.target.principal.to_string());
}

#[tokio::test]
async fn i10_the_same_again_is_audited_with_the_job_that_it_was_answered() {
    let mut bench = Bench::start().await;
    let (job, grant) = accepted(&bench, &order(HOUR)).await;
    let mut again = order(HOUR / 2);
    again.audit_event = format!(
        "{{\"grant\":\"{}\",\"job\":\"{}\"}}",
        again.grant, again.job
    );
    assert_eq!(accepted(&bench, &again).await, (job, grant));
    let event = last_event(&mut bench).await;
    assert_eq!(event["grant"], grant.to_string());
    assert_eq!(event["job"], job.to_string(), "and none that there is not");
}

/// A script that fails half-way leaves what it has done: then nobody would look at the grant again.
#[tokio::test]
async fn i6_a_damaged_grant_whose_time_is_up_is_not_half_ended() {
    let mut bench = Bench::start().await;
    let mut new = reader(ALICE);
    new.end = End::At(Expiry::At(Timestamp::UNIX_EPOCH));
    bench.store.accept_grant(&new).await.unwrap();
    let key = format!("{{aab:main}}:grant:{}", new.grant);
    let _: i64 = bench.ask("HDEL", &[&key, "body"]).await;
    for _ in 0..2 {
        let job = JobId::new(Uuid::now_v7());
        let expired = bench.store.expire(new.grant, job, Timestamp::now(), "{}");
        assert!(expired.await.is_err(), "it is told each time");
        let state: String = bench.ask("HGET", &[&key, "state"]).await;
        assert_eq!(state, "PENDING");
    }
    let expiries: usize = bench.ask("ZCARD", &["{aab:main}:expiries"]).await;
    assert_eq!(expiries, 1, "it is tried again");
}

/// The lists are only an index. A grant ends even if the names of its lists cannot be read.
#[tokio::test]
async fn i6_a_grant_whose_lists_cannot_be_read_ends_all_the_same() {
    let mut bench = Bench::start().await;
    let mut new = reader(ALICE);
    new.end = End::At(Expiry::At(Timestamp::UNIX_EPOCH));
    bench.store.accept_grant(&new).await.unwrap();
    let key = format!("{{aab:main}}:grant:{}", new.grant);
    let _: i64 = bench.ask("HSET", &[&key, "lists", "no list"]).await;
    let job = JobId::new(Uuid::now_v7());
    let expired = bench.store.expire(new.grant, job, Timestamp::now(), "{}");
    assert_eq!(expired.await.unwrap(), Expired::Expired);
    let pass = bench.pass().await;
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    let ended = bench.grant_now(new.grant).await;
    assert_eq!(ended.state, GrantState::Ended(Ending::Expired));
    assert_eq!(bench.job(job).await.state, JobState::Succeeded);
    // The grant is still in the lists of live grants, but no answer calls it live.
    let all = GrantSelector::default();
    let live = bench
        .store
        .find_grants(&all, &ListScope::All, Lives::Live, None, 10);
    assert_eq!(live.await.unwrap().rows, []);
}

/// What one record says of its lists cannot be read: the others are forgotten all the same.
#[tokio::test]
async fn a_damaged_record_keeps_no_other_from_being_forgotten() {
    let mut bench = Bench::start().await;
    let [damaged, sound] = [bench.grant(ALICE).await, bench.grant(ALICE).await];
    let key = |grant: GrantId| format!("{{aab:main}}:grant:{grant}");
    let _: i64 = bench
        .ask("HSET", &[&key(damaged.grant), "lists", "no list"])
        .await;
    for (age, new) in [("1", &damaged), ("2", &sound)] {
        let member = format!("grant:{}", new.grant);
        let _: i64 = bench
            .ask("ZADD", &["{aab:main}:retired", age, &member])
            .await;
    }
    assert_eq!(bench.store.forget(1).await.unwrap(), 1, "there may be more");
    assert_eq!(bench.store.forget(1).await.unwrap(), 1);
    let kept: Vec<String> = bench.ask("KEYS", &["{aab:main}:grant:*"]).await;
    assert_eq!(kept, [key(damaged.grant)]);
    assert_eq!(bench.store.forget(1).await.unwrap(), 0, "it is put off");
}
