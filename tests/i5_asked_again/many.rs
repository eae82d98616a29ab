//! Very many grants that are already REVOKING: the script stays bounded, and all live grants end all the same.

use aks_access_broker::config;
use aks_access_broker::domain::ids::{ClusterId, GrantId};
use aks_access_broker::grpc::proto::{GrantSelector, RevokeRequest, job};
use aks_access_broker::store::{NewRevocation, Revoked, Store};
use futures::{StreamExt, stream};

use super::bench;
use super::{Timing, World, ask, revocation_of, revoked, waits};

/// How many REVOKING grants one job waits for.
const BOUND: u128 = 1_000;

/// Accepts this many grants, each for another principal, as a broker would.
async fn accept(store: &Store, cluster: &ClusterId, principals: Vec<u128>) -> Vec<GrantId> {
    let accept = async |principal| {
        let mut new = bench::reader(principal);
        new.target.cluster = cluster.clone();
        // The cluster's uid is unknown, so the broker does not take the cluster for another one.
        new.cluster_uid = String::new();
        store.accept_grant(&new).await.unwrap();
        new.grant
    };
    let accepted = stream::iter(principals).map(accept).buffer_unordered(64);
    accepted.collect().await
}

/// Makes the grants REVOKING, with their targets in no queue. They stay so until a request is about their targets.
async fn are_revoking(world: &World, store: &Store, grants: Vec<GrantId>) {
    let revocation = NewRevocation {
        grants: Revoked::Selected(grants.clone()),
        ..bench::revocation(grants[0])
    };
    store.accept_revocation(&revocation).await.unwrap();
    let mut connection = world.redis.connection().await;
    let queues: Vec<String> = redis::cmd("KEYS")
        .arg("{aab:main}:ready:*")
        .query_async(&mut connection)
        .await
        .expect("the queues");
    assert_eq!(queues.len(), 1);
    world.redis.tell(&format!("DEL {}", queues[0])).await;
}

#[tokio::test]
async fn i5_live_grants_end_even_if_very_many_others_are_already_revoking() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let settings = config::Redis {
        url: world.redis.url().parse().unwrap(),
        ..config::Redis::default()
    };
    let store = Store::new(&settings, bench::RETENTION).unwrap();
    let id = ClusterId::parse(&cluster).unwrap();
    let going = accept(&store, &id, (1..=BOUND + 2).collect()).await;
    are_revoking(&world, &store, going).await;
    let live = accept(&store, &id, vec![BOUND + 3]).await;

    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let everything_here = || RevokeRequest {
        max_grants: 1,
        ..revocation_of(GrantSelector {
            cluster: Some(cluster.clone()),
            ..GrantSelector::default()
        })
    };
    let answer = revoked(&mut client, everything_here()).await;
    assert_eq!((answer.matched_grants, answer.left_grants), (1, 2));
    let job = answer.job.expect("a job");
    assert_eq!(job.total_targets, 1_001, "the live one, and 1,000 others");
    let job = ask::over(&mut client, &job.job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let ended = store.grant(live[0]).await.unwrap().expect("it is kept");
    assert!(ended.end_time.is_some(), "{ended:?}");

    // The caller was told that two are left, and asks again.
    let rest = waits(&revoked(&mut client, everything_here()).await);
    assert_eq!(rest.total_targets, 2);
    let rest = ask::over(&mut client, &rest.job_id).await;
    assert_eq!(rest.state(), job::State::Succeeded, "{rest:?}");
}
