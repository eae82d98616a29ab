//! Role assignments: `Microsoft.Authorization/roleAssignments` [azure.md §1].

use std::fmt;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::super::Azure;
use super::super::error::AzureError;
use super::Call;
use crate::domain::access::{PrincipalType, RoleAtScope};
use crate::domain::assignments::resource_id;
use crate::domain::fleet::FleetId;
use crate::domain::ids::{
    AssignmentName, ClusterId, InstanceId, Namespace, PrincipalId, RoleDefinitionId, Scope,
    SubscriptionId,
};
use crate::domain::ownership::{Description, place_in_series};

const API_VERSION: &str = "2022-04-01";
const PROVIDER: &str = "/providers/Microsoft.Authorization/roleAssignments";

/// A role assignment, as ARM tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleAssignment {
    /// Its name.
    pub name: AssignmentName,
    /// Where it holds, in lower case: a cluster, a namespace, or anything above or beside them.
    pub scope: String,
    /// Its role.
    pub role: RoleDefinitionId,
    /// Who has it.
    pub principal: PrincipalId,
    /// What kind of principal that is; `None` for kinds that the broker does not deal in.
    pub principal_type: Option<PrincipalType>,
    /// Its description.
    pub description: Option<String>,
    /// The ABAC condition on which it hangs.
    pub condition: Option<String>,
}

impl RoleAssignment {
    /// Its ARM id, with the scope in lower case.
    #[must_use]
    pub fn resource_id(&self) -> String {
        resource_id(&self.scope, self.name)
    }

    /// What its description says of us, if this broker made it: a description counts only under a name of our own
    /// series, because anybody can copy one.
    #[must_use]
    pub fn made_by(&self, instance: InstanceId) -> Option<Description> {
        let description = Description::parse(self.description.as_deref()?)?;
        let at = RoleAtScope {
            role: self.role,
            scope: Scope::parse(&self.scope).ok()?,
        };
        let ours = description.instance == instance
            && place_in_series(instance, &at, self.principal, self.name).is_some();
        ours.then_some(description)
    }

    /// Whether it is an assignment of this role at this scope.
    #[must_use]
    pub fn is_at(&self, at: &RoleAtScope) -> bool {
        self.role == at.role && self.scope == at.scope.to_string()
    }
}

/// A role assignment as a PUT left it, and what ARM said besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The assignment.
    pub assignment: RoleAssignment,
    /// Azure's correlation id, for the audit trail.
    pub correlation_id: String,
    /// How many more writes ARM allows the subscription at once, where it says so.
    pub remaining: Option<u32>,
}

/// What a DELETE found, and what ARM said besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// Whether there was one. `false` is an answer only if no PUT of the name may still be under way.
    pub was_there: bool,
    /// Azure's correlation id, for the audit trail.
    pub correlation_id: String,
    /// How many more deletes ARM allows the subscription at once, where it says so.
    pub remaining: Option<u32>,
}

/// Where to list: the scopes at which AKS asks whether somebody may do something in a cluster [azure.md §3], and what
/// holds them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A whole subscription.
    Subscription(SubscriptionId),
    /// A cluster or a namespace.
    Scope(Scope),
    /// A managed namespace of a cluster.
    ManagedNamespace(ClusterId, Namespace),
    /// A whole fleet.
    Fleet(FleetId),
    /// A namespace of all members of a fleet.
    FleetNamespace(FleetId, Namespace),
    /// A managed namespace of a fleet.
    FleetManagedNamespace(FleetId, Namespace),
}

impl fmt::Display for Place {
    /// The ARM id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscription(id) => write!(f, "/subscriptions/{id}"),
            Self::Scope(scope) => scope.fmt(f),
            Self::ManagedNamespace(cluster, name) => {
                write!(f, "{cluster}/managedNamespaces/{name}")
            }
            Self::Fleet(fleet) => fleet.fmt(f),
            Self::FleetNamespace(fleet, name) => write!(f, "{fleet}/namespaces/{name}"),
            Self::FleetManagedNamespace(fleet, name) => {
                write!(f, "{fleet}/managedNamespaces/{name}")
            }
        }
    }
}

