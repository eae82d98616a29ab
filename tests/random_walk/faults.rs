//! Which fields of a request are at fault, as the contract's comments on them say.

use std::collections::{BTreeSet, HashMap, HashSet};

use aks_access_broker::grpc::proto::{
    Access, AzureRole, CheckAccessRequest, ExtendGrantRequest, GrantRequest, GrantSelector,
    ListGrantsRequest, ListJobTargetsRequest, ListJobsRequest, PrincipalRef, PrincipalType,
    RevokeRequest, grant, job,
};
use prost_types::{Duration, Timestamp};
use uuid::Uuid;

use crate::company::Role;

/// The fields at fault; none: the request is well-formed.
pub(crate) type Faults = BTreeSet<String>;

const SECONDS_OF_366_DAYS: i64 = 366 * 24 * 3600;

fn of(rules: &[(&str, bool)]) -> Faults {
    let broken = rules.iter().filter(|(_, is_kept)| !is_kept);
    broken.map(|(field, _)| (*field).to_owned()).collect()
}

pub(crate) fn of_grant(asked: &GrantRequest) -> Faults {
    let ends = [
        asked.ttl.is_some(),
        asked.expire_time.is_some(),
        asked.permanent,
    ];
    let mut faults = of(&[
        ("request_id", is_uuid_or_empty(&asked.request_id)),
        ("cluster", is_cluster_id(&asked.cluster)),
        ("ttl", exactly_one(&ends)),
        ("ttl", asked.ttl.is_none_or(is_ttl)),
        ("expire_time", asked.expire_time.is_none_or(is_end)),
        ("justification", is_at_most(&asked.justification, 1024)),
        ("external_key", is_external_key(&asked.external_key)),
        ("on_behalf_of", is_somebody(&asked.on_behalf_of)),
    ]);
    faults.extend(of_principal("principal", asked.principal.as_ref()));
    faults.extend(of_access("access", asked.access.as_ref()));
    faults.extend(of_labels("labels", &asked.labels));
    faults
}

pub(crate) fn of_extension(asked: &ExtendGrantRequest) -> Faults {
    let ends = [asked.ttl.is_some(), asked.expire_time.is_some()];
    of(&[
        ("request_id", is_uuid_or_empty(&asked.request_id)),
        ("grant_id", is_uuid(&asked.grant_id)),
        ("ttl", exactly_one(&ends)),
        ("ttl", asked.ttl.is_none_or(is_ttl)),
        ("expire_time", asked.expire_time.is_none_or(is_end)),
        ("justification", is_at_most(&asked.justification, 1024)),
        ("on_behalf_of", is_somebody(&asked.on_behalf_of)),
    ])
}

pub(crate) fn of_revocation(asked: &RevokeRequest) -> Faults {
    let (one, several) = (!asked.grant_id.is_empty(), asked.selector.is_some());
    let mut faults = of(&[
        ("request_id", is_uuid_or_empty(&asked.request_id)),
        ("grant_id", one || several),
        ("grant_id", is_uuid_or_empty(&asked.grant_id)),
        ("selector", !(one && several)),
        ("justification", is_at_most(&asked.justification, 1024)),
        ("on_behalf_of", is_somebody(&asked.on_behalf_of)),
        ("max_grants", (0..=1000).contains(&asked.max_grants)),
        ("max_grants", asked.max_grants == 0 || several),
    ]);
    faults.extend(of_selector(asked.selector.as_ref()));
    faults
}

pub(crate) fn of_id(field: &str, id: &str) -> Faults {
    of(&[(field, is_uuid(id))])
}

pub(crate) fn of_check(asked: &CheckAccessRequest) -> Faults {
    let mut faults = of(&[("cluster", is_cluster_id(&asked.cluster))]);
    faults.extend(of_principal("principal", asked.principal.as_ref()));
    faults.extend(of_access("access", asked.access.as_ref()));
    faults
}

pub(crate) fn of_grants_list(asked: &ListGrantsRequest) -> Faults {
    let mut faults = of(&[("page_size", is_page_size(asked.page_size))]);
    faults.extend(of_selector(asked.selector.as_ref()));
    faults.extend(of_values("states", &asked.states, |state| {
        grant::State::try_from(state).is_ok_and(|state| state != grant::State::Unspecified)
    }));
    faults
}

