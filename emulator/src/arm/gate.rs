//! The gates in front of every call: who asks, in which version, and whether they may.

use hyper::Method;
use jiff::civil::Date;

use super::error::ArmError;
use super::route::Target;
use crate::core::Core;
use crate::entra::{BadToken, Claims, arm_audiences, is_for_arm};
use crate::message::Request;
use crate::operation::Operation;
use crate::scope::Scope;
use crate::state::{Missing, State};

/// Whose token it is, if ARM takes it.
pub(super) fn authenticate<'a>(core: &Core, request: &'a Request) -> Result<&'a Claims, ArmError> {
    let refuse = |code: &str, message: &str| {
        Err(ArmError::unauthenticated(
            core.tenant,
            &core.urls.entra,
            code,
            message,
        ))
    };
    let cloud = core.settings().cloud;
    let [audience, classic] = arm_audiences(cloud);
    match &request.token {
        Ok(claims) if !is_for_arm(cloud, &claims.aud) => refuse(
            "InvalidAuthenticationTokenAudience",
            &format!(
                "The access token has been obtained for wrong audience or resource '{}'. It should exactly match with \
                 one of the allowed audiences '{classic}/','{audience}'.",
                claims.aud
            ),
        ),
        Ok(claims) if claims.tid != core.tenant => refuse(
            "InvalidAuthenticationTokenTenant",
            "The access token is from the wrong issuer. It must match the tenant associated with this subscription.",
        ),
        Ok(claims) => Ok(claims),
        Err(BadToken::Missing) => refuse(
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.",
        ),
        Err(BadToken::Invalid) => {
            refuse("InvalidAuthenticationToken", "The access token is invalid.")
        }
        Err(BadToken::Expired(at)) => refuse(
            "ExpiredAuthenticationToken",
            &format!(
                "The access token expiry UTC time '{at}' is earlier than current UTC time '{}'.",
                core.clock.now().wall
            ),
        ),
    }
}

/// The versions of `Microsoft.Authorization` that serve these resources.
const AUTHORIZATION_VERSIONS: [&str; 6] = [
    "2015-07-01",
    "2018-01-01-preview",
    "2020-04-01-preview",
    "2020-10-01-preview",
    "2022-04-01",
    "2022-05-01-preview",
];

/// The versions that serve deny assignments, from general knowledge; `denyAssignmentEffect` comes with the last
/// [pim-and-deny-assignments.txt].
const DENY_ASSIGNMENT_VERSIONS: [&str; 3] = [
    "2018-07-01-preview",
    "2022-04-01",
    super::deny_assignments::WITH_EFFECT,
];

/// Other providers get a new version every few weeks; each from this one on will do.
const OLDEST_VERSION: Date = jiff::civil::date(2016, 6, 1);

pub(super) fn check_api_version(request: &Request, target: &Target) -> Result<(), ArmError> {
    let version = request
        .parameter("api-version")
        .ok_or_else(ArmError::missing_api_version)?;
    let of_authorization: Option<&[&str]> = match target {
        Target::RoleAssignment { .. }
        | Target::RoleAssignments { .. }
        | Target::RoleDefinition { .. }
        | Target::RoleDefinitions { .. } => Some(&AUTHORIZATION_VERSIONS),
        Target::DenyAssignments { .. } => Some(&DENY_ASSIGNMENT_VERSIONS),
        _ => None,
    };
    if let Some(versions) = of_authorization {
        let known = versions.contains(&version);
        let supported = versions.join(",");
        return known
            .then_some(())
            .ok_or_else(|| ArmError::invalid_api_version(version, &supported));
    }
    let date: Option<Date> = version
        .strip_suffix("-preview")
        .unwrap_or(version)
        .parse()
        .ok();
    let known = date.is_some_and(|date| date >= OLDEST_VERSION);
    known.then_some(()).ok_or_else(|| {
        ArmError::invalid_api_version(version, &format!("{OLDEST_VERSION} and newer"))
    })
}

