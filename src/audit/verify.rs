//! Whether a trail is whole: no event changed, dropped, put elsewhere, or told two ways.

mod flaw;
mod twice;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

pub use flaw::Flaw;
use flaw::set_aside;
use serde_json::Value;
use twice::named_twice;

use super::chain::Record;
use crate::store::DamagedEntry;

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
        self.flaws.extend(set_aside(record));
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

    /// Takes an exported line. False: it is no event, such as half a line that a process left when it died.
    pub fn take_line(&mut self, line: &str) -> bool {
        // Not into a record at once: that fails where a member is named twice.
        let whole = serde_json::from_str::<Value>(line);
        let record = whole.and_then(serde_json::from_value::<Record>);
        let Ok(record) = record else {
            return false;
        };
        self.take_as_written(&record, line);
        true
    }

    /// Takes the next event, and what it was read from: a record does not show a member that was named twice.
    pub fn take_as_written(&mut self, record: &Record, text: &str) {
        let flaws = named_twice(text)
            .into_iter()
            .map(|member| Flaw::NamedTwice {
                chain: record.chain.clone(),
                sequence: record.sequence,
                member,
            });
        self.flaws.extend(flaws);
        self.take(record);
    }

    /// Says which chains there may be; events of any other one are a flaw. Without any, the only chain that there is
    /// may be there.
    pub fn expect_chains(&mut self, expected: &BTreeSet<String>) {
        if expected.is_empty() && self.chains.len() <= 1 {
            return;
        }
        for (name, chain) in &self.chains {
            let ends = chain
                .links
                .first_key_value()
                .zip(chain.links.last_key_value());
            if let Some(((first, _), (last, _))) = ends.filter(|_| !expected.contains(name)) {
                self.flaws.push(Flaw::OtherChain {
                    chain: name.clone(),
                    first: *first,
                    last: *last,
                });
            }
        }
    }

    /// Takes an entry of a chain that cannot be read.
    pub fn take_damaged(&mut self, chain: &str, damaged: &DamagedEntry) {
        self.flaws.push(Flaw::Damaged {
            chain: chain.to_owned(),
            sequence: damaged.sequence,
            entry: damaged.position.to_string(),
            problem: damaged.problem.clone(),
            is_set_aside: false,
        });
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
                    self.flaws.push(missing(first, start.saturating_sub(1)));
                }
                if *end < last {
                    self.flaws.push(missing(end.saturating_add(1), last));
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
        let mut flaws = Vec::new();
        for flaw in &self.flaws {
            match flaw {
                Flaw::Missing { chain, first, last } => {
                    flaws.extend(self.missing(chain, *first..=*last));
                }
                flaw => flaws.push(flaw.clone()),
            }
        }
        let mut extents = Vec::new();
        for (name, chain) in &self.chains {
            let follow = chain.links.iter().zip(chain.links.iter().skip(1));
            for ((before, known), (sequence, link)) in follow {
                let between = before.saturating_add(1)..=sequence.saturating_sub(1);
                let missing = self.missing(name, between.clone());
                // The hash of the unreadable entry in between is not known.
                let follows = missing.is_empty()
                    && self
                        .damaged(name, &between)
                        .all(|(_, is_set_aside)| is_set_aside);
                flaws.extend(missing);
                if follows && known.hash != link.previous {
                    flaws.push(Flaw::Unlinked {
                        chain: name.clone(),
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

    /// Which of these places of a chain had an unreadable entry, and whether the sealer set it aside unsealed.
    fn damaged(
        &self,
        name: &str,
        places: &RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, bool)> {
        let damaged = self.flaws.iter().filter_map(move |flaw| match flaw {
            Flaw::Damaged {
                chain,
                sequence: Some(sequence),
                is_set_aside,
                ..
            } if chain == name => Some((*sequence, *is_set_aside)),
            _ => None,
        });
        damaged.filter(|(sequence, _)| places.contains(sequence))
    }

    /// Adds the flaw that these events are missing, except at places with an unreadable entry, which is a separate
    /// flaw.
    fn missing(&self, name: &str, places: RangeInclusive<u64>) -> Vec<Flaw> {
        let damaged: BTreeSet<u64> = self.damaged(name, &places).map(|(at, _)| at).collect();
        let missing = |first: u64, last: u64| Flaw::Missing {
            chain: name.to_owned(),
            first,
            last,
        };
        let (mut first, last) = places.into_inner();
        let mut found = Vec::new();
        for at in damaged {
            if first < at {
                found.push(missing(first, at - 1));
            }
            first = at.saturating_add(1);
        }
        if first <= last {
            found.push(missing(first, last));
        }
        found
    }
}

#[cfg(test)]
mod tests;
