//! Everything that was decided and done leaves a trace, which whoever may can read, and which cannot be changed without
//! that being found (I10).
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AuditEvent, AzureRole, Grant, GrantRequest, ListAuditEventsRequest, ListAuditEventsResponse,
};
use support::ask::{access, active, lasting, permanent, revocation, revoke, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tokio::process::Command;
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const AUDITOR: Uuid = uuid!("30000000-0000-4000-8000-000000000005");
const STRANGER: Uuid = uuid!("30000000-0000-4000-8000-000000000006");
const HOUR: Duration = Duration::from_hours(1);

struct Office {
    world: World,
    config: PathBuf,
    broker: BrokerProcess,
}

impl Office {
    /// With the policies that the broker brings along.
    async fn open() -> Self {
        let world = World::start().await;
        let config = world.config_of_policies(&Timing::default(), None);
        let broker = BrokerProcess::start(&config).await;
        Self {
            world,
            config,
            broker,
        }
    }

    fn auditor(&self) -> Client {
        self.broker
            .client_with(Some(&token(&self.world.emulator, AUDITOR)))
    }

    fn file(&self) -> PathBuf {
        self.world.dir.path().join("audit.jsonl")
    }

    /// `audit verify` with Redis: whether all is whole, and what it says.
    async fn verified(&self, files: &[&Path]) -> (bool, String) {
        let mut command = verify(files);
        command.arg("--config").arg(&self.config);
        ended(command).await
    }
}

fn verify(files: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"));
    command.arg("audit").arg("verify").args(files);
    command
}

async fn ended(mut command: Command) -> (bool, String) {
    let output = command.output().await.unwrap();
    let told = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    )
}

async fn events(client: &mut Client, request: ListAuditEventsRequest) -> Vec<AuditEvent> {
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAuditEventsRequest {
            page_token,
            ..request.clone()
        };
        let page = client.list_audit_events(request).await.unwrap();
        let ListAuditEventsResponse {
            events: some,
            next_page_token,
        } = page.into_inner();
        events.extend(some);
        if next_page_token.is_empty() {
            return events;
        }
        page_token = next_page_token;
    }
}

fn kinds(events: &[AuditEvent]) -> Vec<(String, &str)> {
    let kinds = events.iter().map(|event| {
        let action = event.action.rsplit("AccessBrokerService/").next().unwrap();
        (action.to_owned(), event.outcome.as_str())
    });
    kinds.collect()
}

/// Something to tell of: a grant that came and went, and a refusal.
async fn a_day(office: &Office) -> Grant {
    let mut platform = office.broker.client();
    let cluster = office.world.cluster("aks-production");
    let wish = GrantRequest {
        justification: "INC-4711".to_owned(),
        on_behalf_of: "bob@contoso.example".to_owned(),
        ..lasting(
            ALICE,
            &cluster,
            access(AzureRole::RbacReader, &["shop"]),
            HOUR,
        )
    };
    let grant = active(&mut platform, wish).await;
    revoke(&mut platform, &grant.grant_id).await;
    let mut stranger = office
        .broker
        .client_with(Some(&token(&office.world.emulator, STRANGER)));
    let refused = stranger
        .grant(permanent(BOB, &cluster, access(AzureRole::RbacReader, &[])))
        .await;
    assert_eq!(Refusal::from(refused).code, Code::PermissionDenied);
    grant
}

