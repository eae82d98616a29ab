//! Read your own writes: whoever asks with the token of a finished job is answered with what it did, though Azure's
//! lists will not show that for half a minute; on the replica that did the work and on one that did not.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, BatchCheckAccessRequest, CheckAccessRequest, CheckAccessResponse, Consistency,
    Decision, ListAccessRequest,
};
use azure_emulator::{Fault, FaultEffect, Operation, Settings};
use support::ask::{access, grant, lasting, now, revoke, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");

/// How far the emulator's reads trail its writes: much longer than the test takes.
const READS_TRAIL: Duration = Duration::from_secs(30);

/// Two replicas, in an Azure whose reads trail its writes.
async fn world() -> (World, BrokerProcess, BrokerProcess) {
    let settings = Settings {
        list_lag: READS_TRAIL,
        read_lag: READS_TRAIL,
        ..Settings::immediate()
    };
    let world = World::start_with(settings, 0).await;
    let timing = Timing {
        lag: READS_TRAIL * 2,
        ..Timing::default()
    };
    let worker = world.broker(&timing).await;
    // It carries nothing out: whatever it knows of the work it has heard of.
    let idle = {
        let config = world.config(&timing, &world.redis.url(), &world.emulator.urls().arm);
        let text = std::fs::read_to_string(&config).expect("a configuration");
        let text = text.replace("poll: 20ms", "poll: 1h");
        std::fs::write(&config, text).expect("a configuration");
        BrokerProcess::start(&config).await
    };
    (world, worker, idle)
}

fn question(cluster: &str, token: &str) -> CheckAccessRequest {
    CheckAccessRequest {
        principal: Some(user(ALICE)),
        cluster: cluster.to_owned(),
        access: Some(access(AzureRole::RbacReader, &["team-a"])),
        consistency: Some(Consistency {
            at_least_as_fresh: token.to_owned(),
            ..Consistency::default()
        }),
        ..CheckAccessRequest::default()
    }
}

/// The same, of Azure itself.
fn asked_now(cluster: &str) -> CheckAccessRequest {
    CheckAccessRequest {
        consistency: Some(now()),
        ..question(cluster, "")
    }
}

async fn ask(client: &mut Client, request: CheckAccessRequest) -> CheckAccessResponse {
    client
        .check_access(request)
        .await
        .expect("an answer")
        .into_inner()
}

#[tokio::test]
async fn a_finished_job_is_in_the_next_answer_of_every_replica() {
    let (world, worker, idle) = world().await;
    let cluster = world.cluster("aks-production");
    let (mut worker, mut idle) = (worker.client(), idle.client());
    // Both know by now that she has nothing.
    for client in [&mut worker, &mut idle] {
        assert_eq!(
            ask(client, question(&cluster, "")).await.decision(),
            Decision::Denied
        );
    }
    let hour = Duration::from_hours(1);
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let (accepted, job) = grant(&mut worker, lasting(ALICE, &cluster, reader, hour)).await;
    let granted = accepted.grant.expect("a grant");
    let grant_id = granted.grant_id;
    for client in [&mut idle, &mut worker] {
        let asked = CheckAccessRequest {
            explain: true,
            ..question(&cluster, &job.consistency_token)
        };
        let answer = ask(client, asked).await;
        assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
        assert_eq!(answer.expire_time, granted.expire_time);
        let permission = answer.permission.expect("a layer");
        let [path] = permission.paths.as_slice() else {
            panic!("{permission:?}");
        };
        assert!(path.managed && !path.inherited, "{path:?}");
        assert_eq!(path.grant_id, grant_id);
        assert!(path.scope.ends_with("/namespaces/team-a"), "{path:?}");
        // An answer's token is one as well: a later answer knows at least as much.
        let later = ask(client, question(&cluster, &answer.consistency_token)).await;
        assert_eq!(later.decision(), Decision::Allowed);
    }
    let listed = ListAccessRequest {
        cluster: Some(cluster.clone()),
        principal: Some(user(ALICE)),
        consistency: question("", &job.consistency_token).consistency,
        ..ListAccessRequest::default()
    };
    let listed = idle.list_access(listed).await.expect("a list").into_inner();
    assert_eq!(listed.entries.len(), 2, "{listed:?}");

    let job = revoke(&mut worker, &grant_id).await;
    for client in [&mut idle, &mut worker] {
        let asked = question(&cluster, &job.consistency_token);
        assert_eq!(ask(client, asked).await.decision(), Decision::Denied);
        // Asking Azure now, whose list is behind, does not bring it back either.
        let asked = asked_now(&cluster);
        assert_eq!(ask(client, asked).await.decision(), Decision::Denied);
    }
}

/// Another grant's end is written on what both of them need. However that call ends, it stands.
#[tokio::test]
async fn what_another_grant_writes_again_stays_in_the_answers_meanwhile() {
    let (world, worker, idle) = world().await;
    let cluster = world.cluster("aks-production");
    let (mut worker, mut idle) = (worker.client(), idle.client());
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let hour = Duration::from_hours(1);
    let (_, job) = grant(&mut worker, lasting(ALICE, &cluster, reader, hour)).await;

    hold_writes(&world);
    let other = lasting(
        ALICE,
        &cluster,
        access(AzureRole::RbacReader, &["team-b"]),
        2 * hour,
    );
    worker.grant(other).await.expect("accepted");
    world.emulator.until_held("again", 1).await;
    for token in [job.consistency_token, newest_change(&world).await] {
        for client in [&mut worker, &mut idle] {
            let answer = ask(client, question(&cluster, &token)).await;
            assert_eq!(answer.decision(), Decision::Allowed, "{token}: {answer:?}");
        }
    }
    assert!(world.emulator.release("again") > 0);
}

/// What was taken away, and is given again, is not there before Azure has said so: its lists show what is gone.
#[tokio::test]
async fn what_was_revoked_stays_gone_until_it_is_given_again() {
    let (world, worker, idle) = world().await;
    let cluster = world.cluster("aks-production");
    let (mut worker, mut idle) = (worker.client(), idle.client());
    let hour = Duration::from_hours(1);
    let reader = || access(AzureRole::RbacReader, &["team-a"]);
    let (accepted, _) = grant(&mut worker, lasting(ALICE, &cluster, reader(), hour)).await;
    let listed = Settings {
        list_lag: Duration::ZERO,
        ..world.emulator.settings()
    };
    let trailing = world.emulator.settings();
    world.emulator.set_settings(listed);
    for client in [&mut worker, &mut idle] {
        let asked = asked_now(&cluster);
        assert_eq!(ask(client, asked).await.decision(), Decision::Allowed);
    }
    world.emulator.set_settings(trailing);
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let revoked = revoke(&mut worker, &grant_id).await;

    hold_writes(&world);
    let again = lasting(ALICE, &cluster, reader(), hour);
    worker.grant(again).await.expect("accepted");
    world.emulator.until_held("again", 1).await;
    for token in [revoked.consistency_token, newest_change(&world).await] {
        for client in [&mut worker, &mut idle] {
            let answer = ask(client, question(&cluster, &token)).await;
            assert_eq!(answer.decision(), Decision::Denied, "{token}: {answer:?}");
        }
    }
}

/// An end that was moved is in the answers at once, earlier or later, though the list shows the assignment as it was.
#[tokio::test]
async fn an_end_that_was_moved_is_in_the_next_answer() {
    let (world, worker, idle) = world().await;
    let cluster = world.cluster("aks-production");
    let (mut worker, mut idle) = (worker.client(), idle.client());
    let hour = Duration::from_hours(1);
    let reader = || access(AzureRole::RbacReader, &["team-a"]);
    let (short, _) = grant(&mut worker, lasting(ALICE, &cluster, reader(), hour)).await;
    let (long, _) = grant(&mut worker, lasting(ALICE, &cluster, reader(), 2 * hour)).await;
    let [short, long] = [short, long].map(|accepted| accepted.grant.expect("a grant"));
    world.emulator.set_settings(Settings {
        list_lag: Duration::ZERO,
        ..world.emulator.settings()
    });
    let fresh = asked_now(&cluster);
    for client in [&mut worker, &mut idle] {
        assert_eq!(
            ask(client, fresh.clone()).await.expire_time,
            long.expire_time
        );
    }
    world.emulator.set_settings(Settings {
        list_lag: READS_TRAIL,
        ..world.emulator.settings()
    });
    let revoked = revoke(&mut worker, &long.grant_id).await;
    for client in [&mut worker, &mut idle] {
        let answer = ask(client, question(&cluster, &revoked.consistency_token)).await;
        assert_eq!(answer.expire_time, short.expire_time, "{answer:?}");
    }
}

/// The cluster took everything with it, and Azure's list still shows what was there.
#[tokio::test]
async fn a_revocation_that_found_no_cluster_any_more_is_in_the_answers() {
    let (world, worker, idle) = world().await;
    let cluster = world.cluster("aks-production");
    let (mut worker, mut idle) = (worker.client(), idle.client());
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let request = lasting(ALICE, &cluster, reader, Duration::from_hours(1));
    let (accepted, granted) = grant(&mut worker, request).await;
    for client in [&mut worker, &mut idle] {
        let asked = question(&cluster, &granted.consistency_token);
        assert_eq!(ask(client, asked).await.decision(), Decision::Allowed);
    }
    world.emulator.set_settings(Settings {
        read_lag: Duration::ZERO,
        ..world.emulator.settings()
    });
    world
        .emulator
        .delete_cluster(&cluster)
        .expect("it is deleted");
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let revoked = revoke(&mut worker, &grant_id).await;
    for client in [&mut worker, &mut idle] {
        let asked = question(&cluster, &revoked.consistency_token);
        let answer = ask(client, asked).await;
        assert_eq!(answer.decision(), Decision::Denied, "{answer:?}");
    }
}

/// What is damaged is of one cluster: nothing is said of it, and everything of all others.
#[tokio::test]
async fn i9_a_record_that_cannot_be_read_stops_one_cluster_alone() {
    let (world, worker, _idle) = world().await;
    let (damaged, other) = (
        world.cluster("aks-production"),
        world.cluster("aks-development"),
    );
    let mut client = worker.client();
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let hour = Duration::from_hours(1);
    for cluster in [&damaged, &other] {
        grant(&mut client, lasting(ALICE, cluster, reader.clone(), hour)).await;
    }
    let target = format!("{}|{ALICE}", damaged.to_lowercase());
    let mut redis = world.redis.connection().await;
    let mut harm = redis::pipe();
    harm.hset(
        format!("{{aab:main}}:target:{target}"),
        "e:odd",
        b"\xff\xfe",
    )
    .cmd("XADD")
    .arg(&["{aab:main}:events", "*", "target", &target]);
    let _: redis::Value = harm.query_async(&mut redis).await.expect("it is done");
    let token = newest_change(&world).await;
    let refusal = Refusal::from(client.check_access(question(&damaged, &token)).await);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::Internal, "STORE_UNREADABLE")
    );
    let answer = ask(&mut client, question(&other, &token)).await;
    assert_eq!(answer.decision(), Decision::Allowed);
    let of_alice = ListAccessRequest {
        principal: Some(user(ALICE)),
        ..ListAccessRequest::default()
    };
    let listed = client.list_access(of_alice).await.expect("a list");
    let listed = listed.into_inner();
    assert_eq!(listed.unreachable, [damaged.to_lowercase()]);
    assert_eq!(listed.entries.len(), 2, "{listed:?}");
}

