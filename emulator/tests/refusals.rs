//! What ARM refuses to do with role assignments, in the recorded words: `wire/errors.txt`.

mod support;

use azure_emulator::{Lock, LockLevel, Scope};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{
    ALICE, Answer, Azure, CLUSTER, DEPLOY_BOT, DEPLOY_BOT_APP, PRODUCTION, RBAC_READER, TENANT,
    assignment, body, guid, with_description,
};
use uuid::Uuid;

const NAME: Uuid = Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0001);
const OTHER: Uuid = Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0002);

#[tokio::test]
async fn what_a_put_names_must_exist() {
    let azure = Azure::immediate().await;
    let unknown_role = Uuid::from_u128(9);
    let answer = azure
        .put(CLUSTER, NAME, &body(&unknown_role.to_string(), ALICE))
        .await;
    assert_eq!(
        answer.error(),
        (400, "RoleDefinitionDoesNotExist".to_owned())
    );
    assert_eq!(
        answer.message(),
        format!(
            "The specified role definition with ID '{}' does not exist.",
            unknown_role.simple()
        )
    );
    let mut wrong_type = body(RBAC_READER, DEPLOY_BOT);
    wrong_type["properties"]["principalType"] = "User".into();
    let answer = azure.put(CLUSTER, NAME, &wrong_type).await;
    assert_eq!(answer.error(), (400, "UnmatchedPrincipalType".to_owned()));
    assert_eq!(
        answer.message(),
        format!(
            "The PrincipalId '{}' has type 'ServicePrincipal' , which is different from specified PrinciaplType \
             'User'.",
            guid(DEPLOY_BOT).simple()
        )
    );
    let somebody = Uuid::from_u128(7);
    let mut untyped = body(RBAC_READER, &somebody.to_string());
    untyped["properties"]
        .as_object_mut()
        .expect("an object")
        .remove("principalType");
    let answer = azure.put(CLUSTER, NAME, &untyped).await;
    assert_eq!(answer.error(), (400, "PrincipalNotFound".to_owned()));
    assert_eq!(
        answer.message(),
        format!(
            "Principal {} does not exist in the directory {TENANT}. Check that you have the correct principal ID. If \
             you are creating this principal and then immediately assigning a role, this error might be related to a \
             replication delay. In this case, set the role assignment principalType property to a value, such as \
             ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype",
            somebody.simple()
        )
    );
    let typed = azure
        .put(
            CLUSTER,
            NAME,
            &body(RBAC_READER, "10000000-0000-4000-8000-0000000000ff"),
        )
        .await;
    assert_eq!(
        typed.status,
        StatusCode::CREATED,
        "with a type nobody looks"
    );
}

