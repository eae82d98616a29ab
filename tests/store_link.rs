//! The connection to Redis that all calls share: whoever needs a new one gets the same new one, or hears of the same
//! failure, and nobody waits for another's.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the Redis is every test's, and this one needs a part of it"
)]

#[path = "support/redis.rs"]
mod redis_server;

use std::time::Duration;

use aks_access_broker::config::Redis;
use aks_access_broker::domain::ids::GrantId;
use aks_access_broker::store::{Store, StoreError};
use futures::future::join_all;
use redis_server::RedisServer;
use tokio::net::TcpListener;
use uuid::Uuid;

/// More than connect at the same moment by chance.
const CALLERS: usize = 20;

fn store(url: &str) -> Store {
    let settings = Redis {
        url: url.parse().expect("an address"),
        ..Redis::default()
    };
    Store::new(&settings, Duration::from_hours(1)).expect("a store")
}

/// A Redis that takes connections, and swallows all that is sent.
#[tokio::test]
async fn many_callers_share_one_attempt_to_connect_and_its_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(&format!("redis://{}", listener.local_addr().unwrap()));
    let answers = async {
        let grants = join_all((0..CALLERS).map(|_| store.grant(GrantId::new(Uuid::now_v7()))));
        let instances = join_all((0..CALLERS).map(|_| store.instance()));
        let (grants, instances) = tokio::join!(grants, instances);
        let grants = grants.into_iter().filter_map(Result::err);
        let instances = instances.into_iter().filter_map(Result::err);
        grants.chain(instances).collect::<Vec<_>>()
    };
    let mut taken = Vec::new();
    let answers = {
        let mut answers = std::pin::pin!(answers);
        loop {
            tokio::select! {
                answers = &mut answers => break answers,
                connection = listener.accept() => taken.push(connection.unwrap()),
            }
        }
    };
    let away = |error: &&StoreError| matches!(error, StoreError::Unavailable(_));
    assert_eq!(
        answers.iter().filter(away).count(),
        2 * CALLERS,
        "{answers:?}"
    );
    assert_eq!(taken.len(), 1, "connections for {} callers", 2 * CALLERS);

    // The failure is not kept: whoever comes later has an attempt of their own.
    let later = store.instance();
    tokio::select! {
        _ = later => panic!("nobody connected"),
        connection = listener.accept() => drop(connection.unwrap()),
    }
}

/// The one who asked first goes away in the midst; whoever asked meanwhile is not held up by it.
#[tokio::test]
async fn a_caller_that_goes_away_takes_the_attempt_from_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(&format!("redis://{}", listener.local_addr().unwrap()));
    let first = {
        let store = store.clone();
        tokio::spawn(async move { store.instance().await })
    };
    let _taken = listener.accept().await.unwrap();
    first.abort();
    assert!(first.await.expect_err("it was told to go").is_cancelled());
    let error = store.instance().await.expect_err("nobody answers");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let again = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(again.is_err(), "a second attempt was made");
}

#[tokio::test]
async fn many_callers_that_lost_the_connection_make_one_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let redis = RedisServer::start(dir.path(), &[]).await;
    let store = store(&redis.url());
    store.instance().await.expect("Redis is there");
    let mut raw = redis.connection().await;
    for _ in 0..5 {
        let before = connections(&mut raw).await;
        ::redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .exec_async(&mut raw)
            .await
            .unwrap();
        let found = join_all((0..CALLERS).map(|_| store.grant(GrantId::new(Uuid::now_v7())))).await;
        assert!(
            found.iter().all(|found| matches!(found, Ok(None))),
            "{found:?}"
        );
        assert_eq!(connections(&mut raw).await, before + 1);
    }
}

/// How many connections Redis has ever taken.
async fn connections(raw: &mut ::redis::aio::MultiplexedConnection) -> u64 {
    let stats: String = ::redis::cmd("INFO")
        .arg("stats")
        .query_async(raw)
        .await
        .unwrap();
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    line.expect("a count").trim().parse().unwrap()
}
