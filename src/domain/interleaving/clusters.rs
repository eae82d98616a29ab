//! The cluster goes, and another one is made under its id.

use super::at;
use super::world::{Worker, World, lose};
use crate::domain::effect::{Call, PerCall};
use crate::domain::grant::{Ending, GrantState};
use crate::domain::ids::GrantId;
use crate::domain::job::JobState;

impl World {
    pub(super) fn make_the_cluster_again(&mut self) {
        if self.azure.cluster.is_none() {
            self.next += 1;
            self.azure.cluster = Some(self.next);
        }
    }

    /// Whoever grants has read the cluster; where there is none any more, a while ago. Another one than the grants
    /// before were for ends those, and leaves every effect open: that a call has met the new one is as likely.
    pub(super) fn meet_the_cluster(&mut self) {
        let read = self.azure.cluster.unwrap_or(self.cluster);
        if read == self.cluster {
            return;
        }
        self.cluster = read;
        for mut grant in std::mem::take(&mut self.stored.grants) {
            let ending = match grant.state {
                GrantState::Revoking(ending) => ending,
                _ => Ending::Revoked,
            };
            grant.state = GrantState::Ended(ending);
            self.all.push(grant);
        }
        for job in std::mem::take(&mut self.stored.jobs) {
            let ended = self.ended_jobs.insert(job.id, JobState::Superseded);
            assert_eq!(ended, None, "a job ends once");
        }
        let settled = self.lease.map(|_| self.calls_settle());
        for (name, effect) in &mut self.stored.effects {
            // What is gone for certain is gone from every cluster.
            if effect.is_gone_and_settled() && !self.open.contains_key(name) {
                continue;
            }
            let (call, token) = self.open.get(name).copied().unwrap_or((Call::Delete, 0));
            match settled.filter(|_| token != 0) {
                Some(settled) => lose(effect, call, at(settled)),
                None => effect.open = Some(call),
            }
            effect.may_be_gone = true;
            self.open.insert(*name, (call, 0));
        }
        // A pass that is under way records nothing.
        self.lease = None;
        self.queue.waits = PerCall::default();
        self.queue.pause = None;
        self.stored.failures = PerCall::default();
        self.stored.put_off.clear();
        self.paused_until = 0;
        self.enqueue(Call::Delete);
    }

    /// A pass has read that there is no cluster: a definite answer about everything on it.
    pub(super) fn take_all_for_gone(worker: &mut Worker) {
        let time = Self::pass_time(worker);
        for (name, effect) in &mut worker.target.effects {
            effect.went_with_its_cluster(time);
            worker.touched.entry(*name).or_insert(Call::Delete);
        }
    }

    /// In the end somebody notices what became of the cluster that live grants were for: whoever deleted it revokes,
    /// or the next grant meets another one.
    pub(super) fn notice_the_cluster(&mut self) {
        let grants = self.stored.grants.iter();
        let live: Vec<GrantId> = grants
            .filter(|grant| grant.state.is_live())
            .map(|grant| grant.id)
            .collect();
        if live.is_empty() {
            return;
        }
        match self.azure.cluster {
            None => {
                self.end(&live, Ending::Revoked);
            }
            Some(cluster) if cluster != self.cluster => self.grant(0, None),
            Some(_) => {}
        }
    }
}
