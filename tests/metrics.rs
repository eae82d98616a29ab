//! What the broker counts, read over HTTP as Prometheus reads it.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use support::broker::BrokerProcess;
use support::{Timing, World};
use tokio::time::{sleep, timeout};

/// Starts a broker that serves its metrics, and gives their address.
async fn with_metrics(world: &World) -> (BrokerProcess, String) {
    let config = world.config_with(&Timing::default(), &[]);
    let log = world.dir.path().join("broker.log");
    let mut command = BrokerProcess::command(&config);
    command
        .env("AKS_ACCESS_BROKER__METRICS__LISTEN", "127.0.0.1:0")
        .env("AKS_ACCESS_BROKER__LOG__FILTER", "info")
        .env("AKS_ACCESS_BROKER__LOG__FORMAT", "json")
        .stderr(fs::File::create(&log).unwrap());
    let broker = BrokerProcess::start_as(command).await;
    let address = metrics_address(&log);
    (broker, format!("http://{address}"))
}

fn metrics_address(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut addresses = lines
        .filter(|line| line["message"] == "serving metrics at /metrics")
        .map(|line| line["address"].as_str().unwrap().to_owned());
    addresses.next().unwrap()
}

fn http() -> Client {
    let patience = Duration::from_secs(10);
    Client::builder().timeout(patience).build().unwrap()
}

/// The value of a metric with these labels, as one scrape tells it; none if the metric is not there.
async fn scraped(address: &str, row: &str) -> Option<u64> {
    let answer = http().get(format!("{address}/metrics")).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let content_type = answer.headers()["content-type"].to_str().unwrap();
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    let text = answer.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(row))?;
    Some(value.trim().parse().unwrap())
}

#[tokio::test]
async fn i6_an_entry_that_a_loop_skips_is_counted() {
    let world = World::start().await;
    let (_broker, address) = with_metrics(&world).await;
    let row = "aks_access_broker_skipped_entries_total{loop=\"wake\"}";
    assert_eq!(scraped(&address, row).await, None);
    let mut connection = world.redis.connection().await;
    redis::cmd("ZADD")
        .arg(&["{aab:main}:due", "1", "gibberish"])
        .exec_async(&mut connection)
        .await
        .unwrap();
    let counted = async {
        loop {
            if let Some(count) = scraped(&address, row).await {
                return count;
            }
            // A scrape is all that a Prometheus has: it cannot wait for a change.
            sleep(Duration::from_millis(20)).await;
        }
    };
    let counted = timeout(Duration::from_secs(20), counted).await;
    assert_eq!(counted.expect("it is counted"), 1);
}

#[tokio::test]
async fn only_the_metrics_are_served_on_their_port() {
    let world = World::start().await;
    let (_broker, address) = with_metrics(&world).await;
    let http = http();
    for (method, path, expected) in [
        (Method::GET, "/metrics", StatusCode::OK),
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/metrics/", StatusCode::NOT_FOUND),
        (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let url = format!("{address}{path}");
        let answer = http.request(method.clone(), url).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{method} {path}");
    }
}