pub(crate) fn of_jobs_list(asked: &ListJobsRequest) -> Faults {
    let mut faults = of(&[
        ("page_size", is_page_size(asked.page_size)),
        (
            "cluster",
            asked.cluster.as_deref().is_none_or(is_cluster_id),
        ),
        (
            "request_id",
            asked.request_id.as_deref().is_none_or(is_uuid),
        ),
    ]);
    if asked.principal.is_some() {
        faults.extend(of_principal("principal", asked.principal.as_ref()));
    }
    faults.extend(of_job_states(&asked.states));
    faults.extend(of_values("kinds", &asked.kinds, |kind| {
        job::Kind::try_from(kind).is_ok_and(|kind| kind != job::Kind::Unspecified)
    }));
    faults
}

pub(crate) fn of_job_targets_list(asked: &ListJobTargetsRequest) -> Faults {
    let mut faults = of(&[
        ("page_size", is_page_size(asked.page_size)),
        ("job_id", is_uuid(&asked.job_id)),
    ]);
    faults.extend(of_job_states(&asked.states));
    faults
}

fn of_job_states(states: &[i32]) -> Faults {
    of_values("states", states, |state| {
        job::State::try_from(state).is_ok_and(|state| state != job::State::Unspecified)
    })
}

fn of_values(field: &str, values: &[i32], is_one: impl Fn(i32) -> bool) -> Faults {
    let numbered = values.iter().enumerate();
    let wrong = numbered.filter(|(_, value)| !is_one(**value));
    wrong
        .map(|(index, _)| format!("{field}[{index}]"))
        .collect()
}

/// A field that is set but empty is at fault, never "any": a message and a scalar alike.
fn of_selector(selector: Option<&GrantSelector>) -> Faults {
    let Some(selector) = selector else {
        return Faults::new();
    };
    let roles = [
        selector.azure_role.is_some(),
        selector.role_definition_id.is_some(),
    ];
    let mut faults = of(&[
        ("selector", *selector != GrantSelector::default()),
        ("selector", roles != [true, true]),
        (
            "selector.cluster",
            selector.cluster.as_deref().is_none_or(is_cluster_id),
        ),
        (
            "selector.azure_role",
            selector.azure_role.is_none_or(is_azure_role),
        ),
        (
            "selector.role_definition_id",
            selector
                .role_definition_id
                .as_deref()
                .is_none_or(is_role_definition),
        ),
        (
            "selector.external_key",
            (selector.external_key.as_deref())
                .is_none_or(|key| !key.is_empty() && is_external_key(key)),
        ),
        (
            "selector.requested_by",
            selector.requested_by.as_deref() != Some(""),
        ),
    ]);
    if let Some(principal) = &selector.principal {
        faults.extend(of_principal("selector.principal", Some(principal)));
    }
    faults.extend(of_namespaces("selector.namespaces", &selector.namespaces));
    faults.extend(of_labels("selector.labels", &selector.labels));
    faults
}

