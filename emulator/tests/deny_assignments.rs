//! Deny assignments: bodies pinned to `wire/pim-and-deny-assignments.txt`, and what they do to callers.

#![expect(
    clippy::expect_used,
    reason = "a test's panic is its verdict, its helper's too"
)]

mod support;

use std::time::Duration;

use azure_emulator::{
    ChangeError, DenyAssignment, DenyEffect, EVERYONE, Emulator, Fault, FaultEffect, Operation,
    Options, Permissions, Scope, Settings, World,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    ALICE, Answer, Azure, BROKER, CLUSTER, DEPLOY_BOT, ENGINEERING, MANAGEMENT_GROUP, PRODUCTION,
    RBAC_READER, assignment, body, guid,
};
use uuid::Uuid;

const VERSION: &str = "2024-07-01-preview";
const NAME: Uuid = Uuid::from_u128(1);

fn deny(scope: &str, display_name: &str) -> DenyAssignment {
    let scope = Scope::parse(scope).expect("a scope");
    DenyAssignment::for_everyone(scope, display_name, &["Microsoft.ContainerService/*"])
}

fn path(scope: &str, version: &str, filter: &str) -> String {
    format!(
        "{scope}/providers/Microsoft.Authorization/denyAssignments?api-version={version}&$filter={filter}"
    )
}

/// The names that people call them by, from all pages.
async fn listed(azure: &Azure, scope: &str, filter: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut next = Some(path(scope, VERSION, filter));
    while let Some(path) = next {
        let page = azure.get(&path).await.json();
        let rows = page["value"].as_array().expect("a list");
        found.extend(
            rows.iter()
                .map(|it| it["properties"]["denyAssignmentName"].clone()),
        );
        next = page["nextLink"].as_str().map(str::to_owned);
    }
    found.sort_by_key(ToString::to_string);
    found
}

#[tokio::test]
async fn a_deny_assignment_is_shown_in_azures_form() {
    let azure = Azure::immediate().await;
    let put = DenyAssignment {
        name: Some(NAME),
        description: "Made by a deployment stack".to_owned(),
        permissions: vec![Permissions {
            actions: vec!["*/delete".to_owned()],
            not_data_actions: vec!["*/read".to_owned()],
            ..Permissions::default()
        }],
        principals: vec![EVERYONE, guid(ENGINEERING)],
        exclude_principals: vec![guid(ALICE), guid(DEPLOY_BOT)],
        condition: Some("@Resource[a] StringEquals 'b'".to_owned()),
        effect: DenyEffect::Audit,
        ..deny(CLUSTER, "Nobody deletes")
    };
    azure.emulator.put_deny_assignment(put).expect("made");
    let shown = azure.get(&path(CLUSTER, VERSION, "atScope()")).await;
    assert_eq!(shown.status, StatusCode::OK);
    let mut expected = json!({"value": [{
        "properties": {
            "denyAssignmentName": "Nobody deletes",
            "description": "Made by a deployment stack",
            "permissions": [{
                "actions": ["*/delete"], "notActions": [], "dataActions": [], "notDataActions": ["*/read"],
                "condition": null, "conditionVersion": null,
            }],
            "scope": CLUSTER,
            "doNotApplyToChildScopes": false,
            "principals": [
                {"id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined"},
                {"id": ENGINEERING, "type": "Group"},
            ],
            "excludePrincipals": [
                {"id": ALICE, "type": "User"},
                {"id": DEPLOY_BOT, "type": "ServicePrincipal"},
            ],
            "isSystemProtected": true,
            "denyAssignmentEffect": "audit",
            "condition": "@Resource[a] StringEquals 'b'",
            "conditionVersion": "2.0",
            "createdOn": null, "updatedOn": null, "createdBy": null, "updatedBy": null,
        },
        "id": format!("{CLUSTER}/providers/Microsoft.Authorization/denyAssignments/{NAME}"),
        "type": "Microsoft.Authorization/denyAssignments",
        "name": NAME,
    }]});
    assert_eq!(shown.json(), expected);

    let before_effects = azure.get(&path(CLUSTER, "2022-04-01", "")).await.json();
    let properties = expected["value"][0]["properties"].as_object_mut();
    properties
        .expect("properties")
        .remove("denyAssignmentEffect");
    assert_eq!(before_effects, expected, "an older version has no effect");
}

