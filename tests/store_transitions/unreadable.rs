//! Rows that no broker wrote: bytes that are not text, words that are not ids, keys of another type. Each loop over
//! many rows skips what it cannot read (I6). A list for callers names the row.

use aks_access_broker::domain::grant::Expiry;
use aks_access_broker::domain::ids::GrantId;
use aks_access_broker::domain::selector::GrantSelector;
use aks_access_broker::store::{End, JobSelector, ListScope, Lives, StoreError};
use jiff::Timestamp;

use super::ALICE;
use super::bench::{Bench, reader, target_of};

const BOB: u128 = 2;
const NO_TEXT: &[u8] = b"\xff\xfe";

/// Adds a row whose bytes are no text.
async fn add(bench: &mut Bench, list: &str, score: i64, member: &[u8]) {
    let mut add = redis::cmd("ZADD");
    add.arg(format!("{{aab:main}}:{list}"))
        .arg(score)
        .arg(member);
    add.exec_async(&mut bench.raw).await.unwrap();
}

async fn set(bench: &mut Bench, key: &str, field: &str, value: &[u8]) {
    let mut set = redis::cmd("HSET");
    set.arg(key).arg(field).arg(value);
    set.exec_async(&mut bench.raw).await.unwrap();
}

fn key_of(grant: GrantId) -> String {
    format!("{{aab:main}}:grant:{grant}")
}

#[tokio::test]
async fn i6_an_expiry_without_a_grant_does_not_stop_the_others() {
    let mut bench = Bench::start().await;
    let mut new = reader(ALICE);
    new.end = End::At(Expiry::At(Timestamp::UNIX_EPOCH));
    bench.store.accept_grant(&new).await.unwrap();
    for member in [NO_TEXT, b"no grant"] {
        add(&mut bench, "expiries", -1, member).await;
    }
    let now = Timestamp::now();
    let (first, _) = bench.store.due_expiries(now, 2).await.unwrap();
    assert!(first.is_empty(), "{first:?}");
    let (then, _) = bench.store.due_expiries(now, 2).await.unwrap();
    let due: Vec<GrantId> = then.iter().map(|due| due.grant).collect();
    assert_eq!(due, [new.grant]);
}

#[tokio::test]
async fn i9_a_change_that_names_no_target_hides_no_other() {
    let mut bench = Bench::start().await;
    bench.active(ALICE).await;
    for member in [NO_TEXT, b"no target"] {
        add(&mut bench, "recent", 99_999_999_999_999, member).await;
    }
    let since = Timestamp::UNIX_EPOCH;
    let changed = bench.store.targets_changed_since(since).await.unwrap();
    assert_eq!(changed, [target_of(ALICE)]);
}

#[tokio::test]
async fn what_is_no_grant_and_no_job_keeps_no_other_from_being_forgotten() {
    let mut bench = Bench::start().await;
    let [typed, listed, sound] = [
        bench.grant(ALICE).await.grant,
        bench.grant(ALICE).await.grant,
        bench.grant(BOB).await.grant,
    ];
    let _: i64 = bench.ask("DEL", &[&key_of(typed)]).await;
    let _: String = bench.ask("SET", &[&key_of(typed), "nothing"]).await;
    set(&mut bench, &key_of(listed), "lists", b"[[1]]").await;
    let odd = [
        NO_TEXT.to_vec(),
        b"no colon".to_vec(),
        b"word:1".to_vec(),
        format!("grant:{typed}").into_bytes(),
        format!("grant:{listed}").into_bytes(),
    ];
    for member in &odd {
        add(&mut bench, "retired", 1, member).await;
    }
    let member = format!("grant:{sound}");
    add(&mut bench, "retired", 2, member.as_bytes()).await;
    assert_eq!(bench.store.forget(10).await.unwrap(), 6);
    assert_eq!(bench.store.forget(10).await.unwrap(), 0, "they are put off");
    assert_eq!(bench.store.grant(sound).await.unwrap(), None);
    let kept: usize = bench.ask("ZCARD", &["{aab:main}:retired"]).await;
    assert_eq!(kept, odd.len());
}

/// A caller would take an incomplete list for a complete one.
#[tokio::test]
async fn i9_a_list_names_the_record_that_it_cannot_read() {
    let mut bench = Bench::start().await;
    let granted = bench.grant(ALICE).await;
    let job = format!("{{aab:main}}:job:{}", granted.job);
    for (key, field) in [(&key_of(granted.grant), "body"), (&job, "state")] {
        set(&mut bench, key, field, NO_TEXT).await;
    }
    let (everything, all_jobs) = (GrantSelector::default(), JobSelector::default());
    let grants = bench
        .store
        .find_grants(&everything, &ListScope::All, Lives::Either, None, 10)
        .await
        .map(drop);
    let jobs = bench.store.find_jobs(&all_jobs, &ListScope::All, None, 10);
    let jobs = jobs.await.map(drop);
    let one = bench.store.job(granted.job).await.map(drop);
    for (outcome, named) in [(grants, &key_of(granted.grant)), (jobs, &job), (one, &job)] {
        match outcome.expect_err("it cannot be read") {
            StoreError::Unreadable { key, .. } => assert_eq!(&key, named),
            other => panic!("{other}"),
        }
    }
    let list = "{aab:main}:recent";
    let _: i64 = bench.ask("DEL", &[list]).await;
    let _: String = bench.ask("SET", &[list, "nothing"]).await;
    let read = bench.store.targets_changed_since(Timestamp::UNIX_EPOCH);
    let error = read.await.expect_err("the whole list is none");
    assert!(error.to_string().contains(list), "{error}");
}
