//! The key that tokens are signed with.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet, ThumbprintHash};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
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
    keys: RwLock<Arc<Keys>>,
}

/// The key in use, and those that are published.
struct Keys {
    encoding: EncodingKey,
    key_id: String,
    published: Vec<(Jwk, DecodingKey)>,
}

impl Keys {
    fn new(encoding: EncodingKey) -> Result<Self, SigningKeyError> {
        let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::RS256)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        let decoding = DecodingKey::from_jwk(&jwk)?;
        Ok(Self {
            encoding,
            key_id,
            published: vec![(jwk, decoding)],
        })
    }
}

impl Signer {
    /// Loads the key from `directory`, or makes one and leaves it there.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, SigningKeyError> {
        let pem = files::keep(directory, "signing-key.pem", new_key)?;
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        Ok(Self {
            keys: RwLock::new(Arc::new(Keys::new(encoding)?)),
        })
    }

    /// Signs with a new key from now on. The old one stays published if it is to be kept. The next start begins with
    /// the first one again.
    pub(crate) fn roll_over(&self, keep_old: bool) -> Result<(), SigningKeyError> {
        let mut new = Keys::new(EncodingKey::from_rsa_pem(new_key()?.as_bytes())?)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keep_old {
            new.published.extend(keys.published.iter().cloned());
        }
        *keys = Arc::new(new);
        Ok(())
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The public keys, as they are published.
    pub(crate) fn jwks(&self) -> JwkSet {
        let keys = self.keys();
        JwkSet {
            keys: keys.published.iter().map(|(jwk, _)| jwk.clone()).collect(),
        }
    }

    /// Signs any claims, also ones that Entra would never give: tests need bad tokens too.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        self.sign_with(Header::default(), claims)
    }

    /// The same with other fields in the header; its algorithm and its key id are the signer's.
    pub(crate) fn sign_with(
        &self,
        mut header: Header,
        claims: &impl Serialize,
    ) -> Result<String, TokenError> {
        let keys = self.keys();
        header.alg = Algorithm::RS256;
        header.kid = Some(keys.key_id.clone());
        encode(&header, claims, &keys.encoding)
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
        let key_id = decode_header(token).ok().and_then(|header| header.kid);
        let keys = self.keys();
        let mut published = keys.published.iter();
        let (_, key) = published
            .find(|(jwk, _)| jwk.common.key_id == key_id)
            .ok_or(BadToken::Invalid)?;
        decode::<Claims>(token, key, &validation)
            .map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => BadToken::Expired(expiry_of(token)),
                _ => BadToken::Invalid,
            })
    }
}

fn new_key() -> Result<String, SigningKeyError> {
    Ok(KeyPair::generate_for(&PKCS_RSA_SHA256)?.serialize_pem())
}

/// The `exp` of a token whose signature was good.
fn expiry_of(token: &str) -> Timestamp {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(token);
    let expiry = claims
        .ok()
        .and_then(|token| Timestamp::from_second(token.claims.exp).ok());
    expiry.unwrap_or(Timestamp::UNIX_EPOCH)
}
