//! How old the data may be that an answer rests on: a hard limit, kept where Azure or the store is away; and renewed
//! before it is reached where they are not.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::{
    CheckAccessRequest, CheckAccessResponse, Consistency, Decision,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use jiff::{SignedDuration, Timestamp};
use support::ask::{now, reads};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tonic::{Code, Status};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_ADMIN: Uuid = uuid!("b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b");

/// A broker with these settings of its view.
async fn broker(world: &World, view: &[(&str, &str)]) -> BrokerProcess {
    let timing = Timing::default();
    let config = world.config(&timing, &world.redis.url(), &world.emulator.urls().arm);
    let mut command = BrokerProcess::command(&config);
    for (key, value) in view {
        command.env(format!("AKS_ACCESS_BROKER__VIEW__{key}"), value);
    }
    BrokerProcess::start_as(command).await
}

fn question(world: &World, consistency: Option<Consistency>) -> CheckAccessRequest {
    CheckAccessRequest {
        consistency,
        ..reads(ALICE, &world.cluster("aks-production"))
    }
}

fn no_older_than(seconds: i64) -> Consistency {
    Consistency {
        max_staleness: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Consistency::default()
    }
}

async fn ask(
    client: &mut Client,
    request: CheckAccessRequest,
) -> Result<CheckAccessResponse, Status> {
    client
        .check_access(request)
        .await
        .map(tonic::Response::into_inner)
}

fn age(answer: &CheckAccessResponse) -> SignedDuration {
    let as_of = answer.as_of.expect("a moment");
    let as_of = Timestamp::new(as_of.seconds, as_of.nanos).expect("a time");
    Timestamp::now().duration_since(as_of)
}

#[tokio::test]
async fn past_the_limit_an_answer_fails_and_is_never_quietly_old() {
    let world = World::start().await;
    let view = [("MAX_STALENESS", "1s"), ("RENEW_AFTER", "300ms")];
    let broker = broker(&world, &view).await;
    let mut client = broker.client();
    let first = ask(&mut client, question(&world, None))
        .await
        .expect("an answer");
    assert_eq!(first.decision(), Decision::Denied);
    let fault = Fault::always(Operation::RoleAssignmentList, FaultEffect::CutBeforeCommit);
    world.emulator.add_fault(fault);
    let refused = loop {
        match ask(&mut client, question(&world, None)).await {
            // What is told of was asked for a moment ago.
            Ok(answer) => assert!(
                age(&answer) < SignedDuration::from_millis(1_500),
                "{answer:?}"
            ),
            Err(status) => break status,
        }
    };
    let refusal = Refusal::of(&refused);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::Unavailable, "AZURE_UNAVAILABLE")
    );
    // Who can live with older data is answered still; who wants newer is not.
    let older = ask(&mut client, question(&world, Some(no_older_than(300)))).await;
    assert_eq!(older.expect("an answer").decision(), Decision::Denied);
    for sooner in [no_older_than(0), now()] {
        assert!(
            ask(&mut client, question(&world, Some(sooner)))
                .await
                .is_err()
        );
    }
    // Once Azure is back, so is the answer.
    world.emulator.clear_faults();
    let again = ask(&mut client, question(&world, None))
        .await
        .expect("an answer");
    assert!(age(&again) < SignedDuration::from_secs(1), "{again:?}");
}

#[tokio::test]
async fn what_others_assign_shows_when_it_is_asked_for_now_and_soon_without() {
    let world = World::start().await;
    let broker = broker(&world, &[("RENEW_AFTER", "200ms")]).await;
    let mut client = broker.client();
    let denied = ask(&mut client, question(&world, None))
        .await
        .expect("an answer");
    assert_eq!(denied.decision(), Decision::Denied);
    let cluster = world.cluster("aks-production");
    world.somebody_else_gives(&cluster, CLUSTER_ADMIN, ALICE, None);
    let now = ask(&mut client, question(&world, Some(now())))
        .await
        .expect("an answer");
    assert_eq!(now.decision(), Decision::Allowed);

    // What is asked for is renewed behind it: nobody waits for it, and it takes no minute.
    for assignment in world.emulator.role_assignments() {
        if assignment.principal == ALICE && assignment.role == CLUSTER_ADMIN {
            world
                .emulator
                .delete_role_assignment(assignment.name)
                .expect("it was there");
        }
    }
    let renewed = async {
        loop {
            let answer = ask(&mut client, question(&world, None))
                .await
                .expect("an answer");
            if answer.decision() == Decision::Denied {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let renewed = tokio::time::timeout(Duration::from_secs(20), renewed).await;
    renewed.expect("it is renewed long before a minute has passed");
}

#[tokio::test]
async fn without_the_store_nobody_knows_what_was_revoked_and_nothing_is_said_past_the_limit() {
    let world = World::start().await;
    let view = [("MAX_STALENESS", "2s"), ("RENEW_AFTER", "300ms")];
    let broker = broker(&world, &view).await;
    let mut client = broker.client();
    ask(&mut client, question(&world, None))
        .await
        .expect("an answer");
    world.redis.signal("STOP").await;
    let refused = loop {
        match ask(&mut client, question(&world, None)).await {
            Ok(answer) => assert!(
                age(&answer) < SignedDuration::from_millis(2_500),
                "{answer:?}"
            ),
            Err(status) => break status,
        }
    };
    let refusal = Refusal::of(&refused);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
    world.redis.signal("CONT").await;
    let back = async {
        while ask(&mut client, question(&world, None)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let back = tokio::time::timeout(Duration::from_secs(30), back).await;
    back.expect("it answers again when the store does");
}
