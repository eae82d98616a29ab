//! The company as the view keeps it, put together without Azure.

use std::collections::BTreeMap;
use std::sync::Arc;

use aks_access_broker::domain::access::PrincipalType;
use aks_access_broker::domain::assignments::{Assignments, Listed};
use aks_access_broker::domain::cluster::Cluster;
use aks_access_broker::domain::evaluate::Judgements;
use aks_access_broker::domain::ids::{
    AssignmentName, ClusterId, InvalidClusterId, PrincipalId, RoleDefinitionId,
};
use aks_access_broker::domain::kubernetes_request::Features;
use aks_access_broker::domain::role::{Permissions, RoleDefinition};
use aks_access_broker::domain::snapshot::{Definitions, OwnChanges, Parts, Snapshot};
use serde::Deserialize;
use uuid::Uuid;

use super::company::{Company, Holder, Row, cluster_id};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    name: Uuid,
    role_name: String,
    permissions: Vec<Block>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    actions: Vec<String>,
    not_actions: Vec<String>,
    data_actions: Vec<String>,
    not_data_actions: Vec<String>,
}

/// Azure's own roles, as Azure publishes them.
pub(crate) fn built_in_roles() -> Result<Definitions, serde_json::Error> {
    let text = include_str!("../../emulator/data/role_definitions.json");
    let published: Vec<Published> = serde_json::from_str(text)?;
    let roles = published.into_iter().map(|role| {
        let blocks = role.permissions.into_iter().map(|block| Permissions {
            actions: block.actions,
            not_actions: block.not_actions,
            data_actions: block.data_actions,
            not_data_actions: block.not_data_actions,
            conditional: false,
        });
        let id = RoleDefinitionId::new(role.name);
        let role = RoleDefinition {
            id,
            name: role.role_name,
            custom: false,
            permissions: blocks.collect(),
        };
        (id, Some(Arc::new(role)))
    });
    Ok(roles.collect())
}

/// What is known of all of a company's clusters.
pub(crate) fn snapshots(
    company: Company,
    roles: &Definitions,
) -> Result<Vec<Snapshot>, InvalidClusterId> {
    let mut snapshots = Vec::with_capacity(company.clusters);
    let judgements = Judgements::new(Features {
        custom_resources: true,
        subresources: true,
    });
    for subscription in 0..company.subscriptions() {
        let rows = company.rows_in(subscription).map(|row| listed(&row));
        let assignments = Arc::new(Assignments::new(rows));
        for number in company.clusters_in(subscription) {
            snapshots.push(Snapshot::new(&Parts {
                cluster: Arc::new(cluster(number)?),
                assignments: Arc::clone(&assignments),
                denies: Arc::from([]),
                fleet: None,
                fleet_not_read: false,
                own: OwnChanges::default(),
                roles: roles.clone(),
                judgements: judgements.clone(),
            }));
        }
    }
    Ok(snapshots)
}

fn listed(row: &Row) -> Listed {
    Listed {
        name: AssignmentName::new(row.name),
        scope: row.scope.to_ascii_lowercase(),
        role: RoleDefinitionId::new(row.role),
        holder: PrincipalId::new(row.holder.id()),
        holder_kind: Some(match row.holder {
            Holder::User(_) => PrincipalType::User,
            Holder::Group(_) => PrincipalType::Group,
        }),
        condition: None,
        ours: None,
    }
}

fn cluster(number: usize) -> Result<Cluster, InvalidClusterId> {
    let id = ClusterId::parse(&cluster_id(number))?;
    Ok(Cluster {
        name: format!("aks-{number:04}"),
        location: "westeurope".to_owned(),
        tags: BTreeMap::new(),
        kubernetes_version: "1.34.2".to_owned(),
        tenant_id: "00000000-0000-4000-8000-00000000c0de".to_owned(),
        entra_integration: true,
        azure_rbac: true,
        local_accounts_disabled: true,
        private_cluster: false,
        power_state: "Running".to_owned(),
        resource_uid: format!("{number:024}"),
        admin_group_ids: Vec::new(),
        id,
    })
}
