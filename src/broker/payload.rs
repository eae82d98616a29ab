//! The canonical form of a request, by which the same one again is told from another one (I3).
//!
//! Versioned, and of the request as it was sent: the ttl rather than the time that it came to, so that a
//! caller who sends the same again is understood, however much later.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::request::{
    ExtendRequest, GrantRequest, RequestedEnd, RequestedGrants, RequestedPrincipal,
    RequestedSelector, RevokeRequest,
};
use crate::caller::Caller;
use crate::domain::hex::hex;
use crate::domain::ids::RequestId;
use crate::domain::naming::{Labels, OnBehalfOf};
use crate::store::RequestKey;

/// The canonical form of a `Grant`.
pub(super) fn of_grant(request: &GrantRequest) -> Vec<String> {
    let [principal, principal_type] = of_principal(&request.principal);
    let mut parts = vec![
        "v1/grant".to_owned(),
        principal,
        principal_type,
        request.cluster.to_string(),
        request.access.role.canonical(),
        of_end(request.end),
        request.justification.clone(),
    ];
    // A set, in its own order: the order in which a caller names namespaces means nothing.
    parts.extend(request.access.namespaces.iter().map(ToString::to_string));
    // What follows is told from a namespace, and each from the others, by the blank behind its first word.
    parts.extend(of_labels(&request.labels));
    parts.extend(
        request
            .external_key
            .iter()
            .map(|key| format!("external_key {key}")),
    );
    parts.extend(of_whom(request.on_behalf_of.as_ref()));
    parts
}

/// The canonical form of an `ExtendGrant`.
pub(super) fn of_extension(request: &ExtendRequest) -> Vec<String> {
    let mut parts = vec![
        "v1/extend".to_owned(),
        request.grant.to_string(),
        of_end(request.end),
        request.justification.clone(),
    ];
    parts.extend(of_whom(request.on_behalf_of.as_ref()));
    parts
}

fn of_end(end: RequestedEnd) -> String {
    match end {
        RequestedEnd::Ttl(ttl) => format!("ttl {}.{:09}", ttl.as_secs(), ttl.subsec_nanos()),
        RequestedEnd::At(time) => format!("at {time}"),
        RequestedEnd::Permanent => "permanent".to_owned(),
    }
}

fn of_labels(labels: &Labels) -> impl Iterator<Item = String> {
    labels
        .iter()
        .map(|(key, value)| format!("label {key}={value}"))
}

fn of_whom(on_behalf_of: Option<&OnBehalfOf>) -> Option<String> {
    on_behalf_of.map(|whom| format!("on_behalf_of {whom}"))
}

/// How a request names a principal, not who that is: the directory may say otherwise tomorrow.
///
/// An object id with its type is what it was before there were other ways, so that a replay of a request
/// that an earlier version took is still known; no other way can be taken for one.
pub(super) fn of_principal(principal: &RequestedPrincipal) -> [String; 2] {
    match principal {
        RequestedPrincipal::ObjectId(id, Some(kind)) => [id.to_string(), format!("{kind:?}")],
        RequestedPrincipal::ObjectId(id, None) => [id.to_string(), String::new()],
        RequestedPrincipal::UserPrincipalName(name) => {
            [name.canonical(), "user_principal_name".to_owned()]
        }
        RequestedPrincipal::ApplicationId(id) => [id.to_string(), "application_id".to_owned()],
    }
}

/// The canonical form of a `Revoke`.
pub(super) fn of_revocation(request: &RevokeRequest) -> Vec<String> {
    let mut parts = match &request.grants {
        RequestedGrants::One(grant) => vec![
            "v1/revoke".to_owned(),
            grant.to_string(),
            request.justification.clone(),
        ],
        RequestedGrants::Matching { selector, most } => {
            let mut parts = vec![
                "v1/revoke matching".to_owned(),
                most.to_string(),
                request.justification.clone(),
            ];
            parts.extend(of_selector(selector));
            parts
        }
    };
    parts.extend(of_whom(request.on_behalf_of.as_ref()));
    parts
}

/// The canonical form of a selector, as it was sent.
pub(super) fn of_selector(selector: &RequestedSelector) -> Vec<String> {
    let RequestedSelector {
        principal,
        cluster,
        role,
        namespaces,
        labels,
        requested_by,
        external_key,
    } = selector;
    let mut parts = Vec::new();
    if let Some(principal) = principal {
        let [name, way] = of_principal(principal);
        parts.push(format!("principal {way} {name}"));
    }
    parts.extend(cluster.iter().map(|cluster| format!("cluster {cluster}")));
    parts.extend(role.iter().map(|role| format!("role {}", role.canonical())));
    parts.extend(namespaces.iter().map(|name| format!("namespace {name}")));
    parts.extend(of_labels(labels));
    parts.extend(
        requested_by
            .iter()
            .map(|caller| format!("requested_by {caller}")),
    );
    parts.extend(external_key.iter().map(|key| format!("external_key {key}")));
    parts
}

/// The idempotency key; one of the broker's own where the caller gave none.
pub(super) fn key(caller: &Caller, request_id: Option<RequestId>, parts: &[String]) -> RequestKey {
    RequestKey {
        caller: caller.name().to_owned(),
        id: request_id.unwrap_or_else(|| RequestId::new(Uuid::new_v4())),
        payload_hash: hash(parts),
    }
}

/// Each part with its length before it, so that no two requests run together to the same text.
fn hash(parts: &[String]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part.as_bytes());
    }
    hex(&sha.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::PrincipalType;
    use crate::domain::ids::{ApplicationId, PrincipalId};
    use crate::domain::user_principal_name::UserPrincipalName;

    /// Several ways may lead to the same principal; they are different requests all the same.
    #[test]
    fn i3_each_way_to_name_a_principal_is_another_request() {
        let id = Uuid::from_u128(1);
        let upn = |name: &str| {
            RequestedPrincipal::UserPrincipalName(UserPrincipalName::parse(name).unwrap())
        };
        let ways = [
            RequestedPrincipal::ObjectId(PrincipalId::new(id), None),
            RequestedPrincipal::ObjectId(PrincipalId::new(id), Some(PrincipalType::User)),
            RequestedPrincipal::ObjectId(PrincipalId::new(id), Some(PrincipalType::Group)),
            RequestedPrincipal::ApplicationId(ApplicationId::new(id)),
            upn("ada@contoso.example"),
            upn("bob@contoso.example"),
        ];
        for (index, one) in ways.iter().enumerate() {
            for other in &ways[index + 1..] {
                assert_ne!(of_principal(one), of_principal(other));
            }
        }
        assert_eq!(
            of_principal(&upn("Ada@Contoso.example")),
            of_principal(&upn("ada@contoso.example"))
        );
    }

    #[test]
    fn i3_parts_do_not_run_together() {
        let hash =
            |parts: &[&str]| hash(&parts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_eq!(hash(&["ab", "c"]), hash(&["ab", "c"]));
        assert_eq!(hash(&[]).len(), 64);
    }
}
