//! Seals the trail: hashes what was appended, exports it, and only then lets it go.
//!
//! Every replica tries; whoever holds the lease does it. Should two overlap, both come to the same hashes, because they
//! read the chain's end and what follows on it in one step, and Redis takes one of them. An event may be exported twice,
//! and never not at all.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::chain::Record;
use super::export::{Export, ExportError};
use crate::domain::ids::{InstanceId, LeaseToken};
use crate::store::{Keep, Seal, SealHead, Store, StoreError, StoredEvent};

/// How long the lease lasts: many times what one round takes.
const LEASE: Duration = Duration::from_secs(15);
/// How long an idle sealer waits.
const PERIOD: Duration = Duration::from_secs(1);
/// So many events are sealed in one go: Redis waits for the script.
const AT_ONCE: usize = 100;
/// What goes wrong is said again after so long.
const SAY_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug, Error)]
enum SealError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Seals, exports and bounds the trail.
pub struct Sealer {
    store: Store,
    chain: String,
    token: LeaseToken,
    keep: Keep,
    export: Export,
}

impl Sealer {
    /// Of the store's own chain.
    #[must_use]
    pub fn new(store: Store, instance: InstanceId, keep: Keep, export: Export) -> Self {
        Self {
            store,
            chain: instance.to_string(),
            token: LeaseToken::new(Uuid::new_v4()),
            keep,
            export,
        }
    }

    /// Until `stop`. What is left then the next one seals.
    pub async fn run(self, stop: CancellationToken) {
        let mut said: Option<Instant> = None;
        loop {
            match self.round().await {
                // A full round may have left something.
                Ok(AT_ONCE) if !stop.is_cancelled() => continue,
                Ok(_) => said = None,
                Err(SealError::Store(error @ StoreError::Unavailable(_))) => {
                    warn!(%error, "the audit trail waits for Redis to be sealed");
                }
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        error!(%error, "the audit trail can be neither sealed nor exported: it grows until that is mended");
                        said = Some(Instant::now());
                    }
                }
            }
            // Whoever cannot export stands back for longer than the others wait.
            let period = if said.is_some() { 3 * PERIOD } else { PERIOD };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// One round, and how many events it sealed.
    async fn round(&self) -> Result<usize, SealError> {
        let begun = self.store.begin_seal(self.token, LEASE, AT_ONCE).await?;
        let Some((head, mut events)) = begun else {
            return Ok(0);
        };
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
        // With nothing to seal, too: time draws the bounds.
        let was_sealed = self
            .store
            .seal(self.token, LEASE, &head, &events, self.keep)
            .await?;
        Ok(if was_sealed { events.len() } else { 0 })
    }

    fn sealed(&self, head: &SealHead, events: &[StoredEvent]) -> Vec<Record> {
        let mut previous = head.hash.clone();
        let mut expected = head.sequence.map(|last| last + 1);
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            if expected.is_some_and(|expected| expected != event.sequence) {
                error!(
                    expected,
                    found = event.sequence,
                    "events of the audit trail are missing: somebody took them out, or the store has lost them"
                );
            }
            let record = Record::of(&self.chain, event, &previous);
            previous.clone_from(&record.hash);
            expected = Some(event.sequence + 1);
            records.push(record);
        }
        records
    }
}
