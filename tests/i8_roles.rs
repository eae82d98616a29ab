//! I8, it cannot escalate: a custom role is assigned while it holds nothing but data actions of clusters, and its
//! definition is read again before anything is applied.
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
    Access, AzureRole, Decision, ExtendGrantRequest, GrantRequest, Job, grant, job,
};
use azure_emulator::{
    ChangeKind, CustomRole, Event, Fault, FaultEffect, Operation, Permissions, Scope,
};
use support::ask::{access, active, check, extension, lasting, permanent};
use support::broker::Client;
use support::refusal::Refusal;
use support::{Assignment, Timing, World, ask, out_of_order};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const POD_READER: Uuid = uuid!("60000000-0000-4000-8000-000000000001");
const READ_PODS: &str = "Microsoft.ContainerService/managedClusters/pods/read";
const LIST_ADMIN_CREDENTIAL: &str =
    "Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action";

/// A definition that was asked for so long ago counts no more.
const COUNTS_NO_MORE: Duration = Duration::from_millis(1_100);

/// The company's own role: whoever may write role definitions may change it at any time.
fn pod_reader(world: &World, actions: &[&str]) {
    let role = CustomRole {
        id: POD_READER,
        name: "Pod reader".to_owned(),
        description: "Looks at pods".to_owned(),
        assignable_scopes: vec![
            Scope::parse("/providers/Microsoft.Management/managementGroups/contoso").unwrap(),
        ],
        permissions: vec![Permissions {
            actions: actions.iter().map(ToString::to_string).collect(),
            data_actions: vec![READ_PODS.to_owned()],
            ..Permissions::default()
        }],
    };
    world.emulator.add_custom_role(role).expect("a role");
}

fn read_pods(namespaces: &[&str]) -> Access {
    Access {
        role_definition_id: POD_READER.to_string(),
        azure_role: 0,
        ..access(AzureRole::Unspecified, namespaces)
    }
}

fn assigned(cluster: &str, at: &str, role: Uuid) -> Assignment {
    Assignment {
        scope: format!("{}{at}", cluster.to_lowercase()),
        role,
        principal: ALICE,
    }
}

/// Accepted, and then taken back whole.
async fn has_failed(world: &World, client: &mut Client, grant_id: &str, job: &Job) {
    assert_eq!(job.state(), job::State::Failed, "{job:?}");
    let error = job.last_error.as_ref().expect("a reason");
    assert_eq!(error.reason, "ROLE_NOT_ALLOWED", "{error:?}");
    assert!(error.message.contains(LIST_ADMIN_CREDENTIAL), "{error:?}");
    assert!(!error.retryable);
    assert_eq!(world.truth(), BTreeSet::new());
    let grant = ask::the_grant(client, grant_id).await;
    assert_eq!(grant.state(), grant::State::Failed, "{grant:?}");
    assert_eq!(
        grant.last_error.map(|error| error.reason).as_deref(),
        Some("ROLE_NOT_ALLOWED")
    );
}

#[tokio::test]
async fn i8_a_custom_role_that_holds_only_data_actions_of_clusters_is_granted_and_taken_back() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let (accepted, job) = ask::grant(
        &mut client,
        permanent(ALICE, &cluster, read_pods(&["team-a"])),
    )
    .await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let expected = [
        assigned(&cluster, "", CLUSTER_USER),
        assigned(&cluster, "/namespaces/team-a", POD_READER),
    ];
    assert_eq!(world.truth(), BTreeSet::from(expected));
    let answer = check(&mut client, ALICE, &cluster, read_pods(&["team-a"])).await;
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let answer = check(&mut client, ALICE, &cluster, read_pods(&["team-b"])).await;
    assert_eq!(answer.decision(), Decision::Denied, "{answer:?}");

    let grant_id = accepted.grant.expect("a grant").grant_id;
    let roles: Vec<String> = ask::the_grant(&mut client, &grant_id)
        .await
        .effects
        .into_iter()
        .map(|effect| effect.role)
        .collect();
    assert!(roles.contains(&"Pod reader".to_owned()), "{roles:?}");
    let job = ask::revoke(&mut client, &grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), BTreeSet::new());
}