/// The action that an operation needs.
fn action_of(operation: Operation) -> &'static str {
    match operation {
        Operation::RoleAssignmentWrite => "Microsoft.Authorization/roleAssignments/write",
        Operation::RoleAssignmentDelete => "Microsoft.Authorization/roleAssignments/delete",
        Operation::RoleAssignmentRead | Operation::RoleAssignmentList => {
            "Microsoft.Authorization/roleAssignments/read"
        }
        Operation::DenyAssignmentList => "Microsoft.Authorization/denyAssignments/read",
        Operation::RoleDefinitionRead | Operation::RoleDefinitionList => {
            "Microsoft.Authorization/roleDefinitions/read"
        }
        Operation::ManagedClusterRead | Operation::ManagedClusterList => {
            "Microsoft.ContainerService/managedClusters/read"
        }
        Operation::FleetList => "Microsoft.ContainerService/fleets/read",
        Operation::FleetMemberList => "Microsoft.ContainerService/fleets/members/read",
        Operation::ResourceGroupRead | Operation::ResourceGroupList => {
            "Microsoft.Resources/subscriptions/resourceGroups/read"
        }
        Operation::ManagementGroupRead => "Microsoft.Management/managementGroups/read",
        _ => "Microsoft.Resources/subscriptions/read",
    }
}

/// May the caller do this here, and is there a "here"?
///
/// A missing subscription shows before the authorisation, anything else missing only after it: who may not
/// look must not learn what exists.
pub(super) fn authorize(
    core: &Core,
    request: &Request,
    target: &Target,
    claims: &Claims,
) -> Result<(), ArmError> {
    let Some(scope) = target.scope() else {
        return Ok(());
    };
    let store = core.store();
    let missing = store.state.exists(scope).err();
    if missing == Some(Missing::Subscription) {
        return Err(ArmError::no_such_subscription(scope));
    }
    if core.settings().authorization_enforced {
        let action = action_of(request.operation);
        if !store.state.may(claims.oid, action, scope) {
            let over = authorized_over(&request.method, target, scope);
            return Err(ArmError::unauthorized(
                &claims.name_in_errors(),
                claims.oid,
                action,
                &over,
            ));
        }
        if let Some(deny) = store.state.denied(claims.oid, action, scope) {
            let over = authorized_over(&request.method, target, scope);
            return Err(ArmError::denied(
                &claims.name_in_errors(),
                claims.oid,
                action,
                &over,
                deny,
            ));
        }
    }
    match missing {
        None => check_locks(&store.state, request, target),
        Some(Missing::ManagementGroup) => Err(ArmError::no_such_management_group(scope)),
        Some(Missing::Subscription) => Err(ArmError::no_such_subscription(scope)),
        Some(Missing::ResourceGroup) => Err(ArmError::no_such_resource_group(scope)),
        // A cluster that is read may still be seen for a while, or not yet: its handler knows.
        Some(Missing::Resource) if matches!(target, Target::Cluster { .. }) => Ok(()),
        Some(Missing::Resource) => Err(ArmError::no_such_resource(scope)),
    }
}

/// Azure names the object itself where there is one.
fn authorized_over(method: &Method, target: &Target, scope: &Scope) -> String {
    match target {
        Target::RoleAssignment { name, .. } if method != Method::GET => {
            scope.role_assignment_id(name)
        }
        _ => scope.to_string(),
    }
}

fn check_locks(state: &State, request: &Request, target: &Target) -> Result<(), ArmError> {
    let Target::RoleAssignment { scope, name } = target else {
        return Ok(());
    };
    let id = scope.role_assignment_id(name);
    let mut locks = state.locks_over(scope);
    match request.operation {
        Operation::RoleAssignmentDelete if !locks.is_empty() => {
            Err(ArmError::locked(&id, "delete", &locks))
        }
        Operation::RoleAssignmentWrite => {
            // CanNotDelete stops a DELETE, not a PUT [azure-docs#110791].
            locks.retain(|lock| lock.level == crate::world::LockLevel::ReadOnly);
            if locks.is_empty() {
                Ok(())
            } else {
                Err(ArmError::locked(&id, "write", &locks))
            }
        }
        _ => Ok(()),
    }
}
