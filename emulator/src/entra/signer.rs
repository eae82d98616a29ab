//! The key that tokens are signed with.

use std::path::Path;

use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde::Serialize;
use thiserror::Error;

use super::{Claims, TokenError};
use crate::files;

/// No signing key could be made or read.
#[derive(Debug, Error)]
pub enum SigningKeyError {
    /// Making a key failed.
    #[error("signing key: {0}")]
    Key(#[from] rcgen::Error),
    /// The key is none that tokens can be signed with.
    #[error("signing key: {0}")]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// The state directory could not be read or written.
    #[error("state directory: {0}")]
    Files(#[from] std::io::Error),
}

/// Why a bearer token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// There is none.
    Missing,
    /// It is none of this issuer's.
    Invalid,
    /// It was good until then.
    Expired(Timestamp),
}

/// Signs tokens and checks them.
pub(crate) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    jwks: JwkSet,
    key_id: String,
}

impl Signer {
    /// Loads the key from `directory`, or makes one and leaves it there.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, SigningKeyError> {
        let make =
            || Ok::<_, SigningKeyError>(KeyPair::generate_for(&PKCS_RSA_SHA256)?.serialize_pem());
        let pem = files::keep(directory, "signing-key.pem", make)?;
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::RS256)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Ok(Self {
            encoding,
            decoding: DecodingKey::from_jwk(&jwk)?,
            jwks: JwkSet { keys: vec![jwk] },
            key_id,
        })
    }

    /// The public key, as it is published.
    pub(crate) fn jwks(&self) -> &JwkSet {
        &self.jwks
    }

    /// Signs any claims, also ones that Entra would never give: tests need bad tokens too.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key_id.clone());
        encode(&header, claims, &self.encoding)
            .map_err(|error| TokenError::Signing(error.to_string()))
    }

    /// Reads the bearer token of an `Authorization` header. Whom it is for is for the service to check.
    pub(crate) fn check(&self, authorization: Option<&str>) -> Result<Claims, BadToken> {
        let token = authorization.ok_or(BadToken::Missing)?;
        let token = token
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or(BadToken::Missing)?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 0;
        decode::<Claims>(token, &self.decoding, &validation)
            .map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => BadToken::Expired(expiry_of(token)),
                _ => BadToken::Invalid,
            })
    }
}

/// The `exp` of a token whose signature was good.
fn expiry_of(token: &str) -> Timestamp {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(token);
    let expiry = claims
        .ok()
        .and_then(|token| Timestamp::from_second(token.claims.exp).ok());
    expiry.unwrap_or(Timestamp::UNIX_EPOCH)
}
