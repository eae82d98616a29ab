//! Role assignments, pinned to the recorded traffic: `wire/role-assignments.txt` and `wire/errors.txt`.

mod support;

use azure_emulator::{Lock, LockLevel, PutExistingStatus, RoleAssignmentExistsWording, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    ALICE, Answer, Azure, BROKER, CLUSTER, DEPLOY_BOT, DEPLOY_BOT_APP, ENGINEERING,
    MANAGEMENT_GROUP, PRODUCTION, RBAC_READER, RBAC_WRITER, TENANT, assignment, body, guid,
    role_id, with_description,
};
use uuid::Uuid;

const NAME: Uuid = Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0001);
const OTHER: Uuid = Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0002);

#[tokio::test]
async fn a_new_assignment_is_answered_with_201_and_the_recorded_object() {
    let azure = Azure::immediate().await;
    let answer = azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let mut object = answer.json();
    let created = object["properties"]["createdOn"].take();
    assert_eq!(
        created.as_str().map(str::len),
        Some("2025-04-14T08:54:25.8958593Z".len()),
        "seven digits"
    );
    object["properties"]["updatedOn"].take();
    assert_eq!(
        object,
        json!({
            "properties": {
                "roleDefinitionId": role_id(RBAC_READER),
                "principalId": ALICE,
                "principalType": "User",
                "scope": CLUSTER,
                "condition": null,
                "conditionVersion": null,
                "createdOn": null,
                "updatedOn": null,
                "createdBy": null,
                "updatedBy": BROKER,
                "delegatedManagedIdentityResourceId": null,
                "description": null,
            },
            "id": format!("{CLUSTER}/providers/Microsoft.Authorization/roleAssignments/{NAME}"),
            "type": "Microsoft.Authorization/roleAssignments",
            "name": NAME,
        })
    );
}

#[tokio::test]
async fn every_answer_has_the_headers_that_were_recorded() {
    let azure = Azure::immediate().await;
    let request = azure.put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE));
    let answer = Answer::read(
        request
            .header("x-ms-client-request-id", "mine")
            .send()
            .await
            .expect("sent"),
    )
    .await;
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("content-type", "application/json; charset=utf-8"),
        ("expires", "-1"),
        ("pragma", "no-cache"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-cache", "CONFIG_NOCACHE"),
        ("x-ms-client-request-id", "mine"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("x-ms-request-id").is_some());
    assert!(answer.header("x-ms-correlation-request-id").is_some());
}

#[tokio::test]
async fn only_a_put_hides_the_creator_and_claims_to_be_the_creation() {
    let azure = Azure::immediate().await;
    azure
        .put(
            CLUSTER,
            NAME,
            &with_description(body(RBAC_READER, ALICE), "first"),
        )
        .await;
    let created = azure.get(&assignment(CLUSTER, NAME)).await.json();
    assert_eq!(created["properties"]["createdBy"], BROKER);

    let again = azure
        .put(
            CLUSTER,
            NAME,
            &with_description(body(RBAC_READER, ALICE), "second"),
        )
        .await;
    assert_eq!(
        again.status,
        StatusCode::CREATED,
        "an update is answered like a creation"
    );
    let again = again.json();
    assert_eq!(again["properties"]["createdBy"], Value::Null);
    assert_ne!(
        again["properties"]["createdOn"],
        created["properties"]["createdOn"]
    );

    let truth = azure.get(&assignment(CLUSTER, NAME)).await.json();
    assert_eq!(truth["properties"]["description"], "second");
    assert_eq!(
        truth["properties"]["createdOn"],
        created["properties"]["createdOn"]
    );
    assert_eq!(truth["properties"]["createdBy"], BROKER);
    assert_ne!(
        truth["properties"]["updatedOn"],
        created["properties"]["updatedOn"]
    );
}

#[tokio::test]
async fn the_status_of_an_update_is_a_setting() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.put_existing_status = PutExistingStatus::Ok);
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_delete_answers_with_what_was_there_and_then_with_nothing() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let deleted = azure.delete(CLUSTER, NAME).await;
    assert_eq!(
        (deleted.status, &deleted.json()["name"]),
        (StatusCode::OK, &json!(NAME))
    );
    let again = azure.delete(CLUSTER, NAME).await;
    assert_eq!(
        (again.status, again.text.as_str()),
        (StatusCode::NO_CONTENT, "")
    );
    let gone = azure.get(&assignment(CLUSTER, NAME)).await;
    assert_eq!(gone.error(), (404, "RoleAssignmentNotFound".to_owned()));
    assert_eq!(
        gone.message(),
        format!("The role assignment '{NAME}' is not found.")
    );
}