/// What to list there [azure.md §1]. Whatever is asked for, compare `scope` in the answer: with
/// [`AtScope`](Self::AtScope) some see what lies below as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    /// Everything at the place, above it, and perhaps below it.
    All,
    /// What holds at the place: assigned there or above.
    AtScope,
    /// Exactly this principal's, without its groups'. Does not combine with `AtScope`.
    Principal(PrincipalId),
    /// This user's or service principal's, its groups' included. Never a group.
    AssignedTo(PrincipalId),
    /// `AtScope` and `AssignedTo`.
    AtScopeAssignedTo(PrincipalId),
}

impl Filter {
    fn odata(self) -> Option<String> {
        match self {
            Self::All => None,
            Self::AtScope => Some("atScope()".to_owned()),
            Self::Principal(id) => Some(format!("principalId eq '{id}'")),
            Self::AssignedTo(id) => Some(format!("assignedTo('{id}')")),
            Self::AtScopeAssignedTo(id) => Some(format!("atScope() and assignedTo('{id}')")),
        }
    }
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    properties: WireProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    scope: String,
    role_definition_id: String,
    principal_id: String,
    #[serde(default)]
    principal_type: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    condition: Option<String>,
}

impl Wire {
    fn parse(self) -> Result<RoleAssignment, String> {
        let properties = self.properties;
        let guid = properties
            .role_definition_id
            .rsplit('/')
            .next()
            .unwrap_or_default();
        Ok(RoleAssignment {
            name: AssignmentName::parse(&self.name).map_err(|e| format!("its name: {e}"))?,
            scope: properties.scope.to_ascii_lowercase(),
            role: RoleDefinitionId::parse(guid).map_err(|e| format!("its role: {e}"))?,
            principal: PrincipalId::parse(&properties.principal_id)
                .map_err(|e| format!("its principal: {e}"))?,
            principal_type: properties
                .principal_type
                .as_deref()
                .and_then(principal_type),
            description: properties.description.filter(|text| !text.is_empty()),
            condition: properties.condition.filter(|text| !text.is_empty()),
        })
    }
}

const fn principal_type_name(of: PrincipalType) -> &'static str {
    match of {
        PrincipalType::User => "User",
        PrincipalType::Group => "Group",
        PrincipalType::ServicePrincipal => "ServicePrincipal",
    }
}

fn principal_type(name: &str) -> Option<PrincipalType> {
    [
        PrincipalType::User,
        PrincipalType::Group,
        PrincipalType::ServicePrincipal,
    ]
    .into_iter()
    .find(|known| principal_type_name(*known).eq_ignore_ascii_case(name))
}

impl Azure {
    /// Assigns a role, or changes the description of an assignment of this name. A repeated PUT is the
    /// same PUT [azure-cli#23770].
    ///
    /// # Errors
    /// An [`AzureError`], whose outcome says whether the assignment may be there all the same.
    pub async fn put_role_assignment(
        &self,
        name: AssignmentName,
        at: &RoleAtScope,
        principal: PrincipalId,
        principal_type: PrincipalType,
        description: &str,
        request: Uuid,
    ) -> Result<Written, AzureError> {
        let what = format!("PUT of role assignment {name} at {}", at.scope);
        let subscription = at.scope.cluster().subscription();
        let role = at.role;
        let call = Call {
            what: &what,
            method: Method::PUT,
            url: self.assignment_url(&at.scope, name),
            body: Some(json!({"properties": {
                "roleDefinitionId": format!(
                    "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
                ),
                "principalId": principal.to_string(),
                // Sent, Azure does not look the principal up, and one made seconds ago works.
                "principalType": principal_type_name(principal_type),
                "description": description,
            }})),
            request,
            // Both are in use for a PUT that changes an assignment; createdOn and createdBy of the
            // answer are not to be believed, and are not read.
            expects: &[200, 201],
        };
        let answer = self.arm.send(call).await?;
        let assignment = answer
            .read::<Wire>(&what)?
            .parse()
            .map_err(|problem| answer.unreadable(&what, &problem))?;
        if (assignment.name, assignment.role, assignment.principal) != (name, role, principal) {
            return Err(answer.unreadable(&what, "it tells of another assignment"));
        }
        Ok(Written {
            assignment,
            correlation_id: answer.correlation_id,
            remaining: answer.remaining,
        })
    }