#[tokio::test]
async fn i10_whoever_may_reads_what_was_asked_decided_and_done() {
    let office = Office::open().await;
    let (mut auditor, cluster) = (office.auditor(), office.world.cluster("aks-production"));
    let grant = a_day(&office).await;
    let of_grant = ListAuditEventsRequest {
        grant_id: Some(grant.grant_id.clone()),
        ..ListAuditEventsRequest::default()
    };
    let told = events(&mut auditor, of_grant).await;
    // Newest first.
    let expected = [
        ("grant/revoked", "APPLIED"),
        ("Revoke", "ACCEPTED"),
        ("grant/active", "APPLIED"),
        ("Grant", "ACCEPTED"),
    ];
    assert_eq!(
        kinds(&told),
        expected.map(|(action, outcome)| (action.to_owned(), outcome))
    );
    let accepted = told.last().unwrap();
    assert_eq!(accepted.actor, office.world.platform_name());
    assert_eq!(accepted.on_behalf_of, "bob@contoso.example");
    assert_eq!(
        accepted.principal.as_ref().unwrap().object_id,
        ALICE.to_string()
    );
    assert!(accepted.cluster.eq_ignore_ascii_case(&cluster));
    for (name, value) in [
        ("policies", "grant"),
        ("role", "Azure Kubernetes Service RBAC Reader"),
        ("namespaces", "shop"),
        ("end", "after 3600 s"),
        ("justification", "INC-4711"),
    ] {
        assert_eq!(accepted.details[name], value);
    }
    let all = events(&mut auditor, ListAuditEventsRequest::default()).await;
    // What was done in Azure: two assignments came and went.
    let done = all
        .iter()
        .filter(|event| event.action.starts_with("roleAssignments/"));
    let done: Vec<&AuditEvent> = done.collect();
    assert_eq!(done.len(), 4);
    assert!(
        done.iter().all(
            |it| !it.azure_correlation_id.is_empty() && it.details["resource"].starts_with('/')
        )
    );
    // Newest first, each once, under one id each.
    let sequences: Vec<u64> = all.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..=sequences.len() as u64).rev().collect();
    assert_eq!(sequences, expected);
    let ids: BTreeSet<&String> = all.iter().map(|event| &event.event_id).collect();
    assert_eq!(ids.len(), all.len());
}

#[tokio::test]
async fn i10_the_trail_is_searched_and_paged() {
    let office = Office::open().await;
    let (mut auditor, cluster) = (office.auditor(), office.world.cluster("aks-production"));
    a_day(&office).await;
    let all = events(&mut auditor, ListAuditEventsRequest::default()).await;
    let paged = ListAuditEventsRequest {
        page_size: 2,
        ..ListAuditEventsRequest::default()
    };
    let ids = |events: &[AuditEvent]| {
        events
            .iter()
            .map(|it| it.event_id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&events(&mut auditor, paged).await), ids(&all));
    let by_stranger = ListAuditEventsRequest {
        actor: Some(
            all.iter()
                .find(|event| event.outcome == "REFUSED")
                .unwrap()
                .actor
                .clone(),
        ),
        ..ListAuditEventsRequest::default()
    };
    let told = events(&mut auditor, by_stranger).await;
    assert_eq!(kinds(&told), [("Grant".to_owned(), "REFUSED")]);
    let about_bob = ListAuditEventsRequest {
        principal: Some(user(BOB)),
        cluster: Some(cluster.clone()),
        ..ListAuditEventsRequest::default()
    };
    assert_eq!(ids(&events(&mut auditor, about_bob).await), ids(&told));
    let first = all.last().unwrap().time;
    let until_then = ListAuditEventsRequest {
        end_time: first,
        ..ListAuditEventsRequest::default()
    };
    assert_eq!(events(&mut auditor, until_then).await, []);
    let from_then = ListAuditEventsRequest {
        start_time: first,
        ..ListAuditEventsRequest::default()
    };
    assert_eq!(events(&mut auditor, from_then).await.len(), all.len());

    // It is not for those who give and take.
    assert_eq!(
        events(
            &mut office.broker.client(),
            ListAuditEventsRequest::default()
        )
        .await,
        []
    );
    let wrong = ListAuditEventsRequest {
        page_size: -1,
        grant_id: Some("x".to_owned()),
        start_time: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..ListAuditEventsRequest::default()
    };
    Refusal::from(auditor.list_audit_events(wrong).await).names(&[
        "page_size",
        "start_time",
        "grant_id",
    ]);
}

