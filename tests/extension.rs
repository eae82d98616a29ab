//! `ExtendGrant`: the later of two ends holds, and the job is over when everything in Azure says it.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, ExtendGrantRequest, Grant, grant, job};
use azure_emulator::{Event, Fault, FaultEffect, Operation};
use support::ask::{access, active, end_of, extension, lasting, permanent, revocation};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const HOUR: Duration = Duration::from_hours(1);

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

async fn reader_for(client: &mut Client, world: &World, ttl: Duration) -> Grant {
    let reader = access(AzureRole::RbacReader, &[]);
    let request = lasting(ALICE, &world.cluster("aks-production"), reader, ttl);
    active(client, request).await
}

/// Extends, follows the job to its end, and gives the grant as it then is.
async fn extended(client: &mut Client, request: ExtendGrantRequest) -> Grant {
    let grant_id = request.grant_id.clone();
    let accepted = client
        .extend_grant(request)
        .await
        .expect("accepted")
        .into_inner();
    let accepted_job = accepted.job.expect("a job");
    assert_eq!(accepted_job.kind(), job::Kind::Extend);
    let job = ask::over(client, &accepted_job.job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    ask::the_grant(client, &grant_id).await
}

fn one(end: &str) -> BTreeSet<String> {
    BTreeSet::from([end.to_owned()])
}

#[tokio::test]
async fn i2_an_extended_grant_says_its_new_end_on_everything_and_lasts_until_then() {
    let (world, _broker, mut client) = world().await;
    let short = reader_for(&mut client, &world, Duration::from_secs(3)).await;
    let longer = extended(&mut client, extension(&short.grant_id, HOUR)).await;
    assert_eq!(longer.state(), grant::State::Active);
    assert!(end_of(&longer) > end_of(&short));
    assert_eq!(world.described_ends(), one(&end_of(&longer)));
    assert_eq!(longer.create_time, short.create_time);

    // What would have ended with the old end is told by one that does end then.
    let witness = lasting(
        Uuid::new_v4(),
        &world.cluster("aks-production"),
        access(AzureRole::ClusterUser, &[]),
        Duration::from_secs(3),
    );
    let witness = active(&mut client, witness).await;
    let gone = |events: &[Event]| {
        let changes = events.iter().filter_map(Event::as_change);
        changes
            .filter(|change| change.kind == azure_emulator::ChangeKind::Deleted)
            .count()
            == 1
    };
    world.emulator.until(gone).await;
    let witness = ask::the_grant(&mut client, &witness.grant_id).await;
    ask::over(&mut client, &witness.job_id).await;
    assert_eq!(world.truth().len(), 2, "{:?}", world.truth());
    let still = ask::the_grant(&mut client, &short.grant_id).await;
    assert_eq!(still.state(), grant::State::Active);
}

#[tokio::test]
async fn i2_an_end_that_is_no_later_changes_nothing_and_costs_azure_nothing() {
    let (world, _broker, mut client) = world().await;
    let long = reader_for(&mut client, &world, HOUR).await;
    let forever = permanent(
        Uuid::new_v4(),
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    );
    let forever = active(&mut client, forever).await;
    world.emulator.clear_history();
    for (grant, ttl) in [(&long, HOUR / 2), (&forever, HOUR)] {
        let request = extension(&grant.grant_id, ttl);
        let accepted = client.extend_grant(request).await.unwrap().into_inner();
        assert_eq!(
            accepted.job.unwrap().state(),
            job::State::Succeeded,
            "over at once"
        );
        assert_eq!(accepted.grant.unwrap().expire_time, grant.expire_time);
    }
    assert!(
        world.emulator.calls().is_empty(),
        "{:?}",
        world.emulator.calls()
    );
}

/// Whichever comes last: two that are made at once end as the later of them says.
#[tokio::test]
async fn i2_extensions_commute_and_a_repeat_is_the_same_job() {
    let (world, _broker, mut client) = world().await;
    let grant = reader_for(&mut client, &world, HOUR).await;
    let later = extension(&grant.grant_id, HOUR * 3);
    let sooner = extension(&grant.grant_id, HOUR * 2);
    let first = extended(&mut client, later.clone()).await;
    let second = extended(&mut client, sooner).await;
    assert_eq!(first.expire_time, second.expire_time);
    assert_eq!(world.described_ends(), one(&end_of(&first)));

    let again = client
        .extend_grant(later.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        again.grant.unwrap().expire_time,
        first.expire_time,
        "not three hours from now"
    );
    assert_eq!(again.job.unwrap().request_id, later.request_id);
    let other = ExtendGrantRequest {
        ttl: Some((HOUR * 4).try_into().unwrap()),
        ..later
    };
    let refusal = Refusal::from(client.extend_grant(other).await);
    assert_eq!(
        refusal.kind(),
        (Code::FailedPrecondition, "REQUEST_ID_REUSED")
    );
}

#[tokio::test]
async fn i2_of_two_grants_of_one_access_each_can_be_extended_and_either_revoked() {
    for extended_goes_first in [true, false] {
        let (world, _broker, mut client) = world().await;
        let short = reader_for(&mut client, &world, HOUR).await;
        let long = reader_for(&mut client, &world, HOUR * 2).await;
        let short = extended(&mut client, extension(&short.grant_id, HOUR * 3)).await;
        assert_eq!(world.described_ends(), one(&end_of(&short)));
        let (goes, stays) = if extended_goes_first {
            (&short, &long)
        } else {
            (&long, &short)
        };
        let job = ask::revoke(&mut client, &goes.grant_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        assert_eq!(
            world.described_ends(),
            one(&end_of(stays)),
            "the end of the one that is left"
        );
        assert_eq!(world.truth().len(), 2);
    }
}

#[tokio::test]
async fn a_grant_that_is_going_or_gone_is_not_revived() {
    let (world, _broker, mut client) = world().await;
    let grant = reader_for(&mut client, &world, HOUR).await;
    let held = FaultEffect::Hold {
        name: "delete".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentDelete, held));
    let revoked = client
        .revoke(revocation(&grant.grant_id))
        .await
        .unwrap()
        .into_inner();
    let refused = |refusal: Refusal| {
        assert_eq!(
            refusal.kind(),
            (Code::FailedPrecondition, "GRANT_ENDED"),
            "{refusal:?}"
        );
        assert_eq!(refusal.metadata["grant_id"], grant.grant_id);
        assert_eq!(refusal.preconditions, ["GRANT_ENDED"]);
    };
    let request = extension(&grant.grant_id, HOUR * 2);
    refused(Refusal::from(client.extend_grant(request.clone()).await));
    let only_to_see = ExtendGrantRequest {
        validate_only: true,
        ..request
    };
    refused(Refusal::from(client.extend_grant(only_to_see).await));
    world.emulator.until_held("delete", 1).await;
    assert_eq!(world.emulator.release("delete"), 1);
    ask::over(&mut client, &revoked.job.unwrap().job_id).await;
    refused(Refusal::from(
        client
            .extend_grant(extension(&grant.grant_id, HOUR * 2))
            .await,
    ));
    assert_eq!(world.truth(), BTreeSet::new());
}

#[tokio::test]
async fn i2_a_grant_that_is_extended_before_it_is_there_begins_with_its_later_end() {
    let (world, _broker, mut client) = world().await;
    let held = FaultEffect::Hold {
        name: "put".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, held));
    let reader = access(AzureRole::RbacReader, &[]);
    let request = lasting(ALICE, &world.cluster("aks-production"), reader, HOUR);
    let granted = client.grant(request).await.unwrap().into_inner();
    let grant_id = granted.grant.unwrap().grant_id;
    let accepted = client
        .extend_grant(extension(&grant_id, HOUR * 2))
        .await
        .unwrap()
        .into_inner();
    world.emulator.until_held("put", 1).await;
    assert_eq!(world.emulator.release("put"), 1);
    for job in [granted.job.unwrap(), accepted.job.unwrap()] {
        let job = ask::over(&mut client, &job.job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }
    let grant = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(grant.expire_time, accepted.grant.unwrap().expire_time);
    assert_eq!(world.described_ends(), one(&end_of(&grant)));
}

#[tokio::test]
async fn an_extension_whose_grant_is_revoked_before_it_is_written_is_superseded() {
    let (world, _broker, mut client) = world().await;
    let grant = reader_for(&mut client, &world, HOUR).await;
    let held = FaultEffect::Status {
        status: 409,
        code: "ScopeLocked".to_owned(),
        message: "locked".to_owned(),
        retry_after: None,
    };
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentWrite, held));
    let request = extension(&grant.grant_id, HOUR * 2);
    let extended = client
        .extend_grant(request)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    let retrying = ask::until(&mut client, &extended.job_id, job::State::Retrying).await;
    assert_eq!(retrying.last_error.unwrap().reason, "SCOPE_LOCKED");
    let still = ask::the_grant(&mut client, &grant.grant_id).await;
    assert_eq!(still.state(), grant::State::Active, "what stands, stands");

    let revoked = ask::revoke(&mut client, &grant.grant_id).await;
    assert_eq!(revoked.state(), job::State::Succeeded, "{revoked:?}");
    let over = ask::over(&mut client, &extended.job_id).await;
    assert_eq!(over.state(), job::State::Superseded, "{over:?}");
    assert_eq!(world.truth(), BTreeSet::new());
}
