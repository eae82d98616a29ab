//! Azure's manners: lag, lists and their filters, paging, budgets, replication.

mod support;

use std::time::Duration;

use azure_emulator::{
    Bucket, CustomRole, NewRoleAssignment, Permissions, Principal, Scope, Settings, User,
};
use reqwest::{Method, StatusCode};
use support::{
    ALICE, Answer, Azure, BROKER, CAROL, CLUSTER, ENGINEERING, HEIDI, MANAGEMENT_GROUP, ON_CALL,
    OWNER, PRODUCTION, RBAC_READER, RBAC_WRITER, READER, assignment, body, guid,
};
use uuid::Uuid;

/// Longer than any test: what waits for it never comes, and what must not come never does.
const FOREVER: Duration = Duration::from_hours(1);

fn name(n: u128) -> Uuid {
    Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0000 + n)
}

#[tokio::test]
async fn lists_and_reads_lag_each_for_itself_behind_writes_and_deletions() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, name(1), &body(RBAC_READER, ALICE)).await;
    azure.change_settings(|settings| settings.list_lag = FOREVER);
    azure.put(CLUSTER, name(2), &body(RBAC_WRITER, ALICE)).await;
    azure.delete(CLUSTER, name(1)).await;
    let filter = format!("principalId eq '{ALICE}'");
    assert_eq!(
        azure.names(CLUSTER, &filter).await,
        [""; 0],
        "as it was an hour ago, before the first write"
    );
    assert_eq!(
        azure.get(&assignment(CLUSTER, name(2))).await.status,
        StatusCode::OK
    );
    assert_eq!(
        azure.get(&assignment(CLUSTER, name(1))).await.status,
        StatusCode::NOT_FOUND
    );

    azure.change_settings(|settings| {
        (settings.list_lag, settings.read_lag) = (Duration::ZERO, FOREVER);
    });
    assert_eq!(azure.names(CLUSTER, &filter).await, [name(2).to_string()]);
    assert_eq!(
        azure.get(&assignment(CLUSTER, name(2))).await.status,
        StatusCode::NOT_FOUND
    );
    let twin = azure.put(CLUSTER, name(3), &body(RBAC_WRITER, ALICE)).await;
    assert_eq!(twin.status, StatusCode::CONFLICT, "writes know the truth");
}

#[tokio::test]
async fn what_the_world_began_with_does_not_lag_and_its_deletion_does() {
    let azure = Azure::with(Settings {
        list_lag: FOREVER,
        ..Settings::immediate()
    })
    .await;
    let own = azure.emulator.role_assignments()[0].name;
    let filter = format!("principalId eq '{BROKER}'");
    assert_eq!(
        azure.names(MANAGEMENT_GROUP, &filter).await,
        [own.to_string()]
    );
    azure.change_settings(|settings| settings.authorization_enforced = false);
    azure.delete(MANAGEMENT_GROUP, own).await;
    assert_eq!(
        azure.names(MANAGEMENT_GROUP, &filter).await,
        [own.to_string()],
        "still listed"
    );
    azure.change_settings(|settings| settings.list_lag = Duration::ZERO);
    assert_eq!(azure.names(MANAGEMENT_GROUP, &filter).await, [""; 0]);
}

/// One assignment at each level, named after how deep it is.
async fn one_at_each_level(azure: &Azure) {
    let scopes = [
        MANAGEMENT_GROUP.to_owned(),
        format!("/subscriptions/{PRODUCTION}"),
        format!("/subscriptions/{PRODUCTION}/resourceGroups/rg-production"),
        CLUSTER.to_owned(),
        format!("{CLUSTER}/namespaces/web"),
    ];
    for (scope, n) in scopes.into_iter().zip(1..) {
        azure.put(&scope, name(n), &body(READER, ENGINEERING)).await;
    }
}

fn names_of(range: std::ops::RangeInclusive<u128>) -> Vec<String> {
    range.map(|n| name(n).to_string()).collect()
}

