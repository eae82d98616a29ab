//! I2, the last word wins: when a target is quiet, Azure holds exactly the union of its live grants, whatever
//! overlapped, overtook or stood in the way.
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
    AzureRole, GrantRequest, PrincipalType, WatchJobRequest, grant, job,
};
use azure_emulator::{Fault, FaultEffect, Lock, LockLevel, Operation, Scope, Settings};
use support::ask::{access, check, end_of, lasting, permanent, revocation};
use support::broker::Client;
use support::{Assignment, Timing, World, ask, told_to_wait};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const ERIN: Uuid = uuid!("10000000-0000-4000-8000-000000000005");
/// Erin is a member.
const PAYMENTS: Uuid = uuid!("20000000-0000-4000-8000-000000000004");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");
const WRITER: Uuid = uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb");

/// Alice's assignments on a cluster: where below it, and which role.
fn alices(cluster: &str, held: &[(&str, Uuid)]) -> BTreeSet<Assignment> {
    held.iter()
        .map(|(below, role)| Assignment {
            scope: format!("{}{below}", cluster.to_lowercase()),
            role: *role,
            principal: ALICE,
        })
        .collect()
}

/// Grants, and gives the grant's id once it is active.
async fn granted(client: &mut Client, request: GrantRequest) -> String {
    let (accepted, job) = ask::grant(client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    accepted.grant.expect("a grant").grant_id
}

async fn revoked(client: &mut Client, grant_id: &str) {
    let job = ask::revoke(client, grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

/// The next two writes are refused.
fn two_writes_are_refused(world: &World) {
    let locked = FaultEffect::Status {
        status: 409,
        code: "ScopeLocked".to_owned(),
        message: "locked".to_owned(),
        retry_after: None,
    };
    world.emulator.add_fault(Fault {
        times: Some(2),
        ..Fault::once(Operation::RoleAssignmentWrite, locked)
    });
}

fn set(ends: &[&str]) -> BTreeSet<String> {
    ends.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn i2_the_same_access_granted_twice_goes_when_the_last_one_goes_the_longer_one_first() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let hour = Duration::from_hours(1);
    let short = granted(&mut client, lasting(ALICE, &cluster, reader.clone(), hour)).await;
    let short_end = end_of(&ask::the_grant(&mut client, &short).await);
    assert_eq!(world.described_ends(), set(&[&short_end]));
    two_writes_are_refused(&world);
    let long = granted(&mut client, permanent(ALICE, &cluster, reader)).await;
    let both = alices(&cluster, &[("", CLUSTER_USER), ("", READER)]);
    assert_eq!(world.truth(), both);
    assert_eq!(
        world.described_ends(),
        set(&["never"]),
        "the later end is written before the grant is active"
    );

    two_writes_are_refused(&world);
    revoked(&mut client, &long).await;
    assert_eq!(world.truth(), both);
    let ended = ask::the_grant(&mut client, &long).await;
    assert!(
        ended.effects.is_empty(),
        "what stands is not its own: {ended:?}"
    );
    assert_eq!(
        world.described_ends(),
        set(&[&short_end]),
        "a revocation is over when what remains says its own end"
    );
    let remaining = ask::the_grant(&mut client, &short).await;
    assert_eq!(remaining.state(), grant::State::Active);
    revoked(&mut client, &short).await;
    assert_eq!(world.truth(), BTreeSet::new());
}

/// The grants that somebody's ways in are said to rest on, and when those end.
async fn ways_in(client: &mut Client, who: Uuid, cluster: &str) -> BTreeSet<(String, Option<i64>)> {
    let answer = check(client, who, cluster, access(AzureRole::RbacReader, &[])).await;
    let layers = [answer.cluster_access, answer.permission].into_iter();
    let paths = layers.flat_map(|layer| layer.expect("a layer").paths);
    paths
        .map(|path| (path.grant_id, path.expire_time.map(|end| end.seconds)))
        .collect()
}

/// An assignment's description may name grants that have ended since: ids alone are not worth a write.
#[tokio::test]
async fn i2_a_way_in_names_the_live_grant_that_ends_last() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let hour = Duration::from_hours(1);
    let reader = access(AzureRole::RbacReader, &[]);
    for (holder, kind, who) in [
        (ALICE, PrincipalType::User, ALICE),
        (PAYMENTS, PrincipalType::Group, ERIN),
    ] {
        let of_holder = |request| GrantRequest {
            principal: Some(ask::principal(holder, kind)),
            ..request
        };
        let for_good = || of_holder(permanent(holder, &cluster, reader.clone()));
        let lasting = |ttl| of_holder(lasting(holder, &cluster, reader.clone(), ttl));
        let ended = granted(&mut client, for_good()).await;
        let stays = granted(&mut client, for_good()).await;
        revoked(&mut client, &ended).await;
        let rests_on = BTreeSet::from([(stays.clone(), None)]);
        assert_eq!(ways_in(&mut client, who, &cluster).await, rests_on);

        granted(&mut client, lasting(hour)).await;
        let last = ask::active(&mut client, lasting(hour * 2)).await;
        revoked(&mut client, &stays).await;
        let end = last.expire_time.expect("an end").seconds;
        let rests_on = BTreeSet::from([(last.grant_id, Some(end))]);
        assert_eq!(ways_in(&mut client, who, &cluster).await, rests_on);
    }
}

#[tokio::test]
async fn i2_the_same_access_granted_twice_goes_when_the_last_one_goes_the_shorter_one_first() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let long = granted(&mut client, permanent(ALICE, &cluster, reader.clone())).await;
    let both = world.truth();
    let short = granted(
        &mut client,
        lasting(ALICE, &cluster, reader, Duration::from_hours(1)),
    )
    .await;
    assert_eq!(world.described_ends(), set(&["never"]));
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 2);

    revoked(&mut client, &short).await;
    assert_eq!(world.truth(), both);
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 0);
    assert_eq!(
        world.count(Operation::RoleAssignmentWrite),
        2,
        "what the shorter one called for stands, and says the right end, already"
    );
    revoked(&mut client, &long).await;
    assert_eq!(world.truth(), BTreeSet::new());
}

