//! I7, the broker removes only what it made: somebody else's assignment counts, stays, and is said to be theirs.
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
    AzureRole, Decision, GrantRequest, ListJobTargetsRequest, effect::Change, grant, job,
};
use azure_emulator::{
    ChangeKind, Fault, FaultEffect, NewRoleAssignment, Operation, RoleAssignmentExistsWording,
    Scope, Settings,
};
use support::ask::{access, active, check, extension, lasting, permanent};
use support::broker::Client;
use support::{Assignment, Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");

/// Alice's assignments as they truly are, whoever made them, each under its name.
fn alices(world: &World) -> BTreeSet<Uuid> {
    let all = world.emulator.role_assignments().into_iter();
    all.filter(|found| found.principal == ALICE)
        .map(|found| found.name)
        .collect()
}

/// Names of what was deleted.
fn deleted(world: &World) -> BTreeSet<String> {
    let changes = world.emulator.changes().into_iter();
    changes
        .filter(|change| change.kind == ChangeKind::Deleted)
        .map(|change| change.name)
        .collect()
}

fn ours(cluster: &str, role: Uuid) -> Assignment {
    Assignment {
        scope: cluster.to_lowercase(),
        role,
        principal: ALICE,
    }
}

#[tokio::test]
async fn i7_somebody_elses_assignment_counts_is_told_apart_and_is_left_alone() {
    for wording in [
        RoleAssignmentExistsWording::Plain,
        RoleAssignmentExistsWording::Conflicting,
        RoleAssignmentExistsWording::Existing,
    ] {
        let settings = Settings {
            role_assignment_exists_wording: wording,
            ..Settings::immediate()
        };
        let world = World::start_with(settings, 0).await;
        let cluster = world.cluster("aks-production");
        let theirs = world.somebody_else_gives(&cluster, READER, ALICE, None);
        let broker = world.broker(&Timing::default()).await;
        let mut client = broker.client();
        let reader = access(AzureRole::RbacReader, &[]);
        let request = permanent(ALICE, &cluster, reader.clone());
        let (accepted, job) = ask::grant(&mut client, request).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        assert_eq!(
            world.truth(),
            BTreeSet::from([ours(&cluster, CLUSTER_USER)])
        );
        let grant_id = accepted.grant.expect("a grant").grant_id;
        let told: BTreeSet<(String, bool)> = ask::the_grant(&mut client, &grant_id)
            .await
            .effects
            .into_iter()
            .map(|effect| (effect.resource_id.to_lowercase(), effect.managed))
            .collect();
        assert!(
            told.contains(&(theirs.id().to_lowercase(), false)),
            "{told:?}"
        );
        assert_eq!(told.iter().filter(|(_, managed)| *managed).count(), 1);
        let answer = check(&mut client, ALICE, &cluster, reader.clone()).await;
        assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");

        let job = ask::revoke(&mut client, &grant_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        assert_eq!(alices(&world), BTreeSet::from([theirs.name]));
        assert!(!deleted(&world).contains(&theirs.name.to_string()));
        // What is left gives the permission and no way in.
        let answer = check(&mut client, ALICE, &cluster, reader).await;
        assert_eq!(answer.decision(), Decision::Denied, "{answer:?}");
        let permission = answer.permission.expect("a layer");
        assert_eq!(permission.decision(), Decision::Allowed);
        assert!(permission.paths.iter().all(|path| !path.managed));
    }
}

/// What the broker's own role rests on may be somebody else's as well.
#[tokio::test]
async fn i7_somebody_elses_cluster_user_is_left_alone_too() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let theirs = world.somebody_else_gives(&cluster, CLUSTER_USER, ALICE, None);
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let request = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let (accepted, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), BTreeSet::from([ours(&cluster, READER)]));
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let job = ask::revoke(&mut client, &grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(alices(&world), BTreeSet::from([theirs.name]));
}

/// What is known of somebody else's is as old as the pass that found it: a new grant looks again.
#[tokio::test]
async fn i7_what_somebody_else_has_taken_away_again_is_made_anew_by_the_next_grant() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let theirs = world.somebody_else_gives(&cluster, READER, ALICE, None);
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let request = || permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let mut grants = Vec::new();
    for left in [1, 2] {
        let (accepted, job) = ask::grant(&mut client, request()).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        assert_eq!(world.truth().len(), left);
        grants.push(accepted.grant.expect("a grant").grant_id);
        world
            .emulator
            .delete_role_assignment(theirs.name)
            .expect("nothing to write down");
    }
    let both = [ours(&cluster, CLUSTER_USER), ours(&cluster, READER)];
    ask::revoke(&mut client, &grants[1]).await;
    assert_eq!(
        world.truth(),
        BTreeSet::from(both),
        "the first still calls for both"
    );
    ask::revoke(&mut client, &grants[0]).await;
    assert_eq!(alices(&world), BTreeSet::new());
}

#[tokio::test]
async fn i7_somebody_elses_assignment_under_a_condition_is_not_what_was_asked_for() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let condition = "@Resource[Microsoft.ContainerService/managedClusters:kind] StringEquals 'x'";
    let theirs = world.somebody_else_gives(&cluster, READER, ALICE, Some(condition));
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let request = permanent(ALICE, &cluster, reader.clone());
    let (accepted, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Failed, "{job:?}");
    let error = job.last_error.expect("a reason");
    assert_eq!(error.reason, "CONDITIONAL_ASSIGNMENT_EXISTS", "{error:?}");
    assert_eq!(error.metadata["role_assignment"], theirs.name.to_string());
    let failed = accepted.grant.expect("a grant").grant_id;
    let failed = ask::the_grant(&mut client, &failed).await;
    assert_eq!(failed.state(), grant::State::Failed, "{failed:?}");
    assert_eq!(
        alices(&world),
        BTreeSet::from([theirs.name]),
        "what the broker had made is taken back, and nothing else"
    );

    // Once it is out of the way, the same can be granted.
    assert!(world.emulator.delete_role_assignment(theirs.name).unwrap());
    let request = permanent(ALICE, &cluster, reader);
    let (_, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 2);
}

