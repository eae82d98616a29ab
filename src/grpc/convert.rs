//! What the broker answers → the contract's messages. Nothing here can fail.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::access::{Principal, PrincipalType};
use crate::domain::effect::{Effect, Known};
use crate::domain::grant::{Ending, Grant, GrantState, role_name};
use crate::domain::ids::TargetId;
use crate::domain::job::{Failure, Job, JobKind, JobState, JobTarget};
use crate::domain::preview::{Change, PlannedEffect};
use crate::domain::role::{BuiltInRole, Role};

use super::proto;

mod audit;
mod check;
mod cluster;
mod plan;

pub(super) use audit::audit_page;
pub(super) use check::{access_page, answer, failed_check, invalid_check};
pub(super) use cluster::{cluster, clusters, finding};
pub(super) use plan::{planned_extension, planned_grant, planned_revocation};

/// How long AKS's own caches may keep to what they last heard [kubeguard/guard: five minutes, and three
/// for what stands before it].
const CLUSTERS_OWN_CACHES: Duration = Duration::from_mins(8);

/// The first targets of a job, as many as its answers tell.
const TARGETS_TOLD: usize = 20;

/// A grant and what is in place for it.
pub(super) fn grant(grant: &Grant, effects: &[Effect]) -> proto::Grant {
    proto::Grant {
        grant_id: grant.id.to_string(),
        principal: Some(principal(&grant.principal)),
        cluster: grant.target.cluster.to_string(),
        access: Some(access(grant)),
        state: grant_state(grant.state).into(),
        create_time: Some(timestamp(grant.create_time)),
        expire_time: grant.expiry.time().map(timestamp),
        requested_by: grant.requested_by.clone(),
        justification: grant.justification.clone(),
        effects: effects.iter().map(|e| effect(e, grant)).collect(),
        job_id: grant.job.to_string(),
        last_error: grant.last_error.as_ref().map(failure),
        update_time: Some(timestamp(grant.update_time)),
        end_time: grant.end_time.map(timestamp),
        ended_by: grant.ended_by.clone(),
        labels: grant
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        external_key: grant
            .external_key
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        on_behalf_of: grant
            .on_behalf_of
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        ..proto::Grant::default()
    }
}

/// A principal as it was resolved.
fn principal(principal: &Principal) -> proto::Principal {
    proto::Principal {
        object_id: principal.id.to_string(),
        r#type: principal_type(principal.kind).into(),
        display_name: principal.display_name.clone(),
        user_principal_name: principal.user_principal_name.clone(),
    }
}

const fn principal_type(kind: PrincipalType) -> proto::PrincipalType {
    match kind {
        PrincipalType::User => proto::PrincipalType::User,
        PrincipalType::Group => proto::PrincipalType::Group,
        PrincipalType::ServicePrincipal => proto::PrincipalType::ServicePrincipal,
    }
}

fn access(grant: &Grant) -> proto::Access {
    let namespaces = grant.access.namespaces.iter();
    let mut access = proto::Access {
        namespaces: namespaces.map(ToString::to_string).collect(),
        ..proto::Access::default()
    };
    match &grant.access.role {
        Role::BuiltIn(role) => access.azure_role = azure_role(*role).into(),
        Role::Custom { id, .. } => access.role_definition_id = id.to_string(),
    }
    access
}

const fn azure_role(role: BuiltInRole) -> proto::AzureRole {
    match role {
        BuiltInRole::ClusterUser => proto::AzureRole::ClusterUser,
        BuiltInRole::RbacReader => proto::AzureRole::RbacReader,
        BuiltInRole::RbacWriter => proto::AzureRole::RbacWriter,
        BuiltInRole::RbacAdmin => proto::AzureRole::RbacAdmin,
        BuiltInRole::RbacClusterAdmin => proto::AzureRole::RbacClusterAdmin,
    }
}

const fn grant_state(state: GrantState) -> proto::grant::State {
    use proto::grant::State;
    match state {
        GrantState::Pending => State::Pending,
        GrantState::Active => State::Active,
        GrantState::Revoking(_) => State::Revoking,
        GrantState::Ended(Ending::Revoked) => State::Revoked,
        GrantState::Ended(Ending::Expired) => State::Expired,
        GrantState::Ended(Ending::Failed) => State::Failed,
    }
}

fn effect(effect: &Effect, grant: &Grant) -> proto::Effect {
    let (name, managed) = match &effect.known {
        Known::Foreign(foreign) => (foreign.name, false),
        Known::Absent | Known::Present | Known::NameRefused => (effect.name, true),
    };
    let as_it_is = PlannedEffect {
        name,
        at: effect.at.clone(),
        change: Change::Keep,
        managed,
    };
    proto::Effect {
        // Shown as it stands: nothing is done to it, nor would be.
        change: proto::effect::Change::Unspecified.into(),
        ..planned(&as_it_is, &grant.target, std::slice::from_ref(grant))
    }
}