#[tokio::test]
async fn i2_of_two_roles_on_overlapping_namespaces_each_goes_with_its_own_grant() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let (a, b, c) = ("/namespaces/a", "/namespaces/b", "/namespaces/c");
    let reading = access(AzureRole::RbacReader, &["a", "b"]);
    let writing = access(AzureRole::RbacWriter, &["b", "c"]);
    let everywhere = access(AzureRole::RbacReader, &[]);
    let reading = granted(&mut client, permanent(ALICE, &cluster, reading)).await;
    let writing = granted(&mut client, permanent(ALICE, &cluster, writing)).await;
    let user = ("", CLUSTER_USER);
    let read = [user, (a, READER), (b, READER)];
    let write = [user, (b, WRITER), (c, WRITER)];
    let all = [&read[..], &write[1..]].concat();
    assert_eq!(world.truth(), alices(&cluster, &all));
    // A wider one covers nothing: each grant is there in its own right.
    let everywhere = granted(&mut client, permanent(ALICE, &cluster, everywhere)).await;
    let with_wider = [&all[..], &[("", READER)]].concat();
    assert_eq!(world.truth(), alices(&cluster, &with_wider));
    revoked(&mut client, &everywhere).await;
    assert_eq!(world.truth(), alices(&cluster, &all));

    revoked(&mut client, &reading).await;
    assert_eq!(world.truth(), alices(&cluster, &write));
    revoked(&mut client, &writing).await;
    assert_eq!(world.truth(), BTreeSet::new());
}

#[tokio::test]
async fn i2_cluster_user_stays_for_as_long_as_any_grant_of_the_target_does() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let itself = access(AzureRole::ClusterUser, &[]);
    let reader = access(AzureRole::RbacReader, &["a"]);
    let itself = granted(&mut client, permanent(ALICE, &cluster, itself)).await;
    assert_eq!(world.truth(), alices(&cluster, &[("", CLUSTER_USER)]));
    let reader = granted(&mut client, permanent(ALICE, &cluster, reader)).await;
    revoked(&mut client, &itself).await;
    let both = [("", CLUSTER_USER), ("/namespaces/a", READER)];
    assert_eq!(world.truth(), alices(&cluster, &both));
    revoked(&mut client, &reader).await;
    assert_eq!(world.truth(), BTreeSet::new());
}

/// The grant's first call is under way when its revocation is asked for.
#[tokio::test]
async fn i2_a_revocation_that_overtakes_its_grant_wins_and_the_grants_watcher_is_told() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let hold = FaultEffect::Hold {
        name: "put".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, hold));
    let request = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    world.emulator.until_held("put", 1).await;
    let asked = WatchJobRequest {
        job_id: accepted.job.expect("a job").job_id,
    };
    let watch = client.watch_job(asked).await.expect("a stream");
    let mut watch = watch.into_inner();
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let revoke = client.revoke(revocation(&grant_id)).await;
    let revoke = revoke.expect("accepted").into_inner();
    assert_eq!(world.emulator.release("put"), 1);

    let mut last = None;
    while let Some(told) = watch.message().await.expect("the watch goes on") {
        last = told.job;
    }
    let last = last.expect("a job");
    assert_eq!(last.state(), job::State::Superseded, "{last:?}");
    let job = ask::over(&mut client, &revoke.job.expect("a job").job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let grant = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(grant.state(), grant::State::Revoked, "{grant:?}");
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}