#[tokio::test]
async fn a_malformed_put_is_refused() {
    let azure = Azure::immediate().await;
    let bad_name = format!(
        "{CLUSTER}/providers/Microsoft.Authorization/roleAssignments/no-guid?api-version=2022-04-01"
    );
    assert_eq!(
        azure.arm(Method::PUT, &bad_name).await.error(),
        (400, "InvalidRoleAssignmentId".to_owned())
    );
    let mut bad_role = body(RBAC_READER, ALICE);
    bad_role["properties"]["roleDefinitionId"] = "Reader".into();
    let mut bad_principal = body(RBAC_READER, ALICE);
    bad_principal["properties"]["principalId"] = "alice".into();
    let long = "x".repeat(2_049);
    for (body, code) in [
        (json!({}), "BadRequestFormat"),
        (
            json!({"properties": {"principalId": ALICE}}),
            "BadRequestFormat",
        ),
        (bad_role, "InvalidRoleDefinitionId"),
        (bad_principal, "InvalidPrincipalId"),
        (
            with_description(body(RBAC_READER, ALICE), &long),
            "BadRequestFormat",
        ),
    ] {
        assert_eq!(
            azure.put(CLUSTER, NAME, &body).await.error(),
            (400, code.to_owned()),
            "{body}"
        );
    }
    let longest = with_description(body(RBAC_READER, ALICE), &long[1..]);
    assert_eq!(
        azure.put(CLUSTER, NAME, &longest).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_scope_must_exist_but_a_namespace_need_not() {
    let azure = Azure::immediate().await;
    let group = format!("/subscriptions/{PRODUCTION}/resourceGroups/nowhere");
    for (scope, code) in [
        (
            CLUSTER.replace("aks-production", "nowhere"),
            "ResourceNotFound",
        ),
        (
            format!(
                "{}/namespaces/web",
                CLUSTER.replace("aks-production", "nowhere")
            ),
            "ResourceNotFound",
        ),
        (group, "ResourceGroupNotFound"),
        (
            CLUSTER.replace("000000000001/", "000000000009/"),
            "SubscriptionNotFound",
        ),
    ] {
        assert_eq!(
            azure
                .put(&scope, NAME, &body(RBAC_READER, ALICE))
                .await
                .error(),
            (404, code.to_owned()),
            "{scope}"
        );
    }
    let namespace = format!("{CLUSTER}/namespaces/not-there-yet");
    assert_eq!(
        azure
            .put(&namespace, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_subscription_holds_only_so_many() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.role_assignment_limit = 1);
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
    let answer = azure
        .put(
            &format!("{CLUSTER}/namespaces/web"),
            OTHER,
            &body(RBAC_READER, ALICE),
        )
        .await;
    assert_eq!(
        answer.error(),
        (400, "RoleAssignmentLimitExceeded".to_owned())
    );
    assert_eq!(answer.message(), "No more role assignments can be created");
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED,
        "no more of them"
    );
}

#[tokio::test]
async fn a_lock_stops_a_delete_but_not_a_put() {
    let azure = Azure::immediate().await;
    let group = format!("/subscriptions/{PRODUCTION}/resourceGroups/rg-production");
    let scope = Scope::parse(&group).expect("a scope");
    azure
        .emulator
        .lock(Lock {
            scope,
            level: LockLevel::CanNotDelete,
        })
        .expect("locked");
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
    let answer = azure.delete(CLUSTER, NAME).await;
    assert_eq!(answer.error(), (409, "ScopeLocked".to_owned()));
    assert_eq!(
        answer.message(),
        format!(
            "The scope '{CLUSTER}/providers/Microsoft.Authorization/roleAssignments/{NAME}' cannot perform delete \
             operation because following scope(s) are locked: '{group}'. Please remove the lock and try again."
        )
    );
    azure.emulator.unlock(&group).expect("unlocked");
    assert_eq!(azure.delete(CLUSTER, NAME).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_has_no_role_is_refused_in_azures_words() {
    let azure = Azure::immediate().await;
    let request = azure
        .arm_as(DEPLOY_BOT, Method::PUT, &assignment(CLUSTER, NAME))
        .json(&body(RBAC_READER, ALICE));
    let answer = Answer::read(request.send().await.expect("sent")).await;
    assert_eq!(answer.error(), (403, "AuthorizationFailed".to_owned()));
    assert_eq!(
        answer.message(),
        format!(
            "The client '{DEPLOY_BOT_APP}' with object id '{DEPLOY_BOT}' does not have authorization to perform action \
             'Microsoft.Authorization/roleAssignments/write' over scope \
             '{CLUSTER}/providers/Microsoft.Authorization/roleAssignments/{NAME}' or the scope is invalid. If access \
             was recently granted, please refresh your credentials."
        )
    );
    azure.change_settings(|settings| settings.authorization_enforced = false);
    let request = azure
        .arm_as(DEPLOY_BOT, Method::PUT, &assignment(CLUSTER, NAME))
        .json(&body(RBAC_READER, ALICE));
    assert_eq!(
        request.send().await.expect("sent").status(),
        StatusCode::CREATED
    );
}