/// The first pass has claimed the target and reads the role; meanwhile the role becomes another.
#[tokio::test]
async fn i8_a_role_that_is_changed_between_accept_and_apply_is_not_assigned() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    // Now the role is known, and is not read for accepting it.
    let preview = GrantRequest {
        validate_only: true,
        ..permanent(ALICE, &cluster, read_pods(&[]))
    };
    client.grant(preview).await.expect("a preview");
    let hold = FaultEffect::Hold {
        name: "the pass".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleDefinitionRead, hold));
    let request = permanent(ALICE, &cluster, read_pods(&[]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    world.emulator.until_held("the pass", 1).await;
    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    assert_eq!(world.emulator.release("the pass"), 1);

    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    has_failed(&world, &mut client, &grant_id, &job).await;
    assert!(!was_assigned(&world));
}

fn was_assigned(world: &World) -> bool {
    let assigned_it = |change: &azure_emulator::Change| change.role == Some(POD_READER);
    world.emulator.changes().iter().any(assigned_it)
}

/// The pass has begun, and its first PUT hangs; meanwhile the role becomes another.
#[tokio::test]
async fn i8_a_role_that_is_changed_between_begin_and_its_put_is_not_assigned() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let hold = FaultEffect::Hold {
        name: "Cluster User".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, hold));
    let request = permanent(ALICE, &cluster, read_pods(&[]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    world.emulator.until_held("Cluster User", 1).await;
    assert!(!was_assigned(&world), "the role's own PUT comes second");
    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    assert_eq!(world.emulator.release("Cluster User"), 1);

    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    has_failed(&world, &mut client, &grant_id, &job).await;
    assert!(!was_assigned(&world));
}

/// The definition was read as it was, and its answer took longer than it counts.
#[tokio::test]
async fn i8_what_was_read_of_a_role_counts_for_a_second_from_when_it_was_asked_for() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let preview = GrantRequest {
        validate_only: true,
        ..permanent(ALICE, &cluster, read_pods(&[]))
    };
    client.grant(preview).await.expect("a preview");
    let hold = FaultEffect::HoldAfterCommit {
        name: "the answer".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleDefinitionRead, hold));
    let request = permanent(ALICE, &cluster, read_pods(&[]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    world.emulator.until_held("the answer", 1).await;
    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    // Time itself is what this is about: longer than a definition counts, shorter than a call may take.
    tokio::time::sleep(COUNTS_NO_MORE).await;
    assert_eq!(world.emulator.release("the answer"), 1);

    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    has_failed(&world, &mut client, &grant_id, &job).await;
    assert!(!was_assigned(&world));
}

/// Many namespaces take a while: a definition that was good for the first is read again for the others.
#[tokio::test]
async fn i8_a_role_is_read_again_for_each_put_that_comes_more_than_a_second_later() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let hold = FaultEffect::Hold {
        name: "team-a".to_owned(),
    };
    world.emulator.add_fault(Fault {
        path_contains: Some("/namespaces/team-a".to_owned()),
        ..Fault::once(Operation::RoleAssignmentWrite, hold)
    });
    let request = permanent(ALICE, &cluster, read_pods(&["team-a", "team-b"]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    world.emulator.until_held("team-a", 1).await;
    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    // Time itself is what this is about, as above.
    tokio::time::sleep(COUNTS_NO_MORE).await;
    assert_eq!(world.emulator.release("team-a"), 1);

    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    has_failed(&world, &mut client, &grant_id, &job).await;
    let scopes: BTreeSet<String> = world
        .emulator
        .changes()
        .iter()
        .filter(|change| change.role == Some(POD_READER))
        .filter_map(|change| Some(change.scope.as_ref()?.to_string().to_lowercase()))
        .collect();
    let first = format!("{}/namespaces/team-a", cluster.to_lowercase());
    assert_eq!(
        scopes,
        BTreeSet::from([first]),
        "team-b was never written to"
    );
}

/// Both ways to a later end: by the grant's id, and by the caller's own key for it.
#[tokio::test]
async fn i8_a_grant_whose_role_has_been_changed_is_not_extended() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let hours = |hours| GrantRequest {
        external_key: "INC-4711".to_owned(),
        ..lasting(ALICE, &cluster, read_pods(&[]), Duration::from_hours(hours))
    };
    let grant = active(&mut client, hours(1)).await;
    let standing = world.truth();
    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    for validate_only in [true, false] {
        let longer = ExtendGrantRequest {
            validate_only,
            ..extension(&grant.grant_id, Duration::from_hours(2))
        };
        let by_id = Refusal::from(client.extend_grant(longer).await);
        let longer = GrantRequest {
            validate_only,
            ..hours(3)
        };
        let by_key = Refusal::from(client.grant(longer).await);
        for refusal in [by_id, by_key] {
            assert_eq!(
                refusal.kind(),
                (Code::FailedPrecondition, "ROLE_NOT_ALLOWED")
            );
            let message = &refusal.message;
            assert!(message.contains(LIST_ADMIN_CREDENTIAL), "{message}");
        }
    }
    let after = ask::the_grant(&mut client, &grant.grant_id).await;
    assert_eq!(after.expire_time, grant.expire_time);
    assert_eq!(world.truth(), standing);

    // What cannot be read is not extended either, and it is worth asking again.
    let away = out_of_order();
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleDefinitionRead, away));
    let longer = extension(&grant.grant_id, Duration::from_hours(2));
    let refusal = Refusal::from(client.extend_grant(longer.clone()).await);
    assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_UNAVAILABLE"));
    world.emulator.clear_faults();
    // The role is as it was: the same request is accepted.
    pod_reader(&world, &[]);
    client.extend_grant(longer).await.expect("accepted");
}

