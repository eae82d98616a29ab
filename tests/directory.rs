//! A caller that may not ask about others makes no look-up of others in the directory, however it names them, and learns
//! nothing of who is there; a caller that may makes few.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::time::Duration;

use aks_access_broker::grpc::proto::batch_check_access_response::item::Result as Outcome;
use aks_access_broker::grpc::proto::{
    AzureRole, BatchCheckAccessRequest, CheckAccessRequest, GrantRequest, GrantSelector,
    ListAccessRequest, ListGrantsRequest, ListJobsRequest, PrincipalRef,
};
use azure_emulator::Operation;
use support::ask::{access, active, extension, lasting, revocation_of};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const HOUR: Duration = Duration::from_hours(1);
const MANY: usize = 200;

async fn world() -> (World, BrokerProcess) {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let broker = BrokerProcess::start(&config).await;
    (world, broker)
}

fn bob(world: &World, broker: &BrokerProcess) -> Client {
    broker.client_with(Some(&token(&world.emulator, BOB)))
}

fn named(name: &str) -> PrincipalRef {
    PrincipalRef {
        user_principal_name: name.to_owned(),
        ..PrincipalRef::default()
    }
}

/// How many look-ups by name the directory was asked for.
fn by_name(world: &World) -> usize {
    world.count(Operation::UserRead) + world.count(Operation::ServicePrincipalRead)
}

/// All calls to the directory.
fn all(world: &World) -> usize {
    by_name(world) + world.count(Operation::GetByIds)
}

fn reader(world: &World, whom: Uuid) -> GrantRequest {
    let cluster = world.cluster("aks-production");
    lasting(whom, &cluster, access(AzureRole::RbacReader, &[]), HOUR)
}

fn check(world: &World, whom: PrincipalRef) -> CheckAccessRequest {
    CheckAccessRequest {
        principal: Some(whom),
        cluster: world.cluster("aks-production"),
        access: Some(access(AzureRole::RbacReader, &[])),
        ..CheckAccessRequest::default()
    }
}

fn batch(world: &World, names: impl Iterator<Item = String>) -> BatchCheckAccessRequest {
    BatchCheckAccessRequest {
        requests: names.map(|name| check(world, named(&name))).collect(),
        ..BatchCheckAccessRequest::default()
    }
}

fn made_up(n: usize) -> String {
    format!("made.up.{n}@contoso.example")
}

fn grants_of(whom: PrincipalRef) -> ListGrantsRequest {
    ListGrantsRequest {
        selector: Some(GrantSelector {
            principal: Some(whom),
            ..GrantSelector::default()
        }),
        ..ListGrantsRequest::default()
    }
}

fn jobs_of(whom: PrincipalRef) -> ListJobsRequest {
    ListJobsRequest {
        principal: Some(whom),
        ..ListJobsRequest::default()
    }
}

/// What each request that names somebody is answered with.
async fn answers(world: &World, client: &mut Client, grant_id: &str, name: &str) -> Vec<Refusal> {
    let grants = client.list_grants(grants_of(named(name))).await.unwrap();
    assert_eq!(grants.into_inner().grants, []);
    let jobs = client.list_jobs(jobs_of(named(name))).await.unwrap();
    assert_eq!(jobs.into_inner().jobs, []);
    let selector = GrantSelector {
        principal: Some(named(name)),
        ..GrantSelector::default()
    };
    let anywhere = ListAccessRequest {
        principal: Some(named(name)),
        ..ListAccessRequest::default()
    };
    let here = ListAccessRequest {
        cluster: Some(world.cluster("aks-production")),
        ..anywhere.clone()
    };
    let wish = GrantRequest {
        principal: Some(named(name)),
        on_behalf_of: name.to_owned(),
        ..reader(world, ALICE)
    };
    let mut longer = extension(grant_id, HOUR * 2);
    longer.on_behalf_of = name.to_owned();
    vec![
        Refusal::from(client.check_access(check(world, named(name))).await),
        Refusal::from(client.list_access(anywhere).await),
        Refusal::from(client.list_access(here).await),
        Refusal::from(client.revoke(revocation_of(selector)).await),
        Refusal::from(client.grant(wish).await),
        Refusal::from(client.extend_grant(longer).await),
    ]
}

