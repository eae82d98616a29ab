//! What there is to say about an answer, and what to do about it.

use super::{CLUSTER_ACCESS, Path, Question};
use crate::domain::cluster::{Cluster, Finding, Severity};
use crate::domain::role::{BuiltInRole, RoleDefinition};

pub(super) fn no_cluster_user_role(question: &Question<'_>) -> Finding {
    Finding {
        severity: Severity::Info,
        reason: "NO_CLUSTER_USER_ROLE",
        message: format!(
            "no role assignment lets {} fetch the credentials of {}: {CLUSTER_ACCESS} is missing",
            question.principal, question.cluster.name
        ),
        remediation: format!(
            "Grant any access to the cluster, {} at least: every access brings it along",
            BuiltInRole::ClusterUser
        ),
    }
}

pub(super) fn permission_not_held(question: &Question<'_>) -> Finding {
    Finding {
        severity: Severity::Info,
        reason: "PERMISSION_NOT_HELD",
        message: format!(
            "the role assignments of {} do not give all that {} gives there",
            question.principal, question.role.name
        ),
        remediation: format!("Grant {} there", question.role.name),
    }
}

pub(super) fn kubernetes_bindings_not_read(cluster: &Cluster) -> Finding {
    Finding {
        severity: Severity::Info,
        reason: "KUBERNETES_BINDINGS_NOT_READ",
        message: format!(
            "Roles and RoleBindings inside {} let people in as well, and are not read for this answer",
            cluster.name
        ),
        remediation: "kubectl get rolebindings,clusterrolebindings --all-namespaces -o wide"
            .to_owned(),
    }
}

pub(super) fn role_gives_nothing(role: &RoleDefinition) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: "ROLE_GIVES_NOTHING",
        message: format!("{} ({}) gives no data actions", role.name, role.id),
        remediation: "Ask about a role with data actions of managed clusters".to_owned(),
    }
}

pub(super) fn condition_not_evaluated(paths: &[Path]) -> Finding {
    let ids: Vec<&str> = paths.iter().map(|path| path.resource_id.as_str()).collect();
    Finding {
        severity: Severity::Warning,
        reason: "CONDITION_NOT_EVALUATED",
        message: format!(
            "it hangs on conditions that the broker cannot evaluate, of {}",
            ids.join(", ")
        ),
        remediation: "Read the condition in Azure, or grant the access without one".to_owned(),
    }
}
