//! Fleets and their members, as far as a broker reads them: bodies from general knowledge of the API, cut down to
//! what azure.md §4 names.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ArmError;
use super::{Admitted, paging};
use crate::message::Answer;
use crate::scope::Scope;
use crate::world::{Fleet, FleetMember};

pub(super) fn list(call: &Admitted<'_>, subscription: &Scope) -> Result<Answer, ArmError> {
    let settings = call.core.settings();
    let seen = call.now.elapsed.saturating_sub(settings.list_lag);
    let id = subscription
        .subscription()
        .and_then(|id| Uuid::try_parse(id).ok());
    let id = id.ok_or_else(|| ArmError::no_such_subscription(subscription))?;
    let store = call.core.store();
    let fleets = store.state.fleets_at(id, seen);
    let items = fleets.map(|fleet| (fleet.id().key().to_owned(), move || body(fleet)));
    let page = paging::page(&call.core.urls.arm, call.request, settings.page_size, items);
    Ok(Answer::json(StatusCode::OK, &page))
}

pub(super) fn members(call: &Admitted<'_>, id: &Scope) -> Result<Answer, ArmError> {
    let settings = call.core.settings();
    let seen = call.now.elapsed.saturating_sub(settings.list_lag);
    let store = call.core.store();
    let fleet = store
        .state
        .fleet_at(id.key(), seen)
        .ok_or_else(|| ArmError::no_such_resource(id))?;
    let mut members: Vec<&FleetMember> = fleet.members.iter().collect();
    members.sort_by_key(|member| member.name.to_ascii_lowercase());
    let items = members.into_iter().map(|member| {
        let render = move || body_of_member(fleet, member);
        (member.name.to_ascii_lowercase(), render)
    });
    let page = paging::page(&call.core.urls.arm, call.request, settings.page_size, items);
    Ok(Answer::json(StatusCode::OK, &page))
}

fn body(fleet: &Fleet) -> Value {
    json!({
        "id": fleet.id(),
        "name": fleet.name,
        "type": "Microsoft.ContainerService/fleets",
        "location": fleet.location,
        "properties": {"provisioningState": "Succeeded"},
    })
}

fn body_of_member(fleet: &Fleet, member: &FleetMember) -> Value {
    json!({
        "id": format!("{}/members/{}", fleet.id(), member.name),
        "name": member.name,
        "type": "Microsoft.ContainerService/fleets/members",
        "properties": {
            "clusterResourceId": member.cluster,
            "provisioningState": "Succeeded",
        },
    })
}
