//! Microsoft Graph: the groups that somebody is in, pinned to `wire/graph.txt` and `wire/errors.txt`.

mod support;

use azure_emulator::{Group, Options, Principal, Settings, World};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{ALICE, Azure, BROKER, CAROL, DEPLOY_BOT, ENGINEERING, ON_CALL, PLATFORM, guid};
use uuid::Uuid;

const EVERYBODY: &str = "20000000-0000-4000-8000-000000000006";
const PAYMENTS: &str = "20000000-0000-4000-8000-000000000004";

#[tokio::test]
async fn member_groups_are_transitive_for_users_groups_and_service_principals() {
    let azure = Azure::immediate().await;
    let graph = &azure.emulator.urls().graph;
    for (path, expected) in [
        (
            format!("directoryObjects/{CAROL}"),
            vec![ENGINEERING, PLATFORM, ON_CALL],
        ),
        (
            format!("users/{CAROL}"),
            vec![ENGINEERING, PLATFORM, ON_CALL],
        ),
        (format!("groups/{ON_CALL}"), vec![ENGINEERING, PLATFORM]),
        (
            format!("servicePrincipals/{DEPLOY_BOT}"),
            vec![ENGINEERING, PAYMENTS],
        ),
        (format!("servicePrincipals/{BROKER}"), vec![]),
    ] {
        let body = Some(json!({"securityEnabledOnly": true}));
        let answer = azure
            .graph(Method::POST, &format!("/v1.0/{path}/getMemberGroups"), body)
            .await;
        assert_eq!(
            answer.json(),
            json!({
                "@odata.context": format!("{graph}/v1.0/$metadata#Collection(Edm.String)"),
                "value": expected,
            }),
            "{path}"
        );
    }
    let body = Some(json!({"securityEnabledOnly": false}));
    let all = azure
        .graph(
            Method::POST,
            &format!("/v1.0/users/{CAROL}/getMemberGroups"),
            body,
        )
        .await
        .json();
    assert_eq!(
        all["value"],
        json!([ENGINEERING, PLATFORM, ON_CALL, EVERYBODY])
    );
}

#[tokio::test]
async fn groups_that_hold_each_other_in_a_ring_end() {
    let azure = Azure::immediate().await;
    let ring = |id: u128, member: u128| {
        Principal::Group(Group {
            id: Uuid::from_u128(id),
            display_name: format!("Ring {id}"),
            security_enabled: true,
            members: vec![Uuid::from_u128(member)],
        })
    };
    azure.emulator.add_principal(ring(1, 2)).expect("added");
    azure.emulator.add_principal(ring(2, 1)).expect("added");
    let path = format!("/v1.0/groups/{}/getMemberGroups", Uuid::from_u128(1));
    let found = azure
        .graph(
            Method::POST,
            &path,
            Some(json!({"securityEnabledOnly": true})),
        )
        .await
        .json();
    assert_eq!(found["value"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn transitive_member_of_gives_objects_in_pages() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.page_size = 3);
    let first = azure
        .graph(
            Method::GET,
            &format!("/v1.0/users/{CAROL}/transitiveMemberOf?$select=id"),
            None,
        )
        .await
        .json();
    assert_eq!(
        first["value"],
        json!(
            [ENGINEERING, PLATFORM, ON_CALL]
                .map(|id| json!({"@odata.type": "#microsoft.graph.group", "id": id}))
        )
    );
    let link = first["@odata.nextLink"].as_str().expect("a link");
    let path = link
        .strip_prefix(&azure.emulator.urls().graph)
        .expect("here");
    let last = azure.graph(Method::GET, path, None).await.json();
    assert_eq!(
        last["value"],
        json!([{"@odata.type": "#microsoft.graph.group", "id": EVERYBODY}])
    );
    assert_eq!(last.get("@odata.nextLink"), None);
}

/// 11,000 groups are the most that `getMemberGroups` tells; from there on they come in pages of 999 at most.
#[tokio::test]
async fn whoever_is_in_too_many_groups_is_told_their_groups_in_pages_only() {
    let mut world = World::built_in();
    world.groups.extend((1..=11_000).map(|id| Group {
        id: Uuid::from_u128(id),
        display_name: format!("Group {id}"),
        security_enabled: true,
        members: vec![guid(ALICE)],
    }));
    let azure = Azure::start(Options {
        world,
        settings: Settings::immediate(),
        ..Options::default()
    })
    .await;
    let path = format!("/v1.0/directoryObjects/{ALICE}/getMemberGroups");
    let ask = Some(json!({"securityEnabledOnly": true}));
    let refused = azure.graph(Method::POST, &path, ask.clone()).await;
    let code = "Directory_ResultSizeLimitExceeded".to_owned();
    assert_eq!(refused.error(), (400, code), "11,000 and Engineering");

    let mut next = Some(format!(
        "/v1.0/users/{ALICE}/transitiveMemberOf?$select=id,securityEnabled&$top=999"
    ));
    let mut pages = Vec::new();
    while let Some(path) = next {
        let page = azure.graph(Method::GET, &path, None).await.json();
        pages.push(page["value"].as_array().map_or(0, Vec::len));
        let link = page["@odata.nextLink"].as_str();
        next = link
            .and_then(|link| link.strip_prefix(&azure.emulator.urls().graph))
            .map(str::to_owned);
    }
    assert_eq!(pages[..11], [999; 11]);
    assert_eq!(pages[11..], [13], "Engineering and Everybody are the last");

    let first = azure.emulator.world().groups[0].id;
    azure.emulator.delete_principal(first).expect("deleted");
    let told = azure.graph(Method::POST, &path, ask).await.json();
    assert_eq!(told["value"].as_array().map(Vec::len), Some(11_000));
    for wrong in ["0", "1000", "many"] {
        let path = format!("/v1.0/users/{ALICE}/transitiveMemberOf?$top={wrong}");
        let refused = azure.graph(Method::GET, &path, None).await;
        assert_eq!(refused.error().1, "Request_BadRequest", "{wrong}");
    }
    let path = format!("/v1.0/directoryObjects/{ALICE}/transitiveMemberOf");
    let refused = azure.graph(Method::GET, &path, None).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}
