//! `Grant` and `ExtendGrant`.

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::job::Kind;
use aks_access_broker::grpc::proto::{
    Access, ExtendGrantRequest, ExtendGrantResponse, Grant as ToldGrant, GrantRequest,
    GrantResponse, Job as ToldJob,
};
use prost_types::{Duration, Timestamp};
use tonic::Code;
use uuid::Uuid;

use crate::company::{CLUSTER_ADMIN_ROLE, NO_ROLE, OWNER, Principal, Role, Takes};
use crate::faults;
use crate::model::{
    Before, End, Fate, Grant, Job, Model, Payload, Time, Told, Used, Verdict, Window, agree,
    at_fault, holds, ns, refused, served,
};

/// Why a request is refused.
pub(crate) type Reason = (Code, &'static str);

pub(crate) const REUSED: Reason = (Code::FailedPrecondition, "REQUEST_ID_REUSED");
pub(crate) const UNKNOWN_GRANT: Reason = (Code::NotFound, "GRANT_NOT_FOUND");
const ENDED: Reason = (Code::FailedPrecondition, "GRANT_ENDED");
const KEY_IN_USE: Reason = (Code::FailedPrecondition, "EXTERNAL_KEY_IN_USE");
const ROLE_NOT_ALLOWED: Reason = (Code::FailedPrecondition, "ROLE_NOT_ALLOWED");
const ROLE_NOT_FOUND: Reason = (Code::NotFound, "ROLE_NOT_FOUND");
const AZURE_RBAC_DISABLED: Reason = (Code::FailedPrecondition, "AZURE_RBAC_DISABLED");

/// The earliest and the latest that an end may be.
type Ends = (End, End);

/// An end that is nearer than this comes before the walk is over.
const NEAR: Time = 60_000_000_000;

/// Times are kept to the millisecond: what is finer is cut off.
const fn kept(time: Time) -> Time {
    time - time.rem_euclid(1_000_000)
}

/// The end that a request asks for, where it was accepted within these times.
fn asked_end(
    ttl: Option<Duration>,
    expire_time: Option<Timestamp>,
    (from, to): (Time, Time),
) -> Ends {
    match (ttl, expire_time) {
        (Some(ttl), _) => {
            let ttl = Time::from(ttl.seconds) * 1_000_000_000 + Time::from(ttl.nanos);
            (End::At(kept(from + ttl)), End::At(kept(to + ttl)))
        }
        (None, Some(time)) => (End::At(kept(ns(time))), End::At(kept(ns(time)))),
        (None, None) => (End::Never, End::Never),
    }
}

/// The later of a grant's end and another, as told.
pub(crate) fn later_end(own: End, (from, to): Ends, told: &ToldGrant) -> Result<End, String> {
    let end = told
        .expire_time
        .map_or(End::Never, |time| End::At(ns(time)));
    let within = (own.max(from)..=own.max(to)).contains(&end);
    let is_either = end == own || (from..=to).contains(&end);
    holds(within && is_either, || {
        format!("expire_time: the later of {own:?} and one of {from:?} to {to:?}")
    })?;
    Ok(end)
}

pub(crate) fn role_of(access: Option<&Access>) -> Option<Role> {
    let access = access?;
    Role::named(access.azure_role, &access.role_definition_id)
}

pub(crate) fn namespaces_of(access: Option<&Access>) -> BTreeSet<String> {
    access
        .map(|access| access.namespaces.iter().cloned().collect())
        .unwrap_or_default()
}

pub(crate) fn principal_of(id: &str) -> Principal {
    Principal::of_id(id).expect("one of the walk's principals")
}

/// The same request in other words is the same payload: case of ids, order of namespaces, two names of a role.
fn payload(asked: &GrantRequest) -> Payload {
    let mut same = GrantRequest {
        request_id: String::new(),
        cluster: asked.cluster.to_lowercase(),
        ..asked.clone()
    };
    if let Some(principal) = &mut same.principal {
        principal.object_id = principal.object_id.to_lowercase();
    }
    if let Some(role) = role_of(asked.access.as_ref()) {
        same.access = Some(role.access(&namespaces_of(asked.access.as_ref())));
    }
    Payload::Grant(same)
}

impl Model {
    pub(crate) fn grant(
        &mut self,
        asked: &GrantRequest,
        told: &Told<GrantResponse>,
        when: Window,
    ) -> Verdict {
        let faults = faults::of_grant(asked);
        if !faults.is_empty() {
            return at_fault(told, &faults);
        }
        if asked.validate_only {
            return self.grant_planned(asked, told, when);
        }
        let payload = payload(asked);
        match self.before(&asked.request_id, &payload) {
            Before::Another => return refused(told, &[REUSED]),
            Before::Same(used) => {
                let answer = served(told)?;
                let (grant, job) = told_whole(answer)?;
                self.told_again(&used, grant, job, when)?;
                let known = &self.grants[&grant.grant_id];
                return self.findings_are_told(known, &answer.findings);
            }
            Before::Never => {}
        }
        let obstacles = self.obstacles(asked);
        if !obstacles.is_empty() {
            return refused(told, &obstacles);
        }
        let answer = served(told)?;
        holds(answer.planned_effects.is_empty(), || {
            "planned_effects: with validate_only only".to_owned()
        })?;
        let (grant, job) = told_whole(answer)?;
        match self
            .named_by(&asked.external_key)
            .map(|grant| grant.id.clone())
        {
            Some(named) => self.grant_named(&named, asked, (grant, job), when)?,
            None => self.grant_made(asked, (grant, job), when)?,
        }
        let used = Used {
            payload,
            job: job.job_id.clone(),
            grant: Some(grant.grant_id.clone()),
            matched: 0,
        };
        self.use_up(&asked.request_id, used);
        self.grant_is_told(grant, when)?;
        self.job_is_told(job, when)?;
        self.findings_are_told(&self.grants[&grant.grant_id], &answer.findings)
    }

    /// Notes what a request id was used for.
    pub(crate) fn use_up(&mut self, request_id: &str, used: Used) {
        if !request_id.is_empty() {
            self.requests.insert(request_id.to_lowercase(), used);
        }
    }

    /// The same request again: the same job, and the grant as it is by now.
    fn told_again(
        &mut self,
        used: &Used,
        grant: &ToldGrant,
        job: &ToldJob,
        when: Window,
    ) -> Verdict {
        agree("job_id", &job.job_id, &used.job)?;
        agree("grant_id", &Some(grant.grant_id.clone()), &used.grant)?;
        self.grant_is_told(grant, when)?;
        self.job_is_told(job, when)
    }

    /// A grant that was not there, with a job of its own.
    fn grant_made(
        &mut self,
        asked: &GrantRequest,
        (grant, job): (&ToldGrant, &ToldJob),
        when: Window,
    ) -> Verdict {
        agree("job_id of the grant", &grant.job_id, &job.job_id)?;
        is_new(&grant.grant_id, self.grants.keys().next_back())?;
        let created = grant.create_time.map(ns).ok_or("create_time: present")?;
        holds(when.contains(created), || "create_time: now".to_owned())?;
        let made = wish(asked, &grant.grant_id, created, &job.job_id);
        let mut new = Job::new(
            Kind::Grant,
            &made_or_sent(&asked.request_id, job)?,
            &asked.justification,
        );
        new.of_a_new_grant = true;
        let new = new.about([&made]);
        self.grants.insert(grant.grant_id.clone(), made);
        self.changed.insert(grant.grant_id.clone());
        self.begin(&job.job_id, new)
    }

    /// The live grant that an external key names: its end becomes the later of the two, by a job of its own;
    /// where that changes nothing, its latest job is answered.
    fn grant_named(
        &mut self,
        id: &str,
        asked: &GrantRequest,
        (grant, job): (&ToldGrant, &ToldJob),
        when: Window,
    ) -> Verdict {
        agree("grant_id", &grant.grant_id.as_str(), &id)?;
        let own = self.grants[id].end;
        let ends = asked_end(asked.ttl, asked.expire_time, (when.from, when.to));
        let end = later_end(own, ends, grant)?;
        if end == own {
            return agree("the job, the grant's latest", &job.job_id, &grant.job_id);
        }
        let request_id = made_or_sent(&asked.request_id, job)?;
        let new =
            Job::new(Kind::Grant, &request_id, &asked.justification).about([&self.grants[id]]);
        self.begin(&job.job_id, new)?;
        self.changed.insert(id.to_owned());
        let known = self.grants.get_mut(id).expect("a grant");
        known.end = end;
        known.jobs = BTreeSet::from([job.job_id.clone()]);
        Ok(())
    }

    /// The live grant of this external key.
    pub(crate) fn named_by(&self, external_key: &str) -> Option<&Grant> {
        let mut live = self.live();
        live.find(|grant| !external_key.is_empty() && grant.external_key == external_key)
    }

    /// Every reason for which a well-formed grant is refused.
    pub(crate) fn obstacles(&self, asked: &GrantRequest) -> Vec<Reason> {
        let access = asked.access.as_ref();
        let role = role_of(access);
        let mut reasons = Vec::new();
        let takes = self.company.cluster(&asked.cluster).map_or(
            Takes::Nothing(Code::NotFound, "CLUSTER_NOT_FOUND"),
            |cluster| cluster.takes,
        );
        match takes {
            Takes::Nothing(code, reason) => reasons.push((code, reason)),
            Takes::ClusterUser if role != Some(Role::ClusterUser) => {
                reasons.push(AZURE_RBAC_DISABLED);
            }
            Takes::ClusterUser | Takes::Everything => {}
        }
        reasons.extend(role_refused(access));
        if let Some(named) = self.named_by(&asked.external_key) {
            let id = asked
                .principal
                .as_ref()
                .map(|named| named.object_id.to_lowercase());
            let is_the_same = Some(named.principal.id.to_string()) == id
                && named.cluster == asked.cluster.to_lowercase()
                && Some(named.role) == role
                && named.namespaces == namespaces_of(access);
            reasons.extend((!is_the_same).then_some(KEY_IN_USE));
        }
        reasons
    }

    pub(crate) fn extension(
        &mut self,
        asked: &ExtendGrantRequest,
        told: &Told<ExtendGrantResponse>,
        when: Window,
    ) -> Verdict {
        let faults = faults::of_extension(asked);
        if !faults.is_empty() {
            return at_fault(told, &faults);
        }
        let id = asked.grant_id.to_lowercase();
        let payload = Payload::Extend(ExtendGrantRequest {
            request_id: String::new(),
            grant_id: id.clone(),
            ..asked.clone()
        });
        if !asked.validate_only {
            match self.before(&asked.request_id, &payload) {
                Before::Another => return refused(told, &[REUSED]),
                Before::Same(used) => {
                    let (grant, job) = extension_whole(served(told)?)?;
                    return self.told_again(&used, grant, job, when);
                }
                Before::Never => {}
            }
        }
        let Some(grant) = self.grants.get(&id) else {
            return refused(told, &[UNKNOWN_GRANT]);
        };
        match grant.fate {
            Fate::Live => {}
            Fate::Due if told.is_ok() => {}
            Fate::Due | Fate::Revoked | Fate::Expired => return refused(told, &[ENDED]),
        }
        let answer = served(told)?;
        let told_grant = answer.grant.as_ref().ok_or("grant: present")?;
        let ends = asked_end(asked.ttl, asked.expire_time, (when.from, when.to));
        let end = later_end(grant.end, ends, told_grant)?;
        if asked.validate_only {
            return self.extension_planned(&id, end, answer, when);
        }
        let (told_grant, job) = extension_whole(answer)?;
        if let Some(known) = self.jobs.get(&job.job_id) {
            // Nothing changes, and the grant's last job says so.
            let gives = matches!(known.kind, Kind::Grant | Kind::Extend);
            let is_its = known.grants().eq([&id]) && grant.jobs.contains(&job.job_id);
            holds(gives && is_its && grant.end == end, || {
                "a new job, or the last one of a grant whose end stays".to_owned()
            })?;
            self.note("ExtendGrant answered with a job from before".to_owned());
        } else {
            let request_id = made_or_sent(&asked.request_id, job)?;
            let new = Job::new(Kind::Extend, &request_id, &asked.justification).about([grant]);
            self.begin(&job.job_id, new)?;
            self.extended(&id, end, job);
        }
        let used = Used {
            payload,
            job: job.job_id.clone(),
            grant: Some(id),
            matched: 0,
        };
        self.use_up(&asked.request_id, used);
        self.grant_is_told(told_grant, when)?;
        self.job_is_told(job, when)
    }

    /// A live grant has this end now, and the extension for its latest job if it has something to do: where
    /// nothing moved it may wait for an earlier one, or be over at once.
    fn extended(&mut self, id: &str, end: End, job: &ToldJob) {
        self.changed.insert(id.to_owned());
        let grant = self.grants.get_mut(id).expect("a grant");
        if grant.end != end || job.finish_time.is_none() {
            grant.jobs.clear();
        }
        grant.jobs.insert(job.job_id.clone());
        grant.end = end;
        grant.fate = Fate::Live;
    }
}

/// A role that is never assigned, or that there is not.
pub(crate) fn role_refused(access: Option<&Access>) -> Option<Reason> {
    let id = access.map(|access| access.role_definition_id.as_str())?;
    match id.rsplit('/').next().unwrap_or_default() {
        CLUSTER_ADMIN_ROLE | OWNER => Some(ROLE_NOT_ALLOWED),
        NO_ROLE => Some(ROLE_NOT_FOUND),
        _ => None,
    }
}

/// What is wished by a request that made this grant.
pub(crate) fn wish(asked: &GrantRequest, id: &str, created: Time, job: &str) -> Grant {
    let principal = asked.principal.as_ref().expect("a principal");
    let (_, end) = asked_end(asked.ttl, asked.expire_time, (created, created));
    Grant {
        id: id.to_owned(),
        principal: principal_of(&principal.object_id),
        cluster: asked.cluster.to_lowercase(),
        role: role_of(asked.access.as_ref()).expect("a role"),
        namespaces: namespaces_of(asked.access.as_ref()),
        justification: asked.justification.clone(),
        labels: asked.labels.clone().into_iter().collect(),
        external_key: asked.external_key.clone(),
        on_behalf_of: asked.on_behalf_of.clone(),
        create_time: created,
        end,
        fate: if end < End::At(created + NEAR) {
            Fate::Due
        } else {
            Fate::Live
        },
        state: State::Pending,
        jobs: BTreeSet::from([job.to_owned()]),
        told: None,
    }
}

fn told_whole(answer: &GrantResponse) -> Result<(&ToldGrant, &ToldJob), String> {
    let grant = answer.grant.as_ref().ok_or("grant: present")?;
    Ok((grant, answer.job.as_ref().ok_or("job: present")?))
}

fn extension_whole(answer: &ExtendGrantResponse) -> Result<(&ToldGrant, &ToldJob), String> {
    holds(answer.planned_effects.is_empty(), || {
        "planned_effects: with validate_only only".to_owned()
    })?;
    let grant = answer.grant.as_ref().ok_or("grant: present")?;
    Ok((grant, answer.job.as_ref().ok_or("job: present")?))
}

/// An id that was never told: a UUIDv7, which sorts behind all that were made before.
fn is_new(id: &str, newest: Option<&String>) -> Verdict {
    let version = Uuid::parse_str(id).map(|id| id.get_version_num());
    holds(
        version == Ok(7) && newest.is_none_or(|newest| newest.as_str() < id),
        || format!("a new UUIDv7, which sorts behind {newest:?}, not {id}"),
    )
}

/// The request id of a new job: the one that was sent, or one that the broker made.
pub(crate) fn made_or_sent(sent: &str, job: &ToldJob) -> Result<String, String> {
    if !sent.is_empty() {
        return Ok(sent.to_lowercase());
    }
    holds(Uuid::parse_str(&job.request_id).is_ok(), || {
        "request_id: a UUID that the broker made".to_owned()
    })?;
    Ok(job.request_id.clone())
}
