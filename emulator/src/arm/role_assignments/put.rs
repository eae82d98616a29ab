//! PUT of a role assignment: Azure's rules, one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};

use hyper::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

use super::super::Admitted;
use super::super::error::ArmError;
use super::body_of_put;
use crate::message::Answer;
use crate::scope::{Level, Scope};
use crate::settings::{PutExistingStatus, Settings};
use crate::state::{Record, RoleAssignment, State};
use crate::world::PrincipalType;

/// Longest description; the recommendation is 512 [azure-docs limits.md].
const LONGEST_DESCRIPTION: usize = 2_048;

#[derive(Deserialize)]
struct Body {
    properties: Properties,
}

/// What of a PUT's body has an effect. Azure ignores other properties: clients send back what they read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    role_definition_id: String,
    principal_id: String,
    principal_type: Option<PrincipalType>,
    description: Option<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

pub(super) fn put(call: &Admitted<'_>, scope: &Scope, name: Uuid) -> Result<Answer, ArmError> {
    let body: Body =
        serde_json::from_slice(&call.request.body).map_err(|_| ArmError::bad_format())?;
    let settings = call.core.settings();
    // Locked from the first check to the commit: two PUTs at once must not both find the place free.
    let mut store = call.core.store();
    let wanted = read(call, &store.state, &settings, scope, name, body.properties)?;
    let (assignment, status) = decide(call, &store.state, &settings, wanted)?;
    let records = vec![Record::RoleAssignment(assignment.clone())];
    let committed = call
        .core
        .commit(&mut store, records, Some(call.request.sequence), call.now);
    committed.map_err(|error| ArmError::storage(&error))?;
    Ok(Answer::json(status, &body_of_put(&assignment, call.now)))
}

/// The assignment that the body asks for, if each of its parts is acceptable in itself.
fn read(
    call: &Admitted<'_>,
    state: &State,
    settings: &Settings,
    scope: &Scope,
    name: Uuid,
    sent: Properties,
) -> Result<RoleAssignment, ArmError> {
    let role = role(call, state, settings, scope, &sent.role_definition_id)?;
    if sent
        .description
        .as_ref()
        .is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION)
    {
        return Err(ArmError::description_too_long());
    }
    let principal = Uuid::try_parse(&sent.principal_id)
        .map_err(|_| ArmError::invalid_principal_id(&sent.principal_id))?;
    let principal_type = principal_type(call, state, settings, principal, sent.principal_type)?;
    Ok(RoleAssignment {
        name,
        scope: scope.clone(),
        role,
        principal,
        principal_type,
        description: sent.description,
        condition: sent.condition,
        condition_version: sent.condition_version,
        created_on: call.now.wall,
        updated_on: call.now.wall,
        created_by: Some(call.caller),
        updated_by: Some(call.caller),
    })
}

/// The role's GUID: only the last segment counts, with or without a subscription in front
/// [rest-api-specs#11103].
fn role(
    call: &Admitted<'_>,
    state: &State,
    settings: &Settings,
    scope: &Scope,
    sent: &str,
) -> Result<Uuid, ArmError> {
    let guid = sent.rsplit('/').next().unwrap_or_default();
    let id = Uuid::try_parse(guid).map_err(|_| ArmError::invalid_role_definition_id(sent))?;
    let known = state.role_definition(id).filter(|(role, since)| {
        let replicated = since.is_zero()
            || call.now.elapsed >= since.saturating_add(settings.custom_role_replication);
        replicated && state.is_assignable(role, scope)
    });
    known
        .map(|_| id)
        .ok_or_else(|| ArmError::no_such_role_definition(StatusCode::BAD_REQUEST, &id.to_string()))
}

/// With `principalType` Azure skips the look-up, so that any object id will do, unless it knows better.
fn principal_type(
    call: &Admitted<'_>,
    state: &State,
    settings: &Settings,
    principal: Uuid,
    sent: Option<PrincipalType>,
) -> Result<PrincipalType, ArmError> {
    let known = state
        .principal(principal)
        .map(crate::world::Principal::principal_type);
    let replicated = state.principal_since(principal).is_some_and(|since| {
        since.is_zero() || call.now.elapsed >= since.saturating_add(settings.principal_replication)
    });
    match (sent, known.filter(|_| replicated)) {
        (Some(sent), Some(known)) if sent != known => {
            Err(ArmError::unmatched_principal_type(principal, known, sent))
        }
        (Some(sent), _) => Ok(sent),
        (None, Some(known)) => Ok(known),
        (None, None) => Err(ArmError::no_such_principal(principal, state.tenant())),
    }
}

/// Whether the assignment can stand beside what is there, and how the PUT is then answered.
fn decide(
    call: &Admitted<'_>,
    state: &State,
    settings: &Settings,
    mut wanted: RoleAssignment,
) -> Result<(RoleAssignment, StatusCode), ArmError> {
    if let Some(existing) = state.role_assignment(wanted.name) {
        ArmError::check_update(existing, &wanted)?;
        wanted.created_on = existing.created_on;
        wanted.created_by = existing.created_by;
        // The case it was first written in stays.
        wanted.scope = existing.scope.clone();
        let status = match settings.put_existing_status {
            PutExistingStatus::Created => StatusCode::CREATED,
            PutExistingStatus::Ok => StatusCode::OK,
        };
        return Ok((wanted, status));
    }
    if has_hash_conflict(
        wanted.name,
        call.core.seed,
        settings.hash_conflict_probability,
    ) {
        return Err(ArmError::hash_conflict());
    }
    // With and without a condition count as the same [azure.md §1].
    if let Some(twin) = state.twin(wanted.principal, wanted.role, &wanted.scope) {
        return Err(ArmError::role_assignment_exists(
            settings.role_assignment_exists_wording,
            twin.name,
        ));
    }
    let limit = match wanted.scope.level() {
        Level::ManagementGroup | Level::Root => settings.management_group_role_assignment_limit,
        Level::Subscription | Level::ResourceGroup | Level::Resource => {
            settings.role_assignment_limit
        }
    };
    if state.count_beside(&wanted.scope) >= limit {
        return Err(ArmError::limit_exceeded());
    }
    Ok((wanted, StatusCode::CREATED))
}

/// The name decides, so that a name which was refused once is refused for good [azure-cli#13368, ARO-RP#670].
#[expect(
    clippy::cast_precision_loss,
    reason = "a share of names need not be exact to the last bit"
)]
fn has_hash_conflict(name: Uuid, seed: u64, probability: f64) -> bool {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    (hasher.finish() as f64) < probability * (u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::has_hash_conflict;

    #[test]
    fn about_one_name_in_a_hundred_conflicts_and_goes_on_doing_so() {
        let names: Vec<Uuid> = (0..10_000).map(Uuid::from_u128).collect();
        let refused = |seed| -> Vec<&Uuid> {
            names
                .iter()
                .filter(|name| has_hash_conflict(**name, seed, 0.01))
                .collect()
        };
        assert!(
            (50..200).contains(&refused(1).len()),
            "{}",
            refused(1).len()
        );
        assert_eq!(refused(1), refused(1));
        assert_ne!(refused(1), refused(2));
        assert!(!names.iter().any(|name| has_hash_conflict(*name, 1, 0.0)));
        assert!(names.iter().all(|name| has_hash_conflict(*name, 1, 1.0)));
    }
}
