//! What there is to say about an answer, and what to do about it.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{Asks, CLUSTER_ACCESS, MOST_GROUPS_OF_SERVICE_PRINCIPALS};
use crate::domain::cluster::{Cluster, Finding, Severity};
use crate::domain::ids::{PrincipalId, RoleDefinitionId};
use crate::domain::kubernetes_request::{KubernetesRequest, NoDemand};
use crate::domain::role::{BuiltInRole, RoleDefinition};

/// So many things of a kind are named in a finding.
const MOST_NAMED: usize = 5;

fn info(reason: &'static str, message: String, remediation: String) -> Finding {
    Finding {
        severity: Severity::Info,
        reason,
        message,
        remediation,
    }
}

fn warning(reason: &'static str, message: String, remediation: String) -> Finding {
    Finding {
        severity: Severity::Warning,
        ..info(reason, message, remediation)
    }
}

/// The first few, and how many there are besides.
fn some_of<T: Display>(all: &BTreeSet<T>) -> String {
    let named: Vec<String> = all
        .iter()
        .take(MOST_NAMED)
        .map(ToString::to_string)
        .collect();
    match all.len().checked_sub(MOST_NAMED) {
        None | Some(0) => named.join(", "),
        Some(more) => format!("{} and {more} more", named.join(", ")),
    }
}

pub(super) fn no_cluster_user_role(principal: PrincipalId, cluster: &Cluster) -> Finding {
    info(
        "NO_CLUSTER_USER_ROLE",
        format!(
            "no role assignment lets {principal} fetch the credentials of {}: {CLUSTER_ACCESS} is missing",
            cluster.name
        ),
        format!(
            "Grant any access to the cluster, {} at least: every access brings it along",
            BuiltInRole::ClusterUser
        ),
    )
}

pub(super) fn permission_not_held(principal: PrincipalId, asks: &Asks<'_>) -> Finding {
    let (what, remediation) = match asks {
        Asks::Access { role, .. } => (
            format!("all that {} gives there", role.name),
            format!("Grant {} there", role.name),
        ),
        Asks::Request(KubernetesRequest::Path { path, verb }) => (
            format!("{verb} {path}"),
            "Grant a role that permits it".to_owned(),
        ),
        Asks::Request(KubernetesRequest::Resource(request)) => {
            let place = request.namespace.as_ref().map_or_else(
                || "in the whole cluster".to_owned(),
                |namespace| format!("in namespace {namespace}"),
            );
            let resource = [&request.resource, &request.subresource];
            let resource: Vec<&str> = resource
                .into_iter()
                .map(String::as_str)
                .filter(|text| !text.is_empty())
                .collect();
            (
                format!("{} {} {place}", request.verb, resource.join("/")),
                "Grant a role that permits it there".to_owned(),
            )
        }
    };
    info(
        "PERMISSION_NOT_HELD",
        format!("the role assignments of {principal} do not give {what}"),
        remediation,
    )
}

pub(super) fn kubernetes_bindings_not_read(cluster: &Cluster) -> Finding {
    info(
        "KUBERNETES_BINDINGS_NOT_READ",
        format!(
            "Roles and RoleBindings inside {} let people in as well, and are not read for this answer",
            cluster.name
        ),
        "kubectl get rolebindings,clusterrolebindings --all-namespaces -o wide".to_owned(),
    )
}

pub(super) fn role_gives_nothing(role: &RoleDefinition) -> Finding {
    Finding {
        severity: Severity::Error,
        ..info(
            "ROLE_GIVES_NOTHING",
            format!("{} ({}) gives no data actions", role.name, role.id),
            "Ask about a role with data actions of managed clusters".to_owned(),
        )
    }
}

pub(super) fn role_at_other_namespace(scopes: &BTreeSet<&str>) -> Finding {
    info(
        "ROLE_AT_OTHER_NAMESPACE",
        format!(
            "what was asked about is held, but elsewhere: at {}",
            some_of(scopes)
        ),
        "Ask about that namespace, or grant the role in this one".to_owned(),
    )
}

pub(super) fn group_membership_missing(groups: &BTreeSet<PrincipalId>) -> Finding {
    info(
        "GROUP_MEMBERSHIP_MISSING",
        format!(
            "members of these groups may, and the principal is in none of them: {}",
            some_of(groups)
        ),
        "Have the principal added to one of them if it should have what all of its members have; a token keeps its \
         groups for about an hour"
            .to_owned(),
    )
}

/// `hangs`: on a condition.
pub(super) fn deny_assignment(id: &str, name: &str, hangs: bool) -> Finding {
    let how = if hangs {
        "takes it away where its condition holds"
    } else {
        "takes it away, whatever roles are held"
    };
    warning(
        "DENY_ASSIGNMENT",
        format!("deny assignment {name:?} ({id}) {how}"),
        "Whoever made the deny assignment has to exclude the principal, in person, or remove it"
            .to_owned(),
    )
}

pub(super) fn role_not_read(roles: &BTreeSet<RoleDefinitionId>) -> Finding {
    warning(
        "ROLE_NOT_READ",
        format!(
            "roles are held here whose definitions are not to be had, and they count for nothing: {}",
            some_of(roles)
        ),
        "Ask again in a minute; a role that was just made, or removed, may be missing for a while"
            .to_owned(),
    )
}

pub(super) fn fleet_not_read(cluster: &Cluster) -> Finding {
    warning(
        "FLEET_NOT_READ",
        format!(
            "it could not be found out whether {} is a member of a fleet, which would give access as well",
            cluster.name
        ),
        "Let the broker's identity read Microsoft.ContainerService/fleets in all its subscriptions"
            .to_owned(),
    )
}

pub(super) fn in_admin_group(group: &str, cluster: &Cluster) -> Finding {
    warning(
        "ADMIN_GROUP_MEMBER",
        format!(
            "the principal is in {group}, whose members are administrators of {} without any role assignment",
            cluster.name
        ),
        "Take the group out of the cluster's aadProfile.adminGroupObjectIDs, or the principal out of the group"
            .to_owned(),
    )
}

pub(super) fn too_many_groups(principal: PrincipalId, groups: usize) -> Finding {
    warning(
        "TOO_MANY_GROUPS",
        format!(
            "{principal} is in {groups} groups; of a service principal in more than {MOST_GROUPS_OF_SERVICE_PRINCIPALS} \
             AKS learns none, and refuses it"
        ),
        "Take the service principal out of groups that it does not need".to_owned(),
    )
}

pub(super) fn name_of_the_system(name: &str) -> Finding {
    warning(
        "SYSTEM_NAME",
        format!(
            "AKS does not ask Azure RBAC about {name:?}: names that begin with system: are Kubernetes' own"
        ),
        "Bind a Kubernetes role to it".to_owned(),
    )
}

pub(super) fn open_to_everybody() -> Finding {
    info(
        "OPEN_TO_EVERYBODY",
        "whoever is known to the cluster may read this, without a check".to_owned(),
        "Nothing".to_owned(),
    )
}

pub(super) fn unanswerable(problem: &NoDemand) -> Finding {
    info(
        "NO_SUCH_OPERATION",
        problem.to_string(),
        "Ask about a verb and a resource that Kubernetes has".to_owned(),
    )
}

/// `ids`: of the assignments whose conditions they are.
pub(super) fn condition_not_evaluated(ids: &BTreeSet<String>) -> Finding {
    warning(
        "CONDITION_NOT_EVALUATED",
        format!(
            "it hangs on conditions that the broker cannot evaluate, of {}",
            some_of(ids)
        ),
        "Read the condition in Azure, or grant the access without one".to_owned(),
    )
}
