//! Managed clusters, the tree above them, and role definitions; bodies pinned to `wire/aks.txt` and
//! `wire/role-assignments.txt` §6.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use azure_emulator::{
    Cluster, CustomRole, Emulator, NewRoleAssignment, Options, Scope, Settings, World,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    ALICE, Answer, Azure, BROKER, CLUSTER, DEPLOY_BOT, DEVELOPMENT, MANAGEMENT_GROUP, PRODUCTION,
    RBAC_READER, READER, TENANT, body, guid,
};
use uuid::Uuid;

/// Longer than any test.
const FOREVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_cluster_is_spelled_as_aks_spells_it() {
    let azure = Azure::immediate().await;
    let answer = azure
        .get(&format!("{CLUSTER}?api-version=2024-05-01"))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "no charset"
    );
    assert_eq!(answer.header("server"), Some("nginx"));
    assert!(answer.text.starts_with("{\n  "), "pretty-printed");
    let address = "aks-production-00000000000040008000000000000001.hcp.westeurope.azmk8s.io";
    assert_eq!(
        answer.json(),
        json!({
            "id": CLUSTER.replace("resourceGroups", "resourcegroups"),
            "location": "westeurope",
            "name": "aks-production",
            "tags": {"environment": "production"},
            "type": "Microsoft.ContainerService/ManagedClusters",
            "properties": {
                "provisioningState": "Succeeded",
                "powerState": {"code": "Running"},
                "kubernetesVersion": "1.34.2",
                "currentKubernetesVersion": "1.34.2",
                "fqdn": address,
                "privateFQDN": null,
                "enableRBAC": true,
                "disableLocalAccounts": true,
                "resourceUID": "0c1000000000000000000001",
                "aadProfile": {
                    "managed": true,
                    "adminGroupObjectIDs": null,
                    "adminUsers": null,
                    "enableAzureRBAC": true,
                    "tenantID": TENANT,
                },
                "apiServerAccessProfile": {
                    "enablePrivateCluster": false,
                    "authorizedIPRanges": null,
                    "disableRunCommand": false,
                },
            },
        })
    );
}

#[tokio::test]
async fn the_built_in_clusters_are_five_of_five_kinds() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.page_size = 2);
    let mut kinds = Vec::new();
    for subscription in [PRODUCTION, DEVELOPMENT] {
        let list = "/providers/Microsoft.ContainerService/managedClusters?api-version=2024-05-01";
        let mut next = Some(format!("/subscriptions/{subscription}{list}"));
        while let Some(path) = next {
            let page = azure.get(&path).await.json();
            for cluster in page["value"].as_array().expect("a list") {
                let properties = &cluster["properties"];
                kinds.push((
                    cluster["name"].as_str().expect("a name").to_owned(),
                    properties["aadProfile"]["enableAzureRBAC"].as_bool(),
                    properties["disableLocalAccounts"].as_bool(),
                ));
            }
            next = page["nextLink"].as_str().map(str::to_owned);
        }
    }
    let expected = [
        ("aks-local-accounts", Some(true), Some(false)),
        ("aks-production", Some(true), Some(true)),
        ("aks-development", Some(true), Some(true)),
        ("aks-kubernetes-rbac", Some(false), Some(true)),
        ("aks-no-entra", None, Some(false)),
    ];
    assert_eq!(
        kinds,
        expected.map(|(name, rbac, local)| (name.to_owned(), rbac, local))
    );
}

