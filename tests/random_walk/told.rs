//! What answers tell of grants, jobs and effects, held against the model; which learns from them how far things
//! have come.

use std::collections::{BTreeMap, BTreeSet};

use aks_access_broker::grpc::proto::effect::{Change, Kind as EffectKind};
use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::job::{self, Kind};
use aks_access_broker::grpc::proto::{
    Effect, Finding, Grant as ToldGrant, Job as ToldJob, JobTarget, Principal as ToldPrincipal,
};
use uuid::Uuid;

use crate::company::Role;
use crate::model::{
    End, Fate, Grant, Job, Model, Place, Target, Time, Verdict, Window, agree, holds, is_final, ns,
    scope,
};

fn end_told(told: &ToldGrant) -> End {
    told.expire_time
        .map_or(End::Never, |time| End::At(ns(time)))
}

impl Model {
    /// A grant, as it is by now, without its effects.
    pub(crate) fn grant_is_told(&mut self, told: &ToldGrant, when: Window) -> Verdict {
        let Some(known) = self.grants.get(&told.grant_id) else {
            return Err("no such grant: none of this id was ever made".to_owned());
        };
        let caller = self.caller.get_or_insert_with(|| told.requested_by.clone());
        agree("requested_by", &told.requested_by, caller)?;
        agree("principal", &told.principal, &Some(principal(known)))?;
        agree("cluster", &told.cluster, &known.cluster)?;
        let access = known.role.access(&known.namespaces);
        agree("access", &told.access, &Some(access))?;
        let labels: BTreeMap<_, _> = told.labels.clone().into_iter().collect();
        agree("labels", &labels, &known.labels)?;
        agree("justification", &told.justification, &known.justification)?;
        agree("external_key", &told.external_key, &known.external_key)?;
        agree("on_behalf_of", &told.on_behalf_of, &known.on_behalf_of)?;
        agree("start_time", &told.start_time, &None)?;
        agree("last_error", &told.last_error, &None)?;
        let created = told.create_time.map(ns);
        agree("create_time", &created, &Some(known.create_time))?;
        agree("expire_time", &end_told(told), &known.end)?;
        let may_be = known.may_be();
        holds(may_be.contains(&told.state()), || {
            format!("state: one of {may_be:?}")
        })?;
        self.note(format!("grant {}", told.state().as_str_name()));
        self.its_end_is_told(told, when)?;
        self.its_last_change_is_told(told, when)?;
        self.learn_of_grant(told, when)
    }

    /// `end_time` and `ended_by`.
    fn its_end_is_told(&mut self, told: &ToldGrant, when: Window) -> Verdict {
        use State::{Active, Expired, Pending, Revoked, Revoking};
        let created = self.grants[&told.grant_id].create_time;
        let state = told.state();
        match told.end_time.map(ns) {
            Some(time) => holds(
                matches!(state, Revoked | Expired) && (created..=when.to).contains(&time),
                || "end_time: between its creation and now, and only where it has ended".to_owned(),
            )?,
            None => holds(!matches!(state, Revoked | Expired), || {
                "end_time: present, as it has ended".to_owned()
            })?,
        }
        let caller = self.caller.clone().unwrap_or_default();
        let expires = matches!(self.grants[&told.grant_id].fate, Fate::Due | Fate::Expired);
        match state {
            Pending | Active => agree("ended_by", &told.ended_by, &String::new()),
            Revoking | Expired if expires => {
                let broker = self.broker.get_or_insert_with(|| told.ended_by.clone());
                holds(!broker.is_empty() && *broker != caller, || {
                    "ended_by: the broker itself".to_owned()
                })?;
                agree("ended_by", &told.ended_by, broker)
            }
            _ => agree("ended_by", &told.ended_by, &caller),
        }
    }

