//! Graph is down, asks to wait, or does not let the broker read: object id and type work all the same.

use std::path::Path;
use std::time::Duration;

use aks_access_broker::grpc::proto::PrincipalType;
use azure_emulator::{Fault, FaultEffect, Operation};
use tonic::Code;

use super::support::ask::{self, user};
use super::support::broker::{BrokerProcess, Client};
use super::support::refusal::Refusal;
use super::support::{Timing, World};
use super::world::{
    ALICE, BROKER, DEPLOY_BOT, DEPLOY_BOT_APP, PLATFORM, by_application, by_id, by_name, check,
    gets_in, graph_is_down, looked_up, nothing_was_queued, principal, reads, refused, status,
    typed, world,
};

/// Each way that needs Graph is to be tried again; object id and type need no Graph.
async fn only_object_id_and_type_work(client: &mut Client, world: &World, why: &str) {
    for asked in looked_up() {
        let refusal = refused(client, world, &asked).await;
        let kind = (Code::Unavailable, "AZURE_UNAVAILABLE");
        assert_eq!(refusal.kind(), kind, "{why}, {asked:?}: {refusal:?}");
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
    }
    nothing_was_queued(world).await;
    let alice = principal(ALICE, PrincipalType::User, "", "");
    gets_in(client, world, user(ALICE), &alice).await;
}

#[tokio::test]
async fn while_graph_cuts_connections_object_id_and_type_still_work() {
    let (world, _broker, mut client) = world().await;
    graph_is_down(&world, &FaultEffect::CutBeforeCommit);
    only_object_id_and_type_work(&mut client, &world, "cut").await;
}

#[tokio::test]
async fn while_graph_answers_with_errors_object_id_and_type_still_work() {
    let (world, _broker, mut client) = world().await;
    graph_is_down(&world, &status(503, "ServiceUnavailable", None));
    only_object_id_and_type_work(&mut client, &world, "503").await;
}

#[tokio::test]
async fn while_nobody_listens_at_graphs_address_object_id_and_type_still_work() {
    let world = World::start().await;
    let urls = world.emulator.urls();
    let config = world.config(&Timing::default(), &world.redis.url(), &urls.arm);
    rewrite(&config, &urls.graph, "https://127.0.0.1:1");
    let broker = BrokerProcess::start(&config).await;
    only_object_id_and_type_work(&mut broker.client(), &world, "nobody listens").await;
}

/// No access token for Graph, while there is one for ARM.
#[tokio::test]
async fn without_a_token_for_graph_object_id_and_type_still_work() {
    let (world, _broker, mut client) = world().await;
    world.emulator.add_fault(Fault::always(
        Operation::Token,
        FaultEffect::CutBeforeCommit,
    ));
    only_object_id_and_type_work(&mut client, &world, "no token").await;
}

fn rewrite(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("the configuration");
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).expect("the configuration");
}

#[tokio::test]
async fn whoever_graph_throttles_is_told_for_how_long() {
    let (world, _broker, mut client) = world().await;
    graph_is_down(&world, &status(429, "TooManyRequests", Some("2.128")));
    for asked in looked_up() {
        let refusal = refused(&mut client, &world, &asked).await;
        let kind = (Code::Unavailable, "AZURE_THROTTLED");
        assert_eq!(refusal.kind(), kind, "{asked:?}: {refusal:?}");
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(2_128)));
    }
    nothing_was_queued(&world).await;
    world.emulator.clear_faults();
    // A refusal is remembered for as long as Graph said, and no longer.
    let asked = reads(&world, by_name("alice@contoso.example"));
    while client.grant(asked.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_broker_that_may_not_read_the_directory_says_which_permission_it_lacks() {
    let world = World::start().await;
    let mut broker = world
        .emulator
        .world()
        .service_principals
        .into_iter()
        .find(|application| application.id == BROKER)
        .expect("the broker's own");
    broker.graph_permissions.clear();
    world
        .emulator
        .add_principal(azure_emulator::Principal::ServicePrincipal(broker))
        .expect("changed");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    for (asked, field, permission) in [
        (
            by_name("alice@contoso.example"),
            "user_principal_name",
            "User.Read.All",
        ),
        (
            by_application(DEPLOY_BOT_APP),
            "application_id",
            "Application.Read.All",
        ),
        (by_id(PLATFORM), "object_id", "Directory.Read.All"),
    ] {
        let refusal = refused(&mut client, &world, &asked).await;
        let reason = "PRINCIPAL_NOT_READABLE";
        assert_eq!(
            refusal.kind(),
            (Code::FailedPrecondition, reason),
            "{refusal:?}"
        );
        assert_eq!(refusal.preconditions, [reason]);
        assert!(refusal.metadata.contains_key(field), "{refusal:?}");
        assert!(refusal.message.contains(permission), "{}", refusal.message);
    }
    nothing_was_queued(&world).await;
    let alice = principal(ALICE, PrincipalType::User, "", "");
    gets_in(&mut client, &world, user(ALICE), &alice).await;
    // Of a service principal in too many groups AKS learns none: without its groups nobody can say that it may.
    let bot = typed(DEPLOY_BOT, PrincipalType::ServicePrincipal);
    ask::grant(&mut client, reads(&world, bot.clone())).await;
    let refusal = Refusal::from(check(&mut client, &world, bot).await);
    let kind = (Code::FailedPrecondition, "PRINCIPAL_NOT_READABLE");
    assert_eq!(refusal.kind(), kind, "{refusal:?}");
    assert!(
        refusal.message.contains("GroupMember.Read.All"),
        "{}",
        refusal.message
    );
}
