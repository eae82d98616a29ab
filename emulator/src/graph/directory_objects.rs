//! Users, groups and service principals as Graph shows them, and what groups they are in.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{GraphError, may_read};
use super::route::{Key, Set, Target};
use crate::core::Core;
use crate::message::{Answer, Request};
use crate::state::State;
use crate::world::{Group, Principal, PrincipalType};

/// `getMemberGroups` gives up beyond this many [azure.md §6].
const MOST_MEMBER_GROUPS: usize = 11_000;
/// `getByIds` takes this many ids at most [azure.md §6].
const MOST_IDS: usize = 1_000;

/// No page of directory objects is larger [graph-docs paging].
const LARGEST_PAGE: usize = 999;

/// What Graph shows of a user unless `$select` says otherwise [graph.txt].
const USER_FIELDS: [&str; 11] = [
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
];

pub(super) fn answer(
    core: &Core,
    request: &Request,
    target: &Target,
) -> Result<Answer, GraphError> {
    let store = core.store();
    let state = &store.state;
    let body = match target {
        Target::Users => users(core, state, request)?,
        Target::Object(set, key) => object(core, request, *set, find(state, *set, key)?),
        Target::GetMemberGroups(set, key) => {
            member_groups(core, state, request, find(state, *set, key)?)?
        }
        Target::TransitiveMemberOf(set, key) => {
            transitive_member_of(core, state, request, find(state, *set, key)?)?
        }
        Target::GetByIds => by_ids(core, state, request)?,
    };
    Ok(Answer::json(StatusCode::OK, &body))
}

fn find<'a>(state: &'a State, set: Set, key: &Key) -> Result<&'a Principal, GraphError> {
    let (Key::Id(text) | Key::AppId(text)) = key;
    let id = Uuid::try_parse(text).ok();
    let found = match (set, key) {
        (Set::Users, Key::Id(_)) => state.user(text).and_then(|user| state.principal(user.id)),
        (Set::ServicePrincipals, Key::AppId(_)) => id
            .and_then(|id| state.application(id))
            .and_then(|app| state.principal(app.id)),
        (_, Key::AppId(_)) => None,
        (_, Key::Id(_)) => id.and_then(|id| state.principal(id)),
    };
    found
        .filter(|principal| is_in(principal, set))
        .ok_or_else(|| GraphError::not_found(text))
}

fn is_in(principal: &Principal, set: Set) -> bool {
    match set {
        Set::DirectoryObjects => true,
        Set::Users => principal.principal_type() == PrincipalType::User,
        Set::Groups => principal.principal_type() == PrincipalType::Group,
        Set::ServicePrincipals => principal.principal_type() == PrincipalType::ServicePrincipal,
    }
}

fn context(core: &Core, what: &str) -> String {
    format!("{}/v1.0/$metadata#{what}", core.urls.graph)
}

fn object(core: &Core, request: &Request, set: Set, principal: &Principal) -> Value {
    let name = match set {
        Set::Users => "users",
        Set::Groups => "groups",
        Set::ServicePrincipals => "servicePrincipals",
        Set::DirectoryObjects => "directoryObjects",
    };
    let selected = request
        .parameter("$select")
        .map(|fields| format!("({fields})"))
        .unwrap_or_default();
    let mut body = Map::new();
    body.insert(
        "@odata.context".to_owned(),
        context(core, &format!("{name}{selected}/$entity")).into(),
    );
    body.extend(select(principal, request.parameter("$select")));
    body.into()
}

/// `$filter=userPrincipalName eq '…'`: the one filter that was recorded [graph.txt].
fn users(core: &Core, state: &State, request: &Request) -> Result<Value, GraphError> {
    let filter = request.parameter("$filter").unwrap_or_default();
    let name = filter
        .split_once(" eq ")
        .filter(|(field, _)| field.trim().eq_ignore_ascii_case("userPrincipalName"));
    let name = name.and_then(|(_, value)| value.trim().strip_prefix('\'')?.strip_suffix('\''));
    let name =
        name.ok_or_else(|| GraphError::bad_request("Unsupported or invalid query filter clause."))?;
    let name = name.replace("''", "'").to_lowercase();
    let found = state
        .users()
        .filter(|user| user.user_principal_name.to_lowercase() == name);
    let value: Vec<Value> = found
        .filter_map(|user| state.principal(user.id))
        .map(|user| select(user, request.parameter("$select")).into())
        .collect();
    Ok(json!({"@odata.context": context(core, "users"), "value": value}))
}

