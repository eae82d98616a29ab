//! Whatever callers write into the fields of a request, or send in its stead: they are told what is wrong with it, in a
//! status that any client can read; nothing panics, nothing fails inside, nothing is queued.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "bad_input/extremes.rs"]
mod extremes;
#[path = "bad_input/strategies.rs"]
mod strategies;
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aks_access_broker::grpc::proto::{AzureRole, ListClustersRequest};
use azure_emulator::Operation;
use extremes::Extremes;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use strategies::{Ask, Known, ask};
use support::ask::{access, permanent};
use support::broker::{BrokerProcess, Client};
use support::raw::{RawClient, SERVED, framed};
use support::refusal::Refusal;
use support::{Timing, World};
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
/// Some clients take no more of headers and trailers.
const MOST_OF_A_TRAILER: usize = 8 * 1024;

/// A world in which one grant has been, and none is.
struct Bench {
    runtime: Runtime,
    world: World,
    broker: BrokerProcess,
    log: PathBuf,
    /// The target of the grant that has been.
    gone: String,
    known: Known,
}

impl Bench {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (world, broker, log, known) = runtime.block_on(async {
            let world = World::start().await;
            let log = world.dir.path().join("broker.log");
            let config = world.config_with(&Timing::default(), &[]);
            let broker = BrokerProcess::start_with_log(&config, &log).await;
            let known = known(&world, &mut broker.client()).await;
            (world, broker, log, known)
        });
        let cluster = world.cluster("aks-production").to_lowercase();
        Self {
            gone: format!(":target:{cluster}|{ALICE}"),
            runtime,
            world,
            broker,
            log,
            known,
        }
    }

    /// All that is kept but what goes by itself: traces of claims, and what is known of effects that are gone.
    fn kept(&self) -> BTreeMap<String, Vec<u8>> {
        let mut kept = self.runtime.block_on(self.world.redis.everything());
        kept.retain(|key, _| !key.contains(":claim:") && !key.contains(&self.gone));
        kept
    }

    fn nothing_has_panicked(&self) {
        let log = fs::read_to_string(&self.log).expect("the log");
        assert!(!log.contains("panicked"), "{log}");
    }
}

async fn known(world: &World, client: &mut Client) -> Known {
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let request = permanent(ALICE, &world.cluster("aks-production"), reader);
    let request_id = request.request_id.clone();
    let (granted, job) = support::ask::grant(client, request).await;
    let grant_id = granted.grant.expect("a grant").grant_id;
    let revoked = support::ask::revoke(client, &grant_id).await;
    world.at_rest().await;
    let first = ListClustersRequest {
        page_size: 1,
        ..ListClustersRequest::default()
    };
    let page = client.list_clusters(first).await.expect("a page");
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let token = revoked.consistency_token.clone();
    let (broker, _) = token.split_once('/').expect("whose token it is");
    Known {
        broker: broker.to_owned(),
        // Nothing can be granted on the one, and the other is not there.
        clusters: vec![
            world.cluster("aks-no-entra"),
            world
                .cluster("aks-production")
                .replace("aks-production", "aks-imaginary"),
        ],
        principals: vec![ALICE.to_string(), Uuid::new_v4().to_string()],
        names: owned(&["alice@contoso.example", "nobody@contoso.example"]),
        applications: owned(&["40000000-0000-4000-8000-000000000002"]),
        roles: owned(&[
            "7f6c6a51-bcf8-42ba-9220-52d62157d7db",
            "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8",
            "/providers/Microsoft.Authorization/roleDefinitions/8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
        ]),
        grants: vec![grant_id, Uuid::now_v7().to_string()],
        jobs: vec![job.job_id, revoked.job_id, Uuid::now_v7().to_string()],
        requests: vec![request_id, Uuid::new_v4().to_string()],
        page_tokens: vec![page.into_inner().next_page_token, "00".to_owned()],
    }
}

async fn send(mut client: Client, ask: Ask) -> Result<(), Status> {
    match ask {
        Ask::Grant(request) => client.grant(request).await.map(drop),
        Ask::ExtendGrant(request) => client.extend_grant(request).await.map(drop),
        Ask::Revoke(request) => client.revoke(request).await.map(drop),
        Ask::CheckAccess(request) => client.check_access(request).await.map(drop),
        Ask::BatchCheckAccess(request) => client.batch_check_access(request).await.map(drop),
        Ask::ListAccess(request) => client.list_access(request).await.map(drop),
        Ask::GetJob(request) => client.get_job(request).await.map(drop),
        Ask::ListJobs(request) => client.list_jobs(request).await.map(drop),
        Ask::ListJobTargets(request) => client.list_job_targets(request).await.map(drop),
        Ask::GetGrant(request) => client.get_grant(request).await.map(drop),
        Ask::ListGrants(request) => client.list_grants(request).await.map(drop),
        Ask::GetCluster(request) => client.get_cluster(request).await.map(drop),
        Ask::ListClusters(request) => client.list_clusters(request).await.map(drop),
        Ask::ListAuditEvents(request) => client.list_audit_events(request).await.map(drop),
        Ask::WatchJob(request) => {
            let mut told = client.watch_job(request).await?.into_inner();
            while told.message().await?.is_some() {}
            Ok(())
        }
    }
}

