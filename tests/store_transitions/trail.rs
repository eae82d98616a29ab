//! Sealing the audit log step by step: scripts that are sent twice, and entries that cannot be read (I10).

use std::time::Duration;

use aks_access_broker::domain::ids::LeaseToken;
use aks_access_broker::store::{
    DamagedEntry, Keep, Seal, SealHead, SetAside, StoredEvent, TrailEntry,
};
use uuid::Uuid;

use super::bench::{Bench, ROOM, refusal_of};

const LEASE: Duration = Duration::from_mins(1);
const KEEP: Keep = Keep {
    age: Duration::from_hours(24),
    count: 1_000,
};

/// What an entry holds.
type Raw<'a> = &'a [(&'a str, &'a [u8])];

fn token() -> LeaseToken {
    LeaseToken::new(Uuid::new_v4())
}

async fn written(bench: &Bench, events: u32) {
    for n in 0..events {
        let event = format!("{{\"n\":\"{n}\"}}");
        let refusal = refusal_of("somebody", &event);
        bench.store.write_refusal(&refusal, ROOM).await.unwrap();
    }
}

/// Entries that no script writes: bytes, and fields that are missing.
async fn damage(bench: &mut Bench, fields: Raw<'_>) -> String {
    let mut add = redis::cmd("XADD");
    add.arg("{aab:main}:audit").arg("*");
    for (name, value) in fields {
        add.arg(name).arg(value);
    }
    add.query_async(&mut bench.raw).await.unwrap()
}

async fn begun(bench: &Bench, token: LeaseToken) -> (SealHead, Vec<TrailEntry>) {
    let begun = bench.store.begin_seal(token, LEASE, 10).await.unwrap();
    begun.expect("nobody else seals")
}

/// Seals with made-up hashes, because no test here checks them.
fn hashed(entries: Vec<TrailEntry>) -> Vec<StoredEvent> {
    let events = entries.into_iter().map(|entry| match entry {
        TrailEntry::Event(mut event) => {
            event.seal = Some(Seal {
                hash: format!("hash {}", event.sequence),
                previous: String::new(),
            });
            event
        }
        TrailEntry::Damaged(damaged) => panic!("{damaged:?}"),
    });
    events.collect()
}

fn damaged(entries: &[TrailEntry]) -> Vec<&DamagedEntry> {
    let damaged = entries.iter().filter_map(|entry| match entry {
        TrailEntry::Damaged(damaged) => Some(damaged),
        TrailEntry::Event(_) => None,
    });
    damaged.collect()
}

fn aside(damaged: &DamagedEntry, sequence: u64) -> SetAside {
    SetAside {
        position: damaged.position,
        sequence,
        problem: damaged.problem.clone(),
        audit_event: "{\"action\":\"audit/damaged\"}".to_owned(),
    }
}

async fn length(bench: &mut Bench, stream: &str) -> usize {
    let key = format!("{{aab:main}}:{stream}");
    bench.ask("XLEN", &[&key]).await
}

#[tokio::test]
async fn i10_a_seal_that_is_sent_twice_seals_once() {
    let mut bench = Bench::start().await;
    written(&bench, 3).await;
    let own = token();
    let (head, entries) = begun(&bench, own).await;
    let (again, same) = begun(&bench, own).await;
    assert_eq!(
        (&again, &same),
        (&head, &entries),
        "the lease is taken once"
    );
    assert_eq!(
        bench.store.begin_seal(token(), LEASE, 10).await.unwrap(),
        None
    );

    let events = hashed(entries);
    let seal = async || bench.store.seal(own, LEASE, &head, &events, KEEP).await;
    assert!(seal().await.unwrap());
    assert!(!seal().await.unwrap(), "the chain has gone on since");
    assert_eq!(length(&mut bench, "audit:sealed").await, 3);
    assert_eq!(length(&mut bench, "audit").await, 0);

    // The lease is given back twice, and another sealer takes it in between. Then it is the other's.
    bench.store.end_seal(own).await.unwrap();
    let other = token();
    let (head, _) = begun(&bench, other).await;
    assert_eq!(head.sequence, Some(3));
    bench.store.end_seal(own).await.unwrap();
    assert_eq!(bench.store.begin_seal(own, LEASE, 10).await.unwrap(), None);
}

