//! What a stranger leaves in the audit log by asking for what it may not have: little, and all of it counted.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, GrantRequest, ListAuditEventsRequest};
use serde_json::Value;
use support::ask::{access, lasting};
use support::broker::BrokerProcess;
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const AUDITOR: Uuid = uuid!("30000000-0000-4000-8000-000000000005");
const STRANGER: Uuid = uuid!("30000000-0000-4000-8000-000000000006");
/// The most that the event of a refusal takes, in bytes.
const SHORT: usize = 2_000;

/// A broker with its own policies, and with two events of a caller's refusals each minute.
async fn world() -> (World, BrokerProcess) {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let text = fs::read_to_string(&config).unwrap();
    let few = text.replace("refusals_per_minute: 1000000", "refusals_per_minute: 2");
    assert_ne!(few, text);
    fs::write(&config, few).unwrap();
    let broker = BrokerProcess::start(&config).await;
    (world, broker)
}

/// As wordy as a request may be.
fn wordy(world: &World) -> GrantRequest {
    let namespaces: Vec<String> = (0..20).map(|n| format!("{n:0>63}")).collect();
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let cluster = world.cluster("aks-production");
    GrantRequest {
        justification: "ä".repeat(1_000),
        ..lasting(
            ALICE,
            &cluster,
            access(AzureRole::RbacReader, &namespaces),
            Duration::from_hours(1),
        )
    }
}

fn refused(trail: &[Value]) -> Vec<&Value> {
    let refused = trail.iter().filter(|event| event["outcome"] == "REFUSED");
    refused.collect()
}

#[tokio::test]
async fn i10_a_strangers_refusals_are_short_and_beyond_some_a_minute_counted() {
    let (world, broker) = world().await;
    let mut stranger = broker.client_with(Some(&token(&world.emulator, STRANGER)));
    for _ in 0..20 {
        let refusal = Refusal::from(stranger.grant(wordy(&world)).await);
        let expected = (Code::PermissionDenied, "PERMISSION_DENIED");
        assert_eq!(refusal.kind(), expected, "{refusal:?}");
    }
    let trail = world.trail().await;
    let events = refused(&trail);
    assert_eq!(events.len(), 2);
    for event in events {
        let text = event.to_string();
        assert!(text.len() <= SHORT, "{} bytes", text.len());
        let justification = event["details"]["justification"].as_str().unwrap();
        assert!(justification.starts_with('ä') && justification.ends_with('…'));
    }
    // The stranger's minute is over: the sealer tells how many there were.
    let counts = "{aab:main}:audit:counts";
    let mut raw = world.redis.connection().await;
    let callers: Vec<String> = redis::cmd("ZRANGE")
        .arg(&[counts, "0", "-1"])
        .query_async(&mut raw)
        .await
        .unwrap();
    assert_eq!(callers.len(), 1);
    let caller = &callers[0];
    let over: redis::RedisResult<u8> = redis::cmd("ZADD")
        .arg(&[counts, "1", caller])
        .query_async(&mut raw)
        .await;
    over.unwrap();
    let counted = loop {
        let trail = world.trail().await;
        let mut events = trail.into_iter();
        if let Some(counted) = events.find(|event| event["action"] == "audit/refusals") {
            break counted;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(counted["actor"], caller.as_str());
    assert_eq!(counted["details"]["refused"], "18");
    // Auditors read it like any other event.
    world.sealed().await;
    let mut auditor = broker.client_with(Some(&token(&world.emulator, AUDITOR)));
    let request = ListAuditEventsRequest {
        actor: Some(caller.clone()),
        ..ListAuditEventsRequest::default()
    };
    let page = auditor.list_audit_events(request).await.unwrap();
    let actions = page.into_inner().events.into_iter();
    let actions: Vec<String> = actions.map(|event| event.action).collect();
    let rpc = "aks.access.v1.AccessBrokerService/Grant";
    assert_eq!(actions, ["audit/refusals", rpc, rpc]);
}
