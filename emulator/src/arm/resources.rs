//! The tree above clusters: management groups, subscriptions, resource groups.
//!
//! Bodies from general knowledge of the API; only their ids and names matter to a broker.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::error::ArmError;
use super::{Admitted, paging};
use crate::message::Answer;
use crate::scope::Scope;
use crate::state::State;
use crate::world::Subscription;

pub(super) fn subscription(call: &Admitted<'_>, id: &Scope) -> Result<Answer, ArmError> {
    let store = call.core.store();
    let found = store
        .state
        .subscription(id.subscription().unwrap_or_default());
    let subscription = found.ok_or_else(|| ArmError::no_such_subscription(id))?;
    Ok(Answer::json(
        StatusCode::OK,
        &subscription_body(&store.state, subscription),
    ))
}

/// The subscriptions in which the caller may do anything at all: others do not exist for them.
pub(super) fn subscriptions(call: &Admitted<'_>) -> Answer {
    let settings = call.core.settings();
    let store = call.core.store();
    let state = &store.state;
    let sees = |subscription: &&Subscription| {
        let id = Scope::parse(&format!("/subscriptions/{}", subscription.id));
        !settings.authorization_enforced
            || id.is_ok_and(|id| {
                state.may(call.caller, "Microsoft.Resources/subscriptions/read", &id)
            })
    };
    let mut visible: Vec<&Subscription> = state.subscriptions().iter().filter(sees).collect();
    visible.sort_by_key(|subscription| subscription.id);
    let items = visible
        .into_iter()
        .map(|it| (it.id.to_string(), move || subscription_body(state, it)));
    let mut page = paging::page(&call.core.urls.arm, call.request, settings.page_size, items);
    page["count"] = json!({"type": "Total", "value": page["value"].as_array().map_or(0, Vec::len)});
    Answer::json(StatusCode::OK, &page)
}

fn subscription_body(state: &State, subscription: &Subscription) -> Value {
    json!({
        "id": format!("/subscriptions/{}", subscription.id),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": subscription.id,
        "tenantId": state.tenant(),
        "displayName": subscription.display_name,
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}

pub(super) fn resource_group(call: &Admitted<'_>, id: &Scope) -> Result<Answer, ArmError> {
    let store = call.core.store();
    let (id, location) = store
        .state
        .resource_group(id)
        .ok_or_else(|| ArmError::no_such_resource_group(id))?;
    Ok(Answer::json(
        StatusCode::OK,
        &resource_group_body(id, location),
    ))
}

pub(super) fn resource_groups(call: &Admitted<'_>, subscription: &Scope) -> Answer {
    let store = call.core.store();
    let groups = store
        .state
        .resource_groups_of(subscription.subscription().unwrap_or_default());
    let items = groups.map(|(id, location)| {
        (id.key().to_owned(), move || {
            resource_group_body(id, location)
        })
    });
    let size = call.core.settings().page_size;
    Answer::json(
        StatusCode::OK,
        &paging::page(&call.core.urls.arm, call.request, size, items),
    )
}

fn resource_group_body(id: &Scope, location: &str) -> Value {
    json!({
        "id": id,
        "name": id.as_str().rsplit('/').next(),
        "type": "Microsoft.Resources/resourceGroups",
        "location": location,
        "properties": {"provisioningState": "Succeeded"},
    })
}

pub(super) fn management_group(call: &Admitted<'_>, id: &Scope) -> Result<Answer, ArmError> {
    let store = call.core.store();
    let state = &store.state;
    let found = state.management_group(id.management_group().unwrap_or_default());
    let group = found.ok_or_else(|| ArmError::no_such_management_group(id))?;
    let parent = group
        .parent
        .as_deref()
        .map_or_else(|| state.tenant().to_string(), str::to_owned);
    let mut body = json!({
        "id": management_group_id(&group.id),
        "type": "Microsoft.Management/managementGroups",
        "name": group.id,
        "properties": {
            "tenantId": state.tenant(),
            "displayName": group.display_name,
            "details": {"parent": {"id": management_group_id(&parent), "name": parent}},
        },
    });
    if call.request.parameter("$expand") == Some("children") {
        body["properties"]["children"] = children(state, &group.id);
    }
    Ok(Answer::json(StatusCode::OK, &body))
}

fn children(state: &State, id: &str) -> Value {
    let is_here = |parent: &Option<String>| {
        parent
            .as_deref()
            .is_some_and(|parent| parent.eq_ignore_ascii_case(id))
    };
    let groups = state
        .management_groups()
        .iter()
        .filter(|group| is_here(&group.parent))
        .map(|group| {
            json!({
                "type": "Microsoft.Management/managementGroups",
                "id": management_group_id(&group.id),
                "name": group.id,
                "displayName": group.display_name,
            })
        });
    let subscriptions = state
        .subscriptions()
        .iter()
        .filter(|it| is_here(&it.management_group))
        .map(|it| {
            json!({
                "type": "/subscriptions",
                "id": format!("/subscriptions/{}", it.id),
                "name": it.id,
                "displayName": it.display_name,
            })
        });
    groups.chain(subscriptions).collect()
}

fn management_group_id(id: &str) -> String {
    format!("/providers/Microsoft.Management/managementGroups/{id}")
}
