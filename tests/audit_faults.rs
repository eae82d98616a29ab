//! The audit log keeps everything that was decided and done, even if an answer is lost or an entry cannot be read
//! (I10).
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AuditEvent, AzureRole, Grant, ListAuditEventsRequest};
use redis::aio::MultiplexedConnection;
use support::ask::{access, active, permanent, revoke};
use support::broker::BrokerProcess;
use support::proxy::{Held, Proxy, Trigger};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tokio::process::Command;
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const AUDITOR: Uuid = uuid!("30000000-0000-4000-8000-000000000005");
const STRANGER: Uuid = uuid!("30000000-0000-4000-8000-000000000006");
const WAITING: &str = "{aab:main}:audit";
const SEALED: &str = "{aab:main}:audit:sealed";

/// A broker with the policies that it brings along, and its log file.
struct Office {
    world: World,
    config: PathBuf,
    log: PathBuf,
    broker: BrokerProcess,
    redis: MultiplexedConnection,
}

impl Office {
    async fn open() -> Self {
        let world = World::start().await;
        let config = world.config_of_policies(&Timing::default(), None);
        let log = world.dir.path().join("broker.log");
        Self {
            broker: BrokerProcess::start_with_log(&config, &log).await,
            redis: world.redis.connection().await,
            world,
            config,
            log,
        }
    }

    async fn active_grant(&self) -> Grant {
        let cluster = self.world.cluster("aks-production");
        let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
        active(&mut self.broker.client(), wish).await
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &str, words: &[&[u8]]) -> T {
        let asked = redis::cmd(command).arg(words).to_owned();
        asked.query_async(&mut self.redis).await.unwrap()
    }

    /// The events about one grant that the auditor finds, newest first.
    async fn told_of(&self, grant: &Grant) -> Vec<AuditEvent> {
        let auditor = token(&self.world.emulator, AUDITOR);
        let asked = ListAuditEventsRequest {
            grant_id: Some(grant.grant_id.clone()),
            page_size: 1_000,
            ..ListAuditEventsRequest::default()
        };
        let mut client = self.broker.client_with(Some(&auditor));
        let page = client.list_audit_events(asked).await.expect("an answer");
        page.into_inner().events
    }

    async fn until_logged(&self, words: &str) {
        while !fs::read_to_string(&self.log).unwrap().contains(words) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `audit verify` on Redis, and on the file if asked. Returns whether all is whole, and the output.
    async fn verified(&self, with_file: bool) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"));
        command.arg("audit").arg("verify");
        if with_file {
            command.arg(self.world.dir.path().join("audit.jsonl"));
        }
        command.arg("--config").arg(&self.config);
        let output = command.output().await.unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        (output.status.success(), told)
    }
}

fn actions(events: &[AuditEvent]) -> Vec<&str> {
    let actions = events.iter().map(|event| event.action.as_str());
    actions
        .map(|it| it.rsplit("AccessBrokerService/").next().unwrap())
        .collect()
}

/// The connection breaks after Redis has written the refusal, and before the answer arrives. The broker sends it again.
#[tokio::test]
async fn i10_a_refusal_whose_answer_was_lost_is_in_the_audit_log_once() {
    let world = World::start().await;
    let trigger: Trigger = Arc::new(|sent: &[u8]| {
        let sent = String::from_utf8_lossy(sent);
        sent.contains("REFUSED")
    });
    let redis = ([127, 0, 0, 1], world.redis.port()).into();
    let proxy = Proxy::start(redis, Held::Cut, trigger).await;
    let config = world.config_of_policies(&Timing::default(), None);
    let text = fs::read_to_string(&config).unwrap();
    let through_the_proxy = format!("redis://{}", proxy.address());
    fs::write(
        &config,
        text.replace(&world.redis.url(), &through_the_proxy),
    )
    .unwrap();
    let broker = BrokerProcess::start(&config).await;

    let stranger = token(&world.emulator, STRANGER);
    let mut stranger = broker.client_with(Some(&stranger));
    let cluster = world.cluster("aks-production");
    let mut is_refused = async || {
        let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
        let refusal = Refusal::from(stranger.grant(wish).await);
        assert_eq!(refusal.code, Code::PermissionDenied);
    };
    // After the first refusal, Redis knows the script.
    is_refused().await;
    assert_eq!(world.refusals().await.len(), 1);
    proxy.arm();
    is_refused().await;
    proxy.until_cut().await;
    let refusals = world.refusals().await;
    assert_eq!(refusals.len(), 2, "{refusals:?}");
}

