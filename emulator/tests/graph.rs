//! Microsoft Graph, pinned to `wire/graph.txt` and `wire/errors.txt`.

mod support;

use azure_emulator::{Fault, FaultEffect, Operation, Principal, User};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ALICE, Azure, BROKER, BROKER_APP, DEPLOY_BOT, ENGINEERING, GRAPH, guid};
use uuid::Uuid;

const DEVICE: &str = "50000000-0000-4000-8000-000000000001";

#[tokio::test]
async fn a_user_is_shown_as_recorded_and_account_enabled_only_when_asked_for() {
    let azure = Azure::immediate().await;
    let graph = &azure.emulator.urls().graph;
    for key in [ALICE, "alice@contoso.example", "ALICE@CONTOSO.EXAMPLE"] {
        let answer = azure
            .graph(Method::GET, &format!("/v1.0/users/{key}"), None)
            .await;
        assert_eq!(
            answer.json(),
            json!({
                "@odata.context": format!("{graph}/v1.0/$metadata#users/$entity"),
                "businessPhones": [],
                "displayName": "Alice Adams",
                "givenName": null,
                "jobTitle": null,
                "mail": null,
                "mobilePhone": null,
                "officeLocation": null,
                "preferredLanguage": null,
                "surname": null,
                "userPrincipalName": "alice@contoso.example",
                "id": ALICE,
            })
        );
    }
    let fields = "id,displayName,userPrincipalName,accountEnabled";
    let path = format!("/v1.0/users/mallory@contoso.example?$select={fields}");
    assert_eq!(
        azure.graph(Method::GET, &path, None).await.json(),
        json!({
            "@odata.context": format!("{graph}/v1.0/$metadata#users({fields})/$entity"),
            "id": "10000000-0000-4000-8000-00000000000b",
            "displayName": "Mallory Moore",
            "userPrincipalName": "mallory@contoso.example",
            "accountEnabled": false,
        })
    );
}