/// All fields of an object, with the flag whether they are shown unasked.
fn fields(principal: &Principal) -> Map<String, Value> {
    let fields = match principal {
        Principal::User(user) => json!({
            "businessPhones": [],
            "displayName": user.display_name,
            "givenName": null,
            "jobTitle": null,
            "mail": null,
            "mobilePhone": null,
            "officeLocation": null,
            "preferredLanguage": null,
            "surname": null,
            "userPrincipalName": user.user_principal_name,
            "id": user.id,
            "accountEnabled": user.account_enabled,
            "userType": if user.user_principal_name.contains("#EXT#") { "Guest" } else { "Member" },
        }),
        Principal::Group(group) => json!({
            "id": group.id,
            "displayName": group.display_name,
            "description": null,
            "groupTypes": [],
            "mailEnabled": !group.security_enabled,
            "securityEnabled": group.security_enabled,
        }),
        Principal::ServicePrincipal(application) => json!({
            "id": application.id,
            "accountEnabled": application.account_enabled,
            "appId": application.app_id,
            "appDisplayName": application.display_name,
            "displayName": application.display_name,
            "servicePrincipalNames": [application.app_id],
            "servicePrincipalType": "Application",
        }),
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The fields that `$select` names, or else those that Graph shows unasked.
fn select(principal: &Principal, selection: Option<&str>) -> Map<String, Value> {
    let all = fields(principal);
    let chosen: Vec<&str> = match (selection, principal) {
        (Some(selection), _) => selection.split(',').map(str::trim).collect(),
        (None, Principal::User(_)) => USER_FIELDS.to_vec(),
        (None, _) => return all,
    };
    all.into_iter()
        .filter(|(name, _)| {
            chosen
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(name))
        })
        .collect()
}

fn body_of<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, GraphError> {
    serde_json::from_slice(&request.body)
        .map_err(|_| GraphError::bad_request("Unable to read JSON request payload."))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberGroups {
    security_enabled_only: bool,
}

fn member_groups(
    core: &Core,
    state: &State,
    request: &Request,
    of: &Principal,
) -> Result<Value, GraphError> {
    let body: MemberGroups = body_of(request)?;
    let counts = |group: &&Group| group.security_enabled || !body.security_enabled_only;
    let ids: Vec<Uuid> = state
        .groups_of(of.id())
        .into_iter()
        .filter(counts)
        .map(|group| group.id)
        .collect();
    if ids.len() > MOST_MEMBER_GROUPS {
        return Err(GraphError::too_many_groups());
    }
    Ok(json!({"@odata.context": context(core, "Collection(Edm.String)"), "value": ids}))
}

fn transitive_member_of(
    core: &Core,
    state: &State,
    request: &Request,
    of: &Principal,
) -> Result<Value, GraphError> {
    let size = match request.parameter("$top") {
        None => core.settings().page_size,
        Some(top) => top
            .parse()
            .ok()
            .filter(|top| (1..=LARGEST_PAGE).contains(top))
            .ok_or_else(|| GraphError::bad_page_size(top, LARGEST_PAGE))?,
    };
    let after = request
        .parameter("$skiptoken")
        .and_then(|token| Uuid::try_parse(token).ok());
    let groups: Vec<&Group> = state
        .groups_of(of.id())
        .into_iter()
        .filter(|group| after.is_none_or(|after| group.id > after))
        .collect();
    let page: Vec<&Group> = groups.iter().take(size.max(1)).copied().collect();
    let value: Vec<Value> = page
        .iter()
        .filter_map(|group| state.principal(group.id))
        .map(|group| with_type(group, request.parameter("$select")))
        .collect();
    let mut body = json!({"@odata.context": context(core, "directoryObjects"), "value": value});
    if let (true, Some(last)) = (groups.len() > page.len(), page.last()) {
        let kept = request
            .query
            .iter()
            .filter(|(name, _)| name != "$skiptoken");
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query
            .extend_pairs(kept)
            .append_pair("$skiptoken", &last.id.to_string());
        body["@odata.nextLink"] =
            format!("{}{}?{}", core.urls.graph, request.path, query.finish()).into();
    }
    Ok(body)
}

#[derive(Deserialize)]
struct ByIds {
    ids: Vec<String>,
    #[serde(default)]
    types: Option<Vec<String>>,
}

/// Unknown ids are simply left out [graph.txt].
fn by_ids(core: &Core, state: &State, request: &Request) -> Result<Value, GraphError> {
    let body: ByIds = body_of(request)?;
    if body.ids.len() > MOST_IDS {
        return Err(GraphError::bad_request(
            "Too many ids in the request: at most 1000 are allowed.",
        ));
    }
    // Without types, everything that the directory holds [graph-docs directoryobject-getbyids].
    let of_type = |kind: &str| {
        body.types
            .as_ref()
            .is_none_or(|types| types.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind)))
    };
    let shown = |kind: &str| {
        let claims = request.token.as_ref().ok();
        !core.settings().authorization_enforced
            || claims.is_some_and(|claims| may_read(kind, claims))
    };
    let value: Vec<Value> = body
        .ids
        .iter()
        .filter_map(|id| by_id(state, Uuid::try_parse(id).ok()?))
        .filter(|(kind, _)| of_type(kind))
        .map(|(kind, fields)| typed(kind, if shown(kind) { fields } else { only_id(fields) }))
        .collect();
    Ok(json!({"@odata.context": context(core, "directoryObjects"), "value": value}))
}

/// An object of any kind: its type, and the fields that Graph shows unasked.
fn by_id(state: &State, id: Uuid) -> Option<(&'static str, Map<String, Value>)> {
    if let Some(principal) = state.principal(id) {
        return Some((type_of(principal), select(principal, None)));
    }
    let device = state.device(id)?;
    let fields = [
        ("id".to_owned(), device.id.to_string().into()),
        ("displayName".to_owned(), device.display_name.clone().into()),
    ];
    Some(("device", fields.into_iter().collect()))
}

/// All but the id is null.
fn only_id(mut fields: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in &mut fields {
        if name != "id" {
            *value = Value::Null;
        }
    }
    fields
}

fn type_of(principal: &Principal) -> &'static str {
    match principal {
        Principal::User(_) => "user",
        Principal::Group(_) => "group",
        Principal::ServicePrincipal(_) => "servicePrincipal",
    }
}

fn with_type(principal: &Principal, selection: Option<&str>) -> Value {
    typed(type_of(principal), select(principal, selection))
}

fn typed(kind: &str, fields: Map<String, Value>) -> Value {
    let mut body = Map::new();
    body.insert(
        "@odata.type".to_owned(),
        format!("#microsoft.graph.{kind}").into(),
    );
    body.extend(fields);
    body.into()
}