/// So many times proptest's own number of cases (256, or `PROPTEST_CASES`).
fn runner(times: u32) -> TestRunner {
    let defaults = Config::default();
    TestRunner::new(Config {
        cases: defaults.cases * times,
        failure_persistence: None,
        ..defaults
    })
}

/// What a caller may hear of a request of its own that is no good.
fn is_well_formed(status: &Status, by_hand: bool) {
    let refusal = Refusal::of(status);
    let callers = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
    ];
    assert!(
        callers.contains(&refusal.code) || by_hand && refusal.code == Code::Unimplemented,
        "{refusal:?}"
    );
    assert!(!refusal.message.is_empty(), "{refusal:?}");
    // Nobody looks at the fields of a message that is larger than its RPC takes.
    let is_read = !refusal.message.starts_with("the message is larger than");
    if refusal.code == Code::InvalidArgument && !by_hand && is_read {
        assert!(!refusal.fields.is_empty(), "{refusal:?}");
        assert!(refusal.fields.iter().all(|field| !field.is_empty()));
    }
    let headers = status.clone().into_http::<tonic::body::Body>();
    let size: usize = headers
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    assert!(size < MOST_OF_A_TRAILER, "{size} bytes: {refusal:?}");
}

#[test]
fn whatever_is_in_the_fields_of_a_request_is_answered_in_good_form_and_queues_nothing() {
    let bench = Bench::start();
    let mut runner = runner(2);
    let before = RefCell::new(bench.kept());
    // One field has the least or the largest that it can hold.
    let extreme = proptest::option::weighted(0.3, any::<Index>());
    let raw = RawClient::new(&bench.broker);
    let extremes = Extremes::of_the_contract();
    let held = |(ask, extreme): (Ask, Option<Index>)| {
        let extreme = extreme.map(|index| extremes.of(ask.rpc(), index));
        // What is no more can be revoked: by a job of its own, which is over. An extreme may take validate_only away.
        let revokes =
            matches!(&ask, Ask::Revoke(request) if !request.validate_only || extreme.is_some());
        let answer = bench.runtime.block_on(async {
            match extreme {
                None => send(bench.broker.client(), ask).await,
                Some(extreme) => {
                    let body = framed(&[ask.encoded(), extreme.bytes.clone()].concat());
                    raw.refusal(ask.rpc(), body, &[]).await.map_or(Ok(()), Err)
                }
            }
        });
        let after = bench.kept();
        if let Err(status) = &answer {
            is_well_formed(status, false);
        }
        if revokes && answer.is_ok() {
            *before.borrow_mut() = after;
        } else {
            prop_assert!(
                after == *before.borrow(),
                "{answer:?}, and something was changed"
            );
        }
        Ok(())
    };
    runner
        .run(&(ask(&bench.known), extreme), held)
        .unwrap_or_else(|failed| panic!("{failed}"));
    bench.nothing_has_panicked();
    assert_eq!(
        bench.world.count(Operation::RoleAssignmentWrite),
        2,
        "the grant that has been"
    );
}

/// Messages that are none, frames that are none, and encodings that nobody asked for.
#[test]
fn whatever_is_sent_in_a_requests_stead_is_answered_in_good_form_and_queues_nothing() {
    let bench = Bench::start();
    let raw = RawClient::new(&bench.broker);
    let before = bench.kept();
    let mut runner = runner(1);
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let body = prop_oneof![
        3 => bytes().prop_map(|message| framed(&message)),
        // A field of bytes that are no text.
        1 => (1..16_u8, bytes()).prop_map(|(field, text)| {
            let text = &text[..text.len().min(100)];
            let length = u8::try_from(text.len()).expect("at most 100");
            framed(&[&[field << 3 | 2, length][..], text].concat())
        }),
        1 => bytes(),
        1 => Just(Vec::new()),
    ];
    let encoding = proptest::sample::select(&["identity", "gzip", "zstd", "", "\u{e4}"][..]);
    let timeout = proptest::sample::select(&["", "5S", "soon", "-1n", "99999999H"][..]);
    let rpcs = [&SERVED[..], &["NoSuchRpc"]].concat();
    let strategy = (proptest::sample::select(rpcs), body, encoding, timeout);
    let held = |(rpc, body, encoding, timeout): (&str, Vec<u8>, &str, &str)| {
        let headers = [("grpc-encoding", encoding), ("grpc-timeout", timeout)];
        let refused = bench.runtime.block_on(raw.refusal(rpc, body, &headers));
        if let Some(status) = refused {
            is_well_formed(&status, true);
        }
        let after = bench.kept();
        prop_assert!(after == before, "something was kept");
        Ok(())
    };
    runner
        .run(&strategy, held)
        .unwrap_or_else(|failed| panic!("{failed}"));
    bench.nothing_has_panicked();
}
