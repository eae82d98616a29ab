//! Clusters, as far as access to them depends on how they are set up, and what there is to say about it.

use std::collections::BTreeMap;

use super::ids::ClusterId;

/// An AKS managed cluster, as it was last read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent switches of AKS's, under the names that they have there"
)]
pub struct Cluster {
    /// Its ARM id.
    pub id: ClusterId,
    /// Its name, as Azure spells it.
    pub name: String,
    /// Its region.
    pub location: String,
    /// Its tags in ARM, with their names as they were written.
    pub tags: BTreeMap<String, String>,
    /// The Kubernetes version that it runs.
    pub kubernetes_version: String,
    /// The Entra tenant whose identities it accepts; empty without Entra integration.
    pub tenant_id: String,
    /// It accepts Entra identities. Without, every credential of the cluster is an administrator's.
    pub entra_integration: bool,
    /// It asks Azure RBAC.
    pub azure_rbac: bool,
    /// Its local accounts, which go round everything that the broker is for, are off.
    pub local_accounts_disabled: bool,
    /// Its API server has a private address only.
    pub private_cluster: bool,
    /// `Running` or `Stopped`.
    pub power_state: String,
    /// `resourceUID`: tells the cluster from another one made later under the same id.
    pub resource_uid: String,
    /// Entra groups whose members are administrators without any role assignment.
    pub admin_group_ids: Vec<String>,
}

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should put it right.
    Warning,
    /// Grants of some kind are refused because of it.
    Error,
}

/// Something worth saying about a cluster or about an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable word in `UPPER_SNAKE_CASE`.
    pub reason: &'static str,
    /// What was found.
    pub message: String,
    /// The command or setting that puts it right.
    pub remediation: String,
}

impl Cluster {
    /// Whether it runs: a stopped cluster lets nobody in until it is started again.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.power_state.eq_ignore_ascii_case("Stopped")
    }

    /// `az aks {verb}` on this cluster.
    fn az_aks(&self, verb: &str, arguments: &str) -> String {
        let mut segments = self.id.as_str().split('/').skip(2);
        let subscription = segments.next().unwrap_or_default();
        let group = segments.nth(1).unwrap_or_default();
        let command = format!(
            "az aks {verb} --subscription {subscription} --resource-group '{group}' --name {} {arguments}",
            self.name
        );
        command.trim_end().to_owned()
    }
}

/// What there is to say about how a cluster is set up, the gravest first.
#[must_use]
pub fn findings(cluster: &Cluster) -> Vec<Finding> {
    let found = [
        entra_integration_required(cluster),
        azure_rbac_disabled(cluster),
        local_accounts_enabled(cluster),
        cluster_stopped(cluster),
        admin_groups(cluster),
    ];
    found.into_iter().flatten().collect()
}

/// Without Entra integration every credential is an administrator's, and every grant is refused.
#[must_use]
pub fn entra_integration_required(cluster: &Cluster) -> Option<Finding> {
    (!cluster.entra_integration).then(|| Finding {
        severity: Severity::Error,
        reason: "ENTRA_INTEGRATION_REQUIRED",
        message: format!(
            "{} has no Entra integration: whoever may fetch its credentials is its administrator",
            cluster.name
        ),
        remediation: cluster.az_aks("update", "--enable-aad --enable-azure-rbac"),
    })
}

/// Without Azure RBAC, Azure roles with data actions have no effect inside the cluster.
#[must_use]
pub fn azure_rbac_disabled(cluster: &Cluster) -> Option<Finding> {
    (!cluster.azure_rbac).then(|| Finding {
        severity: Severity::Error,
        reason: "AZURE_RBAC_DISABLED",
        message: format!(
            "{} does not ask Azure RBAC: Azure roles permit nothing inside it, and grants of them are refused",
            cluster.name
        ),
        remediation: cluster.az_aks(
            "update",
            if cluster.entra_integration {
                "--enable-azure-rbac"
            } else {
                "--enable-aad --enable-azure-rbac"
            },
        ),
    })
}

/// Local accounts go round Entra, Azure RBAC and the broker.
#[must_use]
pub fn local_accounts_enabled(cluster: &Cluster) -> Option<Finding> {
    (!cluster.local_accounts_disabled).then(|| Finding {
        severity: Severity::Warning,
        reason: "LOCAL_ACCOUNTS_ENABLED",
        message: format!(
            "{} has local accounts: whoever may list its admin credential gets in past every role; \
             certificates that were handed out stay valid until they are rotated (az aks rotate-certs)",
            cluster.name
        ),
        remediation: cluster.az_aks("update", "--disable-local-accounts"),
    })
}

/// A stopped cluster lets nobody in.
#[must_use]
pub fn cluster_stopped(cluster: &Cluster) -> Option<Finding> {
    cluster.is_stopped().then(|| Finding {
        severity: Severity::Warning,
        reason: "CLUSTER_STOPPED",
        message: format!(
            "{} is stopped: nobody gets in until it is started",
            cluster.name
        ),
        remediation: cluster.az_aks("start", ""),
    })
}

/// Members of the admin groups are administrators whatever the broker revokes.
#[must_use]
pub fn admin_groups(cluster: &Cluster) -> Option<Finding> {
    (!cluster.admin_group_ids.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        reason: "ADMIN_GROUPS",
        message: format!(
            "members of {} are administrators of {} without any role assignment, whatever is revoked here",
            cluster.admin_group_ids.join(", "),
            cluster.name
        ),
        remediation: cluster.az_aks("update", "--aad-admin-group-object-ids \"\""),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that nothing is to be said of.
    pub(crate) fn healthy() -> Cluster {
        Cluster {
            id: ClusterId::parse(
                "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/\
                 Microsoft.ContainerService/managedClusters/prod",
            )
            .unwrap(),
            name: "Prod".to_owned(),
            location: "westeurope".to_owned(),
            tags: BTreeMap::new(),
            kubernetes_version: "1.34.2".to_owned(),
            tenant_id: "t".to_owned(),
            entra_integration: true,
            azure_rbac: true,
            local_accounts_disabled: true,
            private_cluster: false,
            power_state: "Running".to_owned(),
            resource_uid: "uid".to_owned(),
            admin_group_ids: Vec::new(),
        }
    }

    fn reasons(cluster: &Cluster) -> Vec<&'static str> {
        findings(cluster)
            .iter()
            .map(|finding| finding.reason)
            .collect()
    }

    #[test]
    fn a_well_kept_cluster_has_no_findings() {
        assert_eq!(reasons(&healthy()), Vec::<&str>::new());
    }

    #[test]
    fn everything_that_opens_or_closes_a_cluster_is_found_with_its_remedy() {
        let neglected = Cluster {
            entra_integration: false,
            azure_rbac: false,
            local_accounts_disabled: false,
            power_state: "Stopped".to_owned(),
            admin_group_ids: vec!["g".to_owned()],
            ..healthy()
        };
        assert_eq!(
            reasons(&neglected),
            [
                "ENTRA_INTEGRATION_REQUIRED",
                "AZURE_RBAC_DISABLED",
                "LOCAL_ACCOUNTS_ENABLED",
                "CLUSTER_STOPPED",
                "ADMIN_GROUPS"
            ]
        );
        let remedies: Vec<_> = findings(&neglected)
            .into_iter()
            .map(|f| f.remediation)
            .collect();
        let on =
            "--subscription 11111111-1111-4111-8111-111111111111 --resource-group 'rg' --name Prod";
        assert_eq!(
            remedies[0],
            format!("az aks update {on} --enable-aad --enable-azure-rbac")
        );
        assert_eq!(remedies[3], format!("az aks start {on}"));
    }
}
