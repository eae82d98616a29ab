//! Entra ID: tokens for applications, and what others need to check them.

mod assertion;
mod audience;
mod claims;
mod error;
mod signer;
mod token;

use hyper::{Method, StatusCode};
use serde_json::json;

pub(crate) use audience::{arm_audiences, is_for_arm, is_for_graph};
pub use claims::{Claims, TokenError};
pub(crate) use error::EntraError;
pub use signer::SigningKeyError;
pub(crate) use signer::{BadToken, Signer};

use crate::core::Core;
use crate::message::{Answer, Request};
use crate::operation::Operation;

/// What a call to Entra asks for.
pub(crate) fn operation(method: &Method, path: &str) -> Operation {
    match (method.as_str(), segments(path).as_slice()) {
        ("POST", [_, "oauth2", "v2.0", "token"]) => Operation::Token,
        (
            "GET",
            [_, "v2.0", ".well-known", "openid-configuration"]
            | [_, ".well-known", "openid-configuration"],
        ) => Operation::OpenIdConfiguration,
        ("GET", [_, "discovery", "v2.0" | "keys", ..]) => Operation::Keys,
        _ => Operation::Unknown,
    }
}

pub(crate) fn handle(core: &Core, request: &Request) -> Answer {
    let segments = segments(&request.path);
    let tenant = segments.first().copied().unwrap_or_default();
    let answer = known_tenant(core, tenant).and_then(|()| match request.operation {
        Operation::Token => token::issue(core, request),
        Operation::OpenIdConfiguration => Ok(configuration(core, segments.contains(&"v2.0"))),
        Operation::Keys => Ok(Answer::json(StatusCode::OK, &core.signer.jwks())),
        _ => Err(EntraError::not_found()),
    });
    let answer = answer.unwrap_or_else(|error| error.answer());
    with_headers(answer, request)
}

/// An answer as a fault gives it.
pub(crate) fn fault(status: StatusCode, code: &str, message: &str) -> Answer {
    EntraError::fault(status, code, message).answer()
}

fn with_headers(mut answer: Answer, request: &Request) -> Answer {
    answer.set("cache-control", "no-store, no-cache");
    answer.set("pragma", "no-cache");
    answer.set(
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    );
    answer.set("x-content-type-options", "nosniff");
    answer.set("x-ms-request-id", &uuid::Uuid::new_v4().to_string());
    if let Some(id) = request.header("client-request-id") {
        let id = id.to_owned();
        answer.set("client-request-id", &id);
    }
    answer
}

fn known_tenant(core: &Core, tenant: &str) -> Result<(), EntraError> {
    let known = uuid::Uuid::try_parse(tenant).is_ok_and(|id| id == core.tenant);
    known
        .then_some(())
        .ok_or_else(|| EntraError::no_such_tenant(tenant))
}

/// Version 1 and 2 tokens name different issuers [azure.md §7]; each is served where its name points, so
/// that a Kubernetes API server can check either.
fn configuration(core: &Core, v2: bool) -> Answer {
    let (entra, tenant) = (&core.urls.entra, core.tenant);
    let issuer = if v2 {
        core.issuer_v2()
    } else {
        core.issuer_v1()
    };
    let body = json!({
        "token_endpoint": format!("{entra}/{tenant}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": format!("{entra}/{tenant}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": issuer,
        "authorization_endpoint": format!("{entra}/{tenant}/oauth2/v2.0/authorize"),
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "tid", "oid", "upn", "groups", "ver"],
        "tenant_region_scope": "EU",
    });
    Answer::json(StatusCode::OK, &body)
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .collect()
}