#[tokio::test]
async fn the_recorded_headers_are_there() {
    let azure = Azure::immediate().await;
    let answer = azure
        .graph(Method::GET, &format!("/v1.0/users/{ALICE}"), None)
        .await;
    for (name, value) in [
        (
            "content-type",
            "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8",
        ),
        ("odata-version", "4.0"),
        ("cache-control", "no-cache"),
        ("x-ms-resource-unit", "1"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("request-id").is_some() && answer.header("client-request-id").is_some());
}

#[tokio::test]
async fn a_guest_is_found_by_their_encoded_sign_in_name_and_by_filter() {
    let azure = Azure::immediate().await;
    let guest = azure
        .graph(
            Method::GET,
            "/v1.0/users/nina_fabrikam.example%23EXT%23@contoso.onmicrosoft.com",
            None,
        )
        .await;
    assert_eq!(guest.json()["displayName"], "Nina North (Fabrikam)");
    for (name, count) in [("bob@contoso.example", 1), ("nobody@contoso.example", 0)] {
        let path = format!("/v1.0/users?$filter=userPrincipalName%20eq%20%27{name}%27");
        let found = azure.graph(Method::GET, &path, None).await.json();
        assert_eq!(
            found["value"].as_array().map(Vec::len),
            Some(count),
            "{name}"
        );
    }
}

#[tokio::test]
async fn who_is_not_there_is_404_in_the_recorded_words() {
    let azure = Azure::immediate().await;
    for path in [
        "users/nobody@contoso.example".to_owned(),
        format!("groups/{ALICE}"),
        format!("users/{ENGINEERING}"),
    ] {
        let answer = azure
            .graph(Method::GET, &format!("/v1.0/{path}"), None)
            .await;
        assert_eq!(answer.error(), (404, "Request_ResourceNotFound".to_owned()));
        let id = path.rsplit('/').next().expect("an id");
        assert_eq!(
            answer.message(),
            format!(
                "Resource '{id}' does not exist or one of its queried reference-property objects are not present."
            )
        );
        let inner = &answer.json()["error"]["innerError"];
        assert!(
            inner["date"].is_string()
                && inner["request-id"].is_string()
                && inner["client-request-id"].is_string()
        );
    }
}

#[tokio::test]
async fn groups_and_service_principals_are_read_by_id_and_app_id() {
    let azure = Azure::immediate().await;
    let group = azure
        .graph(Method::GET, &format!("/v1.0/groups/{ENGINEERING}"), None)
        .await
        .json();
    assert_eq!(
        (&group["displayName"], &group["securityEnabled"]),
        (&json!("Engineering"), &json!(true))
    );
    for path in [
        format!("servicePrincipals/{BROKER}"),
        format!("servicePrincipals(appId='{BROKER_APP}')"),
    ] {
        let found = azure
            .graph(Method::GET, &format!("/v1.0/{path}"), None)
            .await
            .json();
        assert_eq!(
            (&found["id"], &found["appId"]),
            (&json!(BROKER), &json!(BROKER_APP)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn get_by_ids_leaves_unknown_ids_and_other_types_out() {
    let azure = Azure::immediate().await;
    let ids = json!([
        ALICE,
        "10000000-0000-4000-8000-0000000000ff",
        ENGINEERING,
        BROKER
    ]);
    let names = async |types: Value| {
        let body = Some(json!({"ids": ids, "types": types}));
        let found = azure
            .graph(Method::POST, "/v1.0/directoryObjects/getByIds", body)
            .await
            .json();
        let found = found["value"].as_array().expect("a list").clone();
        found
            .iter()
            .map(|it| (it["@odata.type"].clone(), it["id"].clone()))
            .collect::<Vec<_>>()
    };
    let of = |kind: &str, id: &str| (json!(format!("#microsoft.graph.{kind}")), json!(id));
    assert_eq!(
        names(json!([
            "user",
            "group",
            "servicePrincipal",
            "directoryObjectPartnerReference"
        ]))
        .await,
        [
            of("user", ALICE),
            of("group", ENGINEERING),
            of("servicePrincipal", BROKER)
        ]
    );
    assert_eq!(names(json!(["group"])).await, [of("group", ENGINEERING)]);
}

#[tokio::test]
async fn graph_needs_a_token_of_its_own_and_permissions() {
    let azure = Azure::immediate().await;
    let url = format!("{}/v1.0/users/{ALICE}", azure.emulator.urls().graph);
    let status = async |token: String| {
        let answer = azure
            .client
            .get(&url)
            .bearer_auth(token)
            .send()
            .await
            .expect("sent");
        support::Answer::read(answer).await.error()
    };
    let for_arm = azure
        .emulator
        .token(guid(BROKER), support::ARM)
        .expect("a token");
    assert_eq!(
        status(for_arm).await,
        (401, "InvalidAuthenticationToken".to_owned())
    );
    let without = azure
        .emulator
        .token(guid(DEPLOY_BOT), GRAPH)
        .expect("a token");
    assert_eq!(
        status(without).await,
        (403, "Authorization_RequestDenied".to_owned())
    );
    let answer = azure.client.get(&url).send().await.expect("sent");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

fn odd(id: u128, user_principal_name: &str) -> Principal {
    Principal::User(User {
        id: Uuid::from_u128(id),
        display_name: "Odd".to_owned(),
        user_principal_name: user_principal_name.to_owned(),
        account_enabled: true,
    })
}

/// As a client has to write them: `#` and `$` mean something else in a path, and a quote ends a string.
#[tokio::test]
async fn odd_sign_in_names_are_found_as_they_have_to_be_written_and_in_no_other_way() {
    let azure = Azure::immediate().await;
    for (id, name) in [(1, "$oda@contoso.example"), (2, "o'neill@contoso.example")] {
        azure.emulator.add_principal(odd(id, name)).expect("added");
    }
    for (key, found) in [
        ("('$oda@contoso.example')", Some(1)),
        ("('%24oda%40contoso.example')", Some(1)),
        ("/$oda@contoso.example", None),
        ("/%24oda@contoso.example", None),
        ("('o''neill@contoso.example')", Some(2)),
        ("('o%27%27neill@contoso.example')", Some(2)),
        ("/o%27neill@contoso.example", Some(2)),
        ("/o%27%27neill@contoso.example", None),
    ] {
        let answer = azure
            .graph(Method::GET, &format!("/v1.0/users{key}"), None)
            .await;
        match found {
            Some(id) => assert_eq!(answer.json()["id"], json!(Uuid::from_u128(id)), "{key}"),
            None => assert!(answer.status.is_client_error(), "{key}"),
        }
    }
}

#[tokio::test]
async fn without_types_get_by_ids_looks_through_devices_too() {
    let azure = Azure::immediate().await;
    let found = async |types: Option<Value>| {
        let mut body = json!({"ids": [ENGINEERING, DEVICE]});
        if let Some(types) = types {
            body["types"] = types;
        }
        let answer = azure
            .graph(Method::POST, "/v1.0/directoryObjects/getByIds", Some(body))
            .await;
        let types = answer.json()["value"].as_array().expect("a list").clone();
        types
            .iter()
            .map(|it| it["@odata.type"].as_str().expect("a type").to_owned())
            .collect::<Vec<_>>()
    };
    let both = ["#microsoft.graph.group", "#microsoft.graph.device"];
    assert_eq!(found(None).await, both);
    assert_eq!(found(Some(json!(["user", "group"]))).await, both[..1]);
    assert_eq!(found(Some(json!(["device"]))).await, both[1..]);
}

/// Whoever may read some kinds of objects gets the others as well, without anything but type and id.
#[tokio::test]
async fn get_by_ids_shows_of_what_one_may_not_read_only_that_it_is_there() {
    let azure = Azure::immediate().await;
    let mut bot = azure
        .emulator
        .world()
        .service_principals
        .into_iter()
        .find(|bot| bot.id == guid(DEPLOY_BOT))
        .expect("the bot");
    bot.graph_permissions = vec!["User.Read.All".to_owned()];
    azure
        .emulator
        .add_principal(Principal::ServicePrincipal(bot))
        .expect("changed");
    let token = azure
        .emulator
        .token(guid(DEPLOY_BOT), GRAPH)
        .expect("a token");
    let url = format!(
        "{}/v1.0/directoryObjects/getByIds",
        azure.emulator.urls().graph
    );
    let answer = azure
        .client
        .post(&url)
        .bearer_auth(token)
        .json(&json!({"ids": [ALICE, ENGINEERING]}))
        .send()
        .await
        .expect("sent");
    let answer = support::Answer::read(answer).await.json();
    let [alice, group] = answer["value"].as_array().expect("a list").as_slice() else {
        panic!("two objects: {answer}");
    };
    assert_eq!(alice["displayName"], "Alice Adams");
    assert_eq!(group["@odata.type"], "#microsoft.graph.group");
    assert_eq!(group["id"], ENGINEERING);
    assert_eq!(group["displayName"], Value::Null);
    assert_eq!(group["securityEnabled"], Value::Null);
}

#[tokio::test]
async fn faults_hit_graph_in_graphs_own_words() {
    let azure = Azure::immediate().await;
    let throttled = FaultEffect::Status {
        status: 429,
        code: "TooManyRequests".to_owned(),
        message: "Please retry again later.".to_owned(),
        retry_after: Some("2.128".to_owned()),
    };
    for (operation, method, path) in [
        (
            Operation::UserRead,
            Method::GET,
            "users/alice@contoso.example".to_owned(),
        ),
        (
            Operation::ServicePrincipalRead,
            Method::GET,
            format!("servicePrincipals(appId='{BROKER_APP}')"),
        ),
        (
            Operation::GetByIds,
            Method::POST,
            "directoryObjects/getByIds".to_owned(),
        ),
    ] {
        azure
            .emulator
            .add_fault(Fault::once(operation, throttled.clone()));
        let body = (method == Method::POST).then(|| json!({"ids": [ALICE]}));
        let path = format!("/v1.0/{path}");
        let answer = azure.graph(method.clone(), &path, body.clone()).await;
        assert_eq!(
            answer.error(),
            (429, "TooManyRequests".to_owned()),
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), Some("2.128"));
        assert!(answer.header("request-id").is_some());
        let answer = azure.graph(method, &path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "once only: {path}");
    }
}