#[tokio::test]
async fn i10_the_trail_is_sealed_exported_and_found_whole() {
    let office = Office::open().await;
    let mut platform = office.broker.client();
    let cluster = office.world.cluster("aks-production");
    for _ in 0..2 {
        let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
        let grant = active(&mut platform, wish).await;
        revoke(&mut platform, &grant.grant_id).await;
    }
    office.world.sealed().await;
    let file = office.file();
    let (is_whole, told) = office.verified(&[&file]).await;
    assert!(is_whole, "{told}");
    let told_twice = events(&mut office.auditor(), ListAuditEventsRequest::default()).await;
    let hash = &told_twice[0].hash;
    assert_eq!(hash.len(), 64);
    assert_eq!(
        told.matches(hash.as_str()).count(),
        2,
        "in Redis and in the file: {told}"
    );
    assert!(told_twice.iter().all(|event| !event.hash.is_empty()));

    // Exported lines, alone: changed, dropped, put elsewhere.
    let lines: Vec<String> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), told_twice.len());
    let other = office.world.dir.path().join("other.jsonl");
    let mut dropped = lines.clone();
    dropped.remove(3);
    let mut reordered = lines.clone();
    reordered.swap(3, 4);
    let mut changed = lines.clone();
    changed[3] = changed[3].replace("aks-production", "aks-elsewhere");
    for (lines, word) in [
        (dropped, "event 4 is missing"),
        (reordered, "event 4 stands behind a later one"),
        (changed, "event 4 is not what was sealed"),
    ] {
        fs::write(&other, lines.join("\n")).unwrap();
        let (is_whole, told) = ended(verify(&[&other])).await;
        assert!(!is_whole && told.contains(word), "{told}");
    }
    // What is missing in the file is missing, whatever Redis has.
    let mut dropped = lines.clone();
    dropped.remove(3);
    fs::write(&other, dropped.join("\n")).unwrap();
    let (is_whole, told) = office.verified(&[&other]).await;
    assert!(!is_whole && told.contains("event 4 is missing"), "{told}");
    // Half a line, and a line twice: of somebody who died while it exported.
    let half = format!(
        "{}\n{{\"chain\":\"ä\n{}\n{}",
        lines[0],
        lines[0],
        lines[1..].join("\n")
    );
    fs::write(&other, half).unwrap();
    let (is_whole, told) = ended(verify(&[&other])).await;
    assert!(is_whole && told.contains("1 lines are no events"), "{told}");
}

/// Somebody with Redis's password tries.
#[tokio::test]
async fn i10_what_somebody_does_to_the_trail_in_redis_is_found() {
    let office = Office::open().await;
    let mut platform = office.broker.client();
    let cluster = office.world.cluster("aks-production");
    let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    active(&mut platform, wish).await;
    office.world.sealed().await;
    let mut connection = office.world.redis.connection().await;
    let key = "{aab:main}:audit:sealed";
    let kept: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(key)
        .arg("-")
        .arg("+")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(kept.len() > 3, "{kept:?}");
    // One event goes; then the last one; then all are written anew with another actor.
    let second = &kept[1].0;
    let _: u64 = redis::cmd("XDEL")
        .arg(key)
        .arg(second)
        .query_async(&mut connection)
        .await
        .unwrap();
    let (is_whole, told) = office.verified(&[]).await;
    assert!(!is_whole && told.contains("event 2 is missing"), "{told}");
    let last = &kept[kept.len() - 1].0;
    let _: u64 = redis::cmd("XDEL")
        .arg(key)
        .arg(last)
        .query_async(&mut connection)
        .await
        .unwrap();
    let (_, told) = office.verified(&[]).await;
    assert!(
        told.contains(&format!("event {} is missing", kept.len())),
        "{told}"
    );
    let _: u64 = redis::cmd("DEL")
        .arg(key)
        .query_async(&mut connection)
        .await
        .unwrap();
    for (id, fields) in &kept {
        let fields = fields
            .iter()
            .map(|it| it.replace("application/40", "application/50"));
        let fields: Vec<String> = fields.collect();
        let _: String = redis::cmd("XADD")
            .arg(key)
            .arg(id)
            .arg(&fields)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    let (is_whole, told) = office.verified(&[]).await;
    assert!(
        !is_whole && told.contains("is not what was sealed"),
        "{told}"
    );
    // What had been exported gives another chain away, whole or not.
    let (_, told) = office.verified(&[&office.file()]).await;
    assert!(told.contains("is not what was sealed"), "{told}");
    // An event that was never sealed.
    let _: u64 = redis::cmd("INCR")
        .arg("{aab:main}:audit:sequence")
        .query_async(&mut connection)
        .await
        .unwrap();
    let (_, told) = office.verified(&[]).await;
    assert!(
        told.contains(&format!("event {} is missing", kept.len() + 1)),
        "{told}"
    );
}

/// While the export does not work nothing of the trail is let go, and the operator hears of it.
#[tokio::test]
async fn i10_what_cannot_be_exported_stays() {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let file = world.dir.path().join("audit.jsonl");
    fs::create_dir(&file).unwrap();
    let log = world.dir.path().join("log");
    let broker = BrokerProcess::start_with_log(&config, &log).await;
    let cluster = world.cluster("aks-production");
    active(
        &mut broker.client(),
        permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[])),
    )
    .await;
    let before = world.trail().await;
    while !fs::read_to_string(&log).unwrap().contains("audit.file") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fs::remove_dir(&file).unwrap();
    world.sealed().await;
    assert_eq!(world.trail().await.len(), before.len());
    let (is_whole, told) = ended(verify(&[&file])).await;
    assert!(is_whole, "{told}");
    assert_eq!(
        fs::read_to_string(&file).unwrap().lines().count(),
        before.len()
    );
}