/// From here on what is written waits, until `again` is released.
fn hold_writes(world: &World) {
    let effect = FaultEffect::Hold {
        name: "again".to_owned(),
    };
    let held = Fault::always(Operation::RoleAssignmentWrite, effect);
    world.emulator.add_fault(held);
}

/// A position in the broker's changes behind all that it has done.
/// What tells this broker from others.
async fn instance(world: &World) -> String {
    let mut redis = world.redis.connection().await;
    redis::cmd("HGET")
        .arg(&["{aab:main}:meta", "instance"])
        .query_async(&mut redis)
        .await
        .expect("the broker's instance id")
}

async fn newest_change(world: &World) -> String {
    let broker = instance(world).await;
    let mut redis = world.redis.connection().await;
    let newest: Vec<(String, Vec<String>)> = redis::cmd("XREVRANGE")
        .arg(&["{aab:main}:events", "+", "-", "COUNT", "1"])
        .query_async(&mut redis)
        .await
        .expect("the newest change");
    format!("{broker}/{}", newest[0].0)
}

#[tokio::test]
async fn a_replica_that_starts_afterwards_knows_it_as_well() {
    let (world, worker, idle) = world().await;
    let cluster = world.cluster("aks-production");
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let request = lasting(ALICE, &cluster, reader, Duration::from_hours(1));
    let (_, job) = grant(&mut worker.client(), request).await;
    idle.kill().await;
    worker.kill().await;
    let timing = Timing {
        lag: READS_TRAIL * 2,
        ..Timing::default()
    };
    let late = world.broker(&timing).await;
    let asked = question(&cluster, &job.consistency_token);
    let answer = ask(&mut late.client(), asked).await;
    assert_eq!(answer.decision(), Decision::Allowed);
}

