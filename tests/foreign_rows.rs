//! What others have costs a caller nothing: a page reads at most so many records, and a caller that sees only its own reads
//! its own. Counted in Redis's own commands, so that a slow machine changes nothing.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aks_access_broker::config::Redis;
use aks_access_broker::domain::access::{Access, Principal, PrincipalType};
use aks_access_broker::domain::grant::Expiry;
use aks_access_broker::domain::ids::{ClusterId, GrantId, JobId, PrincipalId, RequestId, TargetId};
use aks_access_broker::domain::role::{BuiltInRole, Role};
use aks_access_broker::grpc::proto::{
    AzureRole, GrantSelector, ListAuditEventsRequest, ListGrantsRequest, ListJobsRequest, grant,
    job,
};
use aks_access_broker::store::{End, NewGrant, RequestKey, Store};
use futures::StreamExt;
use support::ask::{revocation_of, revoked};
use support::broker::{BrokerProcess, Client};
use support::{Timing, World, token};
use uuid::{Uuid, uuid};

const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const AUDITOR: Uuid = uuid!("30000000-0000-4000-8000-000000000005");
const FEW: usize = 1_000;
const MANY: usize = 8_000;
/// The bound on one page, and a little for the page's own.
const MOST_READ: u64 = 1_000;
const SOME: u64 = 60;

/// What reads a record, an entry of a list, or some of a stream.
const READS: &[&str] = &["hgetall", "zscore", "zrevrangebylex", "xrevrange"];

/// A Redis in which Bob has three grants by somebody else, has asked for two, and others have `foreign`.
async fn world(foreign: usize) -> (World, BrokerProcess) {
    let world = World::start().await;
    let settings = Redis {
        url: world.redis.url().parse().unwrap(),
        ..Redis::default()
    };
    let store = Store::new(&settings, Duration::from_hours(1)).unwrap();
    let bob = format!("user/{BOB}@{}", world.emulator.world().tenant);
    for about_bob in 0..3 {
        accept(&store, new_grant(&world, BOB, "application/portal")).await;
        if about_bob < 2 {
            accept(&store, new_grant(&world, Uuid::new_v4(), &bob)).await;
        }
        let others = (0..foreign / 3).map(|_| {
            let new = new_grant(&world, Uuid::new_v4(), "application/somebody");
            accept(&store, new)
        });
        futures::stream::iter(others)
            .buffer_unordered(64)
            .collect::<()>()
            .await;
    }
    // This test is about records, so nobody works on thousands of role assignments.
    let mut raw = world.redis.connection().await;
    let mut queues: Vec<String> = redis::cmd("KEYS")
        .arg("{aab:main}:ready:*")
        .query_async(&mut raw)
        .await
        .unwrap();
    queues.push("{aab:main}:lanes".to_owned());
    let emptied: redis::RedisResult<()> = redis::cmd("DEL").arg(queues).query_async(&mut raw).await;
    emptied.unwrap();
    let config = world.config_of_policies(&Timing::default(), None);
    let broker = BrokerProcess::start(&config).await;
    world.sealed().await;
    (world, broker)
}

fn new_grant(world: &World, principal: Uuid, caller: &str) -> NewGrant {
    let principal = PrincipalId::new(principal);
    NewGrant {
        grant: GrantId::new(Uuid::now_v7()),
        job: JobId::new(Uuid::now_v7()),
        request: RequestKey {
            caller: caller.to_owned(),
            id: RequestId::new(Uuid::new_v4()),
            payload_hash: "hash".to_owned(),
        },
        target: TargetId {
            cluster: ClusterId::parse(&world.cluster("aks-production")).unwrap(),
            principal,
        },
        principal: Principal::unnamed(principal, PrincipalType::User),
        access: Access {
            role: Role::BuiltIn(BuiltInRole::RbacReader),
            namespaces: BTreeSet::new(),
        },
        cluster_uid: "uid".to_owned(),
        end: End::At(Expiry::Never),
        justification: String::new(),
        labels: BTreeMap::new(),
        external_key: None,
        on_behalf_of: None,
        audit_event: "{}".to_owned(),
        gone_event: "{}".to_owned(),
    }
}

async fn accept(store: &Store, new: NewGrant) {
    store.accept_grant(&new).await.unwrap();
}

/// How many reads Redis has made since it was asked to count anew, those in scripts included.
async fn reads(world: &World) -> u64 {
    let mut raw = world.redis.connection().await;
    let told: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut raw)
        .await
        .unwrap();
    let calls = told.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        READS.contains(&command).then_some(())?;
        rest.split(',').next()?.parse::<u64>().ok()
    });
    calls.sum()
}

