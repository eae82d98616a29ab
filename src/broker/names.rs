//! What people call principals, for whoever reads an answer. Nothing is decided by it: what the directory does not say
//! in good time is left out.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::azure::{Azure, GraphError};
use crate::domain::access::Principal;
use crate::domain::ids::PrincipalId;
use crate::view::{Fresh, Loaded, Need};

/// Principals with their names, by object id.
pub type Named = HashMap<PrincipalId, Principal>;

/// Of so many principals the names are remembered.
const MOST_NAMES: u64 = 100_000;
/// An answer that is there does not wait longer for them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of names, by the whole set that was asked for: the same pages are read again and again. Cheap to clone;
/// clones share what they know.
#[derive(Clone)]
pub(super) struct Names {
    known: Fresh<Arc<[PrincipalId]>, Named, GraphError>,
    known_for: Duration,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// They are believed for `known_for`.
    pub(super) fn new(azure: Azure, known_for: Duration) -> Self {
        let load = move |ids: Arc<[PrincipalId]>, _| {
            let azure = azure.clone();
            async move {
                let begun = Instant::now();
                let found = azure.principals(&ids).await?;
                let named = found.into_iter().map(|it| (it.id, it));
                Ok(Loaded::new(named.collect(), begun))
            }
        };
        let weigh = |named: &Named| u32::try_from(named.len()).unwrap_or(u32::MAX);
        Self {
            known: Fresh::new(MOST_NAMES, weigh, known_for / 2, load),
            known_for,
        }
    }

    /// Those of these principals that the directory names.
    pub(super) async fn of(&self, ids: BTreeSet<PrincipalId>) -> Named {
        if ids.is_empty() {
            return Named::new();
        }
        let ids: Arc<[PrincipalId]> = ids.into_iter().collect();
        let named = self.known.get(&ids, Need::within(self.known_for));
        match tokio::time::timeout(PATIENCE, named).await {
            Ok(Ok(named)) => named.value.clone(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "an answer goes without names");
                Named::new()
            }
            Err(_) => Named::new(),
        }
    }
}
