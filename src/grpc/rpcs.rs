//! The RPCs of the contract, and what a call of each may cost before anybody looks at it.

use super::limits::Kind;

/// The largest message of most RPCs, in bytes. The longest request that the contract allows is well below it.
const MESSAGE: usize = 128 * 1024;
/// The same of a batch: a thousand checks, with long ids in each.
const BATCH: usize = 1024 * 1024;

/// One RPC of the contract.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rpc {
    /// Its name, as in `/aks.access.v1.AccessBrokerService/NAME`.
    pub(super) name: &'static str,
    /// What a call of it counts as.
    pub(super) kind: Kind,
    /// The full name of its request.
    pub(super) request: &'static str,
    /// The largest message that it takes, in bytes.
    pub(super) largest_message: usize,
    /// The list of its request that makes a call many calls, if there is one.
    pub(super) items: Option<Items>,
}

/// A list of a request that is counted before it is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Items {
    /// The number of the field.
    pub(super) tag: u32,
    /// Its name.
    pub(super) field: &'static str,
    /// What stands in it, in the plural.
    pub(super) what: &'static str,
    /// How many of them one request may have.
    pub(super) most: usize,
}

impl Items {
    /// What is wrong with so many of them, if there are more than one request may have.
    pub(super) fn too_many(self, count: usize) -> Option<String> {
        let Self { what, most, .. } = self;
        (count > most).then(|| format!("{count} {what}; at most {most}"))
    }
}

/// The checks of a `BatchCheckAccessRequest`.
pub(super) const CHECKS: Items = Items {
    tag: 1,
    field: "requests",
    what: "checks",
    most: 1_000,
};

const fn rpc(name: &'static str, kind: Kind, request: &'static str) -> Rpc {
    Rpc {
        name,
        kind,
        request,
        largest_message: MESSAGE,
        items: None,
    }
}

/// All of them. The one that is called most stands first.
pub(super) const RPCS: [Rpc; 20] = [
    rpc("CheckAccess", Kind::Check, "CheckAccessRequest"),
    Rpc {
        largest_message: BATCH,
        items: Some(CHECKS),
        ..rpc("BatchCheckAccess", Kind::Check, "BatchCheckAccessRequest")
    },
    rpc("Grant", Kind::Grant, "GrantRequest"),
    rpc("ExtendGrant", Kind::Grant, "ExtendGrantRequest"),
    rpc("Revoke", Kind::Revocation, "RevokeRequest"),
    rpc("Offboard", Kind::Revocation, "OffboardRequest"),
    rpc("LiftOffboarding", Kind::Read, "LiftOffboardingRequest"),
    rpc("ListOffboardings", Kind::Read, "ListOffboardingsRequest"),
    rpc("ListAccess", Kind::Read, "ListAccessRequest"),
    rpc("GetJob", Kind::Read, "GetJobRequest"),
    rpc("WatchJob", Kind::Read, "WatchJobRequest"),
    rpc("ListJobs", Kind::Read, "ListJobsRequest"),
    rpc("ListJobTargets", Kind::Read, "ListJobTargetsRequest"),
    rpc("GetGrant", Kind::Read, "GetGrantRequest"),
    rpc("ListGrants", Kind::Read, "ListGrantsRequest"),
    rpc("WatchGrants", Kind::Read, "WatchGrantsRequest"),
    rpc("GetCluster", Kind::Read, "GetClusterRequest"),
    rpc("ListClusters", Kind::Read, "ListClustersRequest"),
    rpc("GetKubeconfig", Kind::Read, "GetKubeconfigRequest"),
    rpc("ListAuditEvents", Kind::Read, "ListAuditEventsRequest"),
];

/// The RPC of a call, by its path; `None` where the contract has no such RPC.
pub(super) fn of_path(path: &str) -> Option<&'static Rpc> {
    let name = path.rsplit('/').next()?;
    RPCS.iter().find(|rpc| rpc.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::super::DESCRIPTORS;
    use super::*;

    #[test]
    fn the_table_has_every_rpc_of_the_contract_and_no_other() {
        let contract = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let service = contract
            .get_service_by_name("aks.access.v1.AccessBrokerService")
            .unwrap();
        let there: BTreeSet<(String, String)> = service
            .methods()
            .map(|method| (method.name().to_owned(), method.input().name().to_owned()))
            .collect();
        let told: BTreeSet<(String, String)> = RPCS
            .iter()
            .map(|rpc| (rpc.name.to_owned(), rpc.request.to_owned()))
            .collect();
        assert_eq!(told, there);
        assert_eq!(told.len(), RPCS.len());
    }

    #[test]
    fn the_field_that_is_counted_is_the_contracts() {
        let contract = DescriptorPool::decode(DESCRIPTORS).unwrap();
        for rpc in RPCS {
            let Some(items) = rpc.items else { continue };
            let name = format!("aks.access.v1.{}", rpc.request);
            let request = contract.get_message_by_name(&name).unwrap();
            let field = request.get_field(items.tag).unwrap();
            assert_eq!(field.name(), items.field);
            assert!(field.is_list());
        }
    }

    #[test]
    fn rpcs_are_told_apart_by_their_paths() {
        let kind = |rpc: &str| {
            let path = format!("/aks.access.v1.AccessBrokerService/{rpc}");
            of_path(&path).map(|rpc| rpc.kind)
        };
        assert_eq!(kind("Grant"), Some(Kind::Grant));
        assert_eq!(kind("ExtendGrant"), Some(Kind::Grant));
        assert_eq!(kind("Revoke"), Some(Kind::Revocation));
        assert_eq!(kind("BatchCheckAccess"), Some(Kind::Check));
        assert_eq!(kind("ListGrants"), Some(Kind::Read));
        assert_eq!(kind("NoSuch"), None);
    }
}