/// One of two namespaces has been assigned, the other was locked; then the role changes.
#[tokio::test]
async fn i8_a_role_that_is_changed_in_the_midst_of_applying_it_is_taken_back() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let locked = FaultEffect::Status {
        status: 409,
        code: "ScopeLocked".to_owned(),
        message: "locked".to_owned(),
        retry_after: None,
    };
    world.emulator.add_fault(Fault {
        path_contains: Some("/namespaces/team-b".to_owned()),
        ..Fault::always(Operation::RoleAssignmentWrite, locked)
    });
    let request = permanent(ALICE, &cluster, read_pods(&["team-a", "team-b"]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    let job_id = accepted.job.expect("a job").job_id;
    ask::until(&mut client, &job_id, job::State::Retrying).await;
    let half = assigned(&cluster, "/namespaces/team-a", POD_READER);
    assert!(world.truth().contains(&half), "{:?}", world.truth());

    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    world.emulator.clear_faults();
    let job = ask::over(&mut client, &job_id).await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    has_failed(&world, &mut client, &grant_id, &job).await;
    assert_eq!(deleted(&world.emulator.history(), POD_READER), 1);
}

fn deleted(events: &[Event], role: Uuid) -> usize {
    events
        .iter()
        .filter_map(Event::as_change)
        .filter(|change| change.kind == ChangeKind::Deleted && change.role == Some(role))
        .count()
}

/// What stands already is somebody's access: a new grant of the changed role fails alone.
#[tokio::test]
async fn i8_a_grant_of_a_role_that_has_been_changed_does_not_drag_down_one_that_stands() {
    let world = World::start().await;
    pod_reader(&world, &[]);
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let (first, _) = ask::grant(
        &mut client,
        permanent(ALICE, &cluster, read_pods(&["team-a"])),
    )
    .await;
    let first = first.grant.expect("a grant").grant_id;
    let standing = world.truth();

    pod_reader(&world, &[LIST_ADMIN_CREDENTIAL]);
    // This broker read the role a moment ago and accepts: what it then reads counts.
    let (second, job) = ask::grant(
        &mut client,
        permanent(ALICE, &cluster, read_pods(&["team-b"])),
    )
    .await;
    let second = second.grant.expect("a grant").grant_id;
    assert_eq!(job.state(), job::State::Failed, "{job:?}");
    let failed = ask::the_grant(&mut client, &second).await;
    assert_eq!(failed.state(), grant::State::Failed, "{failed:?}");
    assert_eq!(world.truth(), standing);
    let stands = ask::the_grant(&mut client, &first).await;
    assert_eq!(stands.state(), grant::State::Active, "{stands:?}");

    // A broker that knows nothing of the role reads it, and refuses.
    let fresh = world.broker(&Timing::default()).await;
    let request: GrantRequest = permanent(ALICE, &cluster, read_pods(&["team-b"]));
    let refusal = Refusal::from(fresh.client().grant(request).await);
    assert_eq!(
        refusal.kind(),
        (Code::FailedPrecondition, "ROLE_NOT_ALLOWED")
    );
    // And the role can still be taken away.
    let job = ask::revoke(&mut fresh.client(), &first).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), BTreeSet::new());
}
