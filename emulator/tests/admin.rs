//! The admin listener does what the handle does.

#![expect(
    clippy::expect_used,
    reason = "a test's panic is its verdict, its helper's too"
)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    ALICE, Answer, Azure, BROKER, CLUSTER, PRODUCTION, RBAC_READER, RBAC_WRITER, assignment, body,
};
use uuid::Uuid;

const NAME: Uuid = Uuid::from_u128(1);

async fn admin(azure: &Azure, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = azure
        .client
        .request(method, format!("{}{path}", azure.emulator.urls().admin));
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::read(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn it_shows_where_things_are_and_what_is_true() {
    let azure = Azure::immediate().await;
    let home = admin(&azure, Method::GET, "/", None).await.json();
    assert_eq!(home["urls"]["arm"], azure.emulator.urls().arm);
    assert_eq!(
        admin(&azure, Method::GET, "/ca.pem", None).await.text,
        azure.emulator.ca_pem()
    );
    assert_eq!(
        admin(&azure, Method::GET, "/world", None).await.json()["clusters"]
            .as_array()
            .map(Vec::len),
        Some(5)
    );
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let truth = admin(&azure, Method::GET, "/role-assignments", None)
        .await
        .json();
    assert!(
        truth
            .as_array()
            .expect("a list")
            .iter()
            .any(|it| it["name"] == json!(NAME))
    );
    let history = admin(&azure, Method::GET, "/history", None).await.json();
    assert_eq!(history[0]["event"], "call");
    assert_eq!(history[0]["operation"], "roleAssignments/write");
    assert_eq!(
        (&history[1]["event"], &history[1]["kind"]),
        (&json!("change"), &json!("created"))
    );
    assert_eq!(history[1]["call"], history[0]["sequence"]);
    assert_eq!(
        admin(&azure, Method::DELETE, "/history", None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        admin(&azure, Method::GET, "/history", None).await.json(),
        json!([])
    );
}

#[tokio::test]
async fn settings_change_one_by_one_and_unknown_ones_are_refused() {
    let azure = Azure::immediate().await;
    let wish =
        json!({"list_lag_ms": 1234, "throttling": {"enabled": true}, "put_existing_status": "ok"});
    let shown = admin(&azure, Method::PATCH, "/settings", Some(wish))
        .await
        .json();
    assert_eq!(
        (
            &shown["list_lag_ms"],
            &shown["throttling"]["writes"]["capacity"]
        ),
        (&json!(1234), &json!(200))
    );
    assert_eq!(azure.emulator.settings().list_lag.as_millis(), 1234);
    let unknown = admin(&azure, Method::PATCH, "/settings", Some(json!({"lag": 1}))).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn faults_are_added_shown_held_released_and_cleared() {
    let azure = Azure::immediate().await;
    let fault = json!({"operation": "roleAssignments/*", "effect": {"kind": "hold", "name": "gate"}, "times": 1});
    admin(&azure, Method::POST, "/faults", Some(fault)).await;
    assert_eq!(
        admin(&azure, Method::GET, "/faults", None).await.json()[0]["effect"]["kind"],
        "hold"
    );
    let held = tokio::spawn(
        azure
            .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .send(),
    );
    assert_eq!(
        admin(&azure, Method::POST, "/held/gate", None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        admin(&azure, Method::POST, "/release/gate", None)
            .await
            .json(),
        json!({"released": 1})
    );
    assert_eq!(
        held.await.expect("a task").expect("an answer").status(),
        StatusCode::CREATED
    );
    assert_eq!(
        admin(&azure, Method::POST, "/quiesce", None).await.status,
        StatusCode::NO_CONTENT
    );
    admin(
        &azure,
        Method::POST,
        "/faults",
        Some(json!({"effect": {"kind": "cut_before_commit"}})),
    )
    .await;
    assert_eq!(
        admin(&azure, Method::DELETE, "/faults", None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        azure.get(&assignment(CLUSTER, NAME)).await.status,
        StatusCode::OK
    );
    let wrong = admin(
        &azure,
        Method::POST,
        "/faults",
        Some(json!({"effect": {"kind": "flood"}})),
    )
    .await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_world_is_changed_from_outside() {
    let azure = Azure::immediate().await;
    let foreign = json!({"scope": CLUSTER, "role": RBAC_WRITER, "principal": ALICE});
    let made = admin(
        &azure,
        Method::POST,
        "/role-assignments",
        Some(foreign.clone()),
    )
    .await
    .json();
    let name = made["name"].as_str().expect("a name").to_owned();
    let seen = azure
        .get(&assignment(CLUSTER, name.parse().expect("a GUID")))
        .await
        .json();
    assert_ne!(seen["properties"]["createdBy"], BROKER);
    let mut twin = foreign;
    twin["name"] = json!(NAME);
    assert_eq!(
        admin(&azure, Method::POST, "/role-assignments", Some(twin))
            .await
            .status,
        StatusCode::CONFLICT
    );
    let path = format!("/role-assignments/{name}");
    assert_eq!(
        admin(&azure, Method::DELETE, &path, None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        admin(&azure, Method::DELETE, &path, None).await.status,
        StatusCode::NOT_FOUND
    );

    let cluster =
        json!({"subscription": PRODUCTION, "resource_group": "rg-new", "name": "aks-new"});
    assert!(
        admin(&azure, Method::PUT, "/clusters", Some(cluster))
            .await
            .json()["resource_uid"]
            .is_string()
    );
    let id = CLUSTER
        .replace("rg-production", "rg-new")
        .replace("aks-production", "aks-new");
    assert_eq!(
        azure
            .get(&format!("{id}?api-version=2024-05-01"))
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(
        admin(&azure, Method::DELETE, &format!("/clusters?id={id}"), None)
            .await
            .status,
        StatusCode::NO_CONTENT
    );

    let group = json!({"group": {"id": NAME, "display_name": "New", "members": [ALICE]}});
    assert_eq!(
        admin(&azure, Method::PUT, "/principals", Some(group))
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    let shown = azure
        .graph(Method::GET, &format!("/v1.0/groups/{NAME}"), None)
        .await;
    assert_eq!(shown.json()["displayName"], "New");
    let path = format!("/principals/{NAME}");
    assert_eq!(
        admin(&azure, Method::DELETE, &path, None).await.status,
        StatusCode::NO_CONTENT
    );

    let lock = json!({"scope": CLUSTER});
    admin(&azure, Method::PUT, "/locks", Some(lock)).await;
    assert_eq!(azure.delete(CLUSTER, NAME).await.error().1, "ScopeLocked");
    admin(
        &azure,
        Method::DELETE,
        &format!("/locks?scope={CLUSTER}"),
        None,
    )
    .await;
    assert_eq!(
        azure.delete(CLUSTER, NAME).await.status,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn fleets_and_deny_assignments_are_changed_from_outside() {
    let azure = Azure::immediate().await;
    azure
        .emulator
        .delete_fleet(&CLUSTER.replace("managedClusters/aks-production", "fleets/fleet-production"))
        .expect("deleted");
    let fleet = json!({
        "subscription": PRODUCTION, "resource_group": "rg-new", "name": "fleet-new",
        "members": [{"name": "new", "cluster": CLUSTER}],
    });
    let put = admin(&azure, Method::PUT, "/fleets", Some(fleet.clone())).await;
    assert_eq!(put.status, StatusCode::NO_CONTENT);
    let mut second = fleet;
    second["name"] = json!("fleet-second");
    let taken = admin(&azure, Method::PUT, "/fleets", Some(second)).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let id = CLUSTER
        .replace("rg-production", "rg-new")
        .replace("managedClusters/aks-production", "fleets/fleet-new");
    let path = format!("/fleets?id={id}");
    let gone = admin(&azure, Method::DELETE, &path, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);

    let deny = json!({
        "scope": CLUSTER, "display_name": "Nobody deletes", "effect": "audit",
        "permissions": [{"actions": ["*/delete"]}], "principals": [Uuid::nil()],
    });
    let made = admin(&azure, Method::PUT, "/deny-assignments", Some(deny))
        .await
        .json();
    let all = admin(&azure, Method::GET, "/deny-assignments", None).await;
    assert_eq!(all.json(), json!([made]));
    let path = format!(
        "/deny-assignments/{}",
        made["name"].as_str().expect("a name")
    );
    for expected in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
        let deleted = admin(&azure, Method::DELETE, &path, None).await;
        assert_eq!(deleted.status, expected);
    }
}

#[tokio::test]
async fn a_token_is_given_to_whoever_asks() {
    let azure = Azure::immediate().await;
    let wish = json!({"principal": BROKER, "resource": "https://management.azure.com"});
    let answer = admin(&azure, Method::POST, "/tokens", Some(wish))
        .await
        .json();
    let url = format!(
        "{}/subscriptions?api-version=2022-12-01",
        azure.emulator.urls().arm
    );
    let call = azure
        .client
        .get(url)
        .bearer_auth(answer["access_token"].as_str().expect("a token"));
    assert_eq!(
        call.send().await.expect("an answer").status(),
        StatusCode::OK
    );
}