#[tokio::test]
async fn i10_an_unreadable_entry_is_moved_aside_once_with_all_its_bytes() {
    let mut bench = Bench::start().await;
    written(&bench, 1).await;
    let odd: Raw<'_> = &[("sequence", b"2"), ("event", b"\xff\xfe")];
    let entry = damage(&mut bench, odd).await;
    let own = token();
    let (_, entries) = begun(&bench, own).await;
    let found = damaged(&entries)[0].clone();
    assert_eq!(found.position.to_string(), entry);
    assert_eq!(found.sequence, Some(2));

    let (head, _) = begun(&bench, own).await;
    let rows = [aside(&found, 2)];
    for _ in 0..2 {
        assert!(bench.store.set_aside(own, &head, &rows).await.unwrap());
        assert_eq!(length(&mut bench, "audit").await, 2, "and what tells of it");
    }
    let kept: Vec<(String, Vec<Vec<u8>>)> = bench
        .ask("XRANGE", &["{aab:main}:audit:damaged", "-", "+"])
        .await;
    let kept = &kept[0].1;
    let was = [b"was".as_slice(), entry.as_bytes()];
    assert_eq!(kept[..2], was);
    let raw: Vec<&[u8]> = odd
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), value])
        .collect();
    assert_eq!(kept[kept.len() - 4..], raw);
    let (head, _) = begun(&bench, own).await;
    assert_eq!(head.aside, Some(2));
    // A sealer that has lost the lease moves nothing.
    assert!(!bench.store.set_aside(token(), &head, &rows).await.unwrap());
}

/// Checks that each report names the problem, and nothing of the entry's content.
#[tokio::test]
async fn i10_an_unreadable_entry_hides_no_other() {
    let mut bench = Bench::start().await;
    written(&bench, 1).await;
    let cases: [(Raw<'_>, &str); 8] = [
        (&[("secret", b"words")], "it has no time"),
        (&[("time", b"1"), ("event", b"{}")], "no sequence number"),
        (&[("time", b"1"), ("sequence", b"2")], "it has no event"),
        (
            &[("time", b"1"), ("sequence", b"2"), ("event", b"\xff")],
            "its event is not text",
        ),
        (
            &[("time", b"\xff"), ("sequence", b"2"), ("event", b"{}")],
            "it has no time",
        ),
        (
            &[("time", b"1"), ("sequence", b"-2"), ("event", b"{}")],
            "no sequence number",
        ),
        (
            &[
                ("time", b"9999999999999999999"),
                ("sequence", b"2"),
                ("event", b"{}"),
            ],
            "its time is out of range",
        ),
        (&[("v", b"2"), ("event", b"{}")], "its format is not"),
    ];
    for (fields, _) in &cases {
        damage(&mut bench, fields).await;
    }
    written(&bench, 1).await;
    for entries in [
        begun(&bench, token()).await.1,
        bench.store.trail(None, None, 100).await.unwrap(),
    ] {
        assert_eq!(entries.len(), cases.len() + 2);
        let mut found = damaged(&entries);
        found.sort_by_key(|damaged| damaged.position);
        for (damaged, (_, problem)) in found.iter().zip(&cases) {
            assert!(damaged.problem.contains(problem), "{damaged:?}");
            let is_newer = problem.contains("format");
            assert_eq!(damaged.is_of_another_format, is_newer, "{damaged:?}");
        }
    }
}

/// After a failover, the clock that makes the positions may be behind. The sealed events keep their order all the same.
#[tokio::test]
async fn i10_events_keep_their_order_when_sealed_behind_a_later_position() {
    let mut bench = Bench::start().await;
    let _: String = bench
        .ask(
            "XADD",
            &["{aab:main}:audit:sealed", "99999999999999-7", "odd", "1"],
        )
        .await;
    written(&bench, 2).await;
    let own = token();
    let (head, entries) = begun(&bench, own).await;
    let events = hashed(entries);
    let sealed = bench.store.seal(own, LEASE, &head, &events, KEEP).await;
    assert!(sealed.unwrap());
    let kept = bench.store.sealed_behind(None, 10).await.unwrap();
    assert_eq!(kept.len(), 3);
    let events = hashed(kept.into_iter().skip(1).collect());
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2]);
    let state = bench.store.trail_state().await.unwrap();
    assert_eq!((state.head.sequence, state.first), (Some(2), Some(1)));
}
