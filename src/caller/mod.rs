//! Who calls: nobody gets in whose identity is not proven (design §9).
//!
//! A token is checked once and remembered until it ends: most calls come with one that was seen a moment ago.

mod keys;
mod token;

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use crate::domain::reason::Reason;

pub use keys::KeysError;
pub use token::{NoClient, TokenError, TokenSettings, Tokens};

/// What kind of caller it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// An application that acts for itself.
    Application,
    /// A person, by way of an application.
    User,
}

/// Who calls, as Entra says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// What kind of caller it is.
    pub kind: Kind,
    /// The tenant that it signed in to.
    pub tenant: Uuid,
    /// Its object id there: the user's, or the service principal's.
    pub object_id: Uuid,
    /// The client id of the application: the caller itself, or what a user signed in with.
    pub application_id: Uuid,
    /// The broker's app roles that it was given.
    pub roles: BTreeSet<String>,
    /// Object ids of groups that it is in, as far as the token has them.
    pub groups: BTreeSet<Uuid>,
    /// Whether it is in more groups than a token has room for.
    pub has_more_groups: bool,
    name: String,
}

impl Caller {
    /// An application that acts for itself, without roles and groups.
    #[must_use]
    pub fn application(tenant: Uuid, object_id: Uuid, application_id: Uuid) -> Self {
        Self {
            kind: Kind::Application,
            tenant,
            object_id,
            application_id,
            roles: BTreeSet::new(),
            groups: BTreeSet::new(),
            has_more_groups: false,
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

    /// Its name in the store, the audit and the log: `application/CLIENT_ID@TENANT` or `user/OBJECT_ID@TENANT`. The
    /// same for as long as the application or the person is the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Why nobody knows who calls.
#[derive(Clone, Debug, Error)]
pub enum AuthenticationError {
    /// There is no token.
    #[error(
        "who calls is not said: send an access token of Entra ID's, as 'authorization: Bearer TOKEN'"
    )]
    Missing,
    /// There are several: whoever stands before the broker may have checked another one.
    #[error("the header 'authorization' is there {0} times: send it once")]
    Several(usize),
    /// The token is not taken.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl AuthenticationError {
    /// The stable reason that callers see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Missing => Reason::TokenMissing,
            Self::Token(TokenError::Expired) => Reason::TokenExpired,
            Self::Token(TokenError::Keys(_)) => Reason::IdentityProviderUnavailable,
            Self::Several(_) | Self::Token(_) => Reason::TokenInvalid,
        }
    }
}

/// Says who calls. Cheap to clone.
#[derive(Clone)]
pub enum Authenticator {
    /// By an access token.
    Tokens(Tokens),
    /// Everybody is this one, unasked. No configuration leads here: a benchmark measures what the others cost.
    Unasked(Arc<Caller>),
}

impl Authenticator {
    /// Who calls, if that was found out before and still holds. `authorization`: the header, as often as it is there.
    pub fn known<'h>(
        &self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
    ) -> Option<Arc<Caller>> {
        match self {
            Self::Tokens(tokens) => tokens.known(bearer(authorization).ok()?),
            Self::Unasked(caller) => Some(Arc::clone(caller)),
        }
    }

    /// Who calls.
    ///
    /// # Errors
    /// [`AuthenticationError`]
    pub async fn authenticate<'h>(
        &self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
    ) -> Result<Arc<Caller>, AuthenticationError> {
        match self {
            Self::Tokens(tokens) => Ok(tokens.verify(bearer(authorization)?).await?),
            Self::Unasked(caller) => Ok(Arc::clone(caller)),
        }
    }
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
