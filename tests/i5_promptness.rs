//! I5, I6: what ends access is carried out at once. It waits neither for what another call was told, nor for a pass
//! that is still giving. How late it is, is counted in calls and in looks of the clock, by the emulator's history and
//! by what Redis was asked: never by how long a machine took.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]
#![allow(
    clippy::print_stdout,
    reason = "the seed is for whoever has to repeat the run"
)]

#[path = "i5_promptness/lateness.rs"]
mod lateness;
mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, GrantRequest, grant, job};
use azure_emulator::{Call, Fault, FaultEffect, Operation};
use support::ask::{accepted, access, lasting, permanent, revocation};
use support::broker::{BrokerProcess, Client};
use support::{Timing, World, ask, told_to_wait};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");

/// Far less than any lane is told to wait here.
const SOON: Duration = Duration::from_mins(1);
/// An hour, as Azure says it.
const AN_HOUR: &str = "3600";

async fn world(timing: &Timing) -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(timing).await;
    let client = broker.client();
    (world, broker, client)
}

fn alices(world: &World, role: AzureRole, namespaces: &[&str]) -> GrantRequest {
    let cluster = world.cluster("aks-production");
    permanent(ALICE, &cluster, access(role, namespaces))
}

fn held(name: &str) -> FaultEffect {
    FaultEffect::Hold {
        name: name.to_owned(),
    }
}

/// A fault of calls in one namespace.
fn in_namespace(name: &str, operation: Operation, effect: FaultEffect) -> Fault {
    Fault {
        path_contains: Some(format!("/namespaces/{name}/")),
        ..Fault::once(operation, effect)
    }
}

async fn is_over_soon(client: &mut Client, job_id: &str) {
    let over = tokio::time::timeout(SOON, ask::over(client, job_id)).await;
    let job = over.expect("it waits for what another call was told");
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

async fn revoke(client: &mut Client, grant_id: &str) -> String {
    let answer = ask::revoked(client, revocation(grant_id)).await;
    answer.job.expect("a job").job_id
}

/// An extension's PUT is cut and takes effect after the revocation's DELETE; another grant of the target is told to
/// wait for an hour. The DELETE that the settle deadline calls for comes all the same, and ends the access.
#[tokio::test]
async fn i5_a_settle_deadline_does_not_wait_for_what_the_writes_were_told() {
    let timing = Timing {
        settle_time: Duration::from_secs(3),
        ..Timing::default()
    };
    let (world, _broker, mut client) = world(&timing).await;
    let request = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &["team-a"]),
        Duration::from_hours(1),
    );
    let granted = ask::active(&mut client, request).await;
    let late = FaultEffect::CommitLate {
        delay: Duration::from_millis(2_500),
        hang: false,
    };
    world
        .emulator
        .add_fault(in_namespace("team-a", Operation::RoleAssignmentWrite, late));
    // The tries after it are answered, so that the revocation meets no open call of its own.
    let extended = client
        .extend_grant(ask::extension(&granted.grant_id, Duration::from_hours(2)))
        .await
        .expect("accepted")
        .into_inner();
    ask::over(&mut client, &extended.job.expect("a job").job_id).await;

    let revoked = revoke(&mut client, &granted.grant_id).await;
    world.emulator.add_fault(in_namespace(
        "team-b",
        Operation::RoleAssignmentWrite,
        told_to_wait(AN_HOUR),
    ));
    let (_, other) = accepted(
        &mut client,
        alices(&world, AzureRole::RbacWriter, &["team-b"]),
    )
    .await;
    ask::until(&mut client, &other, job::State::Retrying).await;
    is_over_soon(&mut client, &revoked).await;
    let left = world.truth();
    assert!(
        !left.iter().any(|found| found.scope.ends_with("/team-a")),
        "{left:?}"
    );
}

/// The other way round: a grant is carried out beside a revocation whose DELETEs were told to wait.
#[tokio::test]
async fn a_grant_does_not_wait_for_what_the_deletes_of_its_target_were_told() {
    let (world, _broker, mut client) = world(&Timing::default()).await;
    let first = ask::active(
        &mut client,
        alices(&world, AzureRole::RbacReader, &["team-a"]),
    )
    .await;
    world.emulator.add_fault(in_namespace(
        "team-a",
        Operation::RoleAssignmentDelete,
        told_to_wait(AN_HOUR),
    ));
    let revoked = revoke(&mut client, &first.grant_id).await;
    ask::until(&mut client, &revoked, job::State::Retrying).await;
    let told = world.count(Operation::RoleAssignmentDelete);
    let (_, given) = accepted(
        &mut client,
        alices(&world, AzureRole::RbacWriter, &["team-b"]),
    )
    .await;
    is_over_soon(&mut client, &given).await;
    let deletes = world.count(Operation::RoleAssignmentDelete);
    assert_eq!(deletes, told, "nothing is sent that would be refused");
}

const MANY: usize = 20;

fn many() -> Vec<String> {
    (0..MANY).map(|n| format!("team-{n}")).collect()
}

