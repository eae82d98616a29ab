//! Several brokers on one Redis: what one accepted any of them carries out, and all of them tell of.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, Job, WatchJobRequest, job};
use azure_emulator::{Event, Fault, FaultEffect, Operation};
use futures::future::join_all;
use support::ask::{access, permanent, revocation};
use support::broker::Client;
use support::replicas::Replica;
use support::{Timing, World};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How many jobs are under way at once.
const JOBS: usize = 8;

/// Follows a job until it is over, or until the broker that tells of it is gone.
fn watch(mut client: Client, job: &str) -> JoinHandle<Option<Job>> {
    let request = WatchJobRequest {
        job_id: job.to_owned(),
    };
    tokio::spawn(async move {
        let mut told = client.watch_job(request).await.ok()?.into_inner();
        let mut last: Option<Job> = None;
        loop {
            match told.message().await {
                Ok(Some(response)) => last = response.job,
                Ok(None) => return last,
                Err(_) => return None,
            }
        }
    })
}

/// Every one of them was told how its job ended.
async fn all_hear_the_end(watches: Vec<JoinHandle<Option<Job>>>) {
    for heard in join_all(watches).await {
        let job = heard.expect("a watcher").expect("a watch goes on");
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        assert!(job.finish_time.is_some(), "{job:?}");
    }
}

fn changes(events: &[Event]) -> usize {
    let change = |event: &&Event| {
        event.as_call().is_some_and(|call| {
            matches!(
                call.operation,
                Operation::RoleAssignmentWrite | Operation::RoleAssignmentDelete
            )
        })
    };
    events.iter().filter(change).count()
}

/// Grants through one replica, or revokes what `granted` names; gives the ids of grants and jobs.
async fn accept(client: &mut Client, cluster: &str, granted: &[String]) -> Vec<(String, String)> {
    let mut accepted = Vec::new();
    for grant in granted {
        let answer = client.revoke(revocation(grant)).await.expect("accepted");
        let job = answer.into_inner().job.expect("a job").job_id;
        accepted.push((grant.clone(), job));
    }
    while accepted.len() < JOBS {
        let reader = access(AzureRole::RbacReader, &["team-a"]);
        let request = permanent(Uuid::new_v4(), cluster, reader);
        let answer = client.grant(request).await.expect("accepted").into_inner();
        let grant = answer.grant.expect("a grant").grant_id;
        accepted.push((grant, answer.job.expect("a job").job_id));
    }
    accepted
}

/// One replica accepts and is killed while the work is under way; the second stands still meanwhile; the third has to
/// hear the end, and the second when it wakes up. Each replica has each part, for grants and for revocations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_on_every_living_replica_hear_how_a_job_ends() {
    let world = World::start().await;
    let timing = Timing {
        lease: Duration::from_secs(2),
        call_timeout: Duration::from_secs(1),
        settle_time: Duration::from_secs(1),
        ..Timing::default()
    };
    // So that the work is still under way when the replica is killed that accepted it.
    let slow = FaultEffect::Latency {
        delay: Duration::from_millis(100),
    };
    for operation in [
        Operation::RoleAssignmentWrite,
        Operation::RoleAssignmentDelete,
    ] {
        world
            .emulator
            .add_fault(Fault::always(operation, slow.clone()));
    }
    let cluster = world.cluster("aks-production");
    let mut replicas: Vec<Replica> = Replica::three(&world, &timing).await.into();
    for _ in 0..3 {
        let mut granted = Vec::new();
        for _ in ["grants", "revocations"] {
            let [first, second, third] = replicas.try_into().ok().expect("three");
            let before = changes(&world.emulator.history());
            let accepted = accept(&mut first.client(), &cluster, &granted).await;
            let on = |replica: &Replica| -> Vec<_> {
                let watch = |(_, job): &(String, String)| watch(replica.client(), job);
                accepted.iter().map(watch).collect()
            };
            let (on_second, on_third) = (on(&second), on(&third));
            world
                .emulator
                .until(|events| changes(events) > before + JOBS / 2)
                .await;
            second.process.signal("STOP").await;
            let first = first.killed_and_started().await;
            all_hear_the_end(on_third).await;
            second.process.signal("CONT").await;
            all_hear_the_end(on_second).await;
            granted = accepted.into_iter().map(|(grant, _)| grant).collect();
            replicas = vec![first, second, third];
        }
        // Whoever has just woken up is the last to be killed: it may have a last call to report on.
        replicas.rotate_right(1);
    }
    // Another has to put right whatever they still report.
    let _another = world.broker(&timing).await;
    join_all(replicas.into_iter().map(Replica::end)).await;
    world.emulator.quiesce().await;
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}
