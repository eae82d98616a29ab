//! The state with its journal: a change is written down, then true, then answered; in this order.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::journal::Journal;
use super::{Record, State, records_of};
use crate::time::Moment;
use crate::world::World;

/// The state, and where its changes are written down.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) state: State,
    journal: Option<Journal>,
}

impl Store {
    /// Starts with `world`; or, if an earlier run left its state in `directory`, goes on with that one.
    pub(crate) fn open(world: &World, directory: Option<&Path>, at: Moment) -> io::Result<Self> {
        let left = directory
            .map(Journal::read)
            .transpose()?
            .unwrap_or_default();
        let records = if left.is_empty() {
            records_of(world, at)
        } else {
            left
        };
        let state = replay(records)?;
        // A fresh journal: without it the file would only ever grow.
        let journal = directory
            .map(|directory| Journal::begin(directory, &state.records()))
            .transpose()?;
        Ok(Self { state, journal })
    }

    /// Makes changes true. `longest_lag` says how far back reads may look.
    ///
    /// # Errors
    /// When they cannot be written down; then nothing has changed.
    pub(crate) fn commit(
        &mut self,
        records: Vec<Record>,
        now: Moment,
        longest_lag: Duration,
    ) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.append(&records)?;
        }
        let keep_from = now.elapsed.saturating_sub(longest_lag);
        for record in records {
            self.state.apply(record, now.elapsed, keep_from);
        }
        Ok(())
    }
}

fn replay(records: Vec<Record>) -> io::Result<State> {
    let mut records = records.into_iter();
    let Some(Record::World(world)) = records.next() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the journal does not begin with a world",
        ));
    };
    let mut state = State::empty(*world);
    for record in records {
        // Time zero: what was there before the start is old to every read.
        state.apply(record, Duration::ZERO, Duration::ZERO);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::Store;
    use crate::state::Record;
    use crate::time::Clock;
    use crate::world::World;

    #[test]
    fn what_was_committed_is_there_again_and_a_torn_line_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::start();
        let open = || {
            Store::open(&World::built_in(), Some(directory.path()), clock.now()).expect("a store")
        };
        let mut store = open();
        let gone = store
            .state
            .role_assignments()
            .next()
            .expect("the broker's own")
            .name;
        let records = vec![Record::RoleAssignmentDeleted(gone)];
        store
            .commit(records, clock.now(), std::time::Duration::ZERO)
            .expect("written");
        let journal = directory.path().join("journal.jsonl");
        let mut text = std::fs::read_to_string(&journal).expect("a journal");
        text.push_str("{\"role_assignment_del");
        std::fs::write(&journal, text).expect("written");
        assert_eq!(open().state.role_assignments().count(), 0);
    }
}
