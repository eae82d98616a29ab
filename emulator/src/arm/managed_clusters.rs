//! The AKS resource provider, as far as a broker reads it.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ArmError;
use super::{Admitted, paging};
use crate::message::Answer;
use crate::scope::Scope;
use crate::world::Cluster;

pub(super) fn one(call: &Admitted<'_>, id: &Scope) -> Result<Answer, ArmError> {
    let seen = call
        .now
        .elapsed
        .saturating_sub(call.core.settings().read_lag);
    let store = call.core.store();
    let cluster = store
        .state
        .cluster_at(id.key(), seen)
        .ok_or_else(|| ArmError::no_such_resource(id))?;
    let answer = Answer::pretty_json(StatusCode::OK, &body(cluster, store.state.tenant()));
    Ok(answer.with("server", "nginx"))
}

pub(super) fn list(call: &Admitted<'_>, subscription: &Scope) -> Result<Answer, ArmError> {
    let settings = call.core.settings();
    let seen = call.now.elapsed.saturating_sub(settings.list_lag);
    let id = subscription
        .subscription()
        .and_then(|id| Uuid::try_parse(id).ok());
    let id = id.ok_or_else(|| ArmError::no_such_subscription(subscription))?;
    let store = call.core.store();
    let tenant = store.state.tenant();
    let clusters = store.state.clusters_at(id, seen);
    let items =
        clusters.map(|cluster| (cluster.id().key().to_owned(), move || body(cluster, tenant)));
    let page = paging::page(&call.core.urls.arm, call.request, settings.page_size, items);
    Ok(Answer::pretty_json(StatusCode::OK, &page).with("server", "nginx"))
}

/// The fields that azure.md §4 names, spelled as recorded: `resourcegroups`, `ManagedClusters` [aks.txt].
fn body(cluster: &Cluster, tenant: Uuid) -> Value {
    let entra = cluster.entra.as_ref().map(|entra| {
        let admins = (!entra.admin_groups.is_empty()).then_some(&entra.admin_groups);
        json!({
            "managed": true,
            "adminGroupObjectIDs": admins,
            "adminUsers": null,
            "enableAzureRBAC": entra.azure_rbac,
            "tenantID": tenant,
        })
    });
    let address = format!(
        "{}-{}.hcp.{}.azmk8s.io",
        cluster.name,
        cluster.subscription.simple(),
        cluster.location
    );
    json!({
        "id": cluster.id(),
        "location": cluster.location,
        "name": cluster.name,
        "tags": cluster.tags,
        "type": "Microsoft.ContainerService/ManagedClusters",
        "properties": {
            "provisioningState": cluster.provisioning_state,
            "powerState": {"code": cluster.power_state},
            "kubernetesVersion": cluster.kubernetes_version,
            "currentKubernetesVersion": cluster.kubernetes_version,
            "fqdn": (!cluster.private).then_some(&address),
            "privateFQDN": cluster.private.then_some(&address),
            "enableRBAC": true,
            "disableLocalAccounts": cluster.local_accounts_disabled,
            "resourceUID": cluster.resource_uid,
            "aadProfile": entra,
            "apiServerAccessProfile": {
                "enablePrivateCluster": cluster.private,
                "authorizedIPRanges": null,
                "disableRunCommand": false,
            },
        },
    })
}
