//! Whatever is done to a trail is found, and told as what it is.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::super::DAMAGED;
use super::*;
use crate::domain::freshness::Position;
use crate::store::StoredEvent;

fn chain(from: u64, count: u64, what: &str) -> Vec<Record> {
    let mut previous = String::new();
    let all = (1..from + count).map(|sequence| {
        let event = StoredEvent {
            position: Position::default(),
            sequence,
            time: Timestamp::from_millisecond(1_795_744_511_984).unwrap(),
            event: json!({"action": what, "n": sequence.to_string()}).to_string(),
            seal: None,
        };
        let record = Record::of("c", &event, &previous);
        previous.clone_from(&record.hash);
        record
    });
    all.skip(usize::try_from(from - 1).unwrap()).collect()
}

fn read(records: &[Record]) -> Verifier {
    let mut verifier = Verifier::default();
    for record in records {
        verifier.take(record);
    }
    verifier
}

fn flaws(records: &[Record]) -> Vec<Flaw> {
    read(records).verdict().1
}

#[test]
fn a_whole_trail_has_no_flaw_whatever_it_begins_with_and_however_often_it_is_told() {
    let mut records = chain(5, 20, "a");
    records.extend(chain(10, 3, "a"));
    assert_eq!(flaws(&records), []);
    let verifier = read(&records);
    let (extents, _) = verifier.verdict();
    assert_eq!((extents[0].first, extents[0].last), (5, 24));
    assert_eq!(extents[0].hash, chain(24, 1, "a")[0].hash);
}

proptest! {
    #[test]
    fn whatever_is_done_to_a_trail_is_found(at in 0..18_usize, kind in 0..5_u8) {
        let mut records = chain(1, 20, "a");
        match kind {
            0 => records[at].event = json!({"action": "b"}),
            1 => {
                // With a hash of its own, which fits: the next one does not.
                records[at].event = json!({"action": "b"});
                records[at].hash = records[at].hashed();
            }
            2 => drop(records.remove(at + 1)),
            3 => records.swap(at, at + 1),
            _ => {
                // The whole rest made anew, beside what had been exported.
                records.extend(chain(u64::try_from(at).unwrap() + 1, 1, "b"));
            }
        }
        prop_assert!(!flaws(&records).is_empty());
    }
}

/// An entry that the sealer moved aside is reported as damaged. Events missing beside it are reported as missing.
#[test]
fn i10_an_entry_that_was_moved_aside_is_reported_as_damaged_and_not_as_missing() {
    let sealed = |sequence: u64, event: serde_json::Value, previous: &str| {
        let event = StoredEvent {
            position: Position::default(),
            sequence,
            time: Timestamp::from_millisecond(1_795_744_511_984).unwrap(),
            event: event.to_string(),
            seal: None,
        };
        Record::of("c", &event, previous)
    };
    let aside = json!({
        "action": DAMAGED,
        "details": {"sequence": "2", "entry": "1795744511984-1", "problem": "it has no event"}
    });
    let one = sealed(1, json!({"action": "a"}), "");
    let three = sealed(3, aside, &one.hash);
    let told = flaws(&[one.clone(), three.clone()]);
    assert_eq!(told.len(), 1, "{told:?}");
    let told = told[0].to_string();
    for word in [
        "place 2",
        "1795744511984-1",
        "it has no event",
        "audit:damaged",
    ] {
        assert!(told.contains(word), "{told}");
    }
    let six = sealed(6, json!({"action": "a"}), &three.hash);
    let told = flaws(&[one.clone(), three.clone(), six]);
    let missing = "chain c: events 4 to 5 are missing";
    assert!(
        told.iter().any(|flaw| flaw.to_string() == missing),
        "{told:?}"
    );
    // What stands behind it has to follow on what stands before it.
    let other = sealed(1, json!({"action": "b"}), "");
    let told = flaws(&[other, three]);
    let unlinked = |flaw: &Flaw| matches!(flaw, Flaw::Unlinked { sequence: 3, .. });
    assert!(told.iter().any(unlinked), "{told:?}");
}

#[test]
fn i10_a_sealed_entry_that_cannot_be_read_is_reported_as_damaged() {
    let all = chain(1, 3, "a");
    let mut verifier = read(&[all[0].clone(), all[2].clone()]);
    verifier.take_damaged(
        "c",
        &DamagedEntry {
            position: Position::default(),
            sequence: Some(2),
            problem: "it has no time".to_owned(),
            is_of_another_format: false,
        },
    );
    verifier.expect("c", 1, 3, &all[2].hash);
    let (_, told) = verifier.verdict();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0]
            .to_string()
            .contains("cannot be read: it has no time")
    );
}

