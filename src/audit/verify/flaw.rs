//! What can be wrong with an audit log.

use std::fmt;

use serde_json::Value;

use super::super::DAMAGED;
use super::super::chain::Record;

/// Something that differs from what was sealed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flaw {
    /// The event or its hash differs from what was sealed.
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
    /// An entry could not be read.
    Damaged {
        /// Which chain.
        chain: String,
        /// Its place in the chain, if that is known.
        sequence: Option<u64>,
        /// The entry's id in Redis.
        entry: String,
        /// What was wrong with it.
        problem: String,
        /// Whether the sealer has set it aside, unsealed, with all its bytes.
        is_set_aside: bool,
    },
    /// An object in the event names a member twice: one reader takes the first, another one the last, and the hash
    /// covers one of them only.
    NamedTwice {
        /// Which chain.
        chain: String,
        /// Which event.
        sequence: u64,
        /// The member.
        member: String,
    },
    /// Events of a chain that is not the store's own, and that nobody named.
    OtherChain {
        /// Which chain.
        chain: String,
        /// The first event of it.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// The event stands behind a later one.
    Reordered {
        /// Which chain.
        chain: String,
        /// Which event.
        sequence: u64,
    },
    /// The event was sealed behind another event than the one that precedes it now.
    Unlinked {
        /// Which chain.
        chain: String,
        /// Which event.
        sequence: u64,
    },
    /// Two events have one place: Redis lost events, for example in a failover, or the chain was made anew.
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
            Self::Damaged {
                chain,
                sequence,
                entry,
                problem,
                is_set_aside,
            } => {
                write!(f, "chain {chain}: ")?;
                match sequence {
                    Some(sequence) => {
                        write!(f, "the event at place {sequence}, entry {entry} in Redis, ")?;
                    }
                    None => write!(f, "entry {entry} in Redis ")?,
                }
                if *is_set_aside {
                    write!(
                        f,
                        "could not be read when the sealer came to it: {problem}. Its bytes are in audit:damaged"
                    )
                } else {
                    write!(f, "cannot be read: {problem}")
                }
            }
            Self::NamedTwice {
                chain,
                sequence,
                member,
            } => write!(
                f,
                "chain {chain}: event {sequence} names {member:?} twice: readers differ in which of the two they take"
            ),
            Self::OtherChain { chain, first, last } => write!(
                f,
                "chain {chain}: events {first} to {last} are of another chain than the one that is verified; if it is \
                 that of an earlier Redis, name it by --chain"
            ),
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
                "chain {chain}: two different events have the number {sequence}: the store lost events, or another \
                 chain was made"
            ),
        }
    }
}

/// The flaw that an `audit/damaged` event of the sealer reports.
pub(super) fn set_aside(record: &Record) -> Option<Flaw> {
    let text = |value: &Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
    if text(&record.event, "action")? != DAMAGED {
        return None;
    }
    let details = record.event.get("details")?;
    Some(Flaw::Damaged {
        chain: record.chain.clone(),
        sequence: text(details, "sequence").and_then(|text| text.parse().ok()),
        entry: text(details, "entry").unwrap_or_default(),
        problem: text(details, "problem").unwrap_or_default(),
        is_set_aside: true,
    })
}
