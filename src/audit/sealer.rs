//! Seals the audit log: hashes the appended events, exports them, and only then lets them go.
//!
//! Every replica tries; the one that holds the lease does it. If two overlap, both compute the same hashes, because
//! each reads the chain's end and the events behind it in one step. Redis then takes one of the two. The sealer may
//! export an event twice, but it never leaves one out.
//!
//! An entry that cannot be read as an event does not stop the sealer. It moves the entry aside with all its bytes,
//! appends an event that reports it, and continues the chain behind the gap. The sealer waits only for an entry in a
//! newer broker's format, because a newer broker can read it.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::chain::Record;
use super::export::{Export, ExportError};
use super::{BROKER, DAMAGED, Event, Outcome};
use crate::domain::ids::{InstanceId, LeaseToken};
use crate::domain::reason::Reason;
use crate::store::{
    DamagedEntry, Keep, RefusalBounds, Seal, SealHead, SetAside, Store, StoreError, StoredEvent,
    TrailEntry,
};

/// How long the lease lasts: many times what one round takes.
const LEASE: Duration = Duration::from_secs(15);
/// How long an idle sealer waits.
const PERIOD: Duration = Duration::from_secs(1);
/// How many events one round seals. Redis waits for the script.
const AT_ONCE: usize = 100;
/// How often the sealer repeats an error that lasts.
const SAY_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug, Error)]
enum SealError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("entry {} of the audit log: {}; a newer broker has to seal it", .0.position, .0.problem)]
    Newer(DamagedEntry),
}

/// Whether another round is due at once.
enum Round {
    /// The round left nothing that could be sealed now.
    Over,
    /// The round may have left something.
    LeftSomething,
}

/// Seals, exports and bounds the audit log.
pub struct Sealer {
    store: Store,
    chain: String,
    token: LeaseToken,
    keep: Keep,
    refusals: RefusalBounds,
    export: Export,
}

impl Sealer {
    /// Makes a sealer for the store's own chain.
    #[must_use]
    pub fn new(
        store: Store,
        instance: InstanceId,
        keep: Keep,
        refusals: RefusalBounds,
        export: Export,
    ) -> Self {
        Self {
            store,
            chain: instance.to_string(),
            token: LeaseToken::new(Uuid::new_v4()),
            keep,
            refusals,
            export,
        }
    }

    /// Runs until `stop`. The next sealer seals what is left then.
    pub async fn run(self, stop: CancellationToken) {
        let mut said: Option<Instant> = None;
        loop {
            match self.round().await {
                Ok(Round::LeftSomething) if !stop.is_cancelled() => continue,
                Ok(_) => said = None,
                Err(SealError::Store(error)) if self.store.has_logged(&error) => {}
                Err(SealError::Store(error @ StoreError::Unavailable(_))) => {
                    warn!(%error, "the broker cannot seal the audit log now; it waits for Redis");
                }
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        error!(%error, "the broker cannot seal or export the audit log, so it grows");
                        said = Some(Instant::now());
                    }
                }
            }
            // A replica that cannot export waits for longer than the others, so that another one gets the lease.
            let period = if said.is_some() { 3 * PERIOD } else { PERIOD };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// One round: seals the events that come first in the audit log. If the first entries cannot be read, moves those
    /// aside instead.
    async fn round(&self) -> Result<Round, SealError> {
        let begun = self.store.begin_seal(self.token, LEASE, AT_ONCE).await?;
        let Some((head, entries)) = begun else {
            return Ok(Round::Over);
        };
        // What cannot be told now is told later; events are sealed all the same.
        if let Err(error) = self.store.tell_counted_refusals(self.refusals).await {
            warn!(%error, "the broker cannot write how many refusals it has counted into the audit log");
        }
        if let Some(TrailEntry::Damaged(_)) = entries.first() {
            return self.set_aside(&head, &damaged_first(&entries)).await;
        }
        let found = entries.len();
        let mut events = events_first(entries);
        let records = self.sealed(&head, &events);
        for (event, record) in events.iter_mut().zip(&records) {
            event.seal = Some(Seal {
                hash: record.hash.clone(),
                previous: record.previous.clone(),
            });
            event.event = record.event.to_string();
        }
        if let Err(error) = self.export.write(&records).await {
            // Another replica's disk may have room.
            self.store.end_seal(self.token).await?;
            return Err(error.into());
        }
        // Also with nothing to seal: what is kept is bounded by age.
        let was_sealed = self
            .store
            .seal(self.token, LEASE, &head, &events, self.keep)
            .await?;
        let may_have_left = found == AT_ONCE || events.len() < found;
        Ok(if was_sealed && may_have_left {
            Round::LeftSomething
        } else {
            Round::Over
        })
    }

