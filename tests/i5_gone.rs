//! Clusters that go away: what was on them is done with (I5), only where it is certain that they are gone; and
//! another one that is made under the same id has nothing of the old one's, however late it comes.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, GetClusterRequest, Grant, grant, job};
use azure_emulator::{ChangeKind, Cluster, Event, Fault, FaultEffect, Operation};
use support::ask::{access, lasting, permanent, revocation};
use support::broker::Client;
use support::{Assignment, Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");

fn ours(cluster: &str, role: Uuid) -> Assignment {
    Assignment {
        scope: cluster.to_lowercase(),
        role,
        principal: ALICE,
    }
}

/// The cluster's likeness, to be made again under its id.
fn again(world: &World) -> Cluster {
    let clusters = world.emulator.world().clusters;
    let found = clusters.into_iter().find(|it| it.name == "aks-production");
    Cluster {
        resource_uid: None,
        ..found.expect("the cluster")
    }
}

fn answers(status: u16, code: &str) -> FaultEffect {
    FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "not yours to see".to_owned(),
        retry_after: None,
    }
}

/// A call that is held does not wait long for its caller; what it does then comes in good time.
const HELD: Timing = Timing {
    call_timeout: Duration::from_millis(500),
    lease: Duration::from_secs(5),
    settle_time: Duration::from_secs(5),
    lag: Duration::from_secs(1),
    writes: (200, 10),
    deletes: (200, 10),
    workers: 32,
};

async fn granted(client: &mut Client, cluster: &str) -> String {
    let reader = access(AzureRole::RbacReader, &[]);
    let (accepted, job) = ask::grant(client, permanent(ALICE, cluster, reader)).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    accepted.grant.expect("a grant").grant_id
}

async fn revoking(client: &mut Client, grant_id: &str) -> String {
    let accepted = ask::revoked(client, revocation(grant_id)).await;
    accepted.job.expect("a job").job_id
}

fn ended_with_its_cluster(grant: &Grant) {
    assert_eq!(grant.state(), grant::State::Revoked, "{grant:?}");
    let why = grant.last_error.as_ref().expect("a reason");
    assert_eq!(why.reason, "CLUSTER_GONE", "{why:?}");
}

/// How many role assignments were made and deleted, by whomever.
fn changes(events: &[Event], kind: ChangeKind) -> usize {
    let changes = events.iter().filter_map(Event::as_change);
    changes.filter(|change| change.kind == kind).count()
}

#[tokio::test]
async fn i5_the_revocation_of_what_is_on_a_cluster_that_is_gone_is_done() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &["a", "b"]);
    let mut grants = Vec::new();
    for request in [
        permanent(ALICE, &cluster, reader.clone()),
        lasting(ALICE, &cluster, reader, Duration::from_hours(1)),
    ] {
        let (accepted, job) = ask::grant(&mut client, request).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        grants.push(accepted.grant.expect("a grant").grant_id);
    }
    assert!(world.emulator.delete_cluster(&cluster).unwrap());

    let job = ask::revoke(&mut client, &grants[0]).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let job = ask::revoke(&mut client, &grants[1]).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    for grant in &grants {
        let grant = ask::the_grant(&mut client, grant).await;
        assert_eq!(grant.state(), grant::State::Revoked, "{grant:?}");
        assert_eq!(grant.effects, []);
    }
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}