/// What an action costs.
async fn cost<T>(world: &World, action: impl Future<Output = T>) -> (T, u64) {
    world.redis.tell("CONFIG RESETSTAT").await;
    let answer = action.await;
    (answer, reads(world).await)
}

fn of(world: &World, broker: &BrokerProcess, bearer: Uuid) -> Client {
    broker.client_with(Some(&token(&world.emulator, bearer)))
}

fn on_the_cluster(world: &World) -> GrantSelector {
    GrantSelector {
        cluster: Some(world.cluster("aks-production")),
        ..GrantSelector::default()
    }
}

/// What Bob's three requests show, and the reads that each makes.
async fn seen_by_bob(foreign: usize) -> Vec<(usize, u64)> {
    let (world, broker) = world(foreign).await;
    let mut bob = of(&world, &broker, BOB);
    let mut told = Vec::new();
    for selector in [None, Some(on_the_cluster(&world))] {
        let request = ListGrantsRequest {
            selector,
            ..ListGrantsRequest::default()
        };
        let (page, cost) = cost(&world, bob.list_grants(request)).await;
        let page = page.unwrap().into_inner();
        let ids: Vec<String> = page.grants.into_iter().map(|it| it.grant_id).collect();
        assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
        assert_eq!(page.next_page_token, "");
        told.push((ids.len(), cost));
    }
    let (page, read) = cost(&world, bob.list_jobs(ListJobsRequest::default())).await;
    told.push((page.unwrap().into_inner().jobs.len(), read));
    let everything = revocation_of(on_the_cluster(&world));
    let (answer, read) = cost(&world, revoked(&mut bob, everything)).await;
    let matched = answer.job.unwrap().total_targets;
    told.push((usize::try_from(matched).unwrap(), read));
    told
}

#[tokio::test]
async fn a_caller_that_sees_only_its_own_pays_for_its_own() {
    let [few, many] = [seen_by_bob(FEW).await, seen_by_bob(MANY).await];
    let rows = |told: &[(usize, u64)]| told.iter().map(|(rows, _)| *rows).collect::<Vec<_>>();
    // Two lists of five grants, a list of five jobs, and one target, Bob on this cluster.
    assert_eq!(rows(&few), [5, 5, 5, 1]);
    assert_eq!(rows(&many), [5, 5, 5, 1]);
    for ((_, few), (_, many)) in few.iter().zip(&many) {
        assert!(*many <= SOME, "{many} reads for five rows");
        assert!(many.abs_diff(*few) <= 10, "{few} reads, then {many}");
    }
}

/// Whoever sees everything and asks for what hardly anything is turns pages.
#[tokio::test]
async fn a_page_reads_a_bounded_number_of_records_and_its_token_goes_on() {
    let (world, broker) = world(MANY).await;
    let mut platform = broker.client();
    let mut grants = ListGrantsRequest {
        selector: Some(GrantSelector {
            azure_role: Some(AzureRole::ClusterUser.into()),
            ..GrantSelector::default()
        }),
        states: vec![grant::State::Pending.into()],
        page_size: 1_000,
        ..ListGrantsRequest::default()
    };
    let mut pages = 0;
    loop {
        let (page, read) = cost(&world, platform.list_grants(grants.clone())).await;
        let page = page.unwrap().into_inner();
        assert_eq!(page.grants, []);
        assert!(read <= MOST_READ + SOME, "{read} reads for one page");
        pages += 1;
        grants.page_token = page.next_page_token;
        if grants.page_token.is_empty() {
            break;
        }
    }
    assert!((8..=9).contains(&pages), "{pages} pages");

    let jobs = ListJobsRequest {
        states: vec![job::State::Failed.into()],
        ..ListJobsRequest::default()
    };
    let (page, read) = cost(&world, platform.list_jobs(jobs)).await;
    assert_ne!(page.unwrap().into_inner().next_page_token, "");
    assert!(read <= MOST_READ + SOME, "{read} reads for one page");

    // The trail is read by the piece; each piece has at most 250 events.
    let events = ListAuditEventsRequest {
        actor: Some("nobody".to_owned()),
        ..ListAuditEventsRequest::default()
    };
    let mut auditor = of(&world, &broker, AUDITOR);
    let (page, read) = cost(&world, auditor.list_audit_events(events)).await;
    assert_ne!(page.unwrap().into_inner().next_page_token, "");
    assert!(read <= 10, "{read} pieces for one page");
}
