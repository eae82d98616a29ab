//! Azure roles: what a role gives, and whether the broker may assign it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use uuid::Uuid;

use super::clusters::unavailable;
use super::request::RequestedRole;
use crate::azure::{Azure, AzureError};
use crate::domain::ids::{RoleDefinitionId, SubscriptionId};
use crate::domain::power::Power;
use crate::domain::reason::Reason;
use crate::domain::role::{BuiltInRole, CLUSTER_ADMIN_ROLE, Role, RoleDefinition};
use crate::view::{Fresh, Loaded, Need, Waits};

/// How many definitions are remembered; more are read again.
const MOST_ROLES: u64 = 10_000;

/// What is known of role definitions. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Roles {
    known: Fresh<(SubscriptionId, RoleDefinitionId), Arc<RoleDefinition>, RoleError>,
    known_for: Duration,
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roles").finish_non_exhaustive()
    }
}

/// A role that the broker may assign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignable {
    /// The role.
    pub role: Role,
    /// How much it can do, by the definition that was read.
    pub power: Power,
}

impl Assignable {
    /// The role's display name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.role.display_name()
    }
}

/// How much policies are told that a role can do. A role that the broker refuses gives nothing, so that its caller hears
/// of that, if it might grant there at all, and not of a policy about power.
///
/// # Errors
/// The role cannot be read at the moment, and a policy `wants` to know.
pub(super) fn power_told(
    role: &Result<Assignable, RoleError>,
    wants: bool,
) -> Result<Power, RoleError> {
    match role {
        Ok(role) => Ok(role.power),
        Err(error @ RoleError::Unavailable(_)) if wants => Err(error.clone()),
        Err(_) => Ok(Power::NONE),
    }
}

/// Why a role cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RoleError {
    /// There is none, or it cannot be assigned in that subscription.
    #[error("there is no role {role} in subscription {subscription} (yet): {error}")]
    NotFound {
        /// Which.
        role: RoleDefinitionId,
        /// Where it was looked for.
        subscription: SubscriptionId,
        /// What Azure says.
        error: Box<AzureError>,
    },
    /// The broker never assigns it (I8).
    #[error("{0}")]
    NotAllowed(String),
    /// Azure did not answer, or not sensibly: try again.
    #[error("the role cannot be read at the moment: {0}")]
    Unavailable(Box<AzureError>),
}

impl RoleError {
    /// The stable reason that callers see.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::RoleNotFound,
            Self::NotAllowed(_) => Reason::RoleNotAllowed,
            Self::Unavailable(error) => unavailable(error),
        }
    }
}

impl Roles {
    /// What is known of a role is believed for `known_for`.
    #[must_use]
    pub fn new(azure: Azure, known_for: Duration) -> Self {
        let load = move |(subscription, role), _| read(azure.clone(), subscription, role);
        Self {
            known: Fresh::new(MOST_ROLES, |_| 1, known_for, load),
            known_for,
        }
    }

    /// A definition, as it was at most a moment ago. Concurrent misses make one call.
    ///
    /// # Errors
    /// [`RoleError`]; an error is not remembered, but for as long as Azure says to wait.
    pub async fn get(
        &self,
        subscription: SubscriptionId,
        role: RoleDefinitionId,
    ) -> Result<Arc<RoleDefinition>, RoleError> {
        self.read(subscription, role, self.known_for).await
    }

    /// The role that a request names, if the broker may assign it (I8).
    ///
    /// # Errors
    /// [`RoleError::NotAllowed`] says why not.
    pub async fn assignable(
        &self,
        subscription: SubscriptionId,
        asked: RequestedRole,
    ) -> Result<Assignable, RoleError> {
        let known_for = self.known_for;
        self.assignable_if_read_within(subscription, asked, known_for)
            .await
    }

    /// The same by the definition as it is now: for a grant that lives already and is about to live longer, perhaps
    /// without a new role assignment, before which the pass would read it again.
    ///
    /// # Errors
    /// [`RoleError::NotAllowed`] says why not.
    pub async fn assignable_now(
        &self,
        subscription: SubscriptionId,
        asked: RequestedRole,
    ) -> Result<Assignable, RoleError> {
        self.assignable_if_read_within(subscription, asked, Duration::ZERO)
            .await
    }

    async fn assignable_if_read_within(
        &self,
        subscription: SubscriptionId,
        asked: RequestedRole,
        age: Duration,
    ) -> Result<Assignable, RoleError> {
        let id = role_id(asked);
        if let Some(role) = BuiltInRole::from_id(id) {
            return Ok(Assignable {
                power: role.power(),
                role: Role::BuiltIn(role),
            });
        }
        if id == CLUSTER_ADMIN_ROLE {
            return Err(RoleError::NotAllowed(
                "Azure Kubernetes Service Cluster Admin Role hands out the local admin credential, which \
                 goes round everything that the broker is for; it is never assigned"
                    .to_owned(),
            ));
        }
        let definition = self.read(subscription, id, age).await?;
        let role = definition.check_assignable();
        Ok(Assignable {
            role: role.map_err(RoleError::NotAllowed)?,
            power: definition.power(),
        })
    }

    async fn read(
        &self,
        subscription: SubscriptionId,
        role: RoleDefinitionId,
        age: Duration,
    ) -> Result<Arc<RoleDefinition>, RoleError> {
        let need = Need::within(age);
        let known = self.known.get(&(subscription, role), need).await?;
        Ok(Arc::clone(&known.value))
    }
}

async fn read(
    azure: Azure,
    subscription: SubscriptionId,
    role: RoleDefinitionId,
) -> Result<Loaded<Arc<RoleDefinition>>, RoleError> {
    let begun = Instant::now();
    let read = azure.role_definition(subscription, role, Uuid::new_v4());
    match read.await {
        Ok(definition) => Ok(Loaded::new(Arc::new(definition), begun)),
        Err(error) if error.reason() == Reason::RoleNotFound => Err(RoleError::NotFound {
            role,
            subscription,
            error: error.into(),
        }),
        Err(error) => Err(RoleError::Unavailable(error.into())),
    }
}

impl Waits for RoleError {
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(error) => error.wait(),
            Self::NotFound { .. } | Self::NotAllowed(_) => None,
        }
    }
}

/// The GUID that a request's role has.
#[must_use]
pub const fn role_id(asked: RequestedRole) -> RoleDefinitionId {
    match asked {
        RequestedRole::BuiltIn(role) => role.id(),
        RequestedRole::Definition(id) => id,
    }
}
