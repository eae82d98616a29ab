//! The canonical form of a request, by which the same one again is told from another one (I3).
//!
//! Versioned, and of the request as it was sent: the ttl rather than the time that it came to, so that a
//! caller who sends the same again is understood, however much later.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::page::hex;
use super::request::{Caller, GrantRequest, RequestedEnd, RevokeRequest};
use crate::domain::ids::RequestId;
use crate::store::RequestKey;

/// The canonical form of a `Grant`.
pub(super) fn of_grant(request: &GrantRequest) -> Vec<String> {
    let mut parts = vec![
        "v1/grant".to_owned(),
        request.principal.to_string(),
        format!("{:?}", request.principal_type),
        request.cluster.to_string(),
        request.access.role.canonical(),
        match request.end {
            RequestedEnd::Ttl(ttl) => format!("ttl {}.{:09}", ttl.as_secs(), ttl.subsec_nanos()),
            RequestedEnd::At(time) => format!("at {time}"),
            RequestedEnd::Permanent => "permanent".to_owned(),
        },
        request.justification.clone(),
    ];
    // A set, in its own order: the order in which a caller names namespaces means nothing.
    parts.extend(request.access.namespaces.iter().map(ToString::to_string));
    parts
}

/// The canonical form of a `Revoke`.
pub(super) fn of_revocation(request: &RevokeRequest) -> Vec<String> {
    vec![
        "v1/revoke".to_owned(),
        request.grant.to_string(),
        request.justification.clone(),
    ]
}

/// The idempotency key; one of the broker's own where the caller gave none.
pub(super) fn key(caller: &Caller, request_id: Option<RequestId>, parts: &[String]) -> RequestKey {
    RequestKey {
        caller: caller.0.clone(),
        id: request_id.unwrap_or_else(|| RequestId::new(Uuid::new_v4())),
        is_callers: request_id.is_some(),
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

    #[test]
    fn i3_parts_do_not_run_together() {
        let hash =
            |parts: &[&str]| hash(&parts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_eq!(hash(&["ab", "c"]), hash(&["ab", "c"]));
        assert_eq!(hash(&[]).len(), 64);
    }
}
