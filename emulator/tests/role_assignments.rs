//! Role assignments, pinned to the recorded traffic: `wire/role-assignments.txt` and `wire/errors.txt`.

mod support;

use azure_emulator::{PutExistingStatus, RoleAssignmentExistsWording};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{
    ALICE, Answer, Azure, BROKER, CLUSTER, ENGINEERING, MANAGEMENT_GROUP, RBAC_READER, RBAC_WRITER,
    assignment, body, role_id, with_description,
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
