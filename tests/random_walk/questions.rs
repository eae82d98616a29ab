//! Draws calls that change nothing: which grant, which job, which list, which page.

use aks_access_broker::grpc::proto::{
    CheckAccessRequest, ListGrantsRequest, ListJobTargetsRequest, ListJobsRequest, grant, job,
};
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom};

use crate::company::{NO_ROLE, PRINCIPALS};
use crate::draw::Draw;
use crate::model::{Grant, Model};
use crate::pages::Query;
use crate::support::ask;

const PAGE_SIZES: [i32; 6] = [0, 1, 2, 3, 5, 20];

impl Draw {
    /// Mostly a live one; sometimes one that was never made.
    pub(crate) fn a_grant(&mut self, model: &Model) -> String {
        let known = match self.random.random_range(0..20) {
            0 => return self.request_id(),
            1..3 => {
                let going = |grant: &&Grant| grant.state == grant::State::Revoking;
                let going = model.grants.values().filter(going);
                going.choose(&mut self.random)
            }
            3..14 => model.live().choose(&mut self.random),
            14..17 => model.grants.values().next_back(),
            _ => model.grants.values().choose(&mut self.random),
        };
        known.map_or_else(|| self.request_id(), |grant| grant.id.clone())
    }

    pub(crate) fn a_job(&mut self, model: &Model) -> String {
        let known = match self.random.random_range(0..20) {
            0 => return self.request_id(),
            1..8 => model.under_way.iter().choose(&mut self.random),
            _ => model.jobs.keys().choose(&mut self.random),
        };
        known.cloned().unwrap_or_else(|| self.request_id())
    }

    pub(crate) fn a_job_under_way(&mut self, model: &Model) -> String {
        let known = model.under_way.iter().choose(&mut self.random).cloned();
        known.unwrap_or_else(|| self.a_job(model))
    }

    fn page_size(&mut self) -> i32 {
        if self.chance(3) {
            return 1_000;
        }
        *PAGE_SIZES.choose(&mut self.random).expect("a size")
    }

    /// A token that was given, and what it was given for.
    fn a_token(&mut self, model: &Model, is_of: fn(&Query) -> bool) -> Option<(String, Query)> {
        let given = model.tokens.iter().filter(|(_, place)| is_of(&place.query));
        let (token, place) = given.choose(&mut self.random)?;
        Some((token.clone(), place.query.clone()))
    }

    pub(crate) fn list_of_grants(&mut self, model: &Model) -> ListGrantsRequest {
        use grant::State::{Active, Expired, Failed, Pending, Revoked, Revoking, Scheduled};
        let mut asked = ListGrantsRequest {
            selector: self.chance(70).then(|| self.selector(model)),
            ..ListGrantsRequest::default()
        };
        if self.chance(50) {
            let all = [
                Pending, Active, Revoking, Revoked, Expired, Failed, Scheduled,
            ];
            let count = self.random.random_range(1..4);
            asked.states = all
                .sample(&mut self.random, count)
                .map(|state| i32::from(*state))
                .collect();
        }
        if self.chance(40) {
            let given = self.a_token(model, |query| matches!(query, Query::Grants(_)));
            if let Some((token, Query::Grants(query))) = given {
                // Now and then a token of another query.
                asked = if self.chance(90) { query } else { asked };
                asked.page_token = token;
            }
        }
        asked.page_size = self.page_size();
        asked
    }

    pub(crate) fn list_of_jobs(&mut self, model: &Model) -> ListJobsRequest {
        use job::Kind::{Expire, Extend, Grant, Offboard, Repair, Revoke};
        let mut asked = ListJobsRequest::default();
        if self.chance(40) {
            let principal = PRINCIPALS.choose(&mut self.random).expect("a principal");
            asked.principal = Some(self.spoken_of(*principal));
        }
        if self.chance(40) {
            asked.cluster = Some(self.a_cluster(model));
        }
        if self.chance(30) {
            let kinds = [Grant, Revoke, Extend, Expire, Offboard, Repair];
            let count = self.random.random_range(1..3);
            asked.kinds = kinds
                .sample(&mut self.random, count)
                .map(|kind| i32::from(*kind))
                .collect();
        }
        if self.chance(30) {
            asked.states = self.job_states();
        }
        if self.chance(25) {
            let used = model.requests.keys().choose(&mut self.random).cloned();
            asked.request_id = Some(used.unwrap_or_else(|| self.request_id()));
        }
        if self.chance(40) {
            let given = self.a_token(model, |query| matches!(query, Query::Jobs(_)));
            if let Some((token, Query::Jobs(query))) = given {
                asked = if self.chance(90) { query } else { asked };
                asked.page_token = token;
            }
        }
        asked.page_size = self.page_size();
        asked
    }

    fn job_states(&mut self) -> Vec<i32> {
        use job::State::{Failed, Queued, Retrying, Running, Succeeded, Superseded};
        let all = [Queued, Running, Retrying, Succeeded, Failed, Superseded];
        let count = self.random.random_range(1..4);
        all.sample(&mut self.random, count)
            .map(|state| i32::from(*state))
            .collect()
    }

    pub(crate) fn list_of_targets(&mut self, model: &Model) -> ListJobTargetsRequest {
        let several = model.jobs.iter().filter(|(_, job)| job.targets.len() > 1);
        let several = several.map(|(id, _)| id).choose(&mut self.random).cloned();
        let job_id = several
            .filter(|_| self.chance(60))
            .unwrap_or_else(|| self.a_job(model));
        let mut asked = ListJobTargetsRequest {
            job_id,
            states: if self.chance(20) {
                self.job_states()
            } else {
                Vec::new()
            },
            ..ListJobTargetsRequest::default()
        };
        if self.chance(40) {
            let given = self.a_token(model, |query| matches!(query, Query::Targets(_)));
            if let Some((token, Query::Targets(query))) = given {
                asked = if self.chance(90) { query } else { asked };
                asked.page_token = token;
            }
        }
        asked.page_size = self.page_size();
        asked
    }

    pub(crate) fn check(&mut self, model: &Model) -> CheckAccessRequest {
        let principal = PRINCIPALS.choose(&mut self.random).expect("a principal");
        CheckAccessRequest {
            principal: Some(ask::principal(principal.id, principal.kind)),
            cluster: self.a_cluster(model),
            access: Some(self.access(&[NO_ROLE])),
            consistency: Some(ask::now()),
            explain: self.chance(50),
            ..CheckAccessRequest::default()
        }
    }
}