/// ARM says "or the scope is invalid" of what is gone as well: it is the cluster that is asked, and it decides.
#[tokio::test]
async fn i5_whatever_a_call_was_answered_a_cluster_that_is_not_found_is_gone() {
    for (call, read) in [
        ((403, "AuthorizationFailed"), (404, "ResourceNotFound")),
        ((404, "ResourceNotFound"), (404, "ResourceGroupNotFound")),
        ((404, "SubscriptionNotFound"), (404, "ResourceNotFound")),
    ] {
        let world = World::start().await;
        let cluster = world.cluster("aks-production");
        let broker = world.broker(&Timing::default()).await;
        let mut client = broker.client();
        let grant_id = granted(&mut client, &cluster).await;
        for (operation, (status, code)) in [
            (Operation::RoleAssignmentDelete, call),
            (Operation::ManagedClusterRead, read),
        ] {
            let fault = Fault::always(operation, answers(status, code));
            world.emulator.add_fault(fault);
        }
        let job = ask::revoke(&mut client, &grant_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{call:?}: {job:?}");
        let grant = ask::the_grant(&mut client, &grant_id).await;
        assert_eq!(grant.state(), grant::State::Revoked, "{grant:?}");
    }
}

/// The cluster is not gone because the broker has lost sight of it, or because something on it is not there.
#[tokio::test]
async fn i5_a_cluster_that_cannot_be_seen_is_not_taken_for_gone() {
    for (call, read) in [
        (
            (403, "AuthorizationFailed"),
            Some((403, "AuthorizationFailed")),
        ),
        (
            (404, "SubscriptionNotFound"),
            Some((404, "SubscriptionNotFound")),
        ),
        (
            (404, "ResourceNotFound"),
            Some((404, "SubscriptionNotFound")),
        ),
        ((404, "ResourceNotFound"), Some((404, ""))),
        ((404, "ResourceNotFound"), Some((500, "ResourceNotFound"))),
        ((404, "ResourceNotFound"), None),
    ] {
        let world = World::start().await;
        let cluster = world.cluster("aks-production");
        let broker = world.broker(&Timing::default()).await;
        let mut client = broker.client();
        let grant_id = granted(&mut client, &cluster).await;
        let fault = |operation, (status, code)| {
            let fault = Fault::always(operation, answers(status, code));
            world.emulator.add_fault(fault);
        };
        fault(Operation::RoleAssignmentDelete, call);
        if let Some(answer) = read {
            fault(Operation::ManagedClusterRead, answer);
        }
        let job_id = revoking(&mut client, &grant_id).await;
        ask::until(&mut client, &job_id, job::State::Retrying).await;
        assert_eq!(world.truth().len(), 2, "{call:?} {read:?}");
        assert!(
            world.count(Operation::ManagedClusterRead) > 1,
            "it was looked for"
        );

        world.emulator.clear_faults();
        let job = ask::over(&mut client, &job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        assert_eq!(world.truth(), BTreeSet::new());
    }
}

#[tokio::test]
async fn i5_a_grant_whose_cluster_goes_before_it_is_given_ends_with_it() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    // The broker knows it, and grants, a moment before it goes.
    let get = GetClusterRequest {
        cluster: cluster.clone(),
    };
    client.get_cluster(get).await.expect("the cluster");
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    let reader = access(AzureRole::RbacReader, &["a"]);
    let (accepted, job) = ask::grant(&mut client, permanent(ALICE, &cluster, reader)).await;
    assert_eq!(job.state(), job::State::Superseded, "{job:?}");
    let grant_id = accepted.grant.expect("a grant").grant_id;
    ended_with_its_cluster(&ask::the_grant(&mut client, &grant_id).await);
}

#[tokio::test]
async fn i6_a_grant_that_ends_after_its_cluster_has_expired() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &["a"]);
    let short = lasting(ALICE, &cluster, reader, Duration::from_secs(1));
    let accepted = client.grant(short).await.expect("accepted").into_inner();
    let made = |events: &[Event]| changes(events, ChangeKind::Created) == 2;
    world.emulator.until(made).await;
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    world.at_rest().await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let grant = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(grant.state(), grant::State::Expired, "{grant:?}");
}