/// A replica that has not heard of either assignment: neither ours nor theirs is guessed at.
#[tokio::test]
async fn i7_an_assignment_that_exists_and_that_no_list_shows_is_not_taken_for_somebody_elses() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let exists = FaultEffect::Status {
        status: 409,
        code: "RoleAssignmentExists".to_owned(),
        message: "The role assignment already exists.".to_owned(),
        retry_after: None,
    };
    world.emulator.add_fault(Fault {
        times: Some(3),
        ..Fault::once(Operation::RoleAssignmentWrite, exists)
    });
    let request = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    let job_id = accepted.job.expect("a job").job_id;
    let retrying = ask::until(&mut client, &job_id, job::State::Retrying).await;
    let error = retrying.last_error.expect("a reason");
    assert_eq!(error.reason, "NOT_SETTLED", "{error:?}");
    let job = ask::over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 2);
    let effects = ask::the_grant(&mut client, &accepted.grant.expect("a grant").grant_id)
        .await
        .effects;
    assert!(effects.iter().all(|effect| effect.managed), "{effects:?}");
}

/// What was done for a job on its one target: role, what is below the cluster, the change, whether it is ours.
async fn done(client: &mut Client, job_id: &str) -> BTreeSet<(String, String, Change, bool)> {
    let request = ListJobTargetsRequest {
        job_id: job_id.to_owned(),
        ..ListJobTargetsRequest::default()
    };
    let targets = client
        .list_job_targets(request)
        .await
        .unwrap()
        .into_inner()
        .targets;
    let [target] = targets.as_slice() else {
        panic!("{targets:?}")
    };
    let told = target.effects.iter().map(|effect| {
        let below = effect.scope.strip_prefix(&effect.cluster).unwrap();
        (
            effect.role.clone(),
            below.to_owned(),
            effect.change(),
            effect.managed,
        )
    });
    told.collect()
}

#[tokio::test]
async fn i7_a_job_says_what_was_done_for_it_and_what_of_somebody_elses_was_left_alone() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    world.somebody_else_gives(&format!("{cluster}/namespaces/till"), READER, ALICE, None);
    let request = lasting(
        ALICE,
        &cluster,
        access(AzureRole::RbacReader, &["shop", "till"]),
        Duration::from_hours(1),
    );
    let granted = active(&mut client, request).await;
    let row =
        |role: &str, below: &str, change, ours| (role.to_owned(), below.to_owned(), change, ours);
    let expected = |change| {
        BTreeSet::from([
            row(
                "Azure Kubernetes Service Cluster User Role",
                "",
                change,
                true,
            ),
            row(
                "Azure Kubernetes Service RBAC Reader",
                "/namespaces/shop",
                change,
                true,
            ),
            row(
                "Azure Kubernetes Service RBAC Reader",
                "/namespaces/till",
                Change::None,
                false,
            ),
        ])
    };
    assert_eq!(
        done(&mut client, &granted.job_id).await,
        expected(Change::Create)
    );

    let longer = extension(&granted.grant_id, Duration::from_hours(2));
    let extended = client
        .extend_grant(longer)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    ask::over(&mut client, &extended.job_id).await;
    let updated: BTreeSet<_> = expected(Change::Update)
        .into_iter()
        .filter(|row| row.3)
        .collect();
    assert_eq!(done(&mut client, &extended.job_id).await, updated);

    let revoked = ask::revoke(&mut client, &granted.grant_id).await;
    assert_eq!(
        done(&mut client, &revoked.job_id).await,
        expected(Change::Delete)
    );
}

/// Anybody can read a description and write it onto an assignment of their own.
#[tokio::test]
async fn i7_whoever_copies_our_description_is_somebody_else_all_the_same() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let cluster = world.cluster("aks-production");
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    ask::active(&mut client, permanent(ALICE, &cluster, reader.clone())).await;
    let ours = world.emulator.role_assignments();
    let ours = ours.into_iter().find_map(|found| found.description);
    let copied = NewRoleAssignment {
        scope: Scope::parse(&cluster).expect("a scope"),
        role: READER,
        principal: ALICE,
        name: None,
        description: Some(ours.expect("a description of ours")),
        condition: None,
    };
    let made = world.emulator.put_role_assignment_as_somebody_else(&copied);
    let made = made.expect("an assignment").name;
    // A preview looks now.
    let in_team_b = GrantRequest {
        validate_only: true,
        ..permanent(ALICE, &cluster, access(AzureRole::RbacReader, &["team-b"]))
    };
    let granted = client.grant(in_team_b).await.expect("a plan").into_inner();
    let told = granted.findings.iter();
    let told: Vec<&str> = told
        .filter(|finding| finding.reason == "UNMANAGED_ASSIGNMENT")
        .map(|finding| finding.message.as_str())
        .collect();
    assert!(
        told.iter()
            .any(|message| message.contains(&made.to_string())),
        "{told:?}"
    );
    let answer = ask::check(&mut client, ALICE, &cluster, reader).await;
    let paths = answer.permission.expect("a layer").paths;
    let managed: BTreeSet<bool> = paths.iter().map(|path| path.managed).collect();
    assert_eq!(managed, BTreeSet::from([false, true]), "{paths:?}");
}
