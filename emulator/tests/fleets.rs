//! Fleets, their members, and roles at a fleet and at managed namespaces.

#![expect(
    clippy::expect_used,
    reason = "a test's panic is its verdict, its helper's too"
)]

mod support;

use azure_emulator::{ChangeError, CustomRole, Fleet, FleetMember, Permissions, Scope, World};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    ALICE, Answer, Azure, CLUSTER, DEPLOY_BOT, DEVELOPMENT, PRODUCTION, RBAC_READER, body, guid,
};
use uuid::Uuid;

const FLEET: &str = "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/rg-production/providers/Microsoft.ContainerService/fleets/fleet-production";
const VERSION: &str = "api-version=2025-03-01";
const ROLE: Uuid = Uuid::from_u128(7);

fn scope(id: &str) -> Scope {
    Scope::parse(id).expect("a scope")
}

fn fleet(name: &str, members: &[&str]) -> Fleet {
    let member = |(n, id): (usize, &&str)| FleetMember {
        name: format!("m{n}"),
        cluster: scope(id),
    };
    Fleet {
        subscription: guid(DEVELOPMENT),
        resource_group: "rg-development".to_owned(),
        name: name.to_owned(),
        location: "westeurope".to_owned(),
        members: members.iter().enumerate().map(member).collect(),
    }
}

async fn pages(azure: &Azure, path: String) -> Vec<Value> {
    let mut found = Vec::new();
    let mut next = Some(path);
    while let Some(path) = next {
        let page = azure.get(&path).await.json();
        found.extend(page["value"].as_array().expect("a list").iter().cloned());
        next = page["nextLink"].as_str().map(str::to_owned);
    }
    found
}

fn list_of(subscription: &str) -> String {
    format!("/subscriptions/{subscription}/providers/Microsoft.ContainerService/fleets?{VERSION}")
}

#[tokio::test]
async fn fleets_and_their_members_are_listed_in_pages() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.page_size = 1);
    let fleets = pages(&azure, list_of(PRODUCTION)).await;
    assert_eq!(
        fleets,
        [json!({
            "id": FLEET,
            "name": "fleet-production",
            "type": "Microsoft.ContainerService/fleets",
            "location": "westeurope",
            "properties": {"provisioningState": "Succeeded"},
        })]
    );
    let members = pages(&azure, format!("{FLEET}/members?{VERSION}")).await;
    let at = |member: &Value| member["properties"]["clusterResourceId"].clone();
    assert_eq!(
        members.iter().map(at).collect::<Vec<_>>(),
        [
            CLUSTER.replace("aks-production", "aks-local-accounts"),
            CLUSTER.to_owned()
        ]
    );
    assert_eq!(members[1]["id"], format!("{FLEET}/members/production"));
    assert_eq!(pages(&azure, list_of(DEVELOPMENT)).await, [Value::Null; 0]);

    let operations: Vec<&str> = azure
        .emulator
        .calls()
        .iter()
        .map(|call| call.operation.as_str())
        .collect();
    assert!(operations.contains(&"fleets/list"));
    assert!(operations.contains(&"fleets/members/list"));
}

#[tokio::test]
async fn reading_them_takes_a_permission_and_a_fleet() {
    let azure = Azure::immediate().await;
    for (path, action) in [
        (list_of(PRODUCTION), "fleets/read"),
        (format!("{FLEET}/members?{VERSION}"), "fleets/members/read"),
    ] {
        let asked = azure.arm_as(DEPLOY_BOT, Method::GET, &path).send().await;
        let refused = Answer::read(asked.expect("an answer")).await;
        assert_eq!(refused.error(), (403, "AuthorizationFailed".to_owned()));
        let action = format!("'Microsoft.ContainerService/{action}'");
        assert!(refused.message().contains(&action), "{action}");
    }
    let missing = azure.get(&format!("{FLEET}-not/members?{VERSION}")).await;
    assert_eq!(missing.error(), (404, "ResourceNotFound".to_owned()));
}

#[tokio::test]
async fn a_cluster_is_in_one_fleet_and_fleets_come_and_go() {
    let azure = Azure::immediate().await;
    let development = CLUSTER
        .replace("production", "development")
        .replace(PRODUCTION, DEVELOPMENT);
    let new = fleet("fleet-new", &[&development]);
    azure.emulator.put_fleet(new.clone()).expect("made");
    azure.emulator.put_fleet(new.clone()).expect("made again");
    let taken = fleet("fleet-new", &[&CLUSTER.to_uppercase()]);
    let refused = azure.emulator.put_fleet(taken.clone());
    assert!(matches!(refused, Err(ChangeError::InAnotherFleet(..))));
    let no_cluster = fleet("fleet-new", &[&format!("{CLUSTER}/namespaces/web")]);
    azure
        .emulator
        .put_fleet(no_cluster)
        .expect_err("a namespace is no member");
    let mut world = World::built_in();
    world.fleets.push(taken);
    let world = World::from_yaml(&serde_json::to_string(&world).expect("JSON is YAML"));
    let error = world.expect_err("refused").to_string();
    assert!(error.contains("is there twice"), "{error}");

    let id = new.id();
    assert_eq!(pages(&azure, list_of(DEVELOPMENT)).await.len(), 1);
    assert_eq!(azure.emulator.delete_fleet(id.as_str()).ok(), Some(true));
    assert_eq!(azure.emulator.delete_fleet(id.as_str()).ok(), Some(false));
    assert_eq!(pages(&azure, list_of(DEVELOPMENT)).await.len(), 0);
}

#[tokio::test]
async fn roles_are_assigned_at_fleets_and_managed_namespaces_and_go_with_them() {
    let azure = Azure::immediate().await;
    let custom = CustomRole {
        id: ROLE,
        name: "Pod reader on member clusters".to_owned(),
        description: String::new(),
        assignable_scopes: vec![scope(&format!("/subscriptions/{PRODUCTION}"))],
        permissions: vec![Permissions {
            data_actions: vec!["Microsoft.ContainerService/fleets/members/pods/read".to_owned()],
            ..Permissions::default()
        }],
    };
    azure.emulator.add_custom_role(custom).expect("added");
    let scopes = [
        FLEET.to_owned(),
        format!("{FLEET}/namespaces/web"),
        format!("{FLEET}/managedNamespaces/web"),
        format!("{CLUSTER}/managedNamespaces/web"),
    ];
    for (n, at) in (1..).zip(&scopes) {
        for role in [RBAC_READER.to_owned(), ROLE.to_string()] {
            let name = Uuid::new_v5(&Uuid::from_u128(n), role.as_bytes());
            let put = azure.put(at, name, &body(&role, ALICE)).await;
            assert_eq!(put.status, StatusCode::CREATED, "{at}: {}", put.text);
            assert_eq!(put.json()["properties"]["scope"], *at);
        }
    }
    assert_eq!(azure.names(FLEET, &of_alice()).await.len(), 6);
    let nowhere = format!("{FLEET}-not/namespaces/web");
    let missing = azure
        .put(&nowhere, Uuid::from_u128(9), &body(RBAC_READER, ALICE))
        .await;
    assert_eq!(missing.error(), (404, "ResourceNotFound".to_owned()));

    azure.emulator.delete_fleet(FLEET).expect("deleted");
    let left = azure
        .names(&format!("/subscriptions/{PRODUCTION}"), &of_alice())
        .await;
    assert_eq!(left.len(), 2, "at the cluster's managed namespace");
}

fn of_alice() -> String {
    format!("principalId eq '{ALICE}'")
}