    /// `update_time` says when state or end last changed: not before they were last seen to be otherwise, and
    /// not at all where they are what they were.
    fn its_last_change_is_told(&self, told: &ToldGrant, when: Window) -> Verdict {
        let updated = told.update_time.map(ns).unwrap_or_default();
        holds(updated <= when.to, || "update_time: in the past".to_owned())?;
        let Some((before, asked)) = &self.grants[&told.grant_id].told else {
            return Ok(());
        };
        if (before.state, before.expire_time) == (told.state, told.expire_time) {
            return agree("update_time", &told.update_time, &before.update_time);
        }
        holds(updated >= *asked, || {
            "update_time: later than the grant was as it was told before".to_owned()
        })
    }

    fn learn_of_grant(&mut self, told: &ToldGrant, when: Window) -> Verdict {
        let grant = self.grants.get_mut(&told.grant_id).expect("a grant");
        grant.state = told.state();
        grant.told = Some((told.clone(), when.from));
        if grant.fate == Fate::Due && matches!(grant.state, State::Revoking | State::Expired) {
            let (id, job) = (grant.id.clone(), Job::new(Kind::Expire, "", ""));
            let job = job.about([&*grant]);
            self.end(&id, Fate::Expired, &told.job_id);
            return self.begin(&told.job_id, job);
        }
        holds(grant.jobs.contains(&told.job_id), || {
            format!("job_id: one of {:?}", grant.jobs)
        })?;
        grant.jobs = BTreeSet::from([told.job_id.clone()]);
        Ok(())
    }

    /// What is in place for a grant: all that it calls for once it is carried out, nothing once it has ended,
    /// and part of that in between.
    pub(crate) fn effects_are_told(&self, told: &ToldGrant) -> Verdict {
        let grant = &self.grants[&told.grant_id];
        let target = grant.target();
        let mut places = BTreeSet::new();
        for effect in &told.effects {
            let place = self.effect_is_told(effect, &target)?;
            holds(effect.change() == Change::Unspecified, || {
                "effects are shown as they stand: their change is not said".to_owned()
            })?;
            holds(places.insert(place), || {
                format!("each effect once, not {} twice", effect.resource_id)
            })?;
        }
        let called_for = grant.calls_for();
        holds(places.is_subset(&called_for), || {
            format!("effects: among {called_for:?}")
        })?;
        let expected = match told.state() {
            State::Revoked | State::Expired => BTreeSet::new(),
            State::Active if self.rests(&target) => called_for,
            _ => return Ok(()),
        };
        agree("effects", &places, &expected)
    }

    /// One effect of a target's, whatever is done to it; gives its place.
    pub(crate) fn effect_is_told(&self, effect: &Effect, target: &Target) -> Result<Place, String> {
        let (cluster, principal) = target;
        agree("kind", &effect.kind(), &EffectKind::RoleAssignment)?;
        agree("cluster", &effect.cluster, cluster)?;
        agree("principal_id", &effect.principal_id, &principal.to_string())?;
        let role = Role::ALL
            .into_iter()
            .find(|role| role.display_name() == effect.role)
            .ok_or("role: the display name of a role that was granted")?;
        let namespace = effect.scope.strip_prefix(&format!("{cluster}/namespaces/"));
        agree("scope", &effect.scope, &scope(cluster, namespace))?;
        let place = (role, namespace.map(str::to_owned));
        // Before a call has shown it nobody knows that somebody else's stands there.
        if self.rests(target) || !effect.managed {
            let ours = !self.is_foreign(target, &place);
            agree("managed", &effect.managed, &ours)?;
        }
        let above = format!(
            "{}/providers/microsoft.authorization/roleassignments/",
            effect.scope
        );
        let id = effect.resource_id.to_lowercase();
        let name = id.strip_prefix(&above).map(Uuid::parse_str);
        holds(matches!(name, Some(Ok(_))), || {
            "resource_id: a role assignment's at the effect's scope".to_owned()
        })?;
        Ok(place)
    }

