//! Whether a trail is whole: no event changed, dropped, put elsewhere, or told two ways.

use std::collections::BTreeMap;
use std::fmt;

use super::chain::Record;

/// Something that is not as it was sealed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flaw {
    /// The event, or its hash, is not the one that was sealed.
    Changed {
        /// Which chain.
        chain: String,
        /// Which event.
        sequence: u64,
    },
    /// Events are missing.
    Missing {
        /// Which chain.
        chain: String,
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// It stands behind a later one.
    Reordered {
        /// Which chain.
        chain: String,
        /// Which event.
        sequence: u64,
    },
    /// It was sealed behind another event than the one that is there.
    Unlinked {
        /// Which chain.
        chain: String,
        /// Which event.
        sequence: u64,
    },
    /// Two events have one place: a store that lost what it had, in a failover say, or a chain that was made anew.
    Forked {
        /// Which chain.
        chain: String,
        /// Which place.
        sequence: u64,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { chain, sequence } => {
                write!(f, "chain {chain}: event {sequence} is not what was sealed")
            }
            Self::Missing { chain, first, last } if first == last => {
                write!(f, "chain {chain}: event {first} is missing")
            }
            Self::Missing { chain, first, last } => {
                write!(f, "chain {chain}: events {first} to {last} are missing")
            }
            Self::Reordered { chain, sequence } => {
                write!(
                    f,
                    "chain {chain}: event {sequence} stands behind a later one"
                )
            }
            Self::Unlinked { chain, sequence } => write!(
                f,
                "chain {chain}: event {sequence} was sealed behind another event than the one before it"
            ),
            Self::Forked { chain, sequence } => write!(
                f,
                "chain {chain}: two different events are number {sequence}: the store lost what it had, or somebody \
                 made another chain"
            ),
        }
    }
}

/// Reads a trail from one source, in the source's order.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<String, Chain>,
    flaws: Vec<Flaw>,
}

/// What was read of one chain: every event's hash, by its place.
#[derive(Clone, Debug, Default)]
struct Chain {
    hashes: BTreeMap<u64, String>,
    last: u64,
}

/// What is there of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Which.
    pub chain: String,
    /// The first event that is there: earlier ones are no longer kept, and nothing is said of them.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Its hash.
    pub hash: String,
}

impl Verifier {
    /// Takes the next event. The same one again is none: whoever seals may die between exporting and recording that.
    pub fn take(&mut self, record: &Record) {
        let chain = self.chains.entry(record.chain.clone()).or_default();
        let (name, sequence) = (record.chain.clone(), record.sequence);
        let mut found = Vec::new();
        if record.hashed() != record.hash {
            found.push(Flaw::Changed {
                chain: name.clone(),
                sequence,
            });
        }
        let flaw = |make: fn(String, u64) -> Flaw| make(name.clone(), sequence);
        match chain.hashes.get(&sequence) {
            Some(hash) if *hash == record.hash => {}
            Some(_) => found.push(flaw(|chain, sequence| Flaw::Forked { chain, sequence })),
            None => {
                if sequence < chain.last {
                    found.push(flaw(|chain, sequence| Flaw::Reordered { chain, sequence }));
                }
                chain.hashes.insert(sequence, record.hash.clone());
                let before = sequence.checked_sub(1).and_then(|it| chain.hashes.get(&it));
                if before.is_some_and(|hash| *hash != record.previous) {
                    found.push(flaw(|chain, sequence| Flaw::Unlinked { chain, sequence }));
                }
                chain.last = chain.last.max(sequence);
            }
        }
        self.flaws.append(&mut found);
    }

    /// Something that is wrong, found elsewhere.
    pub fn add(&mut self, flaw: Flaw) {
        self.flaws.push(flaw);
    }

    /// Takes what another source has of the same events: it has to be the same.
    pub fn compare(&mut self, other: &Self) {
        for (name, theirs) in &other.chains {
            let Some(ours) = self.chains.get(name) else {
                continue;
            };
            let differ = theirs.hashes.iter().filter(|(sequence, hash)| {
                let own = ours.hashes.get(sequence);
                own.is_some_and(|own| own != *hash)
            });
            let forks = differ.map(|(sequence, _)| Flaw::Forked {
                chain: name.clone(),
                sequence: *sequence,
            });
            self.flaws.extend(forks);
        }
        self.flaws.extend(other.flaws.iter().cloned());
    }

    /// Says up to where a chain has to go: later events were sealed and are not there.
    pub fn expect_up_to(&mut self, chain: &str, sequence: u64, hash: &str) {
        let own = self.chains.entry(chain.to_owned()).or_default();
        let chain = chain.to_owned();
        if own.last < sequence {
            let first = own.last + 1;
            self.flaws.push(Flaw::Missing {
                chain,
                first,
                last: sequence,
            });
        } else if own.hashes.get(&sequence).is_some_and(|own| own != hash) {
            self.flaws.push(Flaw::Changed { chain, sequence });
        }
    }

    /// What is there of each chain, and all that is wrong.
    #[must_use]
    pub fn verdict(&self) -> (Vec<Extent>, Vec<Flaw>) {
        let mut flaws = self.flaws.clone();
        let mut extents = Vec::new();
        for (name, chain) in &self.chains {
            let mut expected = None;
            for sequence in chain.hashes.keys().copied() {
                if let Some(first) = expected.filter(|expected| *expected < sequence) {
                    flaws.push(Flaw::Missing {
                        chain: name.clone(),
                        first,
                        last: sequence - 1,
                    });
                }
                expected = Some(sequence + 1);
            }
            let ends = chain
                .hashes
                .first_key_value()
                .zip(chain.hashes.last_key_value());
            extents.extend(ends.map(|((first, _), (last, hash))| Extent {
                chain: name.clone(),
                first: *first,
                last: *last,
                hash: hash.clone(),
            }));
        }
        flaws.sort();
        flaws.dedup();
        (extents, flaws)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::json;

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

    #[test]
    fn what_was_sealed_and_is_not_there_is_missing() {
        let mut verifier = read(&chain(1, 5, "a"));
        verifier.expect_up_to("c", 5, &chain(5, 1, "a")[0].hash);
        assert_eq!(verifier.verdict().1, []);
        verifier.expect_up_to("c", 7, "");
        let flaw = &verifier.verdict().1[0];
        assert_eq!(flaw.to_string(), "chain c: events 6 to 7 are missing");
    }

    #[test]
    fn another_chain_than_the_one_that_was_exported_is_a_fork() {
        let mut kept = read(&chain(1, 5, "b"));
        let exported = read(&chain(1, 3, "a"));
        kept.compare(&exported);
        let (_, flaws) = kept.verdict();
        assert_eq!(flaws.len(), 3);
        assert!(matches!(flaws[0], Flaw::Forked { sequence: 1, .. }));
    }
}
