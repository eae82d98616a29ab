//! Role definitions, read only: who may make custom ones is not what this is about.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ArmError;
use super::{Admitted, paging};
use crate::message::Answer;
use crate::scope::Scope;
use crate::world::RoleDefinition;

pub(super) fn one(call: &Admitted<'_>, scope: &Scope, id: &str) -> Result<Answer, ArmError> {
    let store = call.core.store();
    let found = Uuid::try_parse(id)
        .ok()
        .and_then(|id| store.state.role_definition(id));
    let (role, _) =
        found.ok_or_else(|| ArmError::no_such_role_definition(StatusCode::NOT_FOUND, id))?;
    Ok(Answer::json(StatusCode::OK, &body(&role, scope)))
}

pub(super) fn list(call: &Admitted<'_>, scope: &Scope) -> Result<Answer, ArmError> {
    let filter = Filter::parse(call.request.parameter("$filter"))?;
    let mut roles = call.core.store().state.role_definitions(scope);
    roles.retain(|role| filter.takes(role));
    // Pages go by GUID, and custom roles come behind the built-in ones.
    roles.sort_by_key(|role| role.id);
    let items = roles
        .iter()
        .map(|role| (role.id.to_string(), move || body(role, scope)));
    let size = call.core.settings().page_size;
    Ok(Answer::json(
        StatusCode::OK,
        &paging::page(&call.core.urls.arm, call.request, size, items),
    ))
}

/// `roleName eq '…'` (in any case [role-assignments.txt §6]), `type eq '…'`, `atScopeAndBelow()`.
enum Filter {
    None,
    RoleName(String),
    Type(String),
}

impl Filter {
    fn parse(filter: Option<&str>) -> Result<Self, ArmError> {
        let Some(text) = filter.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(Self::None);
        };
        if text.eq_ignore_ascii_case("atScopeAndBelow()") {
            return Ok(Self::None);
        }
        let unsupported = || ArmError::unsupported_filter(text);
        let (name, value) = text.split_once(" eq ").ok_or_else(unsupported)?;
        let value = value
            .trim()
            .strip_prefix('\'')
            .and_then(|value| value.strip_suffix('\''));
        let value = value.ok_or_else(unsupported)?.replace("''", "'");
        match name.trim().to_ascii_lowercase().as_str() {
            "rolename" => Ok(Self::RoleName(value)),
            "type" => Ok(Self::Type(value)),
            _ => Err(unsupported()),
        }
    }

    fn takes(&self, role: &RoleDefinition) -> bool {
        match self {
            Self::None => true,
            Self::RoleName(name) => role.name.eq_ignore_ascii_case(name),
            Self::Type(kind) => role.role_type.eq_ignore_ascii_case(kind),
        }
    }
}

/// The ARM id of a definition as seen from `scope`: with the subscription at and below one, without it
/// above [rest-api-specs#11103].
pub(super) fn id_from(scope: &Scope, role: Uuid) -> String {
    let subscription = scope
        .subscription()
        .map(|id| format!("/subscriptions/{id}"))
        .unwrap_or_default();
    format!("{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}")
}

fn body(role: &RoleDefinition, scope: &Scope) -> Value {
    let permissions: Vec<Value> = role
        .permissions
        .iter()
        .map(|block| {
            json!({
                "actions": block.actions,
                "notActions": block.not_actions,
                "dataActions": block.data_actions,
                "notDataActions": block.not_data_actions,
            })
        })
        .collect();
    json!({
        "properties": {
            "roleName": role.name,
            "type": role.role_type,
            "description": role.description,
            "assignableScopes": role.assignable_scopes,
            "permissions": permissions,
            // The published data has no dates; this one is Reader's [role-assignments.txt §6].
            "createdOn": "2015-02-02T21:55:09.8806423Z",
            "updatedOn": "2021-11-11T20:13:47.8628684Z",
            "createdBy": null,
            "updatedBy": null,
        },
        "id": id_from(scope, role.id),
        "type": "Microsoft.Authorization/roleDefinitions",
        "name": role.id,
    })
}