/// Exactly one of three ways to name it. Of the three this server looks nobody up yet, so the walk names
/// everybody by object id.
fn of_principal(field: &str, principal: Option<&PrincipalRef>) -> Faults {
    let Some(principal) = principal else {
        return of(&[(field, false)]);
    };
    let ways = [
        !principal.object_id.is_empty(),
        !principal.user_principal_name.is_empty(),
        !principal.application_id.is_empty(),
    ];
    of(&[
        (field, exactly_one(&ways)),
        (
            &format!("{field}.object_id"),
            !exactly_one(&ways) || is_uuid(&principal.object_id),
        ),
        (
            &format!("{field}.type"),
            PrincipalType::try_from(principal.r#type).is_ok(),
        ),
    ])
}

fn of_access(field: &str, access: Option<&Access>) -> Faults {
    let Some(access) = access else {
        return of(&[(field, false)]);
    };
    let roles = [
        access.azure_role != 0,
        !access.role_definition_id.is_empty(),
    ];
    let cluster_user = exactly_one(&roles)
        && Role::named(access.azure_role, &access.role_definition_id) == Some(Role::ClusterUser);
    let mut faults = of(&[
        (field, exactly_one(&roles)),
        (
            &format!("{field}.azure_role"),
            !exactly_one(&roles) || AzureRole::try_from(access.azure_role).is_ok(),
        ),
        (
            &format!("{field}.role_definition_id"),
            !exactly_one(&roles)
                || access.role_definition_id.is_empty()
                || is_role_definition(&access.role_definition_id),
        ),
        (
            &format!("{field}.namespaces"),
            !cluster_user || access.namespaces.is_empty(),
        ),
    ]);
    let namespaces = format!("{field}.namespaces");
    faults.extend(of_namespaces(&namespaces, &access.namespaces));
    faults
}

/// At most 20, each a Kubernetes namespace name, and none twice.
fn of_namespaces(field: &str, namespaces: &[String]) -> Faults {
    if namespaces.len() > 20 {
        return of(&[(field, false)]);
    }
    let mut before = HashSet::new();
    let numbered = namespaces.iter().enumerate();
    let wrong = numbered.filter(|(_, name)| !is_namespace(name) || !before.insert(*name));
    wrong
        .map(|(index, _)| format!("{field}[{index}]"))
        .collect()
}

/// At most 16; a key is 1 to 63 letters, digits and some signs, with a letter or digit at both ends.
fn of_labels(field: &str, labels: &HashMap<String, String>) -> Faults {
    if labels.len() > 16 {
        return of(&[(field, false)]);
    }
    let wrong = labels
        .iter()
        .filter(|(key, value)| !is_label_key(key) || !is_text_of_at_most(value, 256));
    wrong.map(|(key, _)| format!("{field}[{key:?}]")).collect()
}

// --- What a field takes -----------------------------------------------------------------------------

fn exactly_one(set: &[bool]) -> bool {
    set.iter().filter(|is_set| **is_set).count() == 1
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && Uuid::parse_str(text).is_ok()
}

fn is_uuid_or_empty(text: &str) -> bool {
    text.is_empty() || is_uuid(text)
}

/// `/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.ContainerService/managedClusters/NAME`
fn is_cluster_id(text: &str) -> bool {
    let lower = text.to_lowercase();
    let segments: Vec<&str> = lower.split('/').collect();
    matches!(
        segments.as_slice(),
        ["", "subscriptions", subscription, "resourcegroups", group, "providers",
            "microsoft.containerservice", "managedclusters", name]
            if is_uuid(subscription) && !group.is_empty() && !name.is_empty()
    )
}

/// The GUID of a definition, or its full resource id.
fn is_azure_role(value: i32) -> bool {
    AzureRole::try_from(value).is_ok_and(|role| role != AzureRole::Unspecified)
}

fn is_role_definition(text: &str) -> bool {
    match text.rsplit_once("/providers/Microsoft.Authorization/roleDefinitions/") {
        Some((_, guid)) => is_uuid(guid),
        None => is_uuid(text),
    }
}

fn is_namespace(text: &str) -> bool {
    let within = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| within(c) || c == '-')
        && text.starts_with(within)
        && text.ends_with(within)
}

fn is_label_key(text: &str) -> bool {
    let at_the_ends = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| at_the_ends(c) || matches!(c, '-' | '_' | '.' | '/'))
        && text.starts_with(at_the_ends)
        && text.ends_with(at_the_ends)
}

fn is_at_most(text: &str, characters: usize) -> bool {
    text.chars().count() <= characters
}

fn is_text_of_at_most(text: &str, characters: usize) -> bool {
    is_at_most(text, characters) && !text.chars().any(char::is_control)
}

fn is_external_key(text: &str) -> bool {
    is_text_of_at_most(text, 128)
}

/// An object id or a user principal name.
fn is_somebody(text: &str) -> bool {
    is_uuid_or_empty(text) || text.split_once('@').is_some()
}

/// 1 second to 366 days.
fn is_ttl(ttl: Duration) -> bool {
    (0..1_000_000_000).contains(&ttl.nanos)
        && ttl.seconds >= 1
        && (ttl.seconds, ttl.nanos) <= (SECONDS_OF_366_DAYS, 0)
}

/// Later than now, at most 366 days from now. The walk keeps away from the edges, which its clock and the
/// broker's might see apart.
fn is_end(time: Timestamp) -> bool {
    let now = jiff::Timestamp::now().as_second();
    (0..1_000_000_000).contains(&time.nanos)
        && (now..now + SECONDS_OF_366_DAYS).contains(&time.seconds)
}

fn is_page_size(size: i32) -> bool {
    (0..=1000).contains(&size)
}