#[tokio::test]
async fn a_list_holds_what_is_at_above_and_below_a_scope_in_pages() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.page_size = 1);
    let subscription = format!("/subscriptions/{PRODUCTION}");
    let namespace = format!("{CLUSTER}/namespaces/web");
    for (scope, name) in [
        (MANAGEMENT_GROUP, "a"),
        (subscription.as_str(), "b"),
        (CLUSTER, "c"),
        (namespace.as_str(), "d"),
    ] {
        let audit = DenyAssignment {
            effect: DenyEffect::Audit,
            do_not_apply_to_child_scopes: true,
            ..deny(scope, name)
        };
        azure.emulator.put_deny_assignment(audit).expect("made");
    }
    assert_eq!(
        listed(&azure, CLUSTER, "atScope()").await,
        ["a", "b", "c"],
        "also those that do not bind below their scope"
    );
    assert_eq!(listed(&azure, CLUSTER, "").await, ["a", "b", "c", "d"]);
    assert_eq!(listed(&azure, &namespace, "").await, ["a", "b", "c", "d"]);
    assert_eq!(listed(&azure, MANAGEMENT_GROUP, "atScope()").await, ["a"]);
    assert_eq!(
        listed(&azure, MANAGEMENT_GROUP, "").await,
        ["a", "b", "c", "d"]
    );
    let other = azure
        .get(&path(CLUSTER, VERSION, "denyAssignmentName eq 'a'"))
        .await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_list_lags_and_needs_its_version_and_its_permission_and_can_be_made_to_fail() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.list_lag = Duration::from_hours(1));
    let audit = DenyAssignment {
        effect: DenyEffect::Audit,
        ..deny(CLUSTER, "a")
    };
    azure.emulator.put_deny_assignment(audit).expect("made");
    assert_eq!(listed(&azure, CLUSTER, "").await, [Value::Null; 0]);
    azure.emulator.set_settings(Settings::immediate());
    assert_eq!(listed(&azure, CLUSTER, "").await, ["a"]);

    let of_role_assignments = azure.get(&path(CLUSTER, "2020-10-01-preview", "")).await;
    assert_eq!(of_role_assignments.error().1, "InvalidApiVersionParameter");
    let bot = azure.arm_as(DEPLOY_BOT, Method::GET, &path(CLUSTER, VERSION, ""));
    let refused = Answer::read(bot.send().await.expect("sent")).await;
    assert_eq!(refused.error(), (403, "AuthorizationFailed".to_owned()));
    assert!(
        refused
            .message()
            .contains("'Microsoft.Authorization/denyAssignments/read'"),
        "{}",
        refused.message()
    );
    azure.emulator.add_fault(Fault::once(
        Operation::DenyAssignmentList,
        FaultEffect::Status {
            status: 503,
            code: "ServerTimeout".to_owned(),
            message: "Later.".to_owned(),
            retry_after: None,
        },
    ));
    let failed = azure.get(&path(CLUSTER, VERSION, "")).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    let calls = azure.emulator.calls();
    assert_eq!(calls[0].operation.as_str(), "denyAssignments/list");
}