/// Nobody waits for what may still come to a cluster that is gone; but it is looked after until it cannot.
#[tokio::test]
async fn i5_a_late_put_to_a_cluster_that_is_made_again_leaves_nothing_there() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&HELD).await;
    let mut client = broker.client();
    let late = FaultEffect::Hold {
        name: "late".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentWrite, late);
    world.emulator.add_fault(fault);
    let reader = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let accepted = client.grant(reader).await.expect("accepted").into_inner();
    world.emulator.until_held("late", 1).await;
    let likeness = again(&world);
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    assert_eq!(job.state(), job::State::Superseded, "{job:?}");
    let grant_id = accepted.grant.expect("a grant").grant_id;
    ended_with_its_cluster(&ask::the_grant(&mut client, &grant_id).await);

    world.emulator.put_cluster(likeness).expect("a cluster");
    assert_eq!(world.emulator.release("late"), 1);
    let landed = |events: &[Event]| changes(events, ChangeKind::Created) == 1;
    world.emulator.until(landed).await;
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
    let deletes = world.count(Operation::RoleAssignmentDelete);
    assert_eq!(deletes, 1, "once, when nothing of ours could come any more");
}

#[tokio::test]
async fn i2_a_late_delete_to_a_cluster_that_is_made_again_takes_nothing_from_its_grants() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&HELD).await;
    let mut client = broker.client();
    let old = granted(&mut client, &cluster).await;
    let late = FaultEffect::Hold {
        name: "late".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentDelete, late);
    world.emulator.add_fault(fault);
    let job_id = revoking(&mut client, &old).await;
    world.emulator.until_held("late", 1).await;
    let likeness = again(&world);
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    let job = ask::over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "gone is done: {job:?}");

    world.emulator.put_cluster(likeness).expect("a cluster");
    let get = GetClusterRequest {
        cluster: cluster.clone(),
    };
    client.get_cluster(get).await.expect("the cluster");
    granted(&mut client, &cluster).await;
    let both = BTreeSet::from([ours(&cluster, CLUSTER_USER), ours(&cluster, READER)]);
    assert_eq!(world.truth(), both);
    let before = changes(&world.emulator.history(), ChangeKind::Deleted);
    assert_eq!(world.emulator.release("late"), 1);
    let landed = |events: &[Event]| changes(events, ChangeKind::Deleted) == before + 1;
    world.emulator.until(landed).await;
    world.at_rest().await;
    assert_eq!(world.truth(), both, "what was taken is given again");
}

/// What may still come is looked after once, when it cannot come any more, and not before or after that.
#[tokio::test]
async fn i5_a_cluster_that_stays_gone_is_left_in_peace() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&HELD).await;
    let mut client = broker.client();
    let grant_id = granted(&mut client, &cluster).await;
    let late = FaultEffect::Hold {
        name: "late".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentDelete, late);
    world.emulator.add_fault(fault);
    let job_id = revoking(&mut client, &grant_id).await;
    world.emulator.until_held("late", 1).await;
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    let job = ask::over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let reads = world.count(Operation::ManagedClusterRead);
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 2);
    world.at_rest().await;
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 3);
    assert_eq!(world.count(Operation::ManagedClusterRead), reads + 1);
}

/// Another cluster under the same id: whoever had access to the old one has none to the new one.
#[tokio::test]
async fn i7_a_new_cluster_under_an_old_id_begins_without_the_old_ones_grants() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let writer = permanent(ALICE, &cluster, access(AzureRole::RbacWriter, &[]));
    let (old, _) = ask::grant(&mut client, writer).await;
    let old = old.grant.expect("a grant").grant_id;
    let again = again(&world);
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    world.emulator.put_cluster(again).expect("a cluster");
    // A look at it, so that the broker does not go by what it read of the old one.
    let asked = GetClusterRequest {
        cluster: cluster.clone(),
    };
    client.get_cluster(asked).await.expect("the cluster");

    let reader = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let (_, job) = ask::grant(&mut client, reader).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let both = [ours(&cluster, CLUSTER_USER), ours(&cluster, READER)];
    assert_eq!(world.truth(), BTreeSet::from(both));
    let ended = ask::the_grant(&mut client, &old).await;
    ended_with_its_cluster(&ended);
    let job = ask::revoke(&mut client, &old).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(world.truth().len(), 2, "the new cluster's stay");
}
