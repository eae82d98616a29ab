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
        ttl.map_or(Expiry::Never, |ttl| Expiry::At(at(self.now + ttl)))
    }

    pub(super) fn grant(&mut self, which: u8, ttl: Option<i64>) {
        self.meet_the_cluster();
        let id = GrantId::new(self.id());
        let job = self.job(JobKind::Grant, BTreeSet::from([id]));
        let expiry = self.end_after(ttl);
        self.promised.insert(job, expiry);
        self.stored.grants.push(Grant {
            id,
            target: target_id(),
            principal: Principal::unnamed(target_id().principal, PrincipalType::User),
            access: access(which),
            state: GrantState::Pending,
            create_time: at(self.now),
            expiry,
            update_time: at(self.now),
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
        self.stored.generation += 1;
    }

    /// The later of two ends holds; nobody extends what is going. A grant that is asked for again by its
    /// external key leaves no job where that moves nothing.
    pub(super) fn extend(&mut self, id: GrantId, ttl: Option<i64>, asked_for_again: bool) {
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
        self.stored.generation += 1;
        let job = self.job(JobKind::Extend, BTreeSet::from([id]));
        self.promised.insert(job, promised);
    }

    /// One job for all of them, whether they are live or going.
    pub(super) fn end(&mut self, ids: &[GrantId], ending: Ending) {
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
            self.stored.generation += 1;
            self.job(JobKind::Revoke, of_job);
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
