//! I3, once per request: a `request_id` takes effect at most once; the same request again gets the same job
//! back, whatever has happened since, and another request under the same id changes nothing.
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
    Access, AzureRole, GrantRequest, GrantResponse, PrincipalRef, PrincipalType, RevokeRequest,
    grant, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use futures::future::join_all;
use support::ask::{access, lasting, permanent, revocation, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const READER: &str = "7f6c6a51-bcf8-42ba-9220-52d62157d7db";

fn reader(world: &World) -> GrantRequest {
    permanent(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &["team-a", "team-b"]),
    )
}

async fn send(mut client: Client, request: GrantRequest) -> GrantResponse {
    client.grant(request).await.expect("accepted").into_inner()
}

/// The ids of an answer: which grant, which job.
fn ids(answer: &GrantResponse) -> (String, String) {
    let grant = answer.grant.as_ref().expect("a grant").grant_id.clone();
    (grant, answer.job.as_ref().expect("a job").job_id.clone())
}

/// How many grants and how many jobs are kept.
async fn kept(world: &World) -> (usize, usize) {
    let everything = world.redis.everything().await;
    let count = |kind: &str| {
        let id = |key: &&String| key.strip_prefix(kind).is_some_and(|id| !id.contains(':'));
        everything.keys().filter(id).count()
    };
    (count("{aab:main}:grant:"), count("{aab:main}:job:"))
}

/// Everything that Azure is asked fails.
fn azure_is_down(world: &World) {
    let down = FaultEffect::Status {
        status: 503,
        code: "ServiceUnavailable".to_owned(),
        message: "down".to_owned(),
        retry_after: None,
    };
    // All but Entra's published keys: callers are known by them, and nobody else is answered.
    for operations in [
        "*/*",
        "token",
        "getMemberGroups",
        "transitiveMemberOf",
        "getByIds",
    ] {
        world.emulator.add_fault(Fault {
            operation: Some(operations.to_owned()),
            path_contains: None,
            effect: down.clone(),
            times: None,
            probability: None,
        });
    }
}

#[tokio::test]
async fn i3_a_request_that_is_sent_twice_takes_effect_once() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let request = reader(&world);
    let first = send(broker.client(), request.clone()).await;
    let again = send(broker.client(), request.clone()).await;
    assert_eq!(ids(&first), ids(&again));
    let job = ask::over(&mut broker.client(), &ids(&first).1).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let later = send(broker.client(), request.clone()).await;
    assert_eq!(ids(&first), ids(&later));
    assert_eq!(
        later.grant.expect("a grant").state(),
        grant::State::Active,
        "a replay tells what has become of it"
    );
    assert_eq!(later.job.expect("a job").request_id, request.request_id);
    world.at_rest().await;
    assert_eq!(kept(&world).await, (1, 1));
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 3);
}

#[tokio::test]
async fn i3_a_request_that_is_sent_thirty_times_at_once_to_three_brokers_takes_effect_once() {
    let world = World::start().await;
    let timing = Timing::default();
    let brokers = join_all((0..3).map(|_| world.broker(&timing))).await;
    let request = reader(&world);
    let answers = join_all((0..30).map(|n| send(brokers[n % 3].client(), request.clone()))).await;
    let told: BTreeSet<_> = answers.iter().map(ids).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let job = ask::over(&mut brokers[1].client(), &ids(&answers[0]).1).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(kept(&world).await, (1, 1));
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 3);

    let grant = ids(&answers[0]).0;
    let request = revocation(&grant);
    let answers = join_all((0..30).map(|n| {
        let (mut client, request) = (brokers[n % 3].client(), request.clone());
        async move { client.revoke(request).await.expect("accepted").into_inner() }
    }))
    .await;
    let told: BTreeSet<_> = answers
        .into_iter()
        .map(|answer| answer.job.expect("a job").job_id)
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    ask::over(&mut brokers[0].client(), told.first().expect("one")).await;
    world.at_rest().await;
    assert_eq!(kept(&world).await, (1, 2));
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 3);
    assert_eq!(world.truth(), BTreeSet::new());
}

