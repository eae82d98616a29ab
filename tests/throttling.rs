//! A subscription that is told to wait: nothing is sent that would be refused, and revocations go on.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, job};
use azure_emulator::{Fault, FaultEffect, Operation, Settings};
use support::ask::{access, permanent};
use support::{Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");

/// Far less than the lane is closed for.
const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_lane_learns_from_azure_how_little_is_left() {
    let mut settings = Settings::immediate();
    settings.throttling.enabled = true;
    settings.throttling.writes.capacity = 5;
    let world = World::start_with(settings, 0).await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    ask::grant(&mut client, permanent(ALICE, &cluster, reader)).await;

    let mut connection = world.redis.connection().await;
    let lane = "{aab:main}:lane:00000000-0000-4000-8000-000000000001";
    let tokens: f64 = redis::cmd("HGET")
        .arg(lane)
        .arg("writes:tokens")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(
        tokens <= 5.0,
        "{tokens} calls left, where Azure allows 5 at once"
    );
}

#[tokio::test]
async fn i5_a_revocation_does_not_wait_for_the_writes_that_its_target_needs_as_well() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let writer = access(AzureRole::RbacWriter, &["team-a"]);
    let (first, _) = ask::grant(&mut client, permanent(ALICE, &cluster, reader.clone())).await;

    let throttled = FaultEffect::Status {
        status: 429,
        code: "TooManyRequests".to_owned(),
        message: "wait".to_owned(),
        retry_after: Some("600".to_owned()),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, throttled));
    let bobs = permanent(BOB, &cluster, reader);
    let bobs = client.grant(bobs).await.expect("accepted").into_inner();
    let bobs = bobs.job.expect("a job").job_id;
    ask::until(&mut client, &bobs, job::State::Retrying).await;
    let written = world.count(Operation::RoleAssignmentWrite);
    assert_eq!(
        written, 3,
        "Alice's two, and one of Bob's, which was refused"
    );

    client
        .grant(permanent(ALICE, &cluster, writer))
        .await
        .expect("accepted");
    let first = first.grant.expect("a grant").grant_id;
    let revoked = tokio::time::timeout(SOON, ask::revoke(&mut client, &first)).await;
    let revoked = revoked.expect("the revocation waits for the writes' lane");
    assert_eq!(revoked.state(), job::State::Succeeded, "{revoked:?}");
    assert_eq!(world.count(Operation::RoleAssignmentWrite), written);
    assert_eq!(
        world.truth().len(),
        1,
        "what the pending grant calls for stays"
    );
}

/// A pass of 21 writes in a lane that holds four: it goes in parts, and small ones do not starve it.
#[tokio::test]
async fn a_large_grant_gets_its_share_of_a_small_budget() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing {
        writes: (4, 40),
        ..Timing::default()
    };
    let broker = world.broker(&timing).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let mut small = Vec::new();
    for _ in 0..20 {
        let request = permanent(Uuid::new_v4(), &cluster, reader.clone());
        small.push(client.grant(request).await.expect("accepted").into_inner());
    }
    let names: Vec<String> = (0..20).map(|n| format!("team-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let large = permanent(ALICE, &cluster, access(AzureRole::RbacWriter, &names));
    let large = client.grant(large).await.expect("accepted").into_inner();
    let large = large.job.expect("a job").job_id;
    let job = tokio::time::timeout(SOON, ask::over(&mut client, &large)).await;
    assert_eq!(
        job.expect("it gets its share").state(),
        job::State::Succeeded
    );
    for accepted in small {
        let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
        assert_eq!(job.state(), job::State::Succeeded);
    }
    assert_eq!(world.truth().len(), 21 + 2 * 20);
    assert_eq!(
        world.count(Operation::RoleAssignmentWrite),
        21 + 2 * 20,
        "no call is made twice"
    );
}
