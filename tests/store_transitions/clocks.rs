//! No stored time is believed beyond what it can be (design §5.15): after a failover Redis's clock may be behind, or
//! ahead.
//!
//! These tests move all stored times ten minutes ahead. That has the same effect as a clock that has gone back by ten
//! minutes.

use std::time::Duration;

use aks_access_broker::domain::effect::{Answer, Call};
use aks_access_broker::domain::grant::{Ending, GrantState};
use aks_access_broker::domain::job::JobState;
use aks_access_broker::store::{Begun, Closing, Recorded};
use jiff::Timestamp;

use super::ALICE;
use super::bench::{Bench, CALL_TIMEOUT, LAG, LEASE, Pass, SETTLE, SUBSCRIPTION, target_of};

/// Longer than any stored wait.
const BACK: i64 = 10 * 60 * 1_000;

impl Bench {
    /// Redis's clock goes back.
    async fn clock_goes_back(&mut self) {
        // The clock of a process has looked before.
        self.store.wake(0).await.unwrap();
        let target = format!("{{aab:main}}:target:{}", target_of(ALICE));
        let lane = format!("{{aab:main}}:lane:{SUBSCRIPTION}");
        let seen: String = self.ask("GET", &["{aab:main}:clock"]).await;
        let seen = (seen.parse::<i64>().unwrap() + BACK).to_string();
        let _: () = self.ask("SET", &["{aab:main}:clock", &seen]).await;
        for key in [&target, &lane] {
            let fields: Vec<(String, String)> = self.ask("HGETALL", &[key]).await;
            for (field, value) in fields {
                if let Some(later) = later(&field, &value) {
                    let _: i64 = self.ask("HSET", &[key, &field, &later]).await;
                }
            }
        }
        let due: Vec<(String, f64)> = self
            .ask("ZRANGE", &["{aab:main}:due", "0", "-1", "WITHSCORES"])
            .await;
        for (member, _) in due {
            let by = BACK.to_string();
            let _: f64 = self.ask("ZINCRBY", &["{aab:main}:due", &by, &member]).await;
        }
    }
}

/// A stored time as a clock that has gone back sees it; `None` if the value is not a time.
fn later(field: &str, value: &str) -> Option<String> {
    let moved = |time: &str| Some((time.parse::<i64>().ok()? + BACK).to_string());
    let is_wait = field == "pause" || field.ends_with(":closed") || field.starts_with("w:");
    let is_time = field == "lease_end"
        || field.ends_with(":at")
        || field.starts_with("d:")
        || field.starts_with("p:");
    if is_wait {
        let (end, length) = value.split_once(' ')?;
        return Some(format!("{} {length}", moved(end)?));
    }
    is_time.then(|| moved(value)).flatten()
}

/// A worker that was lost before a failover holds its target no longer than a lease.
#[tokio::test]
async fn i5_a_lease_that_ends_later_than_its_length_does_not_hold() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut lost = bench.pass().await;
    assert_eq!(lost.begin(&bench).await, Begun::Begun);
    bench.clock_goes_back().await;
    assert_eq!(
        lost.begin(&bench).await,
        Begun::Lost,
        "it begins nothing that another may be at"
    );

    let woken = bench.store.wake(10).await.unwrap();
    let back = u64::try_from(BACK).unwrap();
    assert!(woken.clock_went_back >= Duration::from_millis(back - 5_000));
    // A caller revokes again, and no worker has the target.
    bench.revoke(granted.grant).await;
    let next = bench.pass().await;
    let latest = next.claimed.now + LEASE + CALL_TIMEOUT + SETTLE;
    for effect in next.claimed.target.effects.values() {
        assert_eq!(effect.open, Some(Call::Delete));
        assert!(effect.deadline.expect("it is open") <= latest);
    }
}

#[tokio::test]
async fn i5_due_times_move_with_the_clock() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    refused(&mut pass);
    pass.waits.deletes = Some(Duration::from_secs(30));
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    bench.clock_goes_back().await;

    bench.store.wake(10).await.unwrap();
    let now = bench.now().await;
    let due = bench.due(ALICE).await.expect("it is tried again");
    assert!(due <= now + 31_000.0, "in {} ms", due - now);
}

/// A grant whose PUT was told to wait, and a lane that was told so: neither waits for the difference.
#[tokio::test]
async fn waits_that_are_longer_than_they_were_told_are_over() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    let minute = Duration::from_mins(1);
    pass.closings.push(Closing {
        call: Call::Put,
        for_: minute,
    });
    pass.waits.writes = Some(minute);
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    assert!(
        bench.pass_on(&super::bench::terms()).await.is_none(),
        "it waits"
    );
    bench.clock_goes_back().await;

    // A caller that asks again does not wait for the rest.
    bench.grant(ALICE).await;
    let mut next = bench.pass().await;
    assert_eq!(next.claimed.waits.writes, Duration::ZERO);
    assert_eq!(next.begin(&bench).await, Begun::Begun, "the lane is open");
}

/// A budget that was used up by the earlier clock would not refill until the present clock has caught up.
#[tokio::test]
async fn a_bucket_that_was_emptied_ahead_of_now_is_full() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let lane = format!("{{aab:main}}:lane:{SUBSCRIPTION}");
    let ahead = (bench.now().await + 600_000.0).to_string();
    let _: i64 = bench
        .ask("HSET", &[&lane, "writes:tokens", "0", "writes:at", &ahead])
        .await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
}