/// Whichever of them is first: the others are refused, name its job, and leave nothing behind.
#[tokio::test]
async fn i3_of_different_requests_under_one_id_at_once_to_three_brokers_one_takes_effect() {
    let world = World::start().await;
    let timing = Timing::default();
    let brokers = join_all((0..3).map(|_| world.broker(&timing))).await;
    let mut stand = BTreeSet::new();
    for round in 0..6 {
        let request_id = Uuid::new_v4().to_string();
        let one_of = |n: usize| GrantRequest {
            request_id: request_id.clone(),
            ..permanent(
                Uuid::from_u128(n as u128 + 1),
                &world.cluster("aks-production"),
                access(AzureRole::RbacReader, &[&format!("team-{round}")]),
            )
        };
        // Each of six requests twice, to two brokers.
        let answers = join_all((0..12).map(|n| {
            let (mut client, request) = (brokers[(n + round) % 3].client(), one_of(n % 6));
            async move { (n % 6, client.grant(request).await) }
        }))
        .await;
        let won: BTreeSet<_> = answers
            .iter()
            .filter_map(|(n, answer)| Some((*n, ids(answer.as_ref().ok()?.get_ref()))))
            .collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let (winner, (_, job)) = won.first().expect("one");
        for (n, answer) in answers {
            match answer {
                Ok(_) => {}
                Err(status) if n != *winner => {
                    reused(
                        &Refusal::of(&status),
                        &request_id,
                        job,
                        &format!("request {n}"),
                    );
                }
                Err(status) => panic!("the winner was refused: {status:?}"),
            }
        }
        ask::over(&mut brokers[0].client(), job).await;
        stand.insert((*winner, round));
    }
    world.at_rest().await;
    assert_eq!(kept(&world).await, (6, 6));
    let of_namespaces: BTreeSet<_> = world
        .truth()
        .into_iter()
        .filter_map(|stands| {
            let (_, namespace) = stands.scope.split_once("/namespaces/team-")?;
            let principal = usize::try_from(stands.principal.as_u128()).ok()?;
            Some((principal - 1, namespace.parse().ok()?))
        })
        .collect();
    assert_eq!(of_namespaces, stand);
}

/// What means the same is the same request: the case of an id, the order of namespaces, the name of a role.
#[tokio::test]
async fn i3_the_same_request_in_other_words_is_the_same_request() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let request = reader(&world);
    let first = send(broker.client(), request.clone()).await;
    for same in [
        GrantRequest {
            cluster: request.cluster.to_uppercase(),
            ..request.clone()
        },
        GrantRequest {
            request_id: request.request_id.to_uppercase(),
            ..request.clone()
        },
        GrantRequest {
            access: Some(access(AzureRole::RbacReader, &["team-b", "team-a"])),
            ..request.clone()
        },
        GrantRequest {
            access: Some(Access {
                role_definition_id: READER.to_owned(),
                azure_role: 0,
                ..access(AzureRole::RbacReader, &["team-a", "team-b"])
            }),
            ..request.clone()
        },
    ] {
        assert_eq!(ids(&send(broker.client(), same).await), ids(&first));
    }
}

#[tokio::test]
async fn i3_another_request_under_the_same_id_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let request = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &["team-a"]),
        Duration::from_hours(1),
    );
    let (first, _) = ask::grant(&mut client, request.clone()).await;
    let (grant_id, job_id) = ids(&first);
    world.at_rest_but_for_expiries().await;
    let before = (
        world.redis.everything().await,
        world.emulator.changes().len(),
    );

    let others = [
        GrantRequest {
            principal: Some(user(BOB)),
            ..request.clone()
        },
        GrantRequest {
            principal: Some(PrincipalRef {
                r#type: PrincipalType::Group.into(),
                ..user(ALICE)
            }),
            ..request.clone()
        },
        GrantRequest {
            cluster: world.cluster("aks-development"),
            ..request.clone()
        },
        GrantRequest {
            access: Some(access(AzureRole::RbacWriter, &["team-a"])),
            ..request.clone()
        },
        GrantRequest {
            access: Some(access(AzureRole::RbacReader, &[])),
            ..request.clone()
        },
        GrantRequest {
            ttl: None,
            permanent: true,
            ..request.clone()
        },
        GrantRequest {
            ttl: Duration::from_hours(2).try_into().ok(),
            ..request.clone()
        },
        GrantRequest {
            ttl: None,
            expire_time: first.grant.as_ref().expect("a grant").expire_time,
            ..request.clone()
        },
        GrantRequest {
            justification: "because".to_owned(),
            ..request.clone()
        },
    ];
    for other in others {
        let told = format!("{other:?}");
        let refusal = Refusal::from(client.grant(other).await);
        reused(&refusal, &request.request_id, &job_id, &told);
    }
    // One name space over all RPCs.
    let revoke = RevokeRequest {
        request_id: request.request_id.clone(),
        ..revocation(&grant_id)
    };
    let refusal = Refusal::from(client.revoke(revoke).await);
    reused(&refusal, &request.request_id, &job_id, "a revocation");

    assert_eq!(
        before,
        (
            world.redis.everything().await,
            world.emulator.changes().len()
        )
    );
}

fn reused(refusal: &Refusal, request_id: &str, job_id: &str, told: &str) {
    let expected = (Code::FailedPrecondition, "REQUEST_ID_REUSED");
    assert_eq!(refusal.kind(), expected, "{told}: {refusal:?}");
    assert_eq!(refusal.preconditions, ["REQUEST_ID_REUSED"]);
    assert_eq!(refusal.metadata["request_id"], request_id);
    assert_eq!(
        refusal.metadata["job_id"], job_id,
        "which names the job that the id belongs to"
    );
}