#[test]
fn what_was_sealed_and_is_not_there_is_missing() {
    let mut verifier = read(&chain(1, 5, "a"));
    verifier.expect("c", 1, 5, &chain(5, 1, "a")[0].hash);
    // All of it has been trimmed.
    verifier.expect("c", 6, 5, "");
    assert_eq!(verifier.verdict().1, []);
    verifier.expect("c", 4, 7, "");
    let flaw = &verifier.verdict().1[0];
    assert_eq!(flaw.to_string(), "chain c: events 6 to 7 are missing");
}

#[test]
fn another_chain_than_the_one_that_was_exported_is_a_fork() {
    let mut exported = read(&chain(1, 3, "a"));
    exported.add_all(read(&chain(1, 5, "b")));
    let (_, flaws) = exported.verdict();
    let forks = flaws
        .iter()
        .filter(|flaw| matches!(flaw, Flaw::Forked { .. }));
    assert_eq!(forks.count(), 3);
    // Made anew from where the export ends.
    let mut exported = read(&chain(1, 3, "a"));
    exported.add_all(read(&chain(4, 5, "b")));
    let flaw = exported.verdict().1.remove(0);
    assert!(matches!(flaw, Flaw::Unlinked { sequence: 4, .. }), "{flaw}");
    let mut exported = read(&chain(1, 3, "a"));
    exported.add_all(read(&chain(4, 5, "a")));
    assert_eq!(exported.verdict().1, []);
    // A gap of one source is one, whatever the other has behind it.
    let mut exported = read(&[chain(1, 1, "a"), chain(3, 1, "a")].concat());
    exported.add_all(read(&chain(1, 8, "a")));
    assert!(matches!(
        exported.verdict().1[0],
        Flaw::Missing {
            first: 2,
            last: 2,
            ..
        }
    ));
}

#[test]
fn replicas_that_sealed_in_turn_have_one_chain_in_several_files() {
    let files = [
        [chain(1, 3, "a"), chain(7, 3, "a")].concat(),
        chain(4, 3, "a"),
    ];
    let mut verifier = Verifier::default();
    for file in &files {
        verifier.begin();
        for record in file {
            verifier.take(record);
        }
    }
    assert_eq!(verifier.verdict().1, []);
}

/// Whoever reads a line may take the first of two members; the hash covers the last.
#[test]
fn a_member_that_stands_twice_in_an_event_is_found_although_its_hash_is_right() {
    let record = chain(1, 1, "a").remove(0);
    let line = serde_json::to_string(&record).unwrap();
    let mut verifier = Verifier::default();
    assert!(verifier.take_line(&line));
    assert_eq!(verifier.verdict().1, []);
    for (from, to) in [
        (r#"{"action""#, r#"{"action":"b","action""#),
        (r#""action":"a""#, r#""action":"a","x":{"n":1,"n":2}"#),
        (r#"{"chain""#, r#"{"chain":"d","chain""#),
        (r#""sequence":1"#, r#""sequence":7,"sequence":1"#),
    ] {
        let twice = line.replacen(from, to, 1);
        assert_ne!(twice, line);
        let mut verifier = Verifier::default();
        assert!(verifier.take_line(&twice), "{twice}");
        let flaws = verifier.verdict().1;
        let is_told = |flaw: &Flaw| matches!(flaw, Flaw::NamedTwice { sequence: 1, .. });
        assert!(flaws.iter().any(is_told), "{twice}: {flaws:?}");
    }
    assert!(!Verifier::default().take_line(&line[..line.len() / 2]));
}

/// Whole in itself, for the hash has no key: only its name gives it away.
#[test]
fn a_record_of_another_chain_is_found() {
    let foreign = {
        let mut record = chain(1, 1, "forged").remove(0);
        record.chain = "d".to_owned();
        record.hash = record.hashed();
        record
    };
    let records = [chain(1, 3, "a"), vec![foreign]].concat();
    let told = |expected: &[&str]| {
        let mut verifier = read(&records);
        let expected = expected.iter().map(|chain| (*chain).to_owned()).collect();
        verifier.expect_chains(&expected);
        let flaws = verifier.verdict().1.into_iter();
        flaws.map(|flaw| flaw.to_string()).collect::<Vec<_>>()
    };
    let foreign = told(&["c"]);
    assert_eq!(foreign.len(), 1, "{foreign:?}");
    assert!(foreign[0].starts_with("chain d: events 1 to 1 are of another chain"));
    assert!(told(&["c", "d"]).is_empty());
    // Nobody said which of the two it is.
    assert_eq!(told(&[]).len(), 2);
    let mut one = read(&chain(1, 3, "a"));
    one.expect_chains(&BTreeSet::new());
    assert_eq!(one.verdict().1, []);
}