#[tokio::test]
async fn ids_compare_without_regard_to_case() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let found = azure
        .get(&assignment(
            &CLUSTER
                .to_uppercase()
                .replace("/SUBSCRIPTIONS", "/subscriptions"),
            NAME,
        ))
        .await;
    assert_eq!(found.status, StatusCode::OK);
    assert_eq!(
        found.json()["properties"]["scope"],
        CLUSTER,
        "answered in the case it was written in"
    );
    let twin = azure
        .put(&CLUSTER.to_lowercase(), OTHER, &body(RBAC_READER, ALICE))
        .await;
    assert_eq!(twin.error(), (409, "RoleAssignmentExists".to_owned()));
}

#[tokio::test]
async fn the_same_assignment_under_another_name_exists_in_three_wordings() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let hex = NAME.simple();
    for (wording, message) in [
        (
            RoleAssignmentExistsWording::Plain,
            "The role assignment already exists.".to_owned(),
        ),
        (
            RoleAssignmentExistsWording::Conflicting,
            format!(
                "The role assignment already exists. The ID of the conflicting role assignment is {hex}."
            ),
        ),
        (
            RoleAssignmentExistsWording::Existing,
            format!(
                "The role assignment already exists. The ID of the existing role assignment is {hex}."
            ),
        ),
    ] {
        azure.change_settings(|settings| settings.role_assignment_exists_wording = wording);
        let answer = azure.put(CLUSTER, OTHER, &body(RBAC_READER, ALICE)).await;
        assert_eq!(answer.error(), (409, "RoleAssignmentExists".to_owned()));
        assert_eq!(answer.message(), message);
    }
    let mut conditional = body(RBAC_READER, ALICE);
    conditional["properties"]["condition"] = "((@Request[a:b] StringEquals 'c'))".into();
    let answer = azure.put(CLUSTER, OTHER, &conditional).await;
    assert_eq!(
        answer.status,
        StatusCode::CONFLICT,
        "a condition makes no other assignment of it"
    );
}

#[tokio::test]
async fn a_name_keeps_its_principal_role_and_scope() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let namespace = format!("{CLUSTER}/namespaces/web");
    for (scope, body) in [
        (CLUSTER, body(RBAC_READER, ENGINEERING)),
        (CLUSTER, body(RBAC_WRITER, ALICE)),
        (namespace.as_str(), body(RBAC_READER, ALICE)),
    ] {
        let answer = azure.put(scope, NAME, &body).await;
        assert_eq!(
            answer.error(),
            (400, "RoleAssignmentUpdateNotPermitted".to_owned())
        );
        assert_eq!(
            answer.message(),
            "Tenant ID, application ID, principal ID, and scope are not allowed to be updated."
        );
    }
    assert_eq!(
        azure.delete(&namespace, NAME).await.status,
        StatusCode::NO_CONTENT,
        "it is not there"
    );
    assert_eq!(
        azure.get(&assignment(&namespace, NAME)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_hash_conflict_sticks_to_its_name() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.hash_conflict_probability = 0.5);
    let scope_of = |n: u128| format!("{CLUSTER}/namespaces/n{n}");
    let mut refused = Vec::new();
    for n in 0..16 {
        let answer = azure
            .put(&scope_of(n), Uuid::from_u128(n), &body(RBAC_READER, ALICE))
            .await;
        if answer.status == StatusCode::CREATED {
            continue;
        }
        assert_eq!(
            answer.error(),
            (400, "HashConflictOnDifferentRoleAssignmentIds".to_owned())
        );
        assert_eq!(
            answer.message(),
            "A hash conflict was encountered for the role Assignment ID. Please use a new Guid."
        );
        refused.push(n);
    }
    assert!((1..16).contains(&refused.len()), "{refused:?}");
    for n in refused {
        let again = azure
            .put(&scope_of(n), Uuid::from_u128(n), &body(RBAC_READER, ALICE))
            .await;
        assert_eq!(again.error().1, "HashConflictOnDifferentRoleAssignmentIds");
    }
}

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
async fn at_a_management_group_the_role_has_no_subscription() {
    let azure = Azure::immediate().await;
    let answer = azure
        .put(MANAGEMENT_GROUP, NAME, &body(RBAC_READER, ALICE))
        .await;
    assert_eq!(
        answer.json()["properties"]["roleDefinitionId"],
        format!("/providers/Microsoft.Authorization/roleDefinitions/{RBAC_READER}")
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