#[tokio::test]
async fn at_scope_is_the_scope_and_above_and_other_lists_hold_what_is_below_too() {
    let azure = Azure::immediate().await;
    one_at_each_level(&azure).await;
    let ours = |names: Vec<String>| -> Vec<String> {
        names
            .into_iter()
            .filter(|name| name.starts_with("88888888"))
            .collect()
    };
    assert_eq!(
        ours(azure.names(CLUSTER, "atScope()").await),
        names_of(1..=4)
    );
    assert_eq!(ours(azure.names(CLUSTER, "").await), names_of(1..=5));
    assert_eq!(
        ours(azure.names(&format!("{CLUSTER}/namespaces/web"), "").await),
        names_of(1..=5)
    );
    assert_eq!(
        ours(
            azure
                .names(&format!("{CLUSTER}/namespaces/other"), "")
                .await
        ),
        names_of(1..=4)
    );
    assert_eq!(
        ours(azure.names(MANAGEMENT_GROUP, "").await),
        names_of(1..=5)
    );
    assert_eq!(
        ours(azure.names(MANAGEMENT_GROUP, "atScope()").await),
        names_of(1..=1)
    );
}

#[tokio::test]
async fn assigned_to_counts_groups_and_principal_id_does_not() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, name(1), &body(RBAC_READER, CAROL)).await;
    // Carol is on call; on-call is in platform, platform in engineering.
    azure
        .put(CLUSTER, name(2), &body(RBAC_READER, ENGINEERING))
        .await;
    let namespace = format!("{CLUSTER}/namespaces/web");
    azure
        .put(&namespace, name(3), &body(RBAC_READER, ON_CALL))
        .await;
    assert_eq!(
        azure
            .names(CLUSTER, &format!("principalId eq '{CAROL}'"))
            .await,
        names_of(1..=1)
    );
    assert_eq!(
        azure
            .names(CLUSTER, &format!("assignedTo('{CAROL}')"))
            .await,
        names_of(1..=3)
    );
    let both = format!("atScope() and assignedTo('{CAROL}')");
    assert_eq!(azure.names(CLUSTER, &both).await, names_of(1..=2));
    for filter in [
        format!("assignedTo('{ON_CALL}')"),
        format!("atScope() and principalId eq '{CAROL}'"),
    ] {
        let path = format!(
            "{CLUSTER}/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter={filter}"
        );
        assert_eq!(
            azure.get(&path).await.status,
            StatusCode::BAD_REQUEST,
            "{filter}"
        );
    }
}

#[tokio::test]
async fn a_list_comes_in_pages_and_its_last_page_has_no_link() {
    let azure = Azure::immediate().await;
    azure.change_settings(|settings| settings.page_size = 2);
    for n in 1..=5 {
        azure
            .put(
                &format!("{CLUSTER}/namespaces/n{n}"),
                name(n),
                &body(RBAC_READER, ALICE),
            )
            .await;
    }
    let filter = format!("principalId eq '{ALICE}'");
    azure.emulator.clear_history();
    assert_eq!(azure.names(CLUSTER, &filter).await, names_of(1..=5));
    assert_eq!(azure.emulator.history().len(), 3, "two, two, one");
    let path = format!(
        "{CLUSTER}/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01"
    );
    let page = azure.get(&path).await.json();
    let link = page["nextLink"].as_str().expect("a link");
    assert!(
        link.starts_with(&format!("{}{CLUSTER}", azure.emulator.urls().arm)),
        "{link}"
    );
    azure.change_settings(|settings| settings.page_size = 100);
    assert!(azure.get(&path).await.json().get("nextLink").is_none());
}

