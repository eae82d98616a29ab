//! Who a request means: from how it names a principal to the principal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use thiserror::Error;
use uuid::Uuid;

use super::request::RequestedPrincipal;
use crate::azure::{Azure, DirectoryObject, GraphError};
use crate::domain::access::Principal;
use crate::domain::ids::PrincipalId;
use crate::domain::reason::Reason;

/// How many principals are remembered; more are looked up again.
const MOST_PRINCIPALS: u64 = 100_000;

/// What is known of who is meant. Cheap to clone; clones share what they know.
#[derive(Clone, Debug)]
pub struct Principals {
    azure: Azure,
    known: Cache<RequestedPrincipal, Principal>,
}

/// Why a principal cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PrincipalError {
    /// The directory knows none of that name.
    #[error(
        "the directory knows no {0} (yet): check the spelling and the tenant; a principal made a moment ago can be \
         named by object_id and type"
    )]
    NotFound(RequestedPrincipal),
    /// Something of that id is there, and cannot hold roles.
    #[error(
        "{id} is a {kind} in the directory: only users, groups and service principals can hold access (an \
         application's service principal has an object id of its own; application_id leads there)"
    )]
    NotSupported {
        /// Which.
        id: PrincipalId,
        /// What it is, in Graph's word.
        kind: String,
    },
    /// The broker's own application may not look there.
    #[error(
        "the broker may not look {asked} up; object_id and type together need no look-up. {error}"
    )]
    NotReadable {
        /// Who was asked about.
        asked: RequestedPrincipal,
        /// What Graph says.
        error: Box<GraphError>,
    },
    /// Graph did not answer, or not sensibly: try again.
    #[error("the principal cannot be looked up at the moment: {0}")]
    Unavailable(Box<GraphError>),
}

impl PrincipalError {
    pub(super) fn of(asked: &RequestedPrincipal, error: GraphError) -> Self {
        match error.reason() {
            Reason::PrincipalNotFound => Self::NotFound(asked.clone()),
            Reason::PrincipalNotReadable => Self::NotReadable {
                asked: asked.clone(),
                error: error.into(),
            },
            _ => Self::Unavailable(error.into()),
        }
    }

    /// The stable reason that callers see.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) => Reason::PrincipalNotFound,
            Self::NotSupported { .. } => Reason::PrincipalTypeNotSupported,
            Self::NotReadable { .. } => Reason::PrincipalNotReadable,
            Self::Unavailable(error) => error.reason(),
        }
    }

    /// The principal, under the field of the request that named it.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Self::NotFound(asked) | Self::NotReadable { asked, .. } => {
                let (field, value) = asked.field();
                BTreeMap::from([(field.to_owned(), value)])
            }
            Self::NotSupported { id, kind } => BTreeMap::from([
                ("object_id".to_owned(), id.to_string()),
                ("type".to_owned(), kind.clone()),
            ]),
            Self::Unavailable(_) => BTreeMap::new(),
        }
    }

    /// How long Graph says to wait, where it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(error) => error.retry_after,
            Self::NotFound(_) | Self::NotSupported { .. } | Self::NotReadable { .. } => None,
        }
    }
}

impl Principals {
    /// What the directory said of a principal is believed for `known_for`: not for long, because a name may
    /// be given to somebody else.
    #[must_use]
    pub fn new(azure: Azure, known_for: Duration) -> Self {
        let known = Cache::builder().max_capacity(MOST_PRINCIPALS);
        Self {
            azure,
            known: known.time_to_live(known_for).build(),
        }
    }

    /// The principal, with its type. Where a request names object id and type, they are believed, and the
    /// directory is not asked. Concurrent misses make one call.
    ///
    /// # Errors
    /// [`PrincipalError`]; an error is not remembered.
    pub async fn get(&self, asked: &RequestedPrincipal) -> Result<Principal, PrincipalError> {
        if let RequestedPrincipal::ObjectId(id, Some(kind)) = asked {
            return Ok(Principal::unnamed(*id, *kind));
        }
        self.known
            .try_get_with_by_ref(asked, self.looked_up(asked))
            .await
            .map_err(Arc::unwrap_or_clone)
    }

    /// The object id alone. One that a request names is believed, whatever has become of its object: what a
    /// principal had that the directory has deleted can still be found and taken away.
    ///
    /// # Errors
    /// [`PrincipalError`]; an error is not remembered.
    pub async fn id(&self, asked: &RequestedPrincipal) -> Result<PrincipalId, PrincipalError> {
        match asked {
            RequestedPrincipal::ObjectId(id, _) => Ok(*id),
            RequestedPrincipal::UserPrincipalName(_) | RequestedPrincipal::ApplicationId(_) => {
                Ok(self.get(asked).await?.id)
            }
        }
    }

    async fn looked_up(&self, asked: &RequestedPrincipal) -> Result<Principal, PrincipalError> {
        let request = Uuid::new_v4();
        let failed = |error| PrincipalError::of(asked, error);
        match asked {
            RequestedPrincipal::ObjectId(id, _) => {
                let object = self.azure.directory_object(*id, request).await;
                match object.map_err(failed)? {
                    Some(DirectoryObject::Principal(principal)) => Ok(principal),
                    Some(DirectoryObject::Other(kind)) => {
                        Err(PrincipalError::NotSupported { id: *id, kind })
                    }
                    None => Err(PrincipalError::NotFound(asked.clone())),
                }
            }
            RequestedPrincipal::UserPrincipalName(name) => {
                self.azure.user(name, request).await.map_err(failed)
            }
            RequestedPrincipal::ApplicationId(id) => {
                let found = self.azure.service_principal(*id, request).await;
                found.map_err(failed)
            }
        }
    }
}
