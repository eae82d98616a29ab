//! Who calls, and who may ask for what: nobody gets in whose identity is not proven (design §9).
//!
//! A token is checked once and remembered until it ends: most calls come with one that was seen a moment ago.

mod certificate;
mod keys;
pub mod policy;
mod token;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::domain::reason::Reason;

pub use certificate::{CertificateError, ClientCertificate};
pub use keys::KeysError;
pub use token::{TokenError, TokenSettings, Tokens};

/// Seconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_second()
}

/// What kind of caller it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// An application that acts for itself.
    Application,
    /// A person, by way of an application.
    User,
    /// Whoever has the key of a client certificate.
    Certificate,
}

/// Who calls, as Entra or a certificate says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// What kind of caller it is.
    pub kind: Kind,
    /// What Entra knows it by; `None` for certificates.
    pub identity: Option<Identity>,
    /// The broker's app roles that it was given.
    pub roles: BTreeSet<String>,
    /// Object ids of groups that it is in, as far as the token has them.
    pub groups: BTreeSet<Uuid>,
    /// Whether it is in more groups than a token has room for, or tells.
    pub has_more_groups: bool,
    name: String,
    /// What proves it is good until then, in seconds since 1970, clock skew included; `None`: nobody says.
    until: Option<i64>,
    fingerprint: OnceLock<Fingerprint>,
}

/// Stands for all that a caller is: two callers with the same one are judged alike.
pub(crate) type Fingerprint = [u8; 32];

/// What Entra knows a caller by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The tenant that it signed in to.
    pub tenant: Uuid,
    /// Its object id there: the user's, or the service principal's.
    pub object_id: Uuid,
    /// The client id of the application: the caller itself, or what a user signed in with.
    pub application_id: Uuid,
}

impl Caller {
    /// An application that acts for itself, without roles and groups.
    #[must_use]
    pub fn application(tenant: Uuid, object_id: Uuid, application_id: Uuid) -> Self {
        Self {
            kind: Kind::Application,
            identity: Some(Identity {
                tenant,
                object_id,
                application_id,
            }),
            roles: BTreeSet::new(),
            groups: BTreeSet::new(),
            has_more_groups: false,
            until: None,
            fingerprint: OnceLock::new(),
            name: format!("application/{application_id}@{tenant}"),
        }
    }

    /// A person, by way of an application, without roles and groups.
    #[must_use]
    pub fn user(tenant: Uuid, object_id: Uuid, application_id: Uuid) -> Self {
        Self {
            kind: Kind::User,
            name: format!("user/{object_id}@{tenant}"),
            ..Self::application(tenant, object_id, application_id)
        }
    }

    /// The same with these roles and groups, and no others.
    #[must_use]
    pub fn with(
        self,
        roles: BTreeSet<String>,
        groups: BTreeSet<Uuid>,
        has_more_groups: bool,
    ) -> Self {
        Self {
            roles,
            groups,
            has_more_groups,
            fingerprint: OnceLock::new(),
            ..self
        }
    }

    /// The same until then, in seconds since 1970.
    fn until(self, until: i64) -> Self {
        Self {
            until: Some(until),
            ..self
        }
    }

    /// Comes back when what proves who it is has ended.
    pub async fn is_over(&self) {
        let Some(until) = self.until else {
            return std::future::pending().await;
        };
        // Looked at again and again: this machine's clock may be set, and sleep while the machine does.
        while let left @ 0.. = until.saturating_sub(now()) {
            let left = u64::try_from(left).unwrap_or_default().clamp(1, 60);
            tokio::time::sleep(Duration::from_secs(left)).await;
        }
    }

    /// Whether nobody gave it anything: it has a token of the tenant's, and no app role. The operator chose whose
    /// certificates are taken, so a caller by certificate is none.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.kind != Kind::Certificate && self.roles.is_empty()
    }

    /// Why it is nobody any more once [`Caller::is_over`] has come back.
    #[must_use]
    pub fn why_over(&self) -> AuthenticationError {
        match self.kind {
            Kind::Certificate => CertificateError::Expired.into(),
            Kind::Application | Kind::User => TokenError::Expired.into(),
        }
    }

    /// Whoever a certificate names.
    #[must_use]
    pub fn certificate(name: &str) -> Self {
        Self {
            kind: Kind::Certificate,
            identity: None,
            roles: BTreeSet::new(),
            groups: BTreeSet::new(),
            has_more_groups: false,
            until: None,
            fingerprint: OnceLock::new(),
            name: format!("certificate/{name}"),
        }
    }

    /// Its name in the store, the audit and the log: `application/CLIENT_ID@TENANT`, `user/OBJECT_ID@TENANT` or
    /// `certificate/NAME`. The same for as long as the application or the person is the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same without its kind: `CLIENT_ID@TENANT`, `OBJECT_ID@TENANT` or `NAME`.
    #[must_use]
    pub fn name_in_kind(&self) -> &str {
        let (_, name) = self.name.split_once('/').unwrap_or_default();
        name
    }

    /// The object id of the user, or of the application's service principal; `None` for certificates.
    #[must_use]
    pub fn object_id(&self) -> Option<Uuid> {
        self.identity.map(|identity| identity.object_id)
    }

    /// Worked out once: a caller is remembered with its token.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        *self.fingerprint.get_or_init(|| {
            let Self {
                kind,
                identity,
                roles,
                groups,
                has_more_groups,
                name,
                until: _,
                fingerprint: _,
            } = self;
            let all =
                format!("{kind:?} {identity:?} {roles:?} {groups:?} {has_more_groups} {name:?}");
            Sha256::digest(all).into()
        })
    }
}

