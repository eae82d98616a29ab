//! Federated credentials: a token of somebody else's, traded for one of ours.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::EntraError;
use crate::core::Core;
use crate::world::{FederatedCredential, ServicePrincipal};

/// The claims of an assertion that decide whom it speaks for.
#[derive(Deserialize)]
struct Assertion {
    iss: String,
    sub: String,
    aud: Audiences,
}

/// `aud` is one text or a list of them [RFC 7519 §4.1.3]; Kubernetes writes a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Audiences {
    fn contain(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::One(one) => one.clone(),
            Self::Many(many) => many.join(","),
        }
    }
}

/// Checks that `assertion` speaks for `application`.
pub(super) fn check(
    core: &Core,
    application: &ServicePrincipal,
    assertion: &str,
) -> Result<(), EntraError> {
    let claimed = jsonwebtoken::dangerous::insecure_decode::<Assertion>(assertion)
        .map_err(|_| EntraError::malformed_assertion())?
        .claims;
    let credential = find(application, &claimed)?;
    let header = decode_header(assertion).map_err(|_| EntraError::malformed_assertion())?;
    let key =
        key_of(core, credential, header.kid.as_deref()).ok_or_else(EntraError::bad_signature)?;
    verify(assertion, header.alg, &key, credential)
}

/// Entra says which of the three does not fit (AADSTS700211 to 700213).
fn find<'a>(
    application: &'a ServicePrincipal,
    claimed: &Assertion,
) -> Result<&'a FederatedCredential, EntraError> {
    let by_issuer: Vec<_> = application
        .federated_credentials
        .iter()
        .filter(|credential| credential.issuer == claimed.iss)
        .collect();
    if by_issuer.is_empty() {
        return Err(EntraError::no_federated_identity(
            700_211,
            "issuer",
            &claimed.iss,
        ));
    }
    let by_subject: Vec<_> = by_issuer
        .into_iter()
        .filter(|credential| credential.subject == claimed.sub)
        .collect();
    if by_subject.is_empty() {
        return Err(EntraError::no_federated_identity(
            700_213,
            "subject",
            &claimed.sub,
        ));
    }
    let found = by_subject
        .into_iter()
        .find(|credential| claimed.aud.contain(&credential.audience));
    found
        .ok_or_else(|| EntraError::no_federated_identity(700_212, "audience", &claimed.aud.shown()))
}

fn key_of(
    core: &Core,
    credential: &FederatedCredential,
    key_id: Option<&str>,
) -> Option<DecodingKey> {
    if let Some(pem) = &credential.public_key_pem {
        return DecodingKey::from_rsa_pem(pem.as_bytes()).ok();
    }
    let own = core.signer.jwks();
    let keys = credential.jwks.as_ref().unwrap_or(&own);
    DecodingKey::from_jwk(pick(keys, key_id)?).ok()
}

fn pick<'a>(keys: &'a JwkSet, key_id: Option<&str>) -> Option<&'a jsonwebtoken::jwk::Jwk> {
    key_id.map_or_else(|| keys.keys.first(), |id| keys.find(id))
}

fn verify(
    assertion: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
    credential: &FederatedCredential,
) -> Result<(), EntraError> {
    // A secret-based algorithm would let anybody who knows the public key sign.
    if !matches!(
        algorithm,
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::ES256
    ) {
        return Err(EntraError::bad_signature());
    }
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[&credential.audience]);
    decode::<Assertion>(assertion, key, &validation)
        .map(|_| ())
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::ExpiredSignature => EntraError::expired_assertion(),
            _ => EntraError::bad_signature(),
        })
}
