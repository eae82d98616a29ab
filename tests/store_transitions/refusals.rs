//! Refusals have a share of the audit log, and what has no room in it is counted: none is lost, and none pushes out what was
//! done.

use aks_access_broker::store::RefusalBounds;
use serde_json::Value;

use super::bench::{Bench, RETENTION, refusal_of};

const EVENT: &str = r#"{"actor":"x","action":"Grant","outcome":"REFUSED"}"#;
const FIVE_A_MINUTE: RefusalBounds = RefusalBounds {
    per_minute: 5,
    share: 1_000,
    over: RETENTION,
};
/// A bucket of ten.
const TWENTY_IN_ALL: RefusalBounds = RefusalBounds {
    per_minute: 5,
    share: 20,
    over: RETENTION,
};

/// The refusals that are events, and each count that was told: of whom, and how many.
async fn told(bench: &mut Bench) -> (usize, Vec<(String, u64)>) {
    let entries: Vec<(String, Vec<String>)> =
        bench.ask("XRANGE", &["{aab:main}:audit", "-", "+"]).await;
    let (mut refused, mut counted) = (0, Vec::new());
    for (_, fields) in entries {
        let at = fields.iter().position(|it| it == "event").unwrap();
        let event: Value = serde_json::from_str(&fields[at + 1]).unwrap();
        if event["action"] == "audit/refusals" {
            assert_eq!(event["outcome"], "REFUSED");
            let many = event["details"]["refused"].as_str().unwrap();
            let actor = event["actor"].as_str().unwrap();
            counted.push((actor.to_owned(), many.parse().unwrap()));
        } else {
            refused += 1;
        }
    }
    counted.sort();
    (refused, counted)
}

/// Lets the minutes of all callers be over, and tells what was counted.
async fn a_minute_later(bench: &mut Bench, bounds: RefusalBounds) {
    let key = "{aab:main}:audit:counts";
    let callers: Vec<String> = bench.ask("ZRANGE", &[key, "0", "-1"]).await;
    for caller in callers {
        let _: u8 = bench.ask("ZADD", &[key, "1", &caller]).await;
    }
    bench.store.tell_counted_refusals(bounds).await.unwrap();
}

#[tokio::test]
async fn i10_beyond_so_many_a_minute_a_callers_refusals_are_one_event_that_counts_them() {
    let mut bench = Bench::start().await;
    for caller in ["one", "two"] {
        for _ in 0..12 {
            let refusal = refusal_of(caller, EVENT);
            // Sent twice, because the answer was lost: written or counted once.
            for _ in 0..2 {
                let written = bench.store.write_refusal(&refusal, FIVE_A_MINUTE).await;
                written.unwrap();
            }
        }
    }
    assert_eq!(told(&mut bench).await, (10, Vec::new()));
    bench
        .store
        .tell_counted_refusals(FIVE_A_MINUTE)
        .await
        .unwrap();
    assert_eq!(told(&mut bench).await.1, [], "the minute is not over");
    a_minute_later(&mut bench, FIVE_A_MINUTE).await;
    let counts = vec![("one".to_owned(), 7), ("two".to_owned(), 7)];
    assert_eq!(told(&mut bench).await, (10, counts.clone()));
    // The next minute begins anew, and nothing is told twice.
    a_minute_later(&mut bench, FIVE_A_MINUTE).await;
    let refusal = refusal_of("one", EVENT);
    bench
        .store
        .write_refusal(&refusal, FIVE_A_MINUTE)
        .await
        .unwrap();
    assert_eq!(told(&mut bench).await, (11, counts));
}

/// However many callers there are.
#[tokio::test]
async fn i10_refusals_of_all_callers_have_one_share_and_each_is_counted() {
    let mut bench = Bench::start().await;
    for caller in 0..40 {
        for _ in 0..3 {
            let refusal = refusal_of(&format!("caller {caller}"), EVENT);
            let written = bench.store.write_refusal(&refusal, TWENTY_IN_ALL).await;
            written.unwrap();
        }
    }
    a_minute_later(&mut bench, TWENTY_IN_ALL).await;
    a_minute_later(&mut bench, TWENTY_IN_ALL).await;
    let (refused, counted) = told(&mut bench).await;
    assert_eq!(refused, 10);
    assert_eq!(counted, [("aks-access-broker".to_owned(), 110)]);
    let left: Vec<String> = bench.ask("KEYS", &["{aab:main}:audit:refused:*"]).await;
    assert_eq!(left, Vec::<String>::new());
}

/// After a failover to a clock that is behind, no count waits for the difference.
#[tokio::test]
async fn i10_a_count_from_a_clock_that_was_ahead_is_told() {
    let mut bench = Bench::start().await;
    for _ in 0..6 {
        let refusal = refusal_of("one", EVENT);
        bench
            .store
            .write_refusal(&refusal, FIVE_A_MINUTE)
            .await
            .unwrap();
    }
    let later = (jiff::Timestamp::now().as_millisecond() + 3_600_000).to_string();
    let _: u8 = bench
        .ask("ZADD", &["{aab:main}:audit:counts", &later, "one"])
        .await;
    bench
        .store
        .tell_counted_refusals(FIVE_A_MINUTE)
        .await
        .unwrap();
    assert_eq!(told(&mut bench).await, (5, vec![("one".to_owned(), 1)]));
}