/// Three replicas, one of them killed: one chain, without a gap.
#[tokio::test]
async fn i10_replicas_seal_one_chain() {
    let office = Office::open().await;
    let others = [
        BrokerProcess::start(&office.config).await,
        BrokerProcess::start(&office.config).await,
    ];
    let cluster = office.world.cluster("aks-production");
    let mut client = others[0].client();
    let grant = active(
        &mut client,
        permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[])),
    )
    .await;
    let Office {
        world,
        config,
        broker,
    } = office;
    // Most likely it is the one that seals.
    broker.kill().await;
    client.revoke(revocation(&grant.grant_id)).await.unwrap();
    world.at_rest().await;
    world.sealed().await;
    let mut command = verify(&[&world.dir.path().join("audit.jsonl")]);
    command.arg("--config").arg(&config);
    let (is_whole, told) = ended(command).await;
    assert!(is_whole, "{told}");
}

/// The callers' own words are in the trail and not in the log, at whatever level operators keep it.
#[tokio::test]
async fn i10_the_log_has_the_trail_without_the_justifications() {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let log = world.dir.path().join("log");
    let mut command = BrokerProcess::command(&config);
    command.env("AKS_ACCESS_BROKER__LOG__FILTER", "info,audit=info");
    command.env("AKS_ACCESS_BROKER__LOG__FORMAT", "json");
    command.stderr(fs::File::create(&log).unwrap());
    let broker = BrokerProcess::start_as(command).await;
    let wish = GrantRequest {
        justification: "the dog ate it".to_owned(),
        ..lasting(
            ALICE,
            &world.cluster("aks-production"),
            access(AzureRole::RbacReader, &[]),
            HOUR,
        )
    };
    active(&mut broker.client(), wish).await;
    world.sealed().await;
    let log = fs::read_to_string(&log).unwrap();
    assert!(!log.contains("the dog ate it"));
    let accepted = log
        .lines()
        .find(|line| line.contains("ACCEPTED"))
        .expect("the event in the log");
    let accepted: serde_json::Value = serde_json::from_str(accepted).unwrap();
    assert_eq!(accepted["target"], "audit");
    assert_eq!(accepted["actor"], world.platform_name());
    assert_eq!(accepted["policies"], "grant");
    assert!(
        fs::read_to_string(world.dir.path().join("audit.jsonl"))
            .unwrap()
            .contains("the dog ate it")
    );
}
