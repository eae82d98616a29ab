//! Deny assignments: listed, and made by nobody who calls [pim-and-deny-assignments.txt].

use std::collections::BTreeSet;

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ArmError;
use super::{Admitted, paging, role_assignments};
use crate::message::Answer;
use crate::scope::Scope;
use crate::state::State;
use crate::world::{DenyAssignment, EVERYONE};

/// The first version that says whether a deny assignment is enforced.
pub(super) const WITH_EFFECT: &str = "2024-07-01-preview";

/// Filters as for role assignments, as far as they do not name anybody. Those that do not bind below their
/// scope are listed there all the same, as whoever reads them has to expect.
pub(super) fn list(call: &Admitted<'_>, scope: &Scope) -> Result<Answer, ArmError> {
    let filter = call.request.parameter("$filter").unwrap_or_default();
    let at_scope = match filter.trim().to_ascii_lowercase().as_str() {
        "" => false,
        "atscope()" => true,
        _ => return Err(ArmError::unsupported_filter(filter)),
    };
    let settings = call.core.settings();
    let seen = call.now.elapsed.saturating_sub(settings.list_lag);
    let store = call.core.store();
    let state = &store.state;
    let upwards: BTreeSet<String> = state.keys_upwards(scope).into_iter().collect();
    let is_listed = |deny: &&DenyAssignment| {
        upwards.contains(deny.scope.key())
            || (!at_scope && role_assignments::lies_below(state, &deny.scope, scope))
    };
    let with_effect = call.request.parameter("api-version") == Some(WITH_EFFECT);
    let found = state.deny_assignments_at(seen).filter(is_listed);
    let items = found.map(|deny| {
        let render = move || body(state, deny, with_effect);
        (deny.name_or_derived().to_string(), render)
    });
    let page = paging::page(&call.core.urls.arm, call.request, settings.page_size, items);
    Ok(Answer::json(StatusCode::OK, &page))
}

fn body(state: &State, deny: &DenyAssignment, with_effect: bool) -> Value {
    let principals = |ids: &[Uuid]| -> Vec<Value> {
        let shown = |id: &Uuid| json!({"id": id, "type": type_of(state, *id)});
        ids.iter().map(shown).collect()
    };
    let name = deny.name_or_derived();
    let mut body = json!({
        "properties": {
            "denyAssignmentName": deny.display_name,
            "description": deny.description,
            "permissions": deny.permissions,
            "scope": deny.scope,
            "doNotApplyToChildScopes": deny.do_not_apply_to_child_scopes,
            "principals": principals(&deny.principals),
            "excludePrincipals": principals(&deny.exclude_principals),
            "isSystemProtected": deny.system_protected,
            "condition": deny.condition,
            "conditionVersion": deny.condition.as_ref().map(|_| "2.0"),
            "createdOn": null,
            "updatedOn": null,
            "createdBy": null,
            "updatedBy": null,
        },
        "id": deny.scope.deny_assignment_id(name),
        "type": "Microsoft.Authorization/denyAssignments",
        "name": name,
    });
    if with_effect {
        body["properties"]["denyAssignmentEffect"] = json!(deny.effect);
    }
    body
}

/// What Azure shows of somebody who is gone, no source says: no type at all is what a reader can least rely on.
fn type_of(state: &State, id: Uuid) -> Option<String> {
    if id == EVERYONE {
        return Some("SystemDefined".to_owned());
    }
    let principal = state.principal(id)?;
    Some(principal.principal_type().to_string())
}