/// The broker is Owner of everything: whether it may read the cluster says whether it is denied.
#[tokio::test]
async fn what_is_enforced_binds_callers_and_nothing_else_does() {
    let azure = Azure::immediate().await;
    let read = async || {
        azure
            .get(&format!("{CLUSTER}?api-version=2024-05-01"))
            .await
    };
    let subscription = format!("/subscriptions/{PRODUCTION}");
    let for_the_broker = deny(&subscription, "Nobody reads clusters");
    for (binds, deny) in [
        (true, for_the_broker.clone()),
        (
            false,
            DenyAssignment {
                effect: DenyEffect::Audit,
                ..for_the_broker.clone()
            },
        ),
        (
            false,
            DenyAssignment {
                do_not_apply_to_child_scopes: true,
                ..for_the_broker.clone()
            },
        ),
        (
            false,
            DenyAssignment {
                exclude_principals: vec![guid(BROKER)],
                ..for_the_broker.clone()
            },
        ),
        (
            false,
            DenyAssignment {
                principals: vec![guid(ALICE)],
                ..for_the_broker.clone()
            },
        ),
        (
            false,
            DenyAssignment {
                condition: Some("@Resource[a] StringEquals 'b'".to_owned()),
                ..for_the_broker.clone()
            },
        ),
        (
            true,
            DenyAssignment {
                principals: vec![guid(BROKER)],
                ..for_the_broker.clone()
            },
        ),
    ] {
        let told = format!("{deny:?}");
        azure.emulator.put_deny_assignment(deny).expect("put");
        let answer = read().await;
        if binds {
            let code = "DenyAssignmentAuthorizationFailed".to_owned();
            assert_eq!(answer.error(), (403, code), "{told}");
            assert!(answer.message().contains("'Nobody reads clusters'"));
        } else {
            assert_eq!(answer.status, StatusCode::OK, "{told}");
        }
    }
    let name = azure.emulator.world().deny_assignments[0]
        .name
        .expect("one name, however often it is put");
    assert_eq!(azure.emulator.world().deny_assignments.len(), 1);
    assert_eq!(azure.emulator.delete_deny_assignment(name).ok(), Some(true));
    assert_eq!(
        azure.emulator.delete_deny_assignment(name).ok(),
        Some(false)
    );
    assert_eq!(read().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_deny_assignment_goes_with_its_cluster() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let deny = deny(&format!("{CLUSTER}/namespaces/web"), "a");
    azure.emulator.put_deny_assignment(deny).expect("made");
    azure.emulator.delete_cluster(CLUSTER).expect("deleted");
    assert!(azure.emulator.world().deny_assignments.is_empty());
    let gone = azure.get(&assignment(CLUSTER, NAME)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn one_that_leads_nowhere_is_refused_by_the_handle_and_in_a_world() {
    let azure = Azure::immediate().await;
    let nowhere = deny(&CLUSTER.replace("production", "nowhere"), "a");
    let refused = azure.emulator.put_deny_assignment(nowhere.clone());
    assert!(matches!(refused, Err(ChangeError::NoSuchScope(_))));
    let nobodys = DenyAssignment {
        exclude_principals: vec![NAME],
        ..deny(CLUSTER, "a")
    };
    let refused = azure.emulator.put_deny_assignment(nobodys.clone());
    assert!(matches!(refused, Err(ChangeError::NoSuchPrincipal(id)) if id == NAME));
    for (deny, says) in [(nowhere, "aks-nowhere"), (nobodys, "there is no principal")] {
        let mut world = World::built_in();
        world.deny_assignments.push(deny);
        let options = Options {
            world,
            ..Options::default()
        };
        let refused = Emulator::start(options).await.expect_err("refused");
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[tokio::test]
async fn a_world_in_yaml_has_deny_assignments() {
    let text = format!(
        "{}\ndeny_assignments:\n  - scope: {MANAGEMENT_GROUP}\n    display_name: Nobody deletes\n    \
         permissions: [{{actions: ['*/delete'], notDataActions: ['*/read']}}]\n    \
         principals: [00000000-0000-0000-0000-000000000000]\n    exclude_principals: [{ALICE}]\n    effect: audit\n",
        include_str!("../world.yaml")
    );
    let azure = Azure::start(Options {
        world: World::from_yaml(&text).expect("a world"),
        settings: Settings::immediate(),
        ..Options::default()
    })
    .await;
    assert_eq!(
        listed(&azure, CLUSTER, "atScope()").await,
        ["Nobody deletes"]
    );
}
