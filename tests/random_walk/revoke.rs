//! `Revoke`, and which grants a selector means.

use std::collections::{BTreeMap, BTreeSet};

use aks_access_broker::grpc::proto::job::Kind;
use aks_access_broker::grpc::proto::{
    GrantSelector, Job as ToldJob, JobTarget, RevokeRequest, RevokeResponse,
};
use tonic::Code;

use crate::company::Role;
use crate::faults;
use crate::grant::{REUSED, Reason, UNKNOWN_GRANT, made_or_sent};
use crate::model::{
    Before, Fate, Grant, Job, Model, Payload, Target, Told, Used, Verdict, Window, agree, at_fault,
    holds, refused, served,
};

const TOO_MANY: Reason = (Code::FailedPrecondition, "TOO_MANY_MATCHES");

/// Where nothing else is said, a selector ends at most so many grants.
const MOST: i32 = 100;

/// Which grants a revocation is about, as far as that is known.
struct About {
    /// Those that are surely among its job's.
    surely: Vec<String>,
    /// Those of them that are live, and so end.
    ending: Vec<String>,
    /// Those that were going when that was last told: what still stands of them its job waits for.
    going: BTreeSet<String>,
}

fn payload(asked: &RevokeRequest) -> Payload {
    let mut same = RevokeRequest {
        request_id: String::new(),
        grant_id: asked.grant_id.to_lowercase(),
        ..asked.clone()
    };
    same.selector = same.selector.as_ref().map(canonical);
    Payload::Revoke(same)
}

/// One form for all the words that mean the same.
pub(crate) fn canonical(selector: &GrantSelector) -> GrantSelector {
    let mut same = GrantSelector {
        cluster: lower(selector.cluster.as_deref()),
        ..selector.clone()
    };
    same.namespaces.sort();
    if let Some(role) = role(selector) {
        let named = role.access(&BTreeSet::new());
        same.azure_role = Some(named.azure_role);
        same.role_definition_id = Some(named.role_definition_id);
    }
    same
}

pub(crate) fn lower(text: Option<&str>) -> Option<String> {
    text.map(str::to_lowercase)
}

fn role(selector: &GrantSelector) -> Option<Role> {
    let definition = selector.role_definition_id.as_deref();
    Role::named(
        selector.azure_role.unwrap_or_default(),
        definition.unwrap_or_default(),
    )
}

impl Model {
    /// Whether a selector means a grant: every field that is set must match.
    pub(crate) fn means(&self, selector: &GrantSelector, grant: &Grant) -> bool {
        let role = role(selector);
        let any_role = selector.azure_role.is_none() && selector.role_definition_id.is_none();
        let principal = selector
            .principal
            .as_ref()
            .map(|named| named.object_id.to_lowercase());
        let cluster = lower(selector.cluster.as_deref());
        let is_callers = selector.requested_by == self.caller;
        let external_key = selector.external_key.as_ref();
        principal.is_none_or(|id| id == grant.principal.id.to_string())
            && cluster.is_none_or(|cluster| cluster == grant.cluster)
            && (any_role || role == Some(grant.role))
            && is_within(grant, &selector.namespaces)
            && selector
                .labels
                .iter()
                .all(|(key, value)| grant.labels.get(key) == Some(value))
            && (selector.requested_by.is_none() || is_callers)
            && external_key.is_none_or(|key| *key == grant.external_key)
    }

    /// The live grants that a selector means.
    pub(crate) fn meant(&self, selector: &GrantSelector) -> Vec<String> {
        let meant = self.live().filter(|grant| self.means(selector, grant));
        meant.map(|grant| grant.id.clone()).collect()
    }

