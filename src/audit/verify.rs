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

/// Reads a trail, from as many sources as there are.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<String, Chain>,
    flaws: Vec<Flaw>,
}

/// What was read of one chain.
#[derive(Clone, Debug, Default)]
struct Chain {
    links: BTreeMap<u64, Link>,
    /// The last event of the source that is read now.
    last: u64,
}

/// One event, and the one that it was sealed behind.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Link {
    hash: String,
    previous: String,
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
    /// What comes now is of another source: a file, or Redis. Its events are in their order, whatever was read before.
    pub fn begin(&mut self) {
        for chain in self.chains.values_mut() {
            chain.last = 0;
        }
    }

    /// Takes the next event. The same one again is none: whoever seals may die between exporting and recording that.
    pub fn take(&mut self, record: &Record) {
        let chain = self.chains.entry(record.chain.clone()).or_default();
        let (name, sequence) = (record.chain.clone(), record.sequence);
        let link = Link {
            hash: record.hash.clone(),
            previous: record.previous.clone(),
        };
        if record.hashed() != record.hash {
            self.flaws.push(Flaw::Changed {
                chain: name.clone(),
                sequence,
            });
        }
        match chain.links.get(&sequence) {
            Some(known) if *known == link => return,
            Some(_) => self.flaws.push(Flaw::Forked {
                chain: name,
                sequence,
            }),
            None => {
                if sequence < chain.last {
                    self.flaws.push(Flaw::Reordered {
                        chain: name,
                        sequence,
                    });
                }
                chain.links.insert(sequence, link);
            }
        }
        chain.last = chain.last.max(sequence);
    }

    /// Something that is wrong, found elsewhere.
    pub fn add(&mut self, flaw: Flaw) {
        self.flaws.push(flaw);
    }

    /// Takes all that another one has: of the same events it has to have the same, and what is missing in either is
    /// missing.
    pub fn add_all(&mut self, other: Self) {
        let (_, mut found) = self.verdict();
        found.extend(other.verdict().1);
        for (name, theirs) in other.chains {
            let ours = self.chains.entry(name.clone()).or_default();
            for (sequence, link) in theirs.links {
                match ours.links.get(&sequence) {
                    Some(own) if *own != link => self.flaws.push(Flaw::Forked {
                        chain: name.clone(),
                        sequence,
                    }),
                    Some(_) => {}
                    None => drop(ours.links.insert(sequence, link)),
                }
            }
        }
        self.flaws.extend(found);
    }

    /// Says which events of a chain have to be there, from the first to the last one, and the hash of that. None have to
    /// where the first is behind the last.
    pub fn expect(&mut self, chain: &str, first: u64, last: u64, hash: &str) {
        if first > last {
            return;
        }
        let own = self.chains.entry(chain.to_owned()).or_default();
        let missing = |first: u64, last: u64| Flaw::Missing {
            chain: chain.to_owned(),
            first,
            last,
        };
        let ends = own.links.range(first..=last);
        let ends = ends.clone().next().zip(ends.last());
        match ends {
            None => self.flaws.push(missing(first, last)),
            Some(((start, _), (end, link))) => {
                if first < *start {
                    self.flaws.push(missing(first, *start - 1));
                }
                if *end < last {
                    self.flaws.push(missing(*end + 1, last));
                } else if link.hash != hash {
                    self.flaws.push(Flaw::Changed {
                        chain: chain.to_owned(),
                        sequence: last,
                    });
                }
            }
        }
    }

    /// What is there of each chain, and all that is wrong.
    #[must_use]
    pub fn verdict(&self) -> (Vec<Extent>, Vec<Flaw>) {
        let mut flaws = self.flaws.clone();
        let mut extents = Vec::new();
        for (name, chain) in &self.chains {
            let follow = chain.links.iter().zip(chain.links.iter().skip(1));
            for ((before, known), (sequence, link)) in follow {
                let chain = name.clone();
                if before + 1 < *sequence {
                    flaws.push(Flaw::Missing {
                        chain,
                        first: before + 1,
                        last: sequence - 1,
                    });
                } else if known.hash != link.previous {
                    flaws.push(Flaw::Unlinked {
                        chain,
                        sequence: *sequence,
                    });
                }
            }
            let links = &chain.links;
            let ends = links.first_key_value().zip(links.last_key_value());
            extents.extend(ends.map(|((first, _), (last, link))| Extent {
                chain: name.clone(),
                first: *first,
                last: *last,
                hash: link.hash.clone(),
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
}
