//! Answers to `validate_only`.

use crate::broker::{PlannedGrant, PlannedRevocation};
use crate::domain::grant::Grant;
use crate::domain::preview::PlannedEffect;
use crate::grpc::proto;

use super::cluster::finding;
use super::planned;

pub(in crate::grpc) fn planned_grant(plan: &PlannedGrant) -> proto::GrantResponse {
    proto::GrantResponse {
        grant: Some(if plan.exists {
            super::grant(&plan.grant, &[])
        } else {
            not_made(&plan.grant)
        }),
        job: None,
        planned_effects: effects(&plan.grant, &plan.effects),
        findings: plan.findings.iter().map(finding).collect(),
    }
}

pub(in crate::grpc) fn planned_extension(
    grant: &Grant,
    planned: &[PlannedEffect],
) -> proto::ExtendGrantResponse {
    proto::ExtendGrantResponse {
        grant: Some(super::grant(grant, &[])),
        job: None,
        planned_effects: effects(grant, planned),
    }
}

pub(in crate::grpc) fn planned_revocation(plan: &PlannedRevocation) -> proto::RevokeResponse {
    let effects = plan.effects.iter();
    proto::RevokeResponse {
        job: None,
        planned_effects: effects
            .map(|(target, effect)| planned(effect, target, &plan.grants))
            .collect(),
        matched_grants: i32::try_from(plan.matched()).unwrap_or(i32::MAX),
        planned_residual_access: Vec::new(),
        left_grants: super::count(plan.left),
    }
}

fn effects(grant: &Grant, effects: &[PlannedEffect]) -> Vec<proto::Effect> {
    let of_grant = |effect| planned(effect, &grant.target, std::slice::from_ref(grant));
    effects.iter().map(of_grant).collect()
}

/// A grant that was never made: it has no id, no job, and no times but its end.
fn not_made(grant: &Grant) -> proto::Grant {
    proto::Grant {
        grant_id: String::new(),
        job_id: String::new(),
        create_time: None,
        update_time: None,
        ..super::grant(grant, &[])
    }
}