    /// Moves unreadable entries out of the way of the entries behind them.
    async fn set_aside(
        &self,
        head: &SealHead,
        damaged: &[DamagedEntry],
    ) -> Result<Round, SealError> {
        let is_ours = |entry: &&DamagedEntry| !entry.is_of_another_format;
        let rows = places(head, damaged.iter().take_while(is_ours));
        if let (true, Some(newer)) = (rows.is_empty(), damaged.first()) {
            // The broker that can read it is to have the lease.
            self.store.end_seal(self.token).await?;
            return Err(SealError::Newer(newer.clone()));
        }
        for SetAside {
            position,
            sequence,
            problem,
            ..
        } in &rows
        {
            error!(
                entry = %position, sequence, problem,
                "the broker cannot read an entry of the audit log. It keeps the entry in audit:damaged, and continues \
                 the chain behind it"
            );
        }
        self.store.set_aside(self.token, head, &rows).await?;
        Ok(Round::LeftSomething)
    }

    fn sealed(&self, head: &SealHead, events: &[StoredEvent]) -> Vec<Record> {
        let mut previous = head.hash.clone();
        let mut last = head.sequence;
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            let next = last.map(|last| {
                let given_up = last.max(head.aside.unwrap_or_default());
                last.saturating_add(1)..=given_up.saturating_add(1)
            });
            if let Some(next) = next.filter(|next| !next.contains(&event.sequence)) {
                error!(
                    expected = next.start(),
                    found = event.sequence,
                    "events of the audit log are missing: they were removed from Redis, or Redis has lost them"
                );
            }
            let record = Record::of(&self.chain, event, &previous);
            previous.clone_from(&record.hash);
            last = Some(event.sequence);
            records.push(record);
        }
        records
    }
}

fn damaged_first(entries: &[TrailEntry]) -> Vec<DamagedEntry> {
    let damaged = entries.iter().map_while(|entry| match entry {
        TrailEntry::Damaged(damaged) => Some(damaged.clone()),
        TrailEntry::Event(_) => None,
    });
    damaged.collect()
}

fn events_first(entries: Vec<TrailEntry>) -> Vec<StoredEvent> {
    let events = entries.into_iter().map_while(|entry| match entry {
        TrailEntry::Event(event) => Some(event),
        TrailEntry::Damaged(_) => None,
    });
    events.collect()
}

/// The place in the audit log that each entry had: the one that it names, if that is possible, else the next one.
fn places<'a>(head: &SealHead, damaged: impl Iterator<Item = &'a DamagedEntry>) -> Vec<SetAside> {
    let mut last = head.sequence.max(head.aside).unwrap_or_default();
    let rows = damaged.map(|entry| {
        let next = last.saturating_add(1);
        let possible = next..=last.saturating_add(AT_ONCE as u64);
        let sequence = entry.sequence.filter(|own| possible.contains(own));
        let sequence = sequence.unwrap_or(next);
        last = sequence;
        let event = Event::new(BROKER, DAMAGED, Outcome::Failed)
            .with("entry", entry.position.to_string())
            .with("sequence", sequence.to_string())
            .with("problem", &*entry.problem);
        SetAside {
            position: entry.position,
            sequence,
            problem: entry.problem.clone(),
            audit_event: Event {
                reason: Reason::StoreUnreadable.as_str(),
                ..event
            }
            .to_json(),
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::freshness::Position;

    fn damaged(sequence: Option<u64>) -> DamagedEntry {
        DamagedEntry {
            position: Position::default(),
            sequence,
            problem: "it has no event".to_owned(),
            is_of_another_format: false,
        }
    }

    #[test]
    fn i10_a_damaged_entry_gets_the_place_that_it_names_or_the_next_one() {
        let head = SealHead {
            sequence: Some(7),
            ..SealHead::default()
        };
        let entries = [
            damaged(None),
            damaged(Some(9)),
            damaged(Some(3)),
            damaged(Some(u64::MAX)),
            damaged(Some(13)),
        ];
        let places: Vec<u64> = places(&head, entries.iter())
            .iter()
            .map(|row| row.sequence)
            .collect();
        assert_eq!(places, [8, 9, 10, 11, 13]);
    }
}
