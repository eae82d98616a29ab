//! What stands beside something that goes wrong on the same target: it is neither held up nor dragged along, and
//! whoever waits is told how it ended.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, GrantRequest, ListJobsRequest, WatchJobRequest, grant, job,
};
use azure_emulator::{Fault, FaultEffect, Lock, LockLevel, Operation, Scope};
use support::ask::{access, active, end_of, lasting, permanent, revocation};
use support::broker::{BrokerProcess, Client};
use support::{Assignment, Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");
const WRITER: Uuid = uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb");

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

fn alices(world: &World, role: AzureRole, namespaces: &[&str]) -> GrantRequest {
    let cluster = world.cluster("aks-production");
    permanent(ALICE, &cluster, access(role, namespaces))
}

/// What Alice is to have: where below the cluster, and which role.
fn holds(world: &World, held: &[(&str, Uuid)]) -> BTreeSet<Assignment> {
    let cluster = world.cluster("aks-production").to_lowercase();
    held.iter()
        .map(|(namespace, role)| Assignment {
            scope: match *namespace {
                "" => cluster.clone(),
                namespace => format!("{cluster}/namespaces/{namespace}"),
            },
            role: *role,
            principal: ALICE,
        })
        .collect()
}

/// Aims a fault at the writes in one namespace.
fn fault(world: &World, namespace: &str, effect: FaultEffect, times: Option<u32>) {
    world.emulator.add_fault(Fault {
        path_contains: Some(format!("/namespaces/{namespace}/")),
        times,
        ..Fault::always(Operation::RoleAssignmentWrite, effect)
    });
}

fn refused(status: u16, code: &str) -> FaultEffect {
    FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "a fault of the test's".to_owned(),
        retry_after: None,
    }
}

fn lock(world: &World, namespace: &str) -> String {
    let scope = format!("{}/namespaces/{namespace}", world.cluster("aks-production"));
    let lock = Lock {
        scope: Scope::parse(&scope).unwrap(),
        level: LockLevel::CanNotDelete,
    };
    world.emulator.lock(lock).expect("a lock");
    scope
}

/// Asks for a revocation, and gives its job's id and how many grants it matched.
async fn revoking(client: &mut Client, grant_id: &str) -> (String, i32) {
    let accepted = ask::revoked(client, revocation(grant_id)).await;
    (accepted.job.expect("a job").job_id, accepted.matched_grants)
}