/// One entry is an event that was damaged, the other was never an event.
#[tokio::test]
async fn i10_unreadable_entries_stop_neither_the_sealer_nor_a_list_and_are_reported() {
    let mut office = Office::open().await;
    let grant = office.active_grant().await;
    let lost: u64 = office.ask("INCR", &[b"{aab:main}:audit:sequence"]).await;
    let sequence = lost.to_string();
    let damaged: String = office
        .ask(
            "XADD",
            &[
                WAITING.as_bytes(),
                b"*",
                b"sequence",
                sequence.as_bytes(),
                b"event",
                b"{\"secret\":\"\xff\"}",
            ],
        )
        .await;
    let strange: String = office
        .ask("XADD", &[WAITING.as_bytes(), b"*", b"no", b"event"])
        .await;
    revoke(&mut office.broker.client(), &grant.grant_id).await;
    office.world.sealed().await;

    let told = office.told_of(&grant).await;
    let aside: Vec<&AuditEvent> = told
        .iter()
        .filter(|event| event.action == "audit/damaged")
        .collect();
    assert_eq!(aside.len(), 2, "{told:#?}");
    assert_eq!(told.len(), 4 + 2, "{:?}", actions(&told));
    for (event, entry) in aside.iter().rev().zip([&damaged, &strange]) {
        assert_eq!(&event.details["entry"], entry);
        assert!(!event.hash.is_empty() && !event.details["problem"].is_empty());
        office.until_logged(entry).await;
    }
    assert_eq!(aside[1].details["sequence"], sequence);
    for with_file in [false, true] {
        let (is_whole, told) = office.verified(with_file).await;
        assert!(!is_whole, "{told}");
        let place = format!("place {sequence}, entry {damaged} in Redis");
        assert!(told.contains(&place) && told.contains(&strange), "{told}");
        assert!(told.contains("audit:damaged"), "{told}");
        for word in ["missing", "sealed behind", "secret"] {
            assert!(!told.contains(word), "{word}: {told}");
        }
    }
    let kept: usize = office.ask("XLEN", &[b"{aab:main}:audit:damaged"]).await;
    assert_eq!(kept, 2);
}

/// A sealed entry is damaged. No answer leaves it out without saying so, and no other entry is lost.
#[tokio::test]
async fn i10_a_damaged_sealed_entry_is_reported_by_lists_and_by_verify() {
    let mut office = Office::open().await;
    let grant = office.active_grant().await;
    office.world.sealed().await;
    let before = office.told_of(&grant).await.len();
    let kept: Vec<(Vec<u8>, Vec<Vec<u8>>)> =
        office.ask("XRANGE", &[SEALED.as_bytes(), b"-", b"+"]).await;
    let _: u64 = office.ask("DEL", &[SEALED.as_bytes()]).await;
    for (n, (id, fields)) in kept.iter().enumerate() {
        let mut words = vec![SEALED.as_bytes(), id];
        let mut fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        let of_event = fields.iter().position(|field| *field == b"event").unwrap();
        if n == 1 {
            fields[of_event + 1] = b"\xff";
        }
        words.extend(fields);
        let _: String = office.ask("XADD", &words).await;
    }
    let told = office.told_of(&grant).await;
    let unreadable = told.iter().find(|event| event.action == "unreadable");
    let entry = String::from_utf8(kept[1].0.clone()).unwrap();
    assert_eq!(unreadable.expect("it is told").details["entry"], entry);
    assert!(told.len() >= before, "{:?}", actions(&told));
    office.until_logged(&entry).await;
    let (is_whole, told) = office.verified(false).await;
    assert!(!is_whole, "{told}");
    let expected = format!("place 2, entry {entry} in Redis, cannot be read");
    assert!(told.contains(&expected), "{told}");
    assert!(!told.contains("missing"), "{told}");
}

/// An entry of a newer broker is not damaged. It waits for a broker that can read it, and lists show it.
#[tokio::test]
async fn i10_an_entry_of_a_newer_broker_stays_and_lists_report_it() {
    let mut office = Office::open().await;
    let grant = office.active_grant().await;
    office.world.sealed().await;
    let newer: String = office
        .ask("XADD", &[WAITING.as_bytes(), b"*", b"v", b"2", b"x", b"y"])
        .await;
    revoke(&mut office.broker.client(), &grant.grant_id).await;
    office.until_logged("a newer broker has to seal it").await;
    let told = office.told_of(&grant).await;
    let unreadable = told.iter().find(|event| event.action == "unreadable");
    assert_eq!(unreadable.expect("it is told").details["entry"], newer);
    assert_eq!(actions(&told)[..2], ["grant/revoked", "Revoke"]);
    let waiting: usize = office.ask("XLEN", &[WAITING.as_bytes()]).await;
    assert!(waiting > 1, "nothing behind it is sealed");

    let _: u64 = office
        .ask("XDEL", &[WAITING.as_bytes(), newer.as_bytes()])
        .await;
    office.world.sealed().await;
    let (is_whole, told) = office.verified(true).await;
    assert!(is_whole, "{told}");
}
