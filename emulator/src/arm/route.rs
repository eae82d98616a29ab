//! Addresses: what a path asks for.
//!
//! ARM's paths are ids of any depth with a provider's part behind, in any case, so they are read from the
//! id outwards and not by a table of patterns.

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::operation::Operation;
use crate::scope::{Level, Scope};

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    RoleAssignment { scope: Scope, name: String },
    RoleAssignments { scope: Scope },
    DenyAssignments { scope: Scope },
    RoleDefinition { scope: Scope, id: String },
    RoleDefinitions { scope: Scope },
    Cluster { id: Scope },
    Clusters { subscription: Scope },
    Fleets { subscription: Scope },
    FleetMembers { fleet: Scope },
    Subscription { id: Scope },
    Subscriptions,
    ResourceGroup { id: Scope },
    ResourceGroups { subscription: Scope },
    ManagementGroup { id: Scope },
}

const AUTHORIZATION: &str = "/providers/microsoft.authorization/";
const CLUSTERS: &str = "/providers/microsoft.containerservice/managedclusters";
const FLEETS: &str = "/providers/microsoft.containerservice/fleets";

/// Reads a path; [`None`] if it names nothing that is emulated.
pub(super) fn parse(path: &str) -> Option<Target> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let path = path.trim_end_matches('/');
    let lower = path.to_ascii_lowercase();
    // The last one: an assignment's own id may stand in front, as a scope.
    if let Some(at) = lower.rfind(AUTHORIZATION) {
        let scope = Scope::parse(&path[..at]).ok()?;
        return authorization(scope, &path[at + AUTHORIZATION.len()..]);
    }
    if lower == "/subscriptions" {
        return Some(Target::Subscriptions);
    }
    let above = |suffix| {
        let above = lower.strip_suffix(suffix)?;
        Scope::parse(&path[..above.len()]).ok()
    };
    let subscription_above =
        |suffix| above(suffix).filter(|above| above.level() == Level::Subscription);
    if let Some(subscription) = subscription_above(CLUSTERS) {
        return Some(Target::Clusters { subscription });
    }
    if let Some(subscription) = subscription_above(FLEETS) {
        return Some(Target::Fleets { subscription });
    }
    if let Some(subscription) = subscription_above("/resourcegroups") {
        return Some(Target::ResourceGroups { subscription });
    }
    if let Some(fleet) = above("/members").filter(|it| it.fleet_key() == Some(it.key())) {
        return Some(Target::FleetMembers { fleet });
    }
    object(Scope::parse(path).ok()?)
}

fn object(id: Scope) -> Option<Target> {
    match id.level() {
        Level::Root => None,
        Level::ManagementGroup => Some(Target::ManagementGroup { id }),
        Level::Subscription => Some(Target::Subscription { id }),
        Level::ResourceGroup => Some(Target::ResourceGroup { id }),
        Level::Resource => (id.cluster_key() == Some(id.key())).then_some(Target::Cluster { id }),
    }
}

fn authorization(scope: Scope, rest: &str) -> Option<Target> {
    let segments: Vec<&str> = rest.split('/').collect();
    match (
        segments[0].to_ascii_lowercase().as_str(),
        segments.get(1..)?,
    ) {
        ("roleassignments", []) => Some(Target::RoleAssignments { scope }),
        ("roleassignments", [name]) => Some(Target::RoleAssignment {
            scope,
            name: (*name).to_owned(),
        }),
        ("denyassignments", []) => Some(Target::DenyAssignments { scope }),
        ("roledefinitions", []) => Some(Target::RoleDefinitions { scope }),
        ("roledefinitions", [id]) => Some(Target::RoleDefinition {
            scope,
            id: (*id).to_owned(),
        }),
        _ => None,
    }
}