async fn succeeds(client: &mut Client, job_id: &str) {
    let job = ask::over(client, job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

/// The worker dies when the second name of a series has been taken and nobody knows of it but Azure.
#[tokio::test]
async fn i2_a_crash_after_the_second_name_of_a_hash_conflict_leaves_nothing_behind() {
    tokio::join!(
        a_crash_after_the_second_name(true),
        a_crash_after_the_second_name(false)
    );
}

async fn a_crash_after_the_second_name(is_revoked_at_once: bool) {
    let world = World::start().await;
    let timing = Timing {
        call_timeout: Duration::from_millis(1_500),
        lease: Duration::from_secs(3),
        settle_time: Duration::from_secs(1),
        ..Timing::default()
    };
    let broker = world.broker(&timing).await;
    let hold = FaultEffect::Hold {
        name: "first".to_owned(),
    };
    let conflict = refused(400, "HashConflictOnDifferentRoleAssignmentIds");
    fault(&world, "team-a", hold, Some(1));
    fault(&world, "team-a", conflict, Some(1));
    let request = alices(&world, AzureRole::RbacReader, &["team-a"]);
    let accepted = broker.client().grant(request).await;
    let accepted = accepted.expect("accepted").into_inner();
    world.emulator.until_held("first", 1).await;
    let second = FaultEffect::HoldAfterCommit {
        name: "second".to_owned(),
    };
    fault(&world, "team-a", second, Some(1));
    assert_eq!(world.emulator.release("first"), 1);
    world.emulator.until_held("second", 1).await;
    let both = holds(&world, &[("", CLUSTER_USER), ("team-a", READER)]);
    assert_eq!(world.truth(), both);
    broker.kill().await;
    world.emulator.clear_faults();

    let next = world.broker(&timing).await;
    let mut client = next.client();
    if !is_revoked_at_once {
        succeeds(&mut client, &accepted.job.expect("a job").job_id).await;
        assert_eq!(world.truth(), both);
        world.at_rest().await;
    }
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let job = ask::revoke(&mut client, &grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}

#[tokio::test]
async fn i2_i5_a_healthy_grant_comes_and_goes_beside_one_whose_effect_is_locked() {
    let (world, _broker, mut client) = world().await;
    let stuck = alices(&world, AzureRole::RbacReader, &["locked"]);
    let stuck = active(&mut client, stuck).await.grant_id;
    let scope = lock(&world, "locked");
    let (stuck_job, matched) = revoking(&mut client, &stuck).await;
    assert_eq!(matched, 1);
    ask::until(&mut client, &stuck_job, job::State::Retrying).await;
    let locked = ("locked", READER);
    assert_eq!(world.truth(), holds(&world, &[locked]));

    let healthy = alices(&world, AzureRole::RbacWriter, &["healthy"]);
    let healthy = active(&mut client, healthy).await.grant_id;
    let beside = [locked, ("", CLUSTER_USER), ("healthy", WRITER)];
    assert_eq!(world.truth(), holds(&world, &beside));
    let job = ask::revoke(&mut client, &healthy).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), holds(&world, &[locked]));

    // Whoever asks for the same again is told of the job that ends it.
    let (again, matched) = revoking(&mut client, &stuck).await;
    assert_eq!(matched, 0, "it was going already");
    assert_eq!(again, stuck_job);
    ask::until(&mut client, &again, job::State::Retrying).await;
    for job_id in [&stuck_job, &again] {
        let job = ask::job(&mut client, job_id).await;
        assert_eq!(job.finish_time, None, "{job:?}");
        assert_eq!(job.last_error.expect("a reason").reason, "SCOPE_LOCKED");
    }
    world.emulator.unlock(&scope).expect("unlocked");
    for job_id in [&stuck_job, &again] {
        succeeds(&mut client, job_id).await;
    }
    assert_eq!(world.truth(), BTreeSet::new());
}

/// Of three namespaces one cannot be had: the grant fails and is taken back, but for what another one wants.
#[tokio::test]
async fn i2_i5_a_grant_that_fails_is_taken_back_whole_and_what_another_wants_of_it_stays() {
    let (world, _broker, mut client) = world().await;
    let hold = FaultEffect::Hold {
        name: "impossible".to_owned(),
    };
    fault(&world, "impossible", hold, Some(1));
    fault(
        &world,
        "impossible",
        refused(400, "UnmatchedPrincipalType"),
        None,
    );
    let failing = alices(
        &world,
        AzureRole::RbacWriter,
        &["alone", "impossible", "shared"],
    );
    let failing = client.grant(failing).await.expect("accepted").into_inner();
    let failing_job = failing.job.expect("a job").job_id;
    world.emulator.until_held("impossible", 1).await;
    let wanting = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacWriter, &["shared"]),
        Duration::from_hours(1),
    );
    let wanting = client.grant(wanting).await.expect("accepted").into_inner();
    assert_eq!(world.emulator.release("impossible"), 1);

    let job = ask::over(&mut client, &failing_job).await;
    assert_eq!(job.state(), job::State::Failed, "{job:?}");
    let error = job.last_error.expect("a reason");
    assert_eq!(error.reason, "UNMATCHED_PRINCIPAL_TYPE", "{error:?}");
    assert!(!error.retryable);
    let left = holds(&world, &[("", CLUSTER_USER), ("shared", WRITER)]);
    assert_eq!(world.truth(), left, "the job is over");
    let failed = ask::the_grant(&mut client, &failing.grant.expect("a grant").grant_id).await;
    assert_eq!(failed.state(), grant::State::Failed, "{failed:?}");
    assert!(failed.end_time.is_some());

    succeeds(&mut client, &wanting.job.expect("a job").job_id).await;
    let wanting = wanting.grant.expect("a grant").grant_id;
    let wanting = ask::the_grant(&mut client, &wanting).await;
    assert_eq!(wanting.state(), grant::State::Active, "{wanting:?}");
    world.at_rest_but_for_expiries().await;
    assert_eq!(world.truth(), left);
    // Nothing in Azure says any more that it lasts for as long as the grant that failed was to.
    assert_eq!(world.described_ends(), BTreeSet::from([end_of(&wanting)]));
}

#[tokio::test]
async fn i2_i6_a_grant_whose_time_is_up_before_it_was_ever_active_is_superseded_and_its_watcher_is_told()
 {
    let (world, _broker, mut client) = world().await;
    fault(&world, "team-a", refused(409, "ScopeLocked"), None);
    let request = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &["team-a"]),
        Duration::from_secs(1),
    );
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    let request = WatchJobRequest {
        job_id: accepted.job.expect("a job").job_id,
    };
    let mut told = client
        .watch_job(request)
        .await
        .expect("a watch")
        .into_inner();
    let mut last = None;
    while let Some(message) = told.message().await.expect("the watch goes on") {
        last = message.job;
    }
    let job = last.expect("a state");
    assert_eq!(job.state(), job::State::Superseded, "{job:?}");
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let request = ListJobsRequest {
        kinds: vec![job::Kind::Expire.into()],
        ..ListJobsRequest::default()
    };
    let jobs = client
        .list_jobs(request)
        .await
        .expect("a list")
        .into_inner()
        .jobs;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    succeeds(&mut client, &jobs[0].job_id).await;
    let grant = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(grant.state(), grant::State::Expired, "{grant:?}");
    assert_eq!(world.truth(), BTreeSet::new());
}