#[tokio::test]
async fn nobody_is_looked_up_for_a_caller_that_may_not_ask_about_others() {
    let (world, broker) = world().await;
    let alices = active(&mut broker.client(), reader(&world, ALICE)).await;
    let mut bob = bob(&world, &broker);
    let before = by_name(&world);
    let there = answers(&world, &mut bob, &alices.grant_id, "alice@contoso.example").await;
    // Its own names are looked up once, by its own id, whoever it asks about.
    let after_one = all(&world);
    for n in 0..3 {
        let not_there = answers(&world, &mut bob, &alices.grant_id, &made_up(n)).await;
        let words = |told: &[Refusal]| {
            let told = told.iter().map(|refusal| format!("{refusal:?}"));
            told.collect::<Vec<_>>()
        };
        assert_eq!(words(&not_there), words(&there));
    }
    let many = batch(&world, (0..MANY).map(made_up));
    let items = bob.batch_check_access(many).await.unwrap();
    for item in items.into_inner().items {
        let Some(Outcome::Error(failure)) = item.result else {
            panic!("an answer about somebody else");
        };
        assert_eq!(failure.reason, "PERMISSION_DENIED");
    }
    assert_eq!(by_name(&world), before, "nobody was looked up by name");
    assert_eq!(all(&world), after_one);
}

#[tokio::test]
async fn a_caller_asks_about_itself_by_its_own_name() {
    let (world, broker) = world().await;
    let mut platform = broker.client();
    let bobs = active(&mut platform, reader(&world, BOB)).await;
    active(&mut platform, reader(&world, ALICE)).await;
    let mut bob = bob(&world, &broker);
    for name in ["bob@contoso.example", "BOB@Contoso.example"] {
        let grants = bob.list_grants(grants_of(named(name))).await.unwrap();
        let grants = grants.into_inner().grants.into_iter();
        let ids: Vec<String> = grants.map(|grant| grant.grant_id).collect();
        assert_eq!(ids, [bobs.grant_id.as_str()]);
        let jobs = bob.list_jobs(jobs_of(named(name))).await.unwrap();
        assert_eq!(jobs.into_inner().jobs.len(), 1);
        bob.check_access(check(&world, named(name))).await.unwrap();
        let everywhere = ListAccessRequest {
            principal: Some(named(name)),
            ..ListAccessRequest::default()
        };
        bob.list_access(everywhere).await.unwrap();
    }
    let selector = GrantSelector {
        principal: Some(named("bob@contoso.example")),
        ..GrantSelector::default()
    };
    let revoked = bob.revoke(revocation_of(selector)).await.unwrap();
    assert_eq!(revoked.into_inner().matched_grants, 1);
}

/// In whatever case it is written.
#[tokio::test]
async fn that_somebody_is_not_there_is_remembered_for_a_while() {
    let (world, broker) = world().await;
    let mut auditor = {
        let auditor = uuid!("30000000-0000-4000-8000-000000000005");
        broker.client_with(Some(&token(&world.emulator, auditor)))
    };
    let before = by_name(&world);
    for name in ["nobody@contoso.example", "NOBODY@contoso.example"] {
        for _ in 0..10 {
            let refusal = Refusal::from(auditor.list_grants(grants_of(named(name))).await);
            assert_eq!(refusal.kind(), (Code::NotFound, "PRINCIPAL_NOT_FOUND"));
            let refusal = Refusal::from(auditor.list_jobs(jobs_of(named(name))).await);
            assert_eq!(refusal.kind(), (Code::NotFound, "PRINCIPAL_NOT_FOUND"));
        }
    }
    let asked = by_name(&world) - before;
    // Forty requests. A slow machine may take longer than it is remembered.
    assert!((1..=4).contains(&asked), "{asked} look-ups");
}

#[tokio::test]
async fn each_refusal_of_a_batch_counts_as_one() {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let text = fs::read_to_string(&config).unwrap();
    let plenty = "refusals: {capacity: 1000000, per_second: 1000000}";
    let few = text.replace(plenty, "refusals: {capacity: 20, per_second: 1}");
    assert_ne!(few, text);
    fs::write(&config, few).unwrap();
    let broker = BrokerProcess::start(&config).await;
    let mut bob = bob(&world, &broker);
    bob.batch_check_access(batch(&world, (0..10).map(made_up)))
        .await
        .unwrap();
    bob.batch_check_access(batch(&world, (0..MANY).map(made_up)))
        .await
        .unwrap();
    let refusal = Refusal::from(bob.list_grants(ListGrantsRequest::default()).await);
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "RATE_LIMITED"));
    assert!(refusal.retry_after.is_some());
}
