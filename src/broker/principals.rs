//! Who a request means: from how it names a principal to the principal.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use thiserror::Error;
use uuid::Uuid;

use super::request::RequestedPrincipal;
use crate::azure::{Azure, DirectoryObject, GraphError};
use crate::domain::access::Principal;
use crate::domain::ids::PrincipalId;
use crate::domain::reason::Reason;
use crate::domain::user_principal_name::UserPrincipalName;
use crate::view::{Fresh, Loaded, Need, Waits};

/// How many principals are remembered; more are looked up again.
const MOST_PRINCIPALS: u64 = 100_000;

/// Of how many names it is remembered that the directory does not know them.
const MOST_UNKNOWN: usize = 10_000;

/// For how long: whoever asks again and again for a made-up name makes one call in that time, and a principal that was just
/// made is found soon after.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// What is known of who is meant. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Principals {
    known: Fresh<RequestedPrincipal, Principal, PrincipalError>,
    /// When the directory last did not know somebody.
    unknown: Arc<Cache<RequestedPrincipal, Instant>>,
    known_for: Duration,
}

impl fmt::Debug for Principals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principals").finish_non_exhaustive()
    }
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
        let load = move |asked, _| {
            let azure = azure.clone();
            async move {
                let begun = Instant::now();
                let found = looked_up(&azure, &asked).await?;
                Ok(Loaded::new(found, begun))
            }
        };
        Self {
            known: Fresh::new(MOST_PRINCIPALS, |_| 1, known_for, load),
            unknown: Arc::new(Cache::new(MOST_UNKNOWN)),
            known_for,
        }
    }

    /// The principal, with its type. Where a request names object id and type, they are believed, and the
    /// directory is not asked. Concurrent misses make one call.
    ///
    /// # Errors
    /// [`PrincipalError`]. That the directory does not know somebody is remembered for some seconds; another error for as
    /// long as Graph says to wait.
    pub async fn get(&self, asked: &RequestedPrincipal) -> Result<Principal, PrincipalError> {
        if let RequestedPrincipal::ObjectId(id, Some(kind)) = asked {
            return Ok(Principal::unnamed(*id, *kind));
        }
        let unknown_for = UNKNOWN_FOR.min(self.known_for);
        let one_form = in_one_form(asked);
        if let Some(since) = self.unknown.get(&one_form)
            && since.elapsed() < unknown_for
        {
            return Err(PrincipalError::NotFound(asked.clone()));
        }
        let begun = Instant::now();
        match self.known.get(asked, Need::within(self.known_for)).await {
            Ok(known) => Ok(known.value.clone()),
            Err(error) => {
                if matches!(error, PrincipalError::NotFound(_)) {
                    self.unknown.insert(one_form, begun);
                }
                Err(error)
            }
        }
    }

    /// The object id alone. One that a request names is believed, whatever has become of its object: what a
    /// principal had that the directory has deleted can still be found and taken away.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub async fn id(&self, asked: &RequestedPrincipal) -> Result<PrincipalId, PrincipalError> {
        match asked {
            RequestedPrincipal::ObjectId(id, _) => Ok(*id),
            RequestedPrincipal::UserPrincipalName(_) | RequestedPrincipal::ApplicationId(_) => {
                Ok(self.get(asked).await?.id)
            }
        }
    }
}

/// All spellings that mean the same are remembered once.
fn in_one_form(asked: &RequestedPrincipal) -> RequestedPrincipal {
    match asked {
        RequestedPrincipal::UserPrincipalName(name) => UserPrincipalName::parse(&name.canonical())
            .map_or_else(|_| asked.clone(), RequestedPrincipal::UserPrincipalName),
        asked => asked.clone(),
    }
}

async fn looked_up(azure: &Azure, asked: &RequestedPrincipal) -> Result<Principal, PrincipalError> {
    let request = Uuid::new_v4();
    let failed = |error| PrincipalError::of(asked, error);
    match asked {
        RequestedPrincipal::ObjectId(id, _) => {
            let object = azure.directory_object(*id, request).await;
            match object.map_err(failed)? {
                Some(DirectoryObject::Principal(principal)) => Ok(principal),
                Some(DirectoryObject::Other(kind)) => {
                    Err(PrincipalError::NotSupported { id: *id, kind })
                }
                None => Err(PrincipalError::NotFound(asked.clone())),
            }
        }
        RequestedPrincipal::UserPrincipalName(name) => {
            azure.user(name, request).await.map_err(failed)
        }
        RequestedPrincipal::ApplicationId(id) => {
            let found = azure.service_principal(*id, request).await;
            found.map_err(failed)
        }
    }
}

impl Waits for PrincipalError {
    fn wait(&self) -> Option<Duration> {
        self.retry_after()
    }
}