/// The changes that were asked for after a moment in the history.
fn changes_after(world: &World, sequence: u64) -> Vec<Call> {
    let mut calls = world.emulator.calls();
    calls.retain(|call| {
        let is_change = matches!(
            call.operation,
            Operation::RoleAssignmentWrite | Operation::RoleAssignmentDelete
        );
        is_change && call.sequence > sequence
    });
    calls
}

fn writes(calls: &[Call]) -> usize {
    let is_write = |call: &&Call| call.operation == Operation::RoleAssignmentWrite;
    calls.iter().filter(is_write).count()
}

/// A grant of many namespaces is taken back in the middle of its pass: the PUT that is under way is the last one.
#[tokio::test]
async fn i5_a_pass_gives_no_more_once_it_was_taken_back() {
    let (world, _broker, mut client) = world(&Timing::default()).await;
    let names = many();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hold = in_namespace(names[7], Operation::RoleAssignmentWrite, held("mid-pass"));
    world.emulator.add_fault(hold);
    let (grant_id, _) = accepted(&mut client, alices(&world, AzureRole::RbacWriter, &names)).await;
    world.emulator.until_held("mid-pass", 1).await;
    let revoked = revoke(&mut client, &grant_id).await;
    let last = world.emulator.calls().last().expect("a call").sequence;
    assert_eq!(world.emulator.release("mid-pass"), 1);
    is_over_soon(&mut client, &revoked).await;
    let after = changes_after(&world, last);
    assert_eq!(writes(&after), 0, "{after:#?}");
    assert!(world.truth().is_empty());
}

/// The same without a revocation: the end of the grant passes in the middle of its pass.
#[tokio::test]
async fn i6_a_pass_gives_no_more_once_an_end_has_passed() {
    let (world, _broker, mut client) = world(&Timing::default()).await;
    let names = many();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hold = in_namespace(names[7], Operation::RoleAssignmentWrite, held("mid-pass"));
    world.emulator.add_fault(hold);
    let request = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacWriter, &names),
        Duration::from_secs(1),
    );
    let (grant_id, granted) = accepted(&mut client, request).await;
    world.emulator.until_held("mid-pass", 1).await;
    // The request that ended it has no worker: the only worker is still in its pass.
    while ask::the_grant(&mut client, &grant_id).await.state() != grant::State::Revoking {
        tokio::task::yield_now().await;
    }
    let last = world.emulator.calls().last().expect("a call").sequence;
    assert_eq!(world.emulator.release("mid-pass"), 1);
    let job = ask::over(&mut client, &granted).await;
    assert_eq!(job.state(), job::State::Superseded, "{job:?}");
    world.at_rest().await;
    let after = changes_after(&world, last);
    assert_eq!(writes(&after), 0, "{after:#?}");
    assert!(world.truth().is_empty());
}

/// Azure refuses every name: the job says so and when it is tried again, each pass tries a few, and the grant fails
/// when it has been tried for long enough. Nothing is left of it.
#[tokio::test]
async fn a_grant_whose_names_are_all_refused_backs_off_and_fails() {
    let world = World::start().await;
    let timing = Timing::default();
    let config = world.config_with_more(&timing, "reconciler", &["grant_give_up: 4s"]);
    let broker = BrokerProcess::start(&config).await;
    let mut client = broker.client();
    world.emulator.add_fault(Fault {
        path_contains: Some("/namespaces/team-a/".to_owned()),
        ..Fault::always(
            Operation::RoleAssignmentWrite,
            FaultEffect::Status {
                status: 400,
                code: "HashConflictOnDifferentRoleAssignmentIds".to_owned(),
                message: "the name is taken".to_owned(),
                retry_after: None,
            },
        )
    });
    let (_, granted) = accepted(
        &mut client,
        alices(&world, AzureRole::RbacReader, &["team-a"]),
    )
    .await;
    let retrying = ask::until(&mut client, &granted, job::State::Retrying).await;
    let error = retrying.last_error.expect("what befell it");
    assert_eq!(error.reason, "AZURE_ERROR", "{error:?}");
    assert!(retrying.next_attempt_time.is_some());
    let job = tokio::time::timeout(SOON, ask::over(&mut client, &granted)).await;
    let job = job.expect("it is given up");
    assert_eq!(job.state(), job::State::Failed, "{job:?}");
    world.at_rest().await;
    assert!(world.truth().is_empty());

    let mut names: Vec<String> = refused_names(&world);
    let tried = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(
        names.len() <= 64,
        "a name beyond would not be known for ours"
    );
    // Two calls a pass are of the cluster itself; each of its passes is an attempt of the job's.
    let passes = usize::try_from(job.attempts).unwrap();
    assert!(tried <= 8 * passes, "{tried} names in {passes} passes");
    assert!(passes >= 2, "it was tried again");
}

fn refused_names(world: &World) -> Vec<String> {
    let calls = world.emulator.calls().into_iter();
    calls
        .filter(|call| call.operation == Operation::RoleAssignmentWrite && call.status == Some(400))
        .map(|call| call.path)
        .collect()
}
