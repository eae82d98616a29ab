//! Role assignments: read, written, deleted, listed.

mod list;
mod put;

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ArmError;
use super::{Admitted, role_definitions};
use crate::message::Answer;
use crate::scope::Scope;
use crate::state::{Record, RoleAssignment};
use crate::time::Moment;

pub(super) use list::{lies_below, list};

pub(super) fn one(call: &Admitted<'_>, scope: &Scope, name: &str) -> Result<Answer, ArmError> {
    let id = Uuid::try_parse(name).map_err(|_| ArmError::invalid_role_assignment_id(name))?;
    match call.request.method {
        Method::PUT => put::put(call, scope, id),
        Method::DELETE => delete(call, scope, id),
        _ => get(call, scope, id),
    }
}

fn get(call: &Admitted<'_>, scope: &Scope, name: Uuid) -> Result<Answer, ArmError> {
    let seen = call
        .now
        .elapsed
        .saturating_sub(call.core.settings().read_lag);
    let store = call.core.store();
    let found = store
        .state
        .role_assignment_at(name, seen)
        .filter(|found| found.scope == *scope);
    let found = found.ok_or_else(|| ArmError::no_such_role_assignment(&name.to_string()))?;
    Ok(Answer::json(StatusCode::OK, &body(found)))
}

/// 200 with what was there, 204 if there was nothing [role-assignments.txt §4].
fn delete(call: &Admitted<'_>, scope: &Scope, name: Uuid) -> Result<Answer, ArmError> {
    let mut store = call.core.store();
    let found = store
        .state
        .role_assignment(name)
        .filter(|found| found.scope == *scope)
        .cloned();
    let Some(mut deleted) = found else {
        return Ok(Answer::empty(StatusCode::NO_CONTENT));
    };
    let records = vec![Record::RoleAssignmentDeleted(name)];
    let committed = call
        .core
        .commit(&mut store, records, Some(call.request.sequence), call.now);
    committed.map_err(|error| ArmError::storage(&error))?;
    deleted.updated_on = call.now.wall;
    deleted.updated_by = Some(call.caller);
    Ok(Answer::json(StatusCode::OK, &body(&deleted)))
}

/// A role assignment as GET and list show it [role-assignments.txt §1, §3].
fn body(assignment: &RoleAssignment) -> Value {
    json!({
        "properties": {
            "roleDefinitionId": role_definitions::id_from(&assignment.scope, assignment.role),
            "principalId": assignment.principal,
            "principalType": assignment.principal_type,
            "scope": assignment.scope,
            "condition": assignment.condition,
            "conditionVersion": assignment.condition_version,
            "createdOn": time(assignment.created_on),
            "updatedOn": time(assignment.updated_on),
            "createdBy": assignment.created_by,
            "updatedBy": assignment.updated_by,
            "delegatedManagedIdentityResourceId": null,
            "description": assignment.description,
        },
        "id": assignment.id(),
        "type": "Microsoft.Authorization/roleAssignments",
        "name": assignment.name,
    })
}

/// What a PUT answers: a creation just now, by nobody, whatever a GET says a moment later
/// [azure-cli recording `test_role_assignment_create_update`].
fn body_of_put(assignment: &RoleAssignment, now: Moment) -> Value {
    let mut body = body(assignment);
    body["properties"]["createdOn"] = time(now.wall).into();
    body["properties"]["createdBy"] = Value::Null;
    body
}

fn time(timestamp: Timestamp) -> String {
    Moment::in_azure_format(timestamp)
}
