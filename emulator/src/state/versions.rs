//! Objects with their recent past, so that a read can see the world as it was a lag ago.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A map whose entries remember what they were.
///
/// Times are monotonic ([`crate::time::Moment::elapsed`]); what was there at the start has time zero.
#[derive(Debug)]
pub(crate) struct Versions<K, V> {
    entries: BTreeMap<K, Vec<Version<V>>>,
    /// Keys deleted but perhaps still seen by lagging reads, oldest first.
    graveyard: VecDeque<(Duration, K)>,
}

#[derive(Debug)]
struct Version<V> {
    since: Duration,
    /// [`None`] once deleted.
    value: Option<V>,
}

impl<K: Ord + Clone, V> Versions<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            graveyard: VecDeque::new(),
        }
    }

    /// The entry as it is.
    pub(crate) fn now(&self, key: &K) -> Option<&V> {
        self.at(key, Duration::MAX)
    }

    /// The entry as it was at `time`.
    pub(crate) fn at(&self, key: &K, time: Duration) -> Option<&V> {
        as_of(self.entries.get(key)?, time)
    }

    /// All entries as they were at `time`, in the order of their keys.
    pub(crate) fn all_at(&self, time: Duration) -> impl Iterator<Item = (&K, &V)> {
        self.entries
            .iter()
            .filter_map(move |(key, versions)| Some((key, as_of(versions, time)?)))
    }

    /// All entries as they are.
    pub(crate) fn all_now(&self) -> impl Iterator<Item = (&K, &V)> {
        self.all_at(Duration::MAX)
    }

    /// Sets or deletes an entry at `now`; forgets what no read from `keep_from` on can see.
    pub(crate) fn set(&mut self, key: K, value: Option<V>, now: Duration, keep_from: Duration) {
        if value.is_none() {
            self.graveyard.push_back((now, key.clone()));
        }
        let versions = self.entries.entry(key).or_default();
        versions.push(Version { since: now, value });
        let first_needed = versions
            .iter()
            .rposition(|version| version.since <= keep_from);
        versions.drain(..first_needed.unwrap_or(0));
        self.bury(keep_from);
    }

    fn bury(&mut self, keep_from: Duration) {
        while let Some((_, key)) = self.graveyard.pop_front_if(|(died, _)| *died <= keep_from) {
            let last = self.entries.get(&key).and_then(|versions| versions.last());
            // Made again, or deleted again later, it is not yet out of sight.
            if last.is_some_and(|last| last.value.is_none() && last.since <= keep_from) {
                self.entries.remove(&key);
            }
        }
    }
}

fn as_of<V>(versions: &[Version<V>], time: Duration) -> Option<&V> {
    versions
        .iter()
        .rfind(|version| version.since <= time)?
        .value
        .as_ref()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Versions;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_read_sees_the_version_of_its_time() {
        let mut versions = Versions::new();
        versions.set("a", Some(1), seconds(10), seconds(0));
        versions.set("a", Some(2), seconds(20), seconds(0));
        versions.set("a", None, seconds(30), seconds(0));
        let seen: Vec<_> = [9, 10, 19, 20, 29, 30]
            .map(|at| versions.at(&"a", seconds(at)).copied())
            .into();
        assert_eq!(seen, [None, Some(1), Some(1), Some(2), Some(2), None]);
        assert_eq!(versions.now(&"a"), None);
    }

    #[test]
    fn what_no_read_can_see_is_forgotten() {
        let mut versions = Versions::new();
        versions.set("a", Some(1), seconds(10), seconds(0));
        versions.set("a", Some(2), seconds(20), seconds(15));
        assert_eq!(
            versions.at(&"a", seconds(15)),
            Some(&1),
            "a read of 15 still sees the first"
        );
        versions.set("a", None, seconds(30), seconds(25));
        assert_eq!(versions.at(&"a", seconds(25)), Some(&2));
        versions.set("b", Some(1), seconds(50), seconds(40));
        assert_eq!(
            versions.entries.len(),
            1,
            "the deleted entry is gone for good"
        );
    }

    #[test]
    fn an_entry_made_again_outlives_its_grave() {
        let mut versions = Versions::new();
        versions.set("a", None, seconds(10), seconds(10));
        versions.set("a", Some(2), seconds(20), seconds(20));
        assert_eq!(versions.now(&"a"), Some(&2));
    }
}