    /// Removes the assignment of this name; that there is none is success as well.
    ///
    /// # Errors
    /// An [`AzureError`], whose outcome says whether it may be gone all the same.
    pub async fn delete_role_assignment(
        &self,
        name: AssignmentName,
        scope: &Scope,
        request: Uuid,
    ) -> Result<Deletion, AzureError> {
        let what = format!("DELETE of role assignment {name} at {scope}");
        let call = Call {
            what: &what,
            method: Method::DELETE,
            url: self.assignment_url(scope, name),
            body: None,
            request,
            expects: &[200, 204],
        };
        match self.arm.send(call).await {
            Ok(answer) => Ok(Deletion {
                was_there: answer.status == 200,
                correlation_id: answer.correlation_id,
                remaining: answer.remaining,
            }),
            Err(error) if is_not_there(&error) => Ok(Deletion {
                was_there: false,
                correlation_id: error.correlation_id,
                remaining: None,
            }),
            Err(error) => Err(error),
        }
    }

    /// The assignment of this name, if ARM shows one: it may not show one yet that was just written.
    ///
    /// # Errors
    /// An [`AzureError`]; one that is not there is none.
    pub async fn role_assignment(
        &self,
        name: AssignmentName,
        scope: &Scope,
        request: Uuid,
    ) -> Result<Option<RoleAssignment>, AzureError> {
        let what = format!("GET of role assignment {name} at {scope}");
        let url = self.assignment_url(scope, name);
        match self.arm.get::<Wire>(&what, url, request).await {
            Ok(wire) => wire
                .parse()
                .map(Some)
                .map_err(|problem| super::unreadable_answer(&what, &problem)),
            Err(error) if is_not_there(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The assignments at `place` that pass `filter`, all pages of them.
    ///
    /// # Errors
    /// An [`AzureError`]; also where one row cannot be read, because a list with a hole in it would be
    /// taken for the whole truth.
    pub async fn role_assignments(
        &self,
        place: &Place,
        filter: Filter,
        request: Uuid,
    ) -> Result<Vec<RoleAssignment>, AzureError> {
        let what = format!("list of role assignments at {place}");
        let url = self.arm.url(
            &format!("{place}{PROVIDER}"),
            API_VERSION,
            filter.odata().as_deref(),
        );
        self.arm.list(&what, url, request, Wire::parse).await
    }

    fn assignment_url(&self, scope: &Scope, name: AssignmentName) -> url::Url {
        self.arm
            .url(&format!("{scope}{PROVIDER}/{name}"), API_VERSION, None)
    }
}

fn is_not_there(error: &AzureError) -> bool {
    error.status == Some(404) && error.code.eq_ignore_ascii_case("RoleAssignmentNotFound")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_assignment_is_read_in_any_case() {
        let wire: Wire = serde_json::from_value(json!({
            "properties": {
                "roleDefinitionId": "/subscriptions/11111111-1111-4111-8111-111111111111/providers/Microsoft.Authorization/roleDefinitions/ACDD72A7-3385-48ef-bd42-f606fba81ae7",
                "principalId": "88C53162-0000-4000-8000-000000000001",
                "principalType": "ForeignGroup",
                "scope": "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/RG",
                "condition": null, "conditionVersion": null,
                "createdOn": "2025-04-14T08:54:25.8958593Z", "createdBy": null,
                "description": null
            },
            "id": "…", "type": "Microsoft.Authorization/roleAssignments",
            "name": "88888888-0000-0000-0000-000000000001"
        }))
        .unwrap();
        let assignment = wire.parse().unwrap();
        assert_eq!(
            assignment.scope,
            "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/rg"
        );
        assert_eq!(
            assignment.role.to_string(),
            "acdd72a7-3385-48ef-bd42-f606fba81ae7"
        );
        assert_eq!(assignment.principal_type, None);
        assert_eq!(assignment.condition, None);
    }
}