#[tokio::test]
async fn an_empty_budget_is_429_with_the_time_to_wait() {
    let mut settings = Settings::immediate();
    settings.throttling.enabled = true;
    settings.throttling.writes = Bucket::new(2, 0.25);
    let azure = Azure::with(settings).await;
    for (n, left) in [(1, "1"), (2, "0")] {
        let answer = azure
            .put(
                &format!("{CLUSTER}/namespaces/n{n}"),
                name(n),
                &body(RBAC_READER, ALICE),
            )
            .await;
        assert_eq!(
            answer.header("x-ms-ratelimit-remaining-subscription-writes"),
            Some(left)
        );
    }
    let answer = azure.put(CLUSTER, name(3), &body(RBAC_READER, ALICE)).await;
    assert_eq!(
        answer.error(),
        (429, "SubscriptionRequestsThrottled".to_owned())
    );
    assert_eq!(answer.header("retry-after"), Some("4"));
    assert_eq!(
        answer.message(),
        format!(
            "Number of requests for subscription '{PRODUCTION}' and operation \
             'PUT/SUBSCRIPTIONS/RESOURCEGROUPS/PROVIDERS/MANAGEDCLUSTERS/PROVIDERS/ROLEASSIGNMENTS' exceeded the \
             backend storage limit. Please try again after '4' seconds."
        )
    );
    assert_eq!(
        azure.delete(CLUSTER, name(3)).await.status,
        StatusCode::NO_CONTENT,
        "deletes have their own"
    );
    let at_group = azure
        .put(MANAGEMENT_GROUP, name(4), &body(RBAC_READER, ALICE))
        .await;
    assert_eq!(
        at_group.status,
        StatusCode::CREATED,
        "and so has the tenant"
    );
    assert_eq!(
        at_group.header("x-ms-ratelimit-remaining-tenant-writes"),
        Some("1")
    );
}

#[tokio::test]
async fn the_default_budgets_are_azures() {
    let mut settings = Settings::immediate();
    settings.throttling.enabled = true;
    let azure = Azure::with(settings).await;
    let answer = azure.put(CLUSTER, name(1), &body(RBAC_READER, ALICE)).await;
    // As recorded for the first write [role-assignments.txt §1].
    assert_eq!(
        answer.header("x-ms-ratelimit-remaining-subscription-writes"),
        Some("199")
    );
    assert_eq!(
        answer.header("x-ms-ratelimit-remaining-subscription-global-writes"),
        Some("2999")
    );
    let read = azure.get(&assignment(CLUSTER, name(1))).await;
    assert_eq!(
        read.header("x-ms-ratelimit-remaining-subscription-reads"),
        Some("249")
    );
}