    /// A job, as it is by now.
    pub(crate) fn job_is_told(&mut self, told: &ToldJob, when: Window) -> Verdict {
        let Some(known) = self.jobs.get(&told.job_id) else {
            return Err("no such job: nothing ever set one off of this id".to_owned());
        };
        agree("kind", &told.kind(), &known.kind)?;
        agree("request_id", &told.request_id, &known.request_id)?;
        agree("justification", &told.justification, &known.justification)?;
        let by = match known.kind {
            Kind::Expire => &mut self.broker,
            _ => &mut self.caller,
        };
        let by = by.get_or_insert_with(|| told.requested_by.clone());
        agree("requested_by", &told.requested_by, by)?;
        let may_be = known.may_be();
        holds(may_be.contains(&told.state), || {
            format!("state: one of {may_be:?}")
        })?;
        self.note(format!("job {}", told.state().as_str_name()));
        let over = is_final(told.state());
        let retrying = told.state() == job::State::Retrying;
        agree("finish_time", &told.finish_time.is_some(), &over)?;
        agree("enforce_time", &told.enforce_time.is_some(), &over)?;
        agree(
            "consistency_token",
            &!told.consistency_token.is_empty(),
            &over,
        )?;
        agree(
            "next_attempt_time",
            &told.next_attempt_time.is_some(),
            &retrying,
        )?;
        if !retrying {
            agree("last_error", &told.last_error, &None)?;
        }
        self.its_targets_are_counted(told, over)?;
        self.learn_of_job(told, when)
    }

    fn its_targets_are_counted(&self, told: &ToldJob, over: bool) -> Verdict {
        let known = &self.jobs[&told.job_id];
        let certain: BTreeSet<Target> = known.targets.keys().cloned().collect();
        let perhaps = known.perhaps.iter().map(|id| self.grants[id].target());
        let possible: BTreeSet<Target> = certain.iter().cloned().chain(perhaps).collect();
        let counts = certain.len()..=possible.len();
        let total = usize::try_from(told.total_targets).unwrap_or(usize::MAX);
        holds(counts.contains(&total), || {
            format!("total_targets: {counts:?}")
        })?;
        let (done, count) = (told.completed_targets, told.total_targets);
        holds(if over { done == count } else { done < count }, || {
            "completed_targets: all of them when the job is over, and not before".to_owned()
        })?;
        let [certain, possible] = [&certain, &possible];
        let cluster = |(cluster, _): &Target| cluster.clone();
        in_common("cluster", &told.cluster, certain, possible, cluster)?;
        let told_id = told.principal.as_ref().map(|told| told.object_id.clone());
        let principal = |(_, principal): &Target| principal.to_string();
        let told_id = told_id.unwrap_or_default();
        in_common("principal", &told_id, certain, possible, principal)
    }

    fn learn_of_job(&mut self, told: &ToldJob, when: Window) -> Verdict {
        let known = self.jobs.get_mut(&told.job_id).expect("a job");
        let created = told.create_time.map(ns).ok_or("create_time: present")?;
        agree(
            "create_time",
            &created,
            known.create_time.get_or_insert(created),
        )?;
        let finished: Time = told.finish_time.map_or(created, ns);
        holds(created <= finished && finished <= when.to, || {
            "finish_time: between the job's creation and now".to_owned()
        })?;
        holds(told.attempts >= known.attempts, || {
            format!("attempts: at least {}", known.attempts)
        })?;
        known.attempts = told.attempts;
        if told.state() != job::State::Retrying || known.state == job::State::Queued {
            known.state = told.state();
        }
        if is_final(told.state()) {
            self.finish(&told.job_id, told.state());
        }
        Ok(())
    }

    /// One target of a job, which is in `state` at that moment.
    pub(crate) fn target_is_told(
        &self,
        job_id: &str,
        state: job::State,
        told: &JobTarget,
    ) -> Result<Target, String> {
        let known = &self.jobs[job_id];
        let principal = told.principal.clone().unwrap_or_default();
        let id = Uuid::parse_str(&principal.object_id).unwrap_or_default();
        let target = (told.cluster.clone(), id);
        let Some(grants) = known.targets.get(&target) else {
            return Err(format!("targets: {:?}", known.targets.keys()));
        };
        let told_grants: BTreeSet<String> = told.grant_ids.iter().cloned().collect();
        agree("grant_ids", &told_grants, grants)?;
        self.what_was_done_is_told(told, &target, grants)?;
        let mut may_be = known.may_end.clone();
        if !is_final(state) {
            use job::State::{Queued, Retrying, Running};
            may_be.extend([Queued, Running, Retrying].map(i32::from));
        }
        holds(may_be.contains(&told.state), || {
            format!("the target's state: one of {may_be:?}")
        })?;
        Ok(target)
    }