#[tokio::test]
async fn a_token_that_nothing_leads_to_is_refused_in_good_time() {
    let (world, worker, _idle) = world().await;
    let cluster = world.cluster("aks-production");
    let broker = instance(&world).await;
    let asked = question(&cluster, &format!("{broker}/99999999999999-0"));
    let refusal = Refusal::from(worker.client().check_access(asked).await);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::Unavailable, "NOT_FRESH_ENOUGH")
    );
}

/// A place in one broker's changes says nothing about another's: there it may be long past, and the answer would be old
/// without a word.
#[tokio::test]
async fn a_token_of_another_broker_is_refused_by_everything_that_takes_one() {
    let (world, here, _idle) = world().await;
    let elsewhere = World::start().await;
    let there = elsewhere.broker(&Timing::default()).await;
    let cluster = world.cluster("aks-production");
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let request = lasting(ALICE, &cluster, reader, Duration::from_hours(1));
    let (_, job) = grant(&mut there.client(), request).await;
    let answered = ask(&mut there.client(), question(&cluster, "")).await;
    let mut client = here.client();
    for token in [job.consistency_token, answered.consistency_token] {
        assert!(token.len() > 40, "{token:?}");
        let consistency = question(&cluster, &token).consistency;
        let one = question(&cluster, &token);
        let many = BatchCheckAccessRequest {
            requests: vec![question_without(&cluster)],
            consistency: consistency.clone(),
            ..BatchCheckAccessRequest::default()
        };
        let list = ListAccessRequest {
            cluster: Some(cluster.clone()),
            consistency,
            ..ListAccessRequest::default()
        };
        for refusal in [
            Refusal::from(client.check_access(one.clone()).await),
            Refusal::from(client.batch_check_access(many).await),
            Refusal::from(client.list_access(list).await),
        ] {
            refusal.names(&["consistency.at_least_as_fresh"]);
            assert!(refusal.message.contains("instance id"), "{refusal:?}");
        }
        // Its own broker takes it.
        ask(&mut there.client(), one).await;
    }
}

fn question_without(cluster: &str) -> CheckAccessRequest {
    CheckAccessRequest {
        consistency: None,
        ..question(cluster, "")
    }
}