#[tokio::test]
async fn the_resource_provider_throttles_besides() {
    let mut settings = Settings::immediate();
    settings.throttling.enabled = true;
    settings.throttling.cluster_reads = Bucket::new(1, 0.5);
    let azure = Azure::with(settings).await;
    let path = format!("{CLUSTER}?api-version=2024-05-01");
    assert_eq!(azure.get(&path).await.status, StatusCode::OK);
    let answer = azure.get(&path).await;
    assert_eq!(answer.error(), (429, "Throttled".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn somebody_new_is_unknown_for_a_while_unless_their_type_is_sent() {
    let azure = Azure::with(Settings {
        principal_replication: FOREVER,
        ..Settings::immediate()
    })
    .await;
    let new = "10000000-0000-4000-8000-0000000000aa";
    let user = User {
        id: guid(new),
        display_name: "Olivia Olsen".to_owned(),
        user_principal_name: "olivia@contoso.example".to_owned(),
        account_enabled: true,
    };
    azure
        .emulator
        .add_principal(Principal::User(user))
        .expect("added");
    let mut untyped = body(RBAC_READER, new);
    untyped["properties"]
        .as_object_mut()
        .expect("an object")
        .remove("principalType");
    assert_eq!(
        azure.put(CLUSTER, name(1), &untyped).await.error(),
        (400, "PrincipalNotFound".to_owned())
    );
    assert_eq!(
        azure
            .put(CLUSTER, name(1), &body(RBAC_READER, new))
            .await
            .status,
        StatusCode::CREATED
    );
    azure.change_settings(|settings| settings.principal_replication = Duration::ZERO);
    untyped["properties"]["roleDefinitionId"] = support::role_id(RBAC_WRITER).into();
    assert_eq!(
        azure.put(CLUSTER, name(2), &untyped).await.json()["properties"]["principalType"],
        "User"
    );
}

#[tokio::test]
async fn a_custom_role_is_unknown_for_a_while_and_assignable_only_where_it_says() {
    let azure = Azure::with(Settings {
        custom_role_replication: FOREVER,
        ..Settings::immediate()
    })
    .await;
    let role = Uuid::from_u128(0xc0de);
    let group = format!("/subscriptions/{PRODUCTION}/resourceGroups/rg-production");
    azure
        .emulator
        .add_custom_role(CustomRole {
            id: role,
            name: "Pod Reader".to_owned(),
            description: String::new(),
            assignable_scopes: vec![Scope::parse(&group).expect("a scope")],
            permissions: vec![Permissions {
                data_actions: vec![
                    "Microsoft.ContainerService/managedClusters/pods/read".to_owned(),
                ],
                ..Permissions::default()
            }],
        })
        .expect("added");
    let wish = body(&role.to_string(), ALICE);
    assert_eq!(
        azure.put(CLUSTER, name(1), &wish).await.error(),
        (400, "RoleDefinitionDoesNotExist".to_owned())
    );
    azure.change_settings(|settings| settings.custom_role_replication = Duration::ZERO);
    assert_eq!(
        azure.put(CLUSTER, name(1), &wish).await.status,
        StatusCode::CREATED
    );
    let above = azure
        .put(&format!("/subscriptions/{PRODUCTION}"), name(2), &wish)
        .await;
    assert_eq!(above.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn roles_come_down_the_tree_and_through_groups() {
    let azure = Azure::immediate().await;
    let path = format!("{CLUSTER}?api-version=2024-05-01");
    let status = async |caller| {
        let call = azure.arm_as(caller, Method::GET, &path);
        Answer::read(call.send().await.expect("sent")).await.status
    };
    assert_eq!(status(CAROL).await, StatusCode::FORBIDDEN);
    azure
        .emulator
        .put_role_assignment_as_somebody_else(&NewRoleAssignment {
            scope: Scope::parse(&format!("/subscriptions/{PRODUCTION}")).expect("a scope"),
            role: guid(READER),
            principal: guid(ENGINEERING),
            name: None,
            description: None,
            condition: None,
        })
        .expect("made");
    assert_eq!(
        status(CAROL).await,
        StatusCode::OK,
        "on call, so in platform, so in engineering"
    );
    assert_eq!(status(HEIDI).await, StatusCode::FORBIDDEN);
    let write = azure
        .arm_as(CAROL, Method::PUT, &assignment(CLUSTER, name(1)))
        .json(&body(OWNER, CAROL));
    assert_eq!(
        write.send().await.expect("sent").status(),
        StatusCode::FORBIDDEN,
        "reading is not writing"
    );
}

#[tokio::test]
async fn a_role_with_a_condition_gives_its_holder_nothing_here() {
    let azure = Azure::immediate().await;
    azure
        .emulator
        .put_role_assignment_as_somebody_else(&NewRoleAssignment {
            scope: Scope::parse(CLUSTER).expect("a scope"),
            role: guid(READER),
            principal: guid(HEIDI),
            name: Some(name(1)),
            description: None,
            condition: Some("((@Request[a:b] StringEquals 'c'))".to_owned()),
        })
        .expect("made");
    let call = azure.arm_as(
        HEIDI,
        Method::GET,
        &format!("{CLUSTER}?api-version=2024-05-01"),
    );
    assert_eq!(
        call.send().await.expect("sent").status(),
        StatusCode::FORBIDDEN,
        "nobody has evaluated it"
    );
    let shown = azure.get(&assignment(CLUSTER, name(1))).await.json();
    assert_eq!(shown["properties"]["conditionVersion"], "2.0");
}

#[tokio::test]
async fn a_call_without_a_known_version_is_refused() {
    let azure = Azure::immediate().await;
    for (query, code) in [
        ("", "MissingApiVersionParameter"),
        ("?api-version=2022-04-31", "InvalidApiVersionParameter"),
        ("?api-version=1999-01-01", "InvalidApiVersionParameter"),
    ] {
        for path in [
            CLUSTER.to_owned(),
            format!("{CLUSTER}/providers/Microsoft.Authorization/roleAssignments"),
        ] {
            assert_eq!(
                azure.get(&format!("{path}{query}")).await.error(),
                (400, code.to_owned()),
                "{path}{query}"
            );
        }
    }
}