/// The subscription is told to wait: nothing of the grant has been begun when its revocation comes.
#[tokio::test]
async fn i2_a_grant_that_is_revoked_before_any_call_was_begun_collapses_to_nothing() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    world.emulator.add_fault(Fault::once(
        Operation::RoleAssignmentWrite,
        told_to_wait("60"),
    ));
    let reader = access(AzureRole::RbacReader, &[]);
    let bobs = permanent(BOB, &cluster, reader.clone());
    let bobs = client.grant(bobs).await.expect("accepted").into_inner();
    let bobs = bobs.job.expect("a job").job_id;
    let told_to_wait = ask::until(&mut client, &bobs, job::State::Retrying).await;
    let error = told_to_wait.last_error.expect("a reason");
    assert_eq!(error.reason, "AZURE_THROTTLED");

    let accepted = client.grant(permanent(ALICE, &cluster, reader)).await;
    let accepted = accepted.expect("accepted").into_inner();
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let job = ask::revoke(&mut client, &grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    assert_eq!(job.state(), job::State::Superseded, "{job:?}");
    let hers = |change: &azure_emulator::Change| change.principal == Some(ALICE);
    assert!(!world.emulator.changes().iter().any(hers));
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 0);
}

#[tokio::test]
async fn i5_a_locked_effect_does_not_keep_a_healthy_one_and_goes_when_it_is_unlocked() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let locked = "/namespaces/locked";
    let both = access(AzureRole::RbacReader, &["healthy", "locked"]);
    let grant_id = granted(&mut client, permanent(ALICE, &cluster, both)).await;
    let scope = Scope::parse(&format!("{cluster}{locked}")).unwrap();
    let lock = Lock {
        scope,
        level: LockLevel::CanNotDelete,
    };
    world.emulator.lock(lock).expect("a lock");

    let revoke = client.revoke(revocation(&grant_id)).await;
    let job_id = revoke.expect("accepted").into_inner().job.unwrap().job_id;
    let retrying = ask::until(&mut client, &job_id, job::State::Retrying).await;
    let error = retrying.last_error.expect("a reason");
    assert_eq!(error.reason, "SCOPE_LOCKED", "{error:?}");
    assert!(error.retryable);
    assert!(!error.azure_correlation_id.is_empty());
    assert!(retrying.next_attempt_time.is_some());
    assert_eq!(world.truth(), alices(&cluster, &[(locked, READER)]));
    let grant = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(grant.state(), grant::State::Revoking, "{grant:?}");

    let attempts = retrying.attempts;
    while ask::job(&mut client, &job_id).await.attempts < attempts + 2 {
        ask::until(&mut client, &job_id, job::State::Retrying).await;
    }
    world
        .emulator
        .unlock(&format!("{cluster}{locked}"))
        .expect("unlocked");
    let job = ask::over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), BTreeSet::new());
    let grant = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(grant.state(), grant::State::Revoked, "{grant:?}");
}

/// Every other name is refused for good; then the next of the series is taken, and each is taken back.
#[tokio::test]
async fn i2_names_that_azure_refuses_are_passed_over_and_leave_nothing_behind() {
    let settings = Settings {
        hash_conflict_probability: 0.5,
        ..Settings::immediate()
    };
    let world = World::start_with(settings, 7).await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let namespaces: Vec<String> = (0..20).map(|n| format!("team-{n}")).collect();
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let reader = access(AzureRole::RbacReader, &namespaces);
    for _ in 0..2 {
        let grant_id = granted(&mut client, permanent(ALICE, &cluster, reader.clone())).await;
        assert_eq!(world.truth().len(), 1 + namespaces.len());
        revoked(&mut client, &grant_id).await;
        assert_eq!(world.truth(), BTreeSet::new());
    }
    let refused = |call: &&azure_emulator::Call| {
        call.operation == Operation::RoleAssignmentWrite && call.status == Some(400)
    };
    // The names are drawn with the broker's instance: that none is refused happens once in two million.
    let refused = world.emulator.calls().iter().filter(refused).count();
    assert!(refused > 0, "no name was refused");
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}

/// A replica that has not heard of the assignment answers the DELETE with "there is none".
#[tokio::test]
async fn i2_a_204_from_a_replica_that_lags_is_not_believed() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing {
        lag: Duration::from_mins(1),
        ..Timing::default()
    };
    let broker = world.broker(&timing).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let grant_id = granted(&mut client, permanent(ALICE, &cluster, reader)).await;
    let fault = Fault {
        times: Some(2),
        ..Fault::once(
            Operation::RoleAssignmentDelete,
            FaultEffect::LaggingNoContent { within: None },
        )
    };
    world.emulator.add_fault(fault);
    revoked(&mut client, &grant_id).await;
    assert_eq!(world.truth(), BTreeSet::new());
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 4);
}
