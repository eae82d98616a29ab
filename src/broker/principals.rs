//! Who a request means: from how it names a principal to the principal.

use thiserror::Error;

use super::request::RequestedPrincipal;
use crate::domain::access::Principal;
use crate::domain::ids::PrincipalId;
use crate::domain::reason::Reason;

/// Resolves principals. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Principals;

/// Why a principal cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PrincipalError {
    /// The directory is not asked yet.
    #[error(
        "looking principals up in the directory is in the contract, and this server does not do it yet: name them by \
         object_id and type"
    )]
    NotServed,
}

impl PrincipalError {
    /// The stable reason that callers see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotServed => Reason::NotImplemented,
        }
    }
}

impl Principals {
    /// The principal, with its type. Where a request names object id and type, they are believed, and the
    /// directory is not asked.
    ///
    /// # Errors
    /// [`PrincipalError`]
    #[expect(clippy::unused_async, reason = "the directory is to be asked here")]
    pub async fn get(&self, asked: &RequestedPrincipal) -> Result<Principal, PrincipalError> {
        match asked {
            RequestedPrincipal::ObjectId(id, Some(kind)) => Ok(Principal::unnamed(*id, *kind)),
            RequestedPrincipal::ObjectId(_, None)
            | RequestedPrincipal::UserPrincipalName(_)
            | RequestedPrincipal::ApplicationId(_) => Err(PrincipalError::NotServed),
        }
    }

    /// The object id alone. One that a request names is believed, whatever has become of its object: what a
    /// principal had that the directory has deleted can still be found and taken away.
    ///
    /// # Errors
    /// [`PrincipalError`]
    pub async fn id(&self, asked: &RequestedPrincipal) -> Result<PrincipalId, PrincipalError> {
        match asked {
            RequestedPrincipal::ObjectId(id, _) => Ok(*id),
            RequestedPrincipal::UserPrincipalName(_) | RequestedPrincipal::ApplicationId(_) => {
                Ok(self.get(asked).await?.id)
            }
        }
    }
}