#[tokio::test]
async fn i3_requests_without_an_id_are_each_their_own() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let request = GrantRequest {
        request_id: String::new(),
        ..reader(&world)
    };
    let first = send(broker.client(), request.clone()).await;
    let second = send(broker.client(), request).await;
    assert_ne!(ids(&first).0, ids(&second).0);
    assert_ne!(ids(&first).1, ids(&second).1);
    assert_eq!(kept(&world).await, (2, 2));
}

#[tokio::test]
async fn i3_a_replay_is_answered_when_its_cluster_has_been_deleted_meanwhile() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let request = reader(&world);
    let (first, _) = ask::grant(&mut client, request.clone()).await;
    assert!(
        world
            .emulator
            .delete_cluster(&request.cluster)
            .expect("an ARM id")
    );
    // Another broker has never seen the cluster: it could not be accepted there now.
    let fresh = world.broker(&Timing::default()).await;
    let anew = GrantRequest {
        request_id: Uuid::new_v4().to_string(),
        ..request.clone()
    };
    let refusal = Refusal::from(fresh.client().grant(anew).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "CLUSTER_NOT_FOUND"));
    for client in [client, fresh.client()] {
        assert_eq!(ids(&send(client, request.clone()).await), ids(&first));
    }
}

#[tokio::test]
async fn i3_a_replay_is_answered_while_azure_is_down_also_by_a_broker_that_has_just_started() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let request = reader(&world);
    let (first, _) = ask::grant(&mut client, request.clone()).await;
    let revoke = revocation(&ids(&first).0);
    let revoked = client
        .revoke(revoke.clone())
        .await
        .expect("accepted")
        .into_inner();
    let revoked = ask::over(&mut client, &revoked.job.expect("a job").job_id).await;
    broker.kill().await;
    azure_is_down(&world);

    // Not ready, for want of a token; whoever asks it all the same is answered.
    let config = world.config(
        &Timing::default(),
        &world.redis.url(),
        &world.emulator.urls().arm,
    );
    let broker = BrokerProcess::start_unready(&config).await;
    let mut client = broker.client();
    let anew = Refusal::from(client.grant(reader(&world)).await);
    assert_eq!(anew.code, Code::Unavailable, "{anew:?}");
    assert!(anew.retry_after.is_some());
    assert_eq!(ids(&send(broker.client(), request).await), ids(&first));
    let again = client.revoke(revoke).await.expect("accepted").into_inner();
    assert_eq!(again.job.expect("a job"), revoked);
}

#[tokio::test]
async fn i3_a_revocation_that_is_sent_again_is_the_same_job_before_and_after_its_end() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let (granted, _) = ask::grant(&mut client, reader(&world)).await;
    let request = revocation(&ids(&granted).0);
    let mut jobs = BTreeSet::new();
    for _ in 0..2 {
        let answer = client
            .revoke(request.clone())
            .await
            .expect("accepted")
            .into_inner();
        assert_eq!(answer.matched_grants, 1);
        jobs.insert(answer.job.expect("a job").job_id);
    }
    let job = jobs.first().expect("a job").clone();
    ask::over(&mut client, &job).await;
    let answer = client
        .revoke(request.clone())
        .await
        .expect("accepted")
        .into_inner();
    jobs.insert(answer.job.expect("a job").job_id);
    assert_eq!(jobs.len(), 1, "{jobs:?}");

    // Another revocation of what has ended is answered with the job that ended it, and has ended nothing itself.
    let other = client
        .revoke(revocation(&request.grant_id))
        .await
        .expect("accepted")
        .into_inner();
    assert_eq!(other.matched_grants, 0);
    let other = other.job.expect("a job");
    assert_eq!(other.job_id, job);
    assert_eq!(other.state(), job::State::Succeeded);
    assert!(other.finish_time.is_some());
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 3);
}

#[tokio::test]
async fn i3_a_replay_after_a_failure_tells_of_the_failure_and_does_not_try_again() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let refused = FaultEffect::Status {
        status: 400,
        code: "UnmatchedPrincipalType".to_owned(),
        message: "it is a group".to_owned(),
        retry_after: None,
    };
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentWrite, refused));
    let mut client = broker.client();
    let request = reader(&world);
    let (first, job) = ask::grant(&mut client, request.clone()).await;
    assert_eq!(job.state(), job::State::Failed, "{job:?}");
    world.emulator.clear_faults();
    world.at_rest().await;
    world.emulator.clear_history();
    let again = send(broker.client(), request).await;
    assert_eq!(ids(&again), ids(&first));
    assert_eq!(again.job.expect("a job").state(), job::State::Failed);
    assert_eq!(again.grant.expect("a grant").state(), grant::State::Failed);
    world.at_rest().await;
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);
}
