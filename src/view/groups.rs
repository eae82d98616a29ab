//! The groups of a principal, through other groups too, as the directory knows them.

use std::time::Instant;

use uuid::Uuid;

use super::Loaded;
use crate::azure::{Azure, DirectoryObject, GraphError};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::evaluate::MOST_GROUPS_OF_SERVICE_PRINCIPALS;
use crate::domain::ids::PrincipalId;
use crate::domain::reason::Reason;

/// The groups of one principal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Groups {
    /// All that it is in, through other groups too.
    pub ids: Box<[PrincipalId]>,
    /// Whether the directory knows the principal: one that was made a moment ago may be unknown to it, and one that was
    /// deleted leaves its assignments behind. Neither is in any group.
    pub is_known: bool,
    /// Whether it is a service principal in so many groups that AKS learns of none, whatever a caller says that it is.
    pub is_service_principal: bool,
}

impl Groups {
    /// So much memory as that many principals in a few groups.
    pub(super) fn weight(&self) -> u32 {
        const FEW: usize = 50;
        u32::try_from(1 + self.ids.len() / FEW).unwrap_or(u32::MAX)
    }

    /// Asks the directory.
    pub(super) async fn read(
        azure: Azure,
        id: PrincipalId,
        kind: PrincipalType,
    ) -> Result<Loaded<Self>, GraphError> {
        let begun = Instant::now();
        let groups = match azure.transitive_groups(id, kind, Uuid::new_v4()).await {
            Ok(groups) => Groups {
                is_service_principal: groups.len() > MOST_GROUPS_OF_SERVICE_PRINCIPALS
                    && is_service_principal(&azure, id).await?,
                ids: groups.into_iter().collect(),
                is_known: true,
            },
            Err(error) if error.reason() == Reason::PrincipalNotFound => Groups {
                ids: Box::default(),
                is_known: false,
                is_service_principal: false,
            },
            Err(error) => return Err(error),
        };
        Ok(Loaded::new(groups, begun))
    }
}

/// A caller may say that it is something else; the directory knows.
async fn is_service_principal(azure: &Azure, id: PrincipalId) -> Result<bool, GraphError> {
    let object = azure.directory_object(id, Uuid::new_v4()).await?;
    Ok(matches!(
        object,
        Some(DirectoryObject::Principal(Principal {
            kind: PrincipalType::ServicePrincipal,
            ..
        }))
    ))
}
