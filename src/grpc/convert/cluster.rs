//! Clusters and what there is to say about them.

use crate::broker::clusters::ClusterPage;
use crate::domain::cluster::{Cluster, Finding, Severity, findings};
use crate::grpc::proto;

/// A cluster and its findings.
pub(in crate::grpc) fn cluster(cluster: &Cluster, findings: &[Finding]) -> proto::Cluster {
    proto::Cluster {
        id: cluster.id.to_string(),
        name: cluster.name.clone(),
        location: cluster.location.clone(),
        kubernetes_version: cluster.kubernetes_version.clone(),
        tenant_id: cluster.tenant_id.clone(),
        entra_integration: cluster.entra_integration,
        azure_rbac: cluster.azure_rbac,
        local_accounts_disabled: cluster.local_accounts_disabled,
        private_cluster: cluster.private_cluster,
        power_state: cluster.power_state.clone(),
        findings: findings.iter().map(finding).collect(),
    }
}

pub(in crate::grpc) fn finding(finding: &Finding) -> proto::Finding {
    let severity = match finding.severity {
        Severity::Info => proto::finding::Severity::Info,
        Severity::Warning => proto::finding::Severity::Warning,
        Severity::Error => proto::finding::Severity::Error,
    };
    proto::Finding {
        severity: severity.into(),
        reason: finding.reason.to_string(),
        message: finding.message.clone(),
        remediation: finding.remediation.clone(),
    }
}

/// A page of clusters.
pub(in crate::grpc) fn clusters(page: &ClusterPage) -> proto::ListClustersResponse {
    let clusters = page.clusters.iter();
    let unreachable = page.unreachable.iter();
    proto::ListClustersResponse {
        clusters: clusters
            .map(|found| cluster(found, &findings(found)))
            .collect(),
        next_page_token: page.next.clone(),
        unreachable: unreachable
            .map(|id| format!("/subscriptions/{id}"))
            .collect(),
    }
}
