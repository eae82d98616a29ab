//! A Redis that was emptied or replaced under a running process: no call reads from it or writes to it (I6, I7).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use aks_access_broker::domain::effect::PerCall;
use aks_access_broker::domain::grant::Expiry;
use aks_access_broker::domain::ids::{JobId, LeaseToken};
use aks_access_broker::domain::selector::GrantSelector;
use aks_access_broker::domain::settle_clock::SettledTime;
use aks_access_broker::store::{
    Change, Changes, DueExpiry, End, JobSelector, Keep, ListScope, Lives, NewExtension, NewGrant,
    PassRecord, Revoked, SealHead, SetAside, StoreError,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ALICE;
use super::bench::{
    Bench, LAG, LEASE, Pass, ROOM, SETTLE, reader, refusal_of, request, revocation, target_of,
    terms,
};

const HOUR: Duration = Duration::from_hours(1);
const META: &str = "{aab:main}:meta";

/// What was called, and what came of it.
type Called = Vec<(&'static str, Result<(), StoreError>)>;

/// Calls every method of the store, in an order in which a sound store answers each.
async fn call_everything(bench: &Bench, granted: &NewGrant, pass: &Pass) -> Called {
    let mut called = accept_everything(bench, granted).await;
    called.extend(pass_through_everything(bench, pass).await);
    called.extend(read_everything(bench, granted).await);
    called.extend(write_the_trail(bench).await);
    called
}

async fn accept_everything(bench: &Bench, granted: &NewGrant) -> Called {
    let store = &bench.store;
    let extension = NewExtension {
        shows_job: false,
        grant: granted.grant,
        job: JobId::new(Uuid::now_v7()),
        request: request(),
        end: End::After(HOUR),
        justification: String::new(),
        audit_event: "{}".to_owned(),
    };
    let mut selected = revocation(granted.grant);
    selected.grants = Revoked::Selected(Vec::new());
    vec![
        ("replayed", store.replayed(&request()).await.map(drop)),
        (
            "accept_grant",
            store.accept_grant(&reader(ALICE)).await.map(drop),
        ),
        (
            "accept_extension",
            store.accept_extension(&extension).await.map(drop),
        ),
        (
            "accept_revocation",
            store.accept_revocation(&selected).await.map(drop),
        ),
    ]
}

async fn pass_through_everything(bench: &Bench, pass: &Pass) -> Called {
    let (store, target) = (&bench.store, &pass.claimed.target);
    let conclusion = pass.conclusion();
    let record = PassRecord {
        target: &target.id,
        token: pass.token,
        generation: target.generation,
        claimed: pass.claimed.now,
        effects: &[],
        conclusion: &conclusion,
        clock: SettledTime {
            now: pass.claimed.now,
            behind: Duration::ZERO,
            caught_up: pass.claimed.now,
        },
        open: &[],
        looks: PerCall::default(),
        again: true,
        lease: LEASE,
        closings: &[],
        remaining: &[],
        settle: SETTLE,
        lag: LAG,
        audit_events: vec!["{}".to_owned()],
        grant_events: std::collections::HashMap::new(),
        lost_event: "{}".to_owned(),
    };
    let now = Timestamp::now();
    let due = DueExpiry {
        grant: pass.claimed.target.grants[0].id,
        expire_time: now,
    };
    let job = JobId::new(Uuid::now_v7());
    vec![
        (
            "begin",
            store
                .begin(target, pass.token, &[], &bench.lane)
                .await
                .map(drop),
        ),
        (
            "check_lease",
            store.check_lease(&target.id, pass.token).await.map(drop),
        ),
        (
            "renew",
            store.renew(&target.id, pass.token, LEASE).await.map(drop),
        ),
        ("record", store.record(&record).await.map(drop)),
        ("wake", store.wake(10).await.map(drop)),
        ("claim", store.claim(&terms(), &bench.lane).await.map(drop)),
        ("forget", store.forget(10).await.map(drop)),
        ("due_expiries", store.due_expiries(now, 10).await.map(drop)),
        ("put_off_expiry", store.put_off_expiry(&due, now).await),
        (
            "expire",
            store.expire(due.grant, job, now, "{}").await.map(drop),
        ),
    ]
}

async fn read_everything(bench: &Bench, granted: &NewGrant) -> Called {
    let store = &bench.store;
    let everything = GrantSelector::default();
    let by_request = JobSelector {
        request: Some(("platform".to_owned(), granted.request.id)),
        ..JobSelector::default()
    };
    let past = Timestamp::UNIX_EPOCH;
    vec![
        ("grant", store.grant(granted.grant).await.map(drop)),
        ("job", store.job(granted.job).await.map(drop)),
        (
            "job_targets",
            store.job_targets(granted.job, None, 10).await.map(drop),
        ),
        ("target", store.target(&target_of(ALICE)).await.map(drop)),
        (
            "find_grants",
            store
                .find_grants(&everything, &ListScope::All, Lives::Either, None, 10)
                .await
                .map(drop),
        ),
        (
            "find_each_grant",
            store
                .find_each_grant(&everything, &ListScope::All, Lives::Either, None, 10)
                .await
                .map(drop),
        ),
        (
            "find_jobs",
            store
                .find_jobs(&by_request, &ListScope::All, None, 10)
                .await
                .map(drop),
        ),
        ("newest_change", store.newest_change().await.map(drop)),
        (
            "targets_changed_since",
            store.targets_changed_since(past).await.map(drop),
        ),
        ("time", store.time().await.map(drop)),
        (
            "sealed_behind",
            store.sealed_behind(None, 10).await.map(drop),
        ),
        ("trail", store.trail(None, None, 10).await.map(drop)),
        ("trail_state", store.trail_state().await.map(drop)),
    ]
}

async fn write_the_trail(bench: &Bench) -> Called {
    let store = &bench.store;
    let token = LeaseToken::new(Uuid::new_v4());
    let head = SealHead::default();
    let keep = Keep {
        age: HOUR,
        count: 1_000,
    };
    let aside = SetAside {
        position: "1-1".parse().expect("a position"),
        sequence: 1,
        problem: "none".to_owned(),
        audit_event: "{}".to_owned(),
    };
    vec![
        (
            "write_refusal",
            store
                .write_refusal(&refusal_of("somebody", "{}"), ROOM)
                .await,
        ),
        (
            "tell_counted_refusals",
            store.tell_counted_refusals(ROOM).await,
        ),
        (
            "begin_seal",
            store.begin_seal(token, HOUR, 10).await.map(drop),
        ),
        (
            "set_aside",
            store.set_aside(token, &head, &[aside]).await.map(drop),
        ),
        (
            "seal",
            store.seal(token, HOUR, &head, &[], keep).await.map(drop),
        ),
        ("end_seal", store.end_seal(token).await),
    ]
}

/// The names of all methods of the store, except those that a process begins with.
fn ways_into_the_store(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(ways_into_the_store(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let methods = source.split("    pub async fn ").skip(1);
            names.extend(methods.map(|it| it[..it.find('(').unwrap()].to_owned()));
        }
    }
    names.remove("instance");
    names
}

/// A grant that is active, and a pass over another one's target.
async fn in_use(bench: &Bench) -> (NewGrant, Pass) {
    let granted = bench.active(ALICE).await;
    let mut new = reader(2);
    new.end = End::At(Expiry::At(Timestamp::now() + HOUR));
    bench.store.accept_grant(&new).await.unwrap();
    let pass = bench.pass().await;
    (granted, pass)
}

async fn keys(bench: &mut Bench) -> BTreeSet<String> {
    let keys: Vec<String> = bench.ask("KEYS", &["*"]).await;
    keys.into_iter().collect()
}

fn is_in_doubt(outcome: &Result<(), StoreError>) -> bool {
    matches!(outcome, Err(StoreError::InDoubt(_)))
}

/// The connection stays open. Each call itself sees that Redis is another one, and does nothing.
#[tokio::test]
async fn i6_i7_no_call_reads_or_writes_a_redis_that_was_emptied_or_replaced() {
    let mut bench = Bench::start().await;
    let (granted, pass) = in_use(&bench).await;
    let before = bench.redis.backup().await;
    let doubt = bench.store.doubt();
    let own: String = bench.ask("HGET", &[META, "instance"]).await;
    let other = Uuid::new_v4().to_string();
    let nothing: &[&str] = &[];
    for (replacement, found) in [
        (nothing, "nothing"),
        (&["HSET", META, "v", "1", "instance", &other], &*other),
        (&["HSET", META, "v", "2", "instance", &own], "format 2"),
        (&["HSET", META, "v", "1"], "no instance id"),
        (&["SET", META, "1"], "nothing"),
    ] {
        let _: String = bench.ask("FLUSHALL", &[]).await;
        if let [command, words @ ..] = replacement {
            let _: redis::Value = bench.ask(command, words).await;
        }
        let there = keys(&mut bench).await;
        let called = call_everything(&bench, &granted, &pass).await;
        for (call, outcome) in &called {
            assert!(is_in_doubt(outcome), "{found}: {call}: {outcome:?}");
        }
        assert_eq!(keys(&mut bench).await, there, "something was written");
        let told = doubt.borrow().as_ref().expect("it is known").to_string();
        assert!(told.contains(found) && told.contains(&own), "{told}");
        let names = called.iter().map(|(call, _)| (*call).to_owned());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
        assert_eq!(names.collect::<BTreeSet<_>>(), ways_into_the_store(&folder));
    }

    bench.redis.restore(&before).await;
    for (call, outcome) in call_everything(&bench, &granted, &pass).await {
        outcome.unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    assert!(doubt.borrow().is_none(), "it is settled by itself");
}

/// A process that has not begun yet begins with what is there.
#[tokio::test]
async fn a_process_that_starts_begins_with_the_redis_that_it_finds() {
    let mut bench = Bench::start().await;
    let _: String = bench.ask("FLUSHALL", &[]).await;
    bench.grant(ALICE).await;
    let made: String = bench.ask("HGET", &[META, "instance"]).await;
    assert_eq!(bench.store.instance().await.unwrap().to_string(), made);
}

/// Callers that ask for fresh answers wait for the reader of this stream. If the reader has read another Redis, it must
/// not claim to know all changes.
#[tokio::test]
async fn i9_entries_in_the_stream_of_another_redis_are_not_reported_as_changes() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let stop = CancellationToken::new();
    let (changes, reader) = Changes::new(bench.store.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(reader));
    let mut told = changes.subscribe();
    let mut heard = changes.heard();
    let known = heard.wait_for(|heard| heard.at.is_some());
    let position = known.await.unwrap().position;
    let before = bench.redis.backup().await;

    let _: String = bench.ask("FLUSHALL", &[]).await;
    let emptied = std::time::Instant::now();
    let job = granted.job.to_string();
    let _: String = bench
        .ask("XADD", &["{aab:main}:events", "*", "job", &job])
        .await;
    // Changes from before may still be on their way.
    loop {
        let event = told.recv().await.unwrap();
        assert!(event.position <= position, "{event:?}");
        if event.change == Change::Lost {
            break;
        }
    }
    let known = *heard.borrow_and_update();
    assert!(known.at.is_none_or(|at| at <= emptied), "{known:?}");
    assert!(bench.store.doubt().borrow().is_some());

    bench.redis.restore(&before).await;
    let known = heard.wait_for(|heard| heard.at.is_some_and(|at| at > emptied));
    assert_eq!(known.await.unwrap().position, position);
    stop.cancel();
}