/// Why nobody knows who calls.
#[derive(Clone, Debug, Error)]
pub enum AuthenticationError {
    /// There is no token.
    #[error(
        "who calls is not said: send an access token of Entra ID's, as 'authorization: Bearer TOKEN', or connect with \
         a client certificate where the server takes them"
    )]
    Missing,
    /// There are several: whoever stands before the broker may have checked another one.
    #[error("the header 'authorization' is there {0} times: send it once")]
    Several(usize),
    /// The token is not taken.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no token, and the certificate names nobody.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The server takes no tokens.
    #[error(
        "this server takes no tokens: leave 'authorization' out, and connect with a client certificate"
    )]
    NoTokens,
}

impl AuthenticationError {
    /// The stable reason that callers see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Missing => Reason::TokenMissing,
            Self::Token(TokenError::Expired) => Reason::TokenExpired,
            Self::Token(TokenError::Keys(_)) => Reason::IdentityProviderUnavailable,
            Self::Several(_) | Self::Token(_) | Self::NoTokens => Reason::TokenInvalid,
            Self::Certificate(_) => Reason::CertificateInvalid,
        }
    }
}

/// Says who calls. Cheap to clone.
#[derive(Clone)]
pub enum Authenticator {
    /// By an access token, where tokens are taken, or else by the certificate of the connection: where a token is sent
    /// it is the token that counts.
    Proof {
        /// Who checks tokens.
        tokens: Option<Tokens>,
    },
    /// Everybody is this one, unasked. No configuration leads here: a benchmark measures what proof costs.
    Unasked(Arc<Caller>),
}

impl Authenticator {
    /// Who calls, where that can be said without waiting for the directory. `authorization`: the header, as often as it is
    /// there. `None`: ask [`Authenticator::authenticate`].
    pub fn known<'h>(
        &self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
        certificate: Option<&ClientCertificate>,
    ) -> Option<Result<Arc<Caller>, AuthenticationError>> {
        match self.proof(authorization, certificate) {
            Ok(Proof::Caller(caller)) => Some(Ok(caller)),
            Ok(Proof::Token(tokens, token)) => {
                let known = tokens.at_once(token)?;
                Some(known.map_err(AuthenticationError::from))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Who calls.
    ///
    /// # Errors
    /// [`AuthenticationError`]
    pub async fn authenticate<'h>(
        &self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Arc<Caller>, AuthenticationError> {
        match self.proof(authorization, certificate)? {
            Proof::Caller(caller) => Ok(caller),
            Proof::Token(tokens, token) => Ok(tokens.verify(token).await?),
        }
    }

    fn proof<'a, 'h: 'a>(
        &'a self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Proof<'a>, AuthenticationError> {
        let tokens = match self {
            Self::Proof { tokens } => tokens,
            Self::Unasked(caller) => return Ok(Proof::Caller(Arc::clone(caller))),
        };
        let mut authorization = authorization.into_iter().peekable();
        match (authorization.peek(), certificate) {
            (None, Some(certificate)) => Ok(Proof::Caller(certificate.caller()?)),
            (None, None) => Err(AuthenticationError::Missing),
            (Some(_), _) => {
                let token = bearer(authorization)?;
                let tokens = tokens.as_ref().ok_or(AuthenticationError::NoTokens)?;
                Ok(Proof::Token(tokens, token))
            }
        }
    }
}

/// By what it is said who calls.
enum Proof<'a> {
    /// It is said.
    Caller(Arc<Caller>),
    /// By this token.
    Token(&'a Tokens, &'a str),
}

/// The token of the one header that there has to be.
fn bearer<'h>(
    authorization: impl IntoIterator<Item = &'h [u8]>,
) -> Result<&'h str, AuthenticationError> {
    let mut all = authorization.into_iter();
    let only = all.next().ok_or(AuthenticationError::Missing)?;
    let more = all.count();
    if more > 0 {
        return Err(AuthenticationError::Several(1 + more));
    }
    let token = std::str::from_utf8(only).ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    token.ok_or(AuthenticationError::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&'static str]) -> Result<&'static str, Reason> {
        bearer(headers.iter().map(|header| header.as_bytes())).map_err(|error| error.reason())
    }

    #[test]
    fn a_bearer_token_stands_in_one_header() {
        assert_eq!(read(&["Bearer abc"]), Ok("abc"));
        assert_eq!(read(&["bearer abc "]), Ok("abc"));
        assert_eq!(read(&[]), Err(Reason::TokenMissing));
        for other in ["abc", "Basic abc", "Bearerabc", "", "\u{fe}"] {
            assert_eq!(read(&[other]), Err(Reason::TokenMissing), "{other:?}");
        }
        assert_eq!(
            read(&["Bearer abc", "Bearer abc"]),
            Err(Reason::TokenInvalid)
        );
    }
}