impl Target {
    /// What `method` does to it.
    pub(super) fn operation(&self, method: &Method) -> Operation {
        match (method.as_str(), self) {
            ("PUT", Self::RoleAssignment { .. }) => Operation::RoleAssignmentWrite,
            ("DELETE", Self::RoleAssignment { .. }) => Operation::RoleAssignmentDelete,
            ("GET", Self::RoleAssignment { .. }) => Operation::RoleAssignmentRead,
            ("GET", Self::RoleAssignments { .. }) => Operation::RoleAssignmentList,
            ("GET", Self::DenyAssignments { .. }) => Operation::DenyAssignmentList,
            ("GET", Self::RoleDefinition { .. }) => Operation::RoleDefinitionRead,
            ("GET", Self::RoleDefinitions { .. }) => Operation::RoleDefinitionList,
            ("GET", Self::Cluster { .. }) => Operation::ManagedClusterRead,
            ("GET", Self::Clusters { .. }) => Operation::ManagedClusterList,
            ("GET", Self::Fleets { .. }) => Operation::FleetList,
            ("GET", Self::FleetMembers { .. }) => Operation::FleetMemberList,
            ("GET", Self::Subscription { .. }) => Operation::SubscriptionRead,
            ("GET", Self::Subscriptions) => Operation::SubscriptionList,
            ("GET", Self::ResourceGroup { .. }) => Operation::ResourceGroupRead,
            ("GET", Self::ResourceGroups { .. }) => Operation::ResourceGroupList,
            ("GET", Self::ManagementGroup { .. }) => Operation::ManagementGroupRead,
            _ => Operation::Unknown,
        }
    }

    /// Where the caller needs a permission; [`None`] where answers are cut down to what they may see.
    pub(super) fn scope(&self) -> Option<&Scope> {
        match self {
            Self::RoleAssignment { scope, .. }
            | Self::RoleAssignments { scope }
            | Self::DenyAssignments { scope }
            | Self::RoleDefinition { scope, .. }
            | Self::RoleDefinitions { scope } => Some(scope),
            Self::Cluster { id }
            | Self::Subscription { id }
            | Self::ResourceGroup { id }
            | Self::ManagementGroup { id } => Some(id),
            Self::Clusters { subscription }
            | Self::Fleets { subscription }
            | Self::ResourceGroups { subscription } => Some(subscription),
            Self::FleetMembers { fleet } => Some(fleet),
            Self::Subscriptions => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::parse;
    use crate::operation::Operation;

    const CLUSTER: &str =
        "/subscriptions/S/resourceGroups/RG/providers/Microsoft.ContainerService/managedClusters/C";

    #[test]
    fn paths_are_read_in_any_case_and_at_any_depth() {
        let authorization = "/providers/microsoft.authorization/RoleAssignments";
        for (method, path, operation) in [
            (
                Method::PUT,
                format!("{CLUSTER}{authorization}/n"),
                Operation::RoleAssignmentWrite,
            ),
            (
                Method::GET,
                format!("{CLUSTER}/namespaces/web{authorization}/n"),
                Operation::RoleAssignmentRead,
            ),
            (
                Method::DELETE,
                format!("/subscriptions/s{authorization}/n"),
                Operation::RoleAssignmentDelete,
            ),
            (
                Method::GET,
                authorization.to_owned(),
                Operation::RoleAssignmentList,
            ),
            (
                Method::GET,
                CLUSTER.to_owned(),
                Operation::ManagedClusterRead,
            ),
            (
                Method::GET,
                format!("{CLUSTER}/"),
                Operation::ManagedClusterRead,
            ),
            (Method::DELETE, CLUSTER.to_owned(), Operation::Unknown),
            (
                Method::GET,
                format!("{CLUSTER}/namespaces/web"),
                Operation::Unknown,
            ),
            (
                Method::GET,
                format!("{CLUSTER}/providers/Microsoft.Authorization/denyAssignments"),
                Operation::DenyAssignmentList,
            ),
            (
                Method::PUT,
                format!("{CLUSTER}/providers/Microsoft.Authorization/denyAssignments"),
                Operation::Unknown,
            ),
            (
                Method::GET,
                "/subscriptions/s/providers/microsoft.containerservice/Fleets".to_owned(),
                Operation::FleetList,
            ),
            (
                Method::GET,
                CLUSTER.replace("managedClusters/C", "fleets/F/members"),
                Operation::FleetMemberList,
            ),
            (
                Method::GET,
                format!("{CLUSTER}/members"),
                Operation::Unknown,
            ),
            (
                Method::GET,
                "/subscriptions".to_owned(),
                Operation::SubscriptionList,
            ),
            (
                Method::GET,
                "/subscriptions/s/resourcegroups".to_owned(),
                Operation::ResourceGroupList,
            ),
            (
                Method::GET,
                "/subscriptions/s/providers/Microsoft.ContainerService/managedClusters".to_owned(),
                Operation::ManagedClusterList,
            ),
        ] {
            let found = parse(&path).map_or(Operation::Unknown, |target| target.operation(&method));
            assert_eq!(found, operation, "{method} {path}");
        }
    }
}