    /// What has been done on a target for a job: each effect by its latest change, and only what its grants call
    /// for. What was found in place is told where it is somebody else's.
    fn what_was_done_is_told(
        &self,
        told: &JobTarget,
        target: &Target,
        grants: &BTreeSet<String>,
    ) -> Verdict {
        let called_for = grants.iter().map(|id| self.grants[id].calls_for());
        let called_for: BTreeSet<Place> = called_for.flatten().collect();
        let mut places = BTreeSet::new();
        for effect in &told.effects {
            let place = self.effect_is_told(effect, target)?;
            holds(called_for.contains(&place), || {
                format!("effects of a job: among {called_for:?}, not {place:?}")
            })?;
            let is_change = match effect.change() {
                Change::Create | Change::Update | Change::Delete => effect.managed,
                Change::None => !effect.managed,
                Change::Unspecified => false,
            };
            holds(is_change && places.insert(place), || {
                format!("what was done to {}, once", effect.resource_id)
            })?;
        }
        Ok(())
    }

    /// What is worth knowing beside a grant: what there is to say of its cluster, and who else has assigned the
    /// same to the same principal, there or above.
    pub(crate) fn findings_are_told(&self, grant: &Grant, told: &[Finding]) -> Verdict {
        let cluster = self.company.cluster(&grant.cluster).expect("a cluster");
        let mut expected: Vec<&str> = cluster.findings.to_vec();
        let given = |theirs: &&crate::company::Foreign| {
            theirs.holder == grant.principal.id
                && grant.calls_for().iter().any(|(role, namespace)| {
                    let at = scope(&grant.cluster, namespace.as_deref());
                    *role == theirs.role && at.starts_with(&theirs.scope)
                })
        };
        let others = self.company.foreign.iter().filter(given);
        expected.extend(others.map(|_| "UNMANAGED_ASSIGNMENT"));
        expected.sort_unstable();
        let told = told.iter().map(|found| found.reason.as_str());
        // Nobody may have looked in time, on a machine that has much else to do.
        let in_time = told.clone().all(|reason| reason != "ASSIGNMENTS_NOT_READ");
        if !in_time {
            return Ok(());
        }
        let mut told: Vec<&str> = told.collect();
        told.sort_unstable();
        agree("findings", &told, &expected)
    }
}

/// What all targets of a job have in common is told, and nothing where they differ; some of the targets are certain,
/// and none is another than these.
fn in_common(
    what: &str,
    told: &String,
    certain: &BTreeSet<Target>,
    possible: &BTreeSet<Target>,
    of: impl Fn(&Target) -> String,
) -> Verdict {
    let certain: BTreeSet<String> = certain.iter().map(&of).collect();
    let possible: BTreeSet<String> = possible.iter().map(&of).collect();
    if certain == possible {
        let only = certain.first().filter(|_| certain.len() == 1);
        return agree(what, told, &only.cloned().unwrap_or_default());
    }
    let is_so = if told.is_empty() {
        certain.is_empty() || possible.len() > 1
    } else {
        possible.contains(told) && certain.iter().all(|one| one == told)
    };
    holds(is_so, || {
        format!("{what}: what is common to {certain:?}, and perhaps to {possible:?}")
    })
}

/// A principal that was named by object id and type: nobody was looked up.
fn principal(grant: &Grant) -> ToldPrincipal {
    ToldPrincipal {
        object_id: grant.principal.id.to_string(),
        r#type: grant.principal.kind.into(),
        ..ToldPrincipal::default()
    }
}
