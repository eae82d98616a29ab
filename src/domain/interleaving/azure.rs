//! Azure, as far as one target sees it: what it holds, what is still to come, and what strangers assigned.

use std::collections::BTreeMap;

use crate::domain::access::RoleAtScope;
use crate::domain::effect::{Answer, Foreign};
use crate::domain::ids::AssignmentName;
use crate::domain::ownership::{Description, LONGEST_SERIES};
use crate::domain::plan::Step;

pub(super) struct Azure {
    /// Which cluster stands under the id, if any does.
    pub(super) cluster: Option<u64>,
    pub(super) ours: BTreeMap<AssignmentName, (RoleAtScope, Description)>,
    pub(super) put_at: BTreeMap<AssignmentName, i64>,
    pub(super) strangers: BTreeMap<RoleAtScope, Foreign>,
    pub(super) late: Vec<(i64, Step)>,
    /// When the last of the strangers' assignments went.
    pub(super) strangers_left: i64,
    /// Whether every new name is refused.
    pub(super) refuses_names: bool,
}

impl Azure {
    pub(super) fn new() -> Self {
        Self {
            cluster: Some(0),
            ours: BTreeMap::new(),
            put_at: BTreeMap::new(),
            strangers: BTreeMap::new(),
            late: Vec::new(),
            strangers_left: 0,
            refuses_names: false,
        }
    }

    /// One name in four, for good, though never all of a series; while all are, all that are new.
    fn is_refused(&self, name: AssignmentName, n: u32) -> bool {
        let is_new = !self.ours.contains_key(&name);
        let is_last = n + 1 == LONGEST_SERIES;
        let for_good = name.guid().as_u128().is_multiple_of(4) && !is_last;
        for_good || (self.refuses_names && is_new)
    }

    /// The cluster goes, and everything on it. What is under way still comes, to whatever stands there then.
    pub(super) fn lose_cluster(&mut self, now: i64) {
        self.cluster = None;
        self.ours.clear();
        self.put_at.clear();
        self.lose_strangers(now);
    }

    pub(super) fn lose_strangers(&mut self, now: i64) {
        if !self.strangers.is_empty() {
            self.strangers_left = now;
            self.strangers.clear();
        }
    }

    pub(super) fn commit(&mut self, step: &Step, now: i64) -> Answer {
        if self.cluster.is_none() {
            return Answer::Refused;
        }
        match step {
            Step::Put {
                name,
                at,
                n,
                description,
                ..
            } => {
                if self.is_refused(*name, *n) {
                    return Answer::NameRefused;
                }
                if let Some(foreign) = self.strangers.get(at) {
                    return Answer::Foreign(foreign.clone());
                }
                if self
                    .ours
                    .iter()
                    .any(|(other, (place, _))| place == at && other != name)
                {
                    return Answer::Unexplained;
                }
                self.ours.insert(*name, (at.clone(), description.clone()));
                self.put_at.insert(*name, now);
                Answer::Written(description.clone())
            }
            Step::Delete { name, .. } => match self.ours.remove(name) {
                Some(_) => Answer::Deleted,
                None => Answer::NotThere,
            },
        }
    }

    pub(super) fn arrive(&mut self, now: i64) {
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(time, _)| *time <= now);
        self.late = later;
        let due: Vec<(i64, Step)> = due;
        for (time, step) in due {
            self.commit(&step, time);
        }
    }
}
