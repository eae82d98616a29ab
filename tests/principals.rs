//! Who is meant: by object id, by user principal name, by application id, each resolved through Microsoft Graph
//! unless object id and type are both said, which work whatever has become of Graph.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;
#[path = "principals/trouble.rs"]
mod trouble;
#[path = "principals/world.rs"]
mod world;

use std::time::Duration;

use aks_access_broker::grpc::proto::{
    GrantRequest, PrincipalRef, PrincipalType, RevokeRequest, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{revocation, user};
use support::broker::Client;
use support::refusal::Refusal;
use support::{Timing, ask};
use tonic::Code;
use uuid::Uuid;
use world::{
    ALICE, BOB, DEPLOY_BOT, DEPLOY_BOT_APP, DEVICE, GRAPH, NINA, NOBODY, PLATFORM, add_user,
    by_application, by_id, by_name, check, gets_in, graph_is_down, listed, nothing_was_queued, of,
    principal, reads, refused, typed, world,
};

#[tokio::test]
async fn a_principal_is_named_in_exactly_one_well_formed_way() {
    let (world, _broker, mut client) = world().await;
    let group = PrincipalType::Group.into();
    for (asked, field) in [
        (PrincipalRef::default(), "principal"),
        (
            PrincipalRef {
                application_id: DEPLOY_BOT_APP.to_string(),
                ..by_name("alice@contoso.example")
            },
            "principal",
        ),
        (by_name("alice"), "principal.user_principal_name"),
        (
            by_name("../me?@contoso.example"),
            "principal.user_principal_name",
        ),
        (
            PrincipalRef {
                application_id: "deploy-bot".to_owned(),
                ..PrincipalRef::default()
            },
            "principal.application_id",
        ),
        (
            PrincipalRef {
                r#type: group,
                ..by_name("alice@contoso.example")
            },
            "principal.type",
        ),
    ] {
        let grant = client.grant(reads(&world, asked.clone())).await;
        Refusal::from(grant).names(&[field]);
        Refusal::from(check(&mut client, &world, asked).await).names(&[field]);
    }
    assert_eq!(GRAPH.map(|operation| world.count(operation)), [0; 3]);
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn each_way_to_name_a_principal_leads_to_the_same_access() {
    let (world, _broker, mut client) = world().await;
    let alice = principal(
        ALICE,
        PrincipalType::User,
        "Alice Adams",
        "alice@contoso.example",
    );
    let bot = principal(
        DEPLOY_BOT,
        PrincipalType::ServicePrincipal,
        "deploy-bot",
        "",
    );
    gets_in(
        &mut client,
        &world,
        by_name("Alice@Contoso.Example"),
        &alice,
    )
    .await;
    gets_in(&mut client, &world, by_application(DEPLOY_BOT_APP), &bot).await;
    let said = PrincipalRef {
        r#type: PrincipalType::User.into(),
        ..by_name("alice@contoso.example")
    };
    gets_in(&mut client, &world, said, &alice).await;
    gets_in(
        &mut client,
        &world,
        typed(ALICE, PrincipalType::User),
        &principal(ALICE, PrincipalType::User, "", ""),
    )
    .await;
}

#[tokio::test]
async fn the_type_of_a_bare_object_id_is_looked_up() {
    let (world, _broker, mut client) = world().await;
    for expected in [
        principal(BOB, PrincipalType::User, "Bob Brown", "bob@contoso.example"),
        principal(PLATFORM, PrincipalType::Group, "Platform", ""),
        principal(
            DEPLOY_BOT,
            PrincipalType::ServicePrincipal,
            "deploy-bot",
            "",
        ),
    ] {
        let id = expected.object_id.parse().unwrap();
        gets_in(&mut client, &world, by_id(id), &expected).await;
    }
}

#[tokio::test]
async fn guests_and_names_with_characters_of_odatas_own_are_found() {
    let (world, _broker, mut client) = world().await;
    let guest = "nina_fabrikam.example#EXT#@contoso.onmicrosoft.com";
    let nina = principal(NINA, PrincipalType::User, "Nina North (Fabrikam)", guest);
    gets_in(&mut client, &world, by_name(guest), &nina).await;
    for name in [
        "o'neill@contoso.example",
        "$oda@contoso.example",
        "$o'd''a#1@contoso.example",
        "100%25&a=b;c+d@contoso.example",
        "(a)!*,:@contoso.example",
    ] {
        let id = Uuid::new_v4();
        add_user(&world, id, name);
        let bearer = principal(id, PrincipalType::User, &format!("Bearer of {name}"), name);
        gets_in(&mut client, &world, by_name(name), &bearer).await;
    }
}

#[tokio::test]
async fn whoever_the_directory_does_not_know_is_not_found_under_the_name_that_was_used() {
    let (world, _broker, mut client) = world().await;
    for (asked, field, value) in [
        (
            by_name("Nobody@contoso.example"),
            "user_principal_name",
            "Nobody@contoso.example".to_owned(),
        ),
        (by_application(NOBODY), "application_id", NOBODY.to_string()),
        // An object id is not an application's, nor the other way round.
        (
            by_application(DEPLOY_BOT),
            "application_id",
            DEPLOY_BOT.to_string(),
        ),
        (by_id(NOBODY), "object_id", NOBODY.to_string()),
        (
            by_id(DEPLOY_BOT_APP),
            "object_id",
            DEPLOY_BOT_APP.to_string(),
        ),
    ] {
        let refusal = refused(&mut client, &world, &asked).await;
        let kind = (Code::NotFound, "PRINCIPAL_NOT_FOUND");
        assert_eq!(refusal.kind(), kind, "{asked:?}: {refusal:?}");
        assert_eq!(refusal.metadata, [(field.to_owned(), value)].into());
        assert_eq!(refusal.retry_after, None);
    }
    nothing_was_queued(&world).await;

    // That somebody was unknown is not remembered for long: they may be new.
    add_user(&world, NOBODY, "nobody@contoso.example");
    let nobody = "nobody@contoso.example";
    for asked in [by_name(nobody), by_id(NOBODY)] {
        let plan = GrantRequest {
            validate_only: true,
            ..reads(&world, asked)
        };
        let found = async {
            while client.grant(plan.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), found);
        found.await.expect("a new principal is found soon");
    }
    let told = format!("Bearer of {nobody}");
    let found = principal(NOBODY, PrincipalType::User, &told, nobody);
    gets_in(&mut client, &world, by_name(nobody), &found).await;
    gets_in(&mut client, &world, by_id(NOBODY), &found).await;
}

#[tokio::test]
async fn an_object_that_can_hold_no_role_is_told_from_one_that_is_not_there() {
    let (world, _broker, mut client) = world().await;
    let refusal = refused(&mut client, &world, &by_id(DEVICE)).await;
    let reason = "PRINCIPAL_TYPE_NOT_SUPPORTED";
    assert_eq!(
        refusal.kind(),
        (Code::FailedPrecondition, reason),
        "{refusal:?}"
    );
    assert_eq!(refusal.preconditions, [reason]);
    assert_eq!(refusal.metadata["object_id"], DEVICE.to_string());
    assert_eq!(refusal.metadata["type"], "device");
    nothing_was_queued(&world).await;
}

/// The look-up by request id comes first: what was accepted is answered whatever the directory says now.
#[tokio::test]
async fn i3_a_replay_is_answered_while_graph_is_down_and_after_a_name_changed_hands() {
    let (world, broker, mut client) = world().await;
    let name = "newcomer@contoso.example";
    let first_bearer = Uuid::new_v4();
    add_user(&world, first_bearer, name);
    let request = reads(&world, by_name(name));
    let accepted = client.grant(request.clone()).await.unwrap().into_inner();
    let accepted = accepted.grant.unwrap();
    assert_eq!(
        accepted.principal.as_ref().unwrap().object_id,
        first_bearer.to_string()
    );

    // A broker that remembers nothing of whom it looked up.
    drop(broker);
    world.emulator.delete_principal(first_bearer).expect("gone");
    add_user(&world, Uuid::new_v4(), name);
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let asked = GRAPH.map(|operation| world.count(operation));
    let in_capitals = reads_again(&request, by_name(&name.to_uppercase()));
    for replay in [request.clone(), in_capitals.clone()] {
        let replayed = client.grant(replay).await.unwrap().into_inner();
        assert_eq!(replayed.grant.unwrap().grant_id, accepted.grant_id);
    }
    graph_is_down(&world, &FaultEffect::CutBeforeCommit);
    for replay in [request.clone(), in_capitals] {
        let replayed = client.grant(replay).await.unwrap().into_inner();
        let grant = replayed.grant.unwrap();
        assert_eq!(grant.grant_id, accepted.grant_id);
        assert_eq!(grant.principal, accepted.principal);
    }
    for other in [
        by_name("alice@contoso.example"),
        by_application(DEPLOY_BOT_APP),
        by_id(first_bearer),
        user(first_bearer),
    ] {
        let reused = reads_again(&request, other.clone());
        let refusal = Refusal::from(client.grant(reused).await);
        let kind = (Code::FailedPrecondition, "REQUEST_ID_REUSED");
        assert_eq!(refusal.kind(), kind, "{other:?}: {refusal:?}");
    }
    assert_eq!(GRAPH.map(|operation| world.count(operation)), asked);
}

fn reads_again(request: &GrantRequest, principal: PrincipalRef) -> GrantRequest {
    GrantRequest {
        principal: Some(principal),
        ..request.clone()
    }
}

#[tokio::test]
async fn what_the_directory_said_is_remembered_and_many_who_ask_at_once_make_one_call() {
    let (world, _broker, client) = world().await;
    world.emulator.add_fault(Fault::once(
        Operation::UserRead,
        FaultEffect::Hold {
            name: "users".to_owned(),
        },
    ));
    let ask = async |mut client: Client| {
        let asked = by_name("alice@contoso.example");
        check(&mut client, &world, asked).await.expect("an answer")
    };
    let many = futures::future::join_all((0..8).map(|_| ask(client.clone())));
    let held = async {
        world.emulator.until_held("users", 1).await;
        assert_eq!(world.emulator.release("users"), 1);
    };
    let (answers, ()) = tokio::join!(many, held);
    assert_eq!(answers.len(), 8);
    ask(client.clone()).await;
    assert_eq!(world.count(Operation::UserRead), 1);
}

/// What somebody had can be found and taken away after they have gone from the directory, by their object id.
#[tokio::test]
async fn a_selector_takes_each_way_and_believes_an_object_id() {
    let (world, _broker, mut client) = world().await;
    let name = "leaver@contoso.example";
    let leaver = Uuid::new_v4();
    add_user(&world, leaver, name);
    let (granted, _) = ask::grant(&mut client, reads(&world, by_name(name))).await;
    let grant = granted.grant.unwrap().grant_id;
    for way in [by_name(name), by_id(leaver), user(leaver)] {
        let found = listed(&mut client, of(way.clone())).await.expect("a list");
        assert_eq!(found, std::slice::from_ref(&grant), "{way:?}");
    }
    for way in [
        by_name("alice@contoso.example"),
        by_application(DEPLOY_BOT_APP),
    ] {
        let found = listed(&mut client, of(way.clone())).await.expect("a list");
        assert!(found.is_empty(), "{way:?}");
    }
    let nobody = listed(&mut client, of(by_name("nobody@contoso.example"))).await;
    let refusal = Refusal::of(&nobody.expect_err("nobody"));
    assert_eq!(refusal.kind(), (Code::NotFound, "PRINCIPAL_NOT_FOUND"));

    // A broker that remembers nothing of whom another looked up answers a replay without asking.
    let other = world.broker(&Timing::default()).await;
    let of_nobodys = RevokeRequest {
        selector: Some(of(by_name("alice@contoso.example"))),
        ..revocation("")
    };
    let matched = client.revoke(of_nobodys.clone()).await.expect("accepted");
    world.emulator.delete_principal(leaver).expect("gone");
    graph_is_down(&world, &FaultEffect::CutBeforeCommit);
    let again = other.client().revoke(of_nobodys).await.expect("a replay");
    assert_eq!(again.into_inner().job, matched.into_inner().job);

    let by_selector = RevokeRequest {
        selector: Some(of(by_id(leaver))),
        ..revocation("")
    };
    let revoked = client.revoke(by_selector).await.expect("accepted");
    let job = ask::over(&mut client, &revoked.into_inner().job.unwrap().job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert!(world.truth().is_empty());
}