/// After the clock has gone back, a deadline is cut to the latest time that is possible. So the revocation ends.
#[tokio::test]
async fn i5_a_settle_deadline_is_cut_to_the_latest_possible_time() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    unanswered(&mut pass);
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    // The pass that crosses the failover has loaded the old deadlines, and touches nothing.
    bench.revoke(granted.grant).await;
    let crossing = bench.pass().await;
    bench.clock_goes_back().await;
    assert_eq!(crossing.record(&bench).await, Recorded::Recorded);

    let now = bench.now().await;
    let latest = now + (LEASE + CALL_TIMEOUT + SETTLE).as_secs_f64() * 1_000.0;
    let due = bench.due(ALICE).await;
    assert!(due.is_none_or(|due| due <= latest), "{due:?}");
    let next = bench.pass().await;
    for effect in next.claimed.target.effects.values() {
        let deadline = effect.deadline.expect("it is open");
        assert!(deadline <= next.claimed.now + LEASE + CALL_TIMEOUT + SETTLE);
    }
}

/// A worker's time is behind if it was suspended, or if Redis's clock has leapt ahead. The deadline that it gives a
/// call without an answer may then have passed already.
#[tokio::test]
async fn i4_a_call_without_an_answer_gets_the_settle_time_even_if_its_workers_clock_is_behind() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    for step in pass.steps.clone() {
        let until = Timestamp::UNIX_EPOCH;
        pass.answered(&step, &Answer::Unknown { until });
    }
    let before = bench.now().await;
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    let settled = before + SETTLE.as_secs_f64() * 1_000.0;
    for effect in bench.effects(ALICE).await.values() {
        for time in [effect.deadline, effect.put_until] {
            let time = time.expect("it may be under way still");
            assert!(
                f64::from(i32::try_from(time.as_millisecond() / 1_000).unwrap()) * 1_000.0
                    >= settled - 1_000.0
            );
        }
    }

    // So a revocation is not over before that.
    bench.revoke(granted.grant).await;
    let mut revoking = bench.pass().await;
    assert_eq!(revoking.begin(&bench).await, Begun::Begun);
    revoking.all_answered();
    assert_eq!(revoking.record(&bench).await, Recorded::Recorded);
    let state = bench.grant_now(granted.grant).await.state;
    assert_eq!(state, GrantState::Revoking(Ending::Revoked));
    assert_eq!(bench.job(granted.job).await.state, JobState::Running);
}

/// A deadline that was set since the claim stays, whatever the pass concludes from the deadlines that it has loaded.
#[tokio::test]
async fn i4_a_pass_does_not_clear_a_deadline_that_was_set_since_its_claim() {
    let mut bench = Bench::start().await;
    bench.grant(ALICE).await;
    let late = bench.late_pass().await;
    let mut other = bench.pass().await;
    // By a clock that is far ahead, all deadlines that the pass has loaded are over.
    other.claimed.now = other.claimed.now + LAG + SETTLE + LEASE;
    other.steps = other.puts_again();
    assert_eq!(other.begin(&bench).await, Begun::Begun);
    other.all_answered();
    assert_eq!(late.record(&bench).await, Recorded::Lost);
    assert_eq!(other.record(&bench).await, Recorded::Recorded);
    for effect in bench.effects(ALICE).await.values() {
        assert!(
            effect.deadline.is_some(),
            "the late worker's call is forgotten"
        );
    }
}

fn refused(pass: &mut Pass) {
    for step in pass.steps.clone() {
        pass.answered(&step, &Answer::Refused);
    }
}

/// None of its calls is answered.
fn unanswered(pass: &mut Pass) {
    let until = pass.claimed.now + CALL_TIMEOUT + SETTLE;
    for step in pass.steps.clone() {
        pass.answered(&step, &Answer::Unknown { until });
    }
}

/// Of two replicas one may have a shorter settle time, while settings change: what the other waits for stays.
#[tokio::test]
async fn i4_a_settle_deadline_is_not_cut_by_a_replica_with_a_shorter_settle_time() {
    let bench = Bench::start().await;
    bench.active(ALICE).await;
    bench.grant(ALICE).await;
    let mut unlucky = bench.pass().await;
    unlucky.steps = unlucky.puts_again();
    assert_eq!(unlucky.begin(&bench).await, Begun::Begun);
    unanswered(&mut unlucky);
    assert_eq!(unlucky.record(&bench).await, Recorded::Recorded);
    let before: Vec<_> = deadlines(&bench).await;

    for _ in 0..2 {
        let mut hasty = super::bench::terms();
        hasty.settle = Duration::from_secs(1);
        hasty.lease = Duration::from_secs(1);
        bench.grant(ALICE).await;
        let pass = bench.pass_on(&hasty).await.expect("a target is ready");
        assert_eq!(
            pass.record_with(&bench, hasty.settle).await,
            Recorded::Recorded
        );
    }
    assert_eq!(deadlines(&bench).await, before);
}

async fn deadlines(bench: &Bench) -> Vec<Timestamp> {
    let effects = bench.effects(ALICE).await;
    let deadlines = effects.values().filter_map(|effect| effect.deadline);
    deadlines.collect()
}
