//! Health follows Redis within seconds, the name `live` does not, and the log says once that Redis is away and once that
//! it is back.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use aks_access_broker::grpc::proto::GetGrantRequest;
use support::broker::BrokerProcess;
use support::{Timing, World};
use tokio::time::timeout;
use uuid::Uuid;

/// How long health may take to say the truth. A call to a Redis that hangs waits for five seconds, and its second try
/// for two more.
const SECONDS: Duration = Duration::from_secs(20);

/// A broker that logs everything but details into a file.
async fn broker(world: &World, log: &Path) -> BrokerProcess {
    let config = world.config_with(&Timing::default(), &[]);
    let mut command = BrokerProcess::command(&config);
    command
        .env("AKS_ACCESS_BROKER__LOG__FILTER", "info")
        .stderr(fs::File::create(log).expect("the log's file"));
    BrokerProcess::start_as(command).await
}

/// The lines of a log from `warn` up, and those that tell of Redis's return.
fn told(log: &Path) -> (Vec<String>, usize) {
    let log = fs::read_to_string(log).expect("the log");
    let of_trouble = |line: &&str| line.contains(" WARN ") || line.contains("ERROR");
    let trouble = log.lines().filter(of_trouble).map(str::to_owned).collect();
    (trouble, log.matches("Redis is back").count())
}

/// Calls of callers, each of which asks Redis.
async fn ask_often(broker: &BrokerProcess) {
    let mut client = broker.client();
    for _ in 0..50 {
        let asked = GetGrantRequest {
            grant_id: Uuid::new_v4().to_string(),
        };
        client.get_grant(asked).await.expect_err("no such grant");
    }
}

#[tokio::test]
async fn health_and_the_log_say_once_that_redis_is_away_and_once_that_it_is_back() {
    let mut world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let broker = broker(&world, &log).await;
    for round in 1..=2 {
        world.redis.kill().await;
        let not_serving = timeout(SECONDS, broker.until_not_serving()).await;
        not_serving.expect("health says that Redis is away");
        let why = broker.why_not_serving().await.expect("health says why");
        assert!(why.contains("Redis is away"), "{why}");
        assert!(broker.is_live().await);
        ask_often(&broker).await;
        let (trouble, back) = told(&log);
        assert_eq!(trouble.len(), round, "{trouble:#?}");
        assert!(trouble[round - 1].contains("Redis is away"), "{trouble:?}");
        assert_eq!(back, round - 1);

        world.redis.start_again().await;
        let serving = timeout(SECONDS, broker.until_serving()).await;
        serving.expect("health says that Redis is back");
        assert_eq!(broker.why_not_serving().await, None);
        ask_often(&broker).await;
        let (trouble, back) = told(&log);
        assert_eq!((trouble.len(), back), (round, round), "{trouble:#?}");
    }
}

#[tokio::test]
async fn a_redis_that_hangs_is_away_as_well() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let broker = broker(&world, &log).await;
    world.redis.signal("STOP").await;
    let not_serving = timeout(SECONDS, broker.until_not_serving()).await;
    not_serving.expect("health says that Redis is away");
    assert!(broker.is_live().await);
    world.redis.signal("CONT").await;
    let serving = timeout(SECONDS, broker.until_serving()).await;
    serving.expect("health says that Redis is back");
}

/// It answers reads, and none of what the broker would write lasts.
#[tokio::test]
async fn a_redis_that_takes_no_writes_is_away_and_does_not_come_and_go() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let broker = broker(&world, &log).await;
    // As after a failover, when this server has become a replica: of a master that is not there.
    world.redis.tell("REPLICAOF 127.0.0.1 1").await;
    let not_serving = timeout(SECONDS, broker.until_not_serving()).await;
    not_serving.expect("health says that Redis is away");
    for _ in 0..4 {
        ask_often(&broker).await;
        assert!(!broker.is_serving().await);
    }
    let (trouble, back) = told(&log);
    assert_eq!((trouble.len(), back), (1, 0), "{trouble:#?}");
    world.redis.tell("REPLICAOF NO ONE").await;
    let serving = timeout(SECONDS, broker.until_serving()).await;
    serving.expect("health says that Redis is back");
}