    pub(crate) fn revocation(
        &mut self,
        asked: &RevokeRequest,
        told: &Told<RevokeResponse>,
        when: Window,
    ) -> Verdict {
        let faults = faults::of_revocation(asked);
        if !faults.is_empty() {
            return at_fault(told, &faults);
        }
        let payload = payload(asked);
        if !asked.validate_only {
            match self.before(&asked.request_id, &payload) {
                Before::Another => return refused(told, &[REUSED]),
                Before::Same(used) => return self.revoked_again(&used, served(told)?, when),
                Before::Never => {}
            }
        }
        let Some(About {
            surely,
            ending,
            going,
        }) = self.named_or_meant(asked)
        else {
            return refused(told, &[UNKNOWN_GRANT]);
        };
        let most = if asked.max_grants == 0 {
            MOST
        } else {
            asked.max_grants
        };
        let matched = i32::try_from(ending.len()).expect("a count");
        if asked.selector.is_some() && matched > most {
            return refused(told, &[TOO_MANY]);
        }
        let answer = served(told)?;
        agree("matched_grants", &answer.matched_grants, &matched)?;
        if asked.validate_only {
            let ending: Vec<&Grant> = ending.iter().map(|id| &self.grants[id]).collect();
            let going: Vec<&Grant> = going.iter().map(|id| &self.grants[id]).collect();
            return self.revocation_planned(&ending, &going, answer);
        }
        let job = revocation_whole(answer)?;
        if self.jobs.contains_key(&job.job_id) {
            self.says_that_nothing_is_left(asked, job, &surely, &going)?;
            let used = Used {
                payload,
                job: job.job_id.clone(),
                grant: None,
                matched,
            };
            self.use_up(&asked.request_id, used);
            return self.job_is_told(job, when);
        }
        let request_id = made_or_sent(&asked.request_id, job)?;
        let grants: Vec<Grant> = surely.iter().map(|id| self.grants[id].clone()).collect();
        let mut new = Job::new(Kind::Revoke, &request_id, &asked.justification).about(&grants);
        if asked.selector.is_some() {
            new.perhaps.clone_from(&going);
        }
        let perhaps = !new.perhaps.is_empty();
        self.begin(&job.job_id, new)?;
        for id in &surely {
            let is_ending = ending.contains(id);
            self.revoked(id, is_ending, job);
        }
        let used = Used {
            payload,
            job: job.job_id.clone(),
            grant: None,
            matched,
        };
        self.use_up(&asked.request_id, used);
        // What had ended already gives a job that is over.
        let nothing_left = grants
            .iter()
            .all(|grant| !grant.is_live() && has_ended(grant));
        if nothing_left && !perhaps {
            holds(job.finish_time.is_some(), || {
                "a job that is over: there was nothing to end".to_owned()
            })?;
        }
        self.job_is_told(job, when)
    }

    /// A revocation that ends nothing may be answered with a job from before: of the grant, the one that ends it; of a
    /// selector, one that was about nothing.
    fn says_that_nothing_is_left(
        &mut self,
        asked: &RevokeRequest,
        job: &ToldJob,
        surely: &[String],
        going: &BTreeSet<String>,
    ) -> Verdict {
        let known = &self.jobs[&job.job_id];
        let ends = matches!(known.kind, Kind::Revoke | Kind::Expire);
        // What it ends beside the grant is on the same target.
        let is_about_it = if asked.selector.is_some() {
            known.targets.is_empty()
        } else {
            let mut all = surely.iter();
            known.targets.len() == 1 && all.all(|id| known.grants().any(|of| of == id))
        };
        holds(ends && is_about_it && known.perhaps.is_empty(), || {
            format!("a new job, or one that ends {surely:?} and nothing on another target")
        })?;
        if asked.selector.is_some() {
            holds(surely.is_empty(), || {
                "a new job: there are grants to end".to_owned()
            })?;
            // It waits for none of them: so they have ended.
            for id in going {
                let grant = self.grants.get_mut(id).expect("a grant");
                grant.state = grant.rests_in();
            }
        }
        self.note("Revoke answered with a job from before".to_owned());
        Ok(())
    }

    fn named_or_meant(&self, asked: &RevokeRequest) -> Option<About> {
        let is_going = |grant: &&Grant| !grant.is_live() && !has_ended(grant);
        if let Some(selector) = &asked.selector {
            let meant = self.meant(selector);
            let of_all = self.grants.values().filter(is_going);
            let going = of_all.filter(|grant| self.means(selector, grant));
            return Some(About {
                surely: meant.clone(),
                ending: meant,
                going: going.map(|grant| grant.id.clone()).collect(),
            });
        }
        let grant = self.grants.get(&asked.grant_id.to_lowercase())?;
        let going = Some(grant).filter(is_going);
        Some(About {
            surely: vec![grant.id.clone()],
            ending: Vec::from_iter(grant.is_live().then(|| grant.id.clone())),
            going: going.map(|grant| grant.id.clone()).into_iter().collect(),
        })
    }

