//! Azure roles: what a role gives, and whether the broker may assign it.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use thiserror::Error;
use uuid::Uuid;

use super::clusters::unavailable;
use super::request::RequestedRole;
use crate::azure::{Azure, AzureError};
use crate::domain::ids::{RoleDefinitionId, SubscriptionId};
use crate::domain::reason::Reason;
use crate::domain::role::{BuiltInRole, CLUSTER_ADMIN_ROLE, Role, RoleDefinition};

/// How many definitions are remembered; more are read again.
const MOST_ROLES: u64 = 10_000;

/// What is known of role definitions. Cheap to clone; clones share what they know.
#[derive(Clone, Debug)]
pub struct Roles {
    azure: Azure,
    known: Cache<(SubscriptionId, RoleDefinitionId), Arc<RoleDefinition>>,
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
        let known = Cache::builder().max_capacity(MOST_ROLES);
        Self {
            azure,
            known: known.time_to_live(known_for).build(),
        }
    }

    /// A definition, as it was at most a moment ago. Concurrent misses make one call.
    ///
    /// # Errors
    /// [`RoleError`]; an error is not remembered.
    pub async fn get(
        &self,
        subscription: SubscriptionId,
        role: RoleDefinitionId,
    ) -> Result<Arc<RoleDefinition>, RoleError> {
        self.known
            .try_get_with((subscription, role), self.read(subscription, role))
            .await
            .map_err(Arc::unwrap_or_clone)
    }

    /// The role that a request names, if the broker may assign it (I8).
    ///
    /// # Errors
    /// [`RoleError::NotAllowed`] says why not.
    pub async fn assignable(
        &self,
        subscription: SubscriptionId,
        asked: RequestedRole,
    ) -> Result<Role, RoleError> {
        let id = role_id(asked);
        if let Some(role) = BuiltInRole::from_id(id) {
            return Ok(Role::BuiltIn(role));
        }
        if id == CLUSTER_ADMIN_ROLE {
            return Err(RoleError::NotAllowed(
                "Azure Kubernetes Service Cluster Admin Role hands out the local admin credential, which \
                 goes round everything that the broker is for; it is never assigned"
                    .to_owned(),
            ));
        }
        self.get(subscription, id)
            .await?
            .check_assignable()
            .map_err(RoleError::NotAllowed)
    }

    async fn read(
        &self,
        subscription: SubscriptionId,
        role: RoleDefinitionId,
    ) -> Result<Arc<RoleDefinition>, RoleError> {
        match self
            .azure
            .role_definition(subscription, role, Uuid::new_v4())
            .await
        {
            Ok(definition) => Ok(Arc::new(definition)),
            Err(error) if error.reason() == Reason::RoleNotFound => Err(RoleError::NotFound {
                role,
                subscription,
                error: error.into(),
            }),
            Err(error) => Err(RoleError::Unavailable(error.into())),
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