/// What would be done to one of a target's effects, for these grants.
pub(super) fn planned(
    effect: &PlannedEffect,
    target: &TargetId,
    grants: &[Grant],
) -> proto::Effect {
    changed(effect, role_name(effect.at.role, grants), target)
}

/// An effect of a target's, and what is done to it.
fn changed(effect: &PlannedEffect, role: String, target: &TargetId) -> proto::Effect {
    use proto::effect;
    let change = match effect.change {
        Change::Create => effect::Change::Create,
        Change::Update => effect::Change::Update,
        Change::Delete => effect::Change::Delete,
        Change::Keep => effect::Change::None,
    };
    proto::Effect {
        kind: effect::Kind::RoleAssignment.into(),
        change: change.into(),
        resource_id: effect.at.assignment_id(effect.name),
        role,
        scope: effect.at.scope.to_string(),
        managed: effect.managed,
        cluster: target.cluster.to_string(),
        principal_id: target.principal.to_string(),
    }
}

/// A job. `lag` is how far Azure's reads may trail its writes, its own caches included.
pub(super) fn job(job: &Job, lag: Duration) -> proto::Job {
    proto::Job {
        job_id: job.id.to_string(),
        kind: job_kind(job.kind).into(),
        state: job_state(job.state).into(),
        request_id: job.request_id.map(|id| id.to_string()).unwrap_or_default(),
        requested_by: job.requested_by.clone(),
        create_time: Some(timestamp(job.create_time)),
        finish_time: job.finish_time.map(timestamp),
        next_attempt_time: job.next_attempt_time.map(timestamp),
        attempts: count(job.attempts),
        total_targets: count(job.total_targets),
        completed_targets: count(job.completed_targets),
        last_error: job.last_error.as_ref().map(failure),
        consistency_token: job
            .consistency_token
            .map(|token| token.to_string())
            .unwrap_or_default(),
        enforce_time: job.finish_time.and_then(|end| enforced(end, lag)),
        principal: job.principal.as_ref().map(principal),
        cluster: job
            .cluster
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        justification: job.justification.clone(),
        ..proto::Job::default()
    }
}

/// By when the cluster itself grants or refuses accordingly.
fn enforced(end: Timestamp, lag: Duration) -> Option<prost_types::Timestamp> {
    end.checked_add(lag.saturating_add(CLUSTERS_OWN_CACHES))
        .ok()
        .map(timestamp)
}

/// The targets of a job that an answer tells.
pub(super) fn targets(job: &Job) -> Vec<proto::JobTarget> {
    job.targets.iter().take(TARGETS_TOLD).map(target).collect()
}

/// Those of them that are not as they were in `before`.
pub(super) fn changed_targets(job: &Job, before: &Job) -> Vec<proto::JobTarget> {
    let told = job.targets.iter().take(TARGETS_TOLD);
    told.filter(|target| !before.targets.contains(target))
        .map(target)
        .collect()
}

pub(super) fn target(target: &JobTarget) -> proto::JobTarget {
    proto::JobTarget {
        principal: Some(principal(&target.principal)),
        cluster: target.id.cluster.to_string(),
        state: job_state(target.state).into(),
        attempts: count(target.attempts),
        next_attempt_time: target.next_attempt_time.map(timestamp),
        last_error: target.last_error.as_ref().map(failure),
        effects: target
            .effects
            .iter()
            .map(|done| changed(&done.effect, done.role_name.clone(), &target.id))
            .collect(),
        grant_ids: target.grants.iter().map(ToString::to_string).collect(),
        ..proto::JobTarget::default()
    }
}

const fn job_kind(kind: JobKind) -> proto::job::Kind {
    match kind {
        JobKind::Grant => proto::job::Kind::Grant,
        JobKind::Revoke => proto::job::Kind::Revoke,
        JobKind::Expire => proto::job::Kind::Expire,
        JobKind::Extend => proto::job::Kind::Extend,
    }
}

const fn job_state(state: JobState) -> proto::job::State {
    use proto::job::State;
    match state {
        JobState::Queued => State::Queued,
        JobState::Running => State::Running,
        JobState::Retrying => State::Retrying,
        JobState::Succeeded => State::Succeeded,
        JobState::Failed => State::Failed,
        JobState::Superseded => State::Superseded,
    }
}

fn failure(failure: &Failure) -> proto::Failure {
    proto::Failure {
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        azure_correlation_id: failure.azure_correlation_id.clone(),
        retryable: failure.retryable,
        code: failure.code,
        metadata: failure.metadata.clone().into_iter().collect(),
    }
}

/// A count of the contract's: what it cannot hold it does not need to tell apart.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970 jiff's fraction is negative, and the contract's counts forward all the same.
    let (seconds, nanos) = match (time.as_second(), time.subsec_nanosecond()) {
        (seconds, nanos) if nanos < 0 => (seconds - 1, nanos + 1_000_000_000),
        whole => whole,
    };
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests;
