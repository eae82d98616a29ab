//! What callers and the clock ask for: the scripts that accept, and what a job that is over has promised.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use super::{access, at, target_id};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::effect::Known;
use crate::domain::grant::{Ending, Expiry, Grant, GrantState};
use crate::domain::ids::{GrantId, JobId};
use crate::domain::job::{JobKind, JobState, WaitingJob};

impl World {
    fn job(&mut self, kind: JobKind, grants: BTreeSet<GrantId>) -> JobId {
        let id = JobId::new(self.id());
        self.stored.jobs.push(WaitingJob { id, kind, grants });
        id
    }

    fn end_after(&self, ttl: Option<i64>) -> Expiry {
        ttl.map_or(Expiry::Never, |ttl| Expiry::At(at(self.redis() + ttl)))
    }

    pub(super) fn grant(&mut self, which: u8, ttl: Option<i64>) {
        if self.is_in_doubt() {
            return;
        }
        self.meet_the_cluster();
        let id = GrantId::new(self.id());
        self.accepted.insert(id);
        let job = self.job(JobKind::Grant, BTreeSet::from([id]));
        let expiry = self.end_after(ttl);
        self.promised.insert(job, expiry);
        self.stored.grants.push(Grant {
            id,
            target: target_id(),
            principal: Principal::unnamed(target_id().principal, PrincipalType::User),
            access: access(which),
            state: GrantState::Pending,
            create_time: at(self.redis()),
            expiry,
            update_time: at(self.redis()),
            end_time: None,
            was_active: false,
            requested_by: String::new(),
            ended_by: String::new(),
            justification: String::new(),
            labels: BTreeMap::new(),
            external_key: None,
            on_behalf_of: None,
            job,
            last_error: None,
        });
        self.desired_state_changed(false);
    }

    /// The later of two ends holds; nobody extends what is going. A grant that is asked for again by its
    /// external key leaves no job where that moves nothing.
    pub(super) fn extend(&mut self, id: GrantId, ttl: Option<i64>, asked_for_again: bool) {
        if self.is_in_doubt() {
            return;
        }
        let another = self.end_after(ttl);
        let live = |grant: &&mut Grant| grant.id == id && grant.state.is_live();
        let Some(grant) = self.stored.grants.iter_mut().find(live) else {
            return;
        };
        if asked_for_again && grant.expiry >= another {
            return;
        }
        grant.expiry = grant.expiry.max(another);
        let promised = grant.expiry;
        let job = self.job(JobKind::Extend, BTreeSet::from([id]));
        self.promised.insert(job, promised);
        self.desired_state_changed(false);
    }

    /// One job for all of them, whether they are live or going.
    pub(super) fn end(&mut self, ids: &[GrantId], ending: Ending) {
        if self.is_in_doubt() {
            return;
        }
        let mut of_job = BTreeSet::new();
        for grant in &mut self.stored.grants {
            if ids.contains(&grant.id) {
                of_job.insert(grant.id);
                if grant.state.is_live() {
                    grant.state = GrantState::Revoking(ending);
                }
            }
        }
        if !of_job.is_empty() {
            let job = self.job(JobKind::Revoke, of_job.clone());
            self.asked_to_end.insert(job, of_job);
            self.desired_state_changed(true);
        }
    }

    /// One job for all that a selector matches, every one or every other: what is going already is not over.
    pub(super) fn end_selected(&mut self, every: usize) {
        if self.is_in_doubt() {
            return;
        }
        let matched: Vec<GrantId> = self
            .stored
            .grants
            .iter()
            .step_by(every)
            .map(|grant| grant.id)
            .collect();
        let live = self
            .stored
            .grants
            .iter()
            .filter(|grant| grant.state.is_live());
        let live: BTreeSet<GrantId> = live.map(|grant| grant.id).collect();
        let targets = matched
            .iter()
            .filter(|id| live.contains(id) || self.mended.selects_what_is_going);
        let targets: Vec<GrantId> = targets.copied().collect();
        assert!(
            !targets.is_empty() || matched.is_empty(),
            "a revocation is over at once, while what it matched is going still"
        );
        self.end(&targets, Ending::Revoked);
        if let Some((_, asked)) = self
            .asked_to_end
            .last_key_value()
            .filter(|_| !targets.is_empty())
        {
            let forgotten = matched.iter().any(|id| !asked.contains(id));
            assert!(
                !forgotten,
                "a revocation does not wait for all that it matched"
            );
        }
    }

    pub(super) fn finish_job(&mut self, id: JobId, state: JobState) {
        assert_eq!(self.ended_jobs.insert(id, state), None, "a job ends once");
        let at = self.stored.jobs.iter().position(|job| job.id == id);
        let job = self.stored.jobs.remove(at.expect("it waits"));
        if state == JobState::Succeeded {
            self.keeps_its_word(&job);
        }
    }

    /// What has succeeded is so: what was to end has ended, and what was to last says so on itself.
    fn keeps_its_word(&self, job: &WaitingJob) {
        let waiting = || {
            let grants = self.stored.grants.iter();
            grants.filter(|grant| job.grants.contains(&grant.id))
        };
        if let Some(asked) = self.asked_to_end.get(&job.id) {
            let mut grants = self.stored.grants.iter();
            let is_left = grants.any(|grant| asked.contains(&grant.id));
            assert!(!is_left, "a job is over while what it waits for stands");
        }
        let Some(promised) = self.promised.get(&job.id) else {
            assert_eq!(waiting().count(), 0, "revoked, and not ended");
            return;
        };
        for grant in waiting().filter(|grant| grant.state == GrantState::Active) {
            for place in grant.calls_for() {
                let is_so = self
                    .stored
                    .series(&place)
                    .any(|effect| match &effect.known {
                        Known::Present => effect
                            .written
                            .as_ref()
                            .is_some_and(|written| written.expiry >= *promised),
                        Known::Foreign(_) => true,
                        Known::Absent | Known::NameRefused => false,
                    });
                assert!(is_so, "{place:?} does not say {promised:?}: {job:?}");
            }
        }
    }
}