    /// One grant that a revocation is about. One that was going has it for its latest job; whether it was, or
    /// had ended, is certain where the job has something to wait for.
    fn revoked(&mut self, id: &str, is_ending: bool, job: &ToldJob) {
        if is_ending {
            self.end(id, Fate::Revoked, &job.job_id);
            return;
        }
        let grant = self.grants.get_mut(id).expect("a grant");
        if job.finish_time.is_none() {
            grant.jobs.clear();
        }
        if !has_ended(grant) {
            grant.jobs.insert(job.job_id.clone());
        }
    }

    /// A job whose targets are to be told before anything else is asked: until then it is not known which of the grants
    /// that were going it waits for.
    pub(crate) fn job_of_unknown_targets(&self) -> Option<&String> {
        let (id, job) = self.jobs.last_key_value()?;
        (!job.perhaps.is_empty()).then_some(id)
    }

    /// All targets of such a job. What it does not wait for has ended; and so has everything, if the job is over.
    pub(crate) fn all_targets_are_told(&mut self, id: &str, told: &[JobTarget]) -> Verdict {
        let job = &self.jobs[id];
        let mut targets: BTreeMap<Target, BTreeSet<String>> = BTreeMap::new();
        for grant in told.iter().flat_map(|target| &target.grant_ids) {
            let known = self.grants.get(grant);
            let is_possible = job.perhaps.contains(grant) || job.grants().any(|it| it == grant);
            let Some(known) = known.filter(|_| is_possible) else {
                return Err(format!(
                    "no target of {grant}, which was not meant, or had ended"
                ));
            };
            let row = targets.entry(known.target()).or_default();
            row.insert(grant.clone());
        }
        let told: BTreeSet<&String> = targets.values().flatten().collect();
        let missed: Vec<&String> = job.grants().filter(|grant| !told.contains(grant)).collect();
        holds(missed.is_empty(), || format!("targets of {missed:?}"))?;
        let (is_over, perhaps) = (job.is_over(), job.perhaps.clone());
        for id_of_grant in perhaps {
            let waits = told.contains(&id_of_grant);
            let grant = self.grants.get_mut(&id_of_grant).expect("a grant");
            if waits {
                grant.jobs = BTreeSet::from([id.to_owned()]);
            }
            if is_over || !waits {
                grant.state = grant.rests_in();
            }
        }
        if told.len() > job.grants().count() {
            self.note("Revoke waits for what is going".to_owned());
        }
        let job = self.jobs.get_mut(id).expect("a job");
        job.targets = targets;
        job.perhaps.clear();
        Ok(())
    }

    fn revoked_again(&mut self, used: &Used, answer: &RevokeResponse, when: Window) -> Verdict {
        agree("matched_grants", &answer.matched_grants, &used.matched)?;
        let job = revocation_whole(answer)?;
        agree("job_id", &job.job_id, &used.job)?;
        self.job_is_told(job, when)
    }
}

/// Whether all namespaces of a grant are among these. A grant on the whole cluster is of more than any.
fn is_within(grant: &Grant, namespaces: &[String]) -> bool {
    let mut own = grant.namespaces.iter();
    let whole_cluster = grant.namespaces.is_empty();
    namespaces.is_empty() || (!whole_cluster && own.all(|name| namespaces.contains(name)))
}

/// Whether a grant is known to have ended.
fn has_ended(grant: &Grant) -> bool {
    !grant.is_live() && grant.state == grant.rests_in()
}

fn revocation_whole(answer: &RevokeResponse) -> Result<&ToldJob, String> {
    holds(answer.planned_effects.is_empty(), || {
        "planned_effects: with validate_only only".to_owned()
    })?;
    answer.job.as_ref().ok_or_else(|| "job: present".to_owned())
}