#[tokio::test]
async fn a_deleted_cluster_takes_its_assignments_with_it_and_comes_back_empty_as_another() {
    let azure = Azure::immediate().await;
    let (at_cluster, at_namespace, above) =
        (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    azure
        .put(CLUSTER, at_cluster, &body(RBAC_READER, ALICE))
        .await;
    azure
        .put(
            &format!("{CLUSTER}/namespaces/web"),
            at_namespace,
            &body(RBAC_READER, ALICE),
        )
        .await;
    azure
        .put(
            &format!("/subscriptions/{PRODUCTION}"),
            above,
            &body(RBAC_READER, ALICE),
        )
        .await;

    assert!(azure.emulator.delete_cluster(CLUSTER).expect("deleted"));
    assert!(
        !azure
            .emulator
            .delete_cluster(CLUSTER)
            .expect("nothing to delete")
    );
    let left: BTreeSet<Uuid> = azure
        .emulator
        .role_assignments()
        .iter()
        .map(|it| it.name)
        .collect();
    assert!(left.contains(&above) && !left.contains(&at_cluster) && !left.contains(&at_namespace));
    let gone = azure
        .get(&format!("{CLUSTER}?api-version=2024-05-01"))
        .await;
    assert_eq!(gone.error(), (404, "ResourceNotFound".to_owned()));
    assert_eq!(
        gone.message(),
        "The Resource 'Microsoft.ContainerService/managedClusters/aks-production' under resource group \
         'rg-production' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    );

    let again = Cluster::healthy(guid(PRODUCTION), "rg-production", "aks-production");
    let again = azure.emulator.put_cluster(again).expect("made");
    assert_ne!(
        again.resource_uid.as_deref(),
        Some("0c1000000000000000000001")
    );
    let same = azure
        .emulator
        .put_cluster(Cluster {
            resource_uid: None,
            ..again.clone()
        })
        .expect("changed");
    assert_eq!(
        same.resource_uid, again.resource_uid,
        "a change is no new cluster"
    );
    let nowhere = Cluster::healthy(Uuid::from_u128(9), "rg", "aks");
    azure
        .emulator
        .put_cluster(nowhere)
        .expect_err("no such subscription");
}

#[tokio::test]
async fn reads_and_lists_of_clusters_lag_as_well() {
    let azure = Azure::with(Settings {
        list_lag: FOREVER,
        read_lag: FOREVER,
        ..Settings::immediate()
    })
    .await;
    let listed = async || {
        let path = format!(
            "/subscriptions/{PRODUCTION}/providers/Microsoft.ContainerService/managedClusters?api-version=2024-05-01"
        );
        azure.get(&path).await.json()["value"]
            .as_array()
            .map(Vec::len)
    };
    azure.emulator.delete_cluster(CLUSTER).expect("deleted");
    assert_eq!(
        azure
            .get(&format!("{CLUSTER}?api-version=2024-05-01"))
            .await
            .status,
        StatusCode::OK,
        "still seen"
    );
    assert_eq!(listed().await, Some(2));
    azure
        .emulator
        .put_cluster(Cluster::healthy(
            guid(PRODUCTION),
            "rg-production",
            "aks-new",
        ))
        .expect("made");
    let new = format!(
        "{}?api-version=2024-05-01",
        CLUSTER.replace("aks-production", "aks-new")
    );
    assert_eq!(
        azure.get(&new).await.status,
        StatusCode::NOT_FOUND,
        "not yet seen"
    );
    azure.emulator.set_settings(Settings::immediate());
    assert_eq!(azure.get(&new).await.status, StatusCode::OK);
    assert_eq!(listed().await, Some(2), "one gone, one new");
}

#[tokio::test]
async fn a_world_with_a_role_assigned_nowhere_does_not_start() {
    let mut world = World::built_in();
    world.role_assignments[0].scope =
        Scope::parse(&CLUSTER.replace("production", "nowhere")).expect("a scope");
    let error = Emulator::start(Options {
        world,
        ..Options::default()
    })
    .await
    .expect_err("refused");
    assert!(error.to_string().contains("aks-nowhere"), "{error}");
}

#[tokio::test]
async fn a_resource_group_outlives_its_clusters() {
    let azure = Azure::immediate().await;
    let group = format!("/subscriptions/{DEVELOPMENT}/resourceGroups/rg-legacy");
    let cluster =
        format!("{group}/providers/Microsoft.ContainerService/managedClusters/aks-no-entra");
    azure.emulator.delete_cluster(&cluster).expect("deleted");
    let answer = azure.get(&format!("{group}?api-version=2021-04-01")).await;
    assert_eq!(answer.json()["name"], "rg-legacy");
    let missing = azure
        .get(&format!("{group}-not?api-version=2021-04-01"))
        .await;
    assert_eq!(missing.error(), (404, "ResourceGroupNotFound".to_owned()));
    let all = azure
        .get(&format!(
            "/subscriptions/{DEVELOPMENT}/resourcegroups?api-version=2021-04-01"
        ))
        .await
        .json();
    assert_eq!(all["value"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn subscriptions_are_seen_by_those_who_have_a_role_there() {
    let azure = Azure::immediate().await;
    let one = azure
        .get(&format!(
            "/subscriptions/{PRODUCTION}?api-version=2022-12-01"
        ))
        .await
        .json();
    assert_eq!(
        (&one["displayName"], &one["state"]),
        (&json!("Contoso Production"), &json!("Enabled"))
    );
    let seen = async |caller| {
        let call = azure.arm_as(caller, Method::GET, "/subscriptions?api-version=2022-12-01");
        let page = Answer::read(call.send().await.expect("sent")).await.json();
        page["value"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it["subscriptionId"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(BROKER).await, [PRODUCTION, DEVELOPMENT]);
    assert_eq!(seen(DEPLOY_BOT).await, [Value::Null; 0]);
    azure
        .emulator
        .put_role_assignment_as_somebody_else(&NewRoleAssignment {
            scope: Scope::parse(&format!("/subscriptions/{DEVELOPMENT}")).expect("a scope"),
            role: guid(READER),
            principal: guid(DEPLOY_BOT),
            name: None,
            description: None,
            condition: None,
        })
        .expect("made");
    assert_eq!(seen(DEPLOY_BOT).await, [DEVELOPMENT]);
}

#[tokio::test]
async fn a_management_group_knows_its_children() {
    let azure = Azure::immediate().await;
    let path = format!("{MANAGEMENT_GROUP}?api-version=2020-05-01&$expand=children");
    let group = azure.get(&path).await.json();
    assert_eq!(
        group["properties"]["details"]["parent"]["name"], TENANT,
        "the tenant's root"
    );
    let children = group["properties"]["children"]
        .as_array()
        .expect("children");
    assert_eq!(
        children.iter().map(|it| &it["name"]).collect::<Vec<_>>(),
        [PRODUCTION, DEVELOPMENT]
    );
}

#[tokio::test]
async fn role_definitions_are_found_by_name_in_any_case_also_from_a_namespace() {
    let azure = Azure::immediate().await;
    let scope = format!("{CLUSTER}/namespaces/web");
    let list = |filter: &str| {
        format!(
            "{scope}/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-05-01-preview&$filter={filter}"
        )
    };
    let answer = azure.get(&list("roleName eq 'READER'")).await;
    assert_eq!(
        answer.json(),
        json!({"value": [{
            "properties": {
                "roleName": "Reader",
                "type": "BuiltInRole",
                "description": "View all resources, but does not allow you to make any changes.",
                "assignableScopes": ["/"],
                "permissions": [{"actions": ["*/read"], "notActions": [], "dataActions": [], "notDataActions": []}],
                "createdOn": "2015-02-02T21:55:09.8806423Z",
                "updatedOn": "2021-11-11T20:13:47.8628684Z",
                "createdBy": null,
                "updatedBy": null,
            },
            "id": format!("/subscriptions/{PRODUCTION}/providers/Microsoft.Authorization/roleDefinitions/{READER}"),
            "type": "Microsoft.Authorization/roleDefinitions",
            "name": READER,
        }]})
    );
    assert_eq!(
        azure.get(&list("roleName eq 'Nothing'")).await.json(),
        json!({"value": []})
    );
    assert_eq!(
        azure.get(&list("")).await.json()["value"]
            .as_array()
            .map(Vec::len),
        Some(19),
        "all that are published"
    );
}

#[tokio::test]
async fn a_custom_role_among_the_built_in_ones_is_on_one_page_and_only_one() {
    let azure = Azure::immediate().await;
    let id = Uuid::from_u128(1);
    let custom = CustomRole {
        id,
        name: "First of all by GUID".to_owned(),
        description: String::new(),
        assignable_scopes: vec![
            Scope::parse(&format!("/subscriptions/{PRODUCTION}")).expect("a scope"),
        ],
        permissions: Vec::new(),
    };
    azure.emulator.add_custom_role(custom).expect("added");
    azure.change_settings(|settings| settings.page_size = 3);
    let mut seen = Vec::new();
    let list = "/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-04-01";
    let mut next = Some(format!("{CLUSTER}{list}"));
    while let Some(path) = next {
        let page = azure.get(&path).await.json();
        seen.extend(
            page["value"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|role| role["name"].clone()),
        );
        next = page["nextLink"].as_str().map(str::to_owned);
    }
    assert_eq!((seen.len(), &seen[0]), (20, &json!(id)));
}

#[tokio::test]
async fn one_role_definition_is_read_by_guid() {
    let azure = Azure::immediate().await;
    let path = |id: &str| {
        format!("/providers/Microsoft.Authorization/roleDefinitions/{id}?api-version=2022-04-01")
    };
    azure.change_settings(|settings| settings.authorization_enforced = false);
    let found = azure.get(&path(RBAC_READER)).await.json();
    assert_eq!(
        found["properties"]["roleName"],
        "Azure Kubernetes Service RBAC Reader"
    );
    assert_eq!(
        found["id"],
        format!("/providers/Microsoft.Authorization/roleDefinitions/{RBAC_READER}")
    );
    let missing = azure.get(&path(ALICE)).await;
    assert_eq!(
        missing.error(),
        (404, "RoleDefinitionDoesNotExist".to_owned())
    );
}
