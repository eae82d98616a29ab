//! Nobody gets in without a token of Entra's that is for this broker, of a tenant that is allowed, and good now; and
//! whoever does not get in has nothing done for it.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "authentication/forgery.rs"]
mod forgery;
mod support;

use std::path::PathBuf;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, GrantSelector, ListClustersRequest, ListGrantsRequest, WatchJobRequest,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use support::ask::{access, permanent};
use support::broker::BrokerProcess;
use support::raw::{RawClient, SERVED, framed};
use support::refusal::Refusal;
use support::{ACCESS_BROKER, PLATFORM, Timing, World, ask, token};
use tonic::Code;
use uuid::{Uuid, uuid};

use forgery::Forger;

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");

async fn world() -> (World, BrokerProcess) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    (world, broker)
}

/// A broker's configuration, with these lines of the section `authentication` besides.
fn config(world: &World, lines: &str) -> PathBuf {
    let (redis, arm) = (world.redis.url(), &world.emulator.urls().arm);
    let path = world.config(&Timing::default(), &redis, arm);
    let text = std::fs::read_to_string(&path).unwrap();
    let section = format!("authentication:\n{lines}");
    std::fs::write(&path, text.replacen("authentication:\n", &section, 1)).unwrap();
    path
}

/// What somebody is told who brings this token.
async fn told(broker: &BrokerProcess, token: Option<&str>) -> Result<(), Refusal> {
    let mut client = broker.client_with(token);
    let asked = client.list_clusters(ListClustersRequest::default()).await;
    asked.map(|_| ()).map_err(|status| Refusal::of(&status))
}

async fn kind(broker: &BrokerProcess, token: &str) -> Result<(), (Code, String)> {
    let told = told(broker, Some(token)).await;
    told.map_err(|refusal| (refusal.code, refusal.reason))
}

fn refused(reason: &str) -> Result<(), (Code, String)> {
    Err((Code::Unauthenticated, reason.to_owned()))
}

#[tokio::test]
async fn every_rpc_wants_a_token_and_health_and_reflection_do_not() {
    let (world, broker) = world().await;
    let raw = RawClient::new(&broker).with_token(None);
    for rpc in SERVED {
        let refusal = raw.refusal(rpc, framed(&[]), &[]).await;
        let refusal = Refusal::of(&refusal.expect(rpc));
        let expected = (Code::Unauthenticated, "TOKEN_MISSING");
        assert_eq!((refusal.code, refusal.reason.as_str()), expected, "{rpc}");
    }
    // What is in the contract and not served yet tells strangers nothing either.
    let refusal = raw.refusal("GetKubeconfig", framed(&[]), &[]).await;
    assert_eq!(refusal.unwrap().code(), Code::Unauthenticated);
    // Those that start a broker wait for its health without a token.
    assert!(broker.is_serving().await);
    drop(world);
}

#[tokio::test]
async fn applications_and_people_get_in_by_tokens_of_both_versions() {
    let (world, broker) = world().await;
    for bearer in [PLATFORM, ALICE] {
        assert_eq!(
            told(&broker, Some(&token(&world.emulator, bearer))).await,
            Ok(())
        );
        let claims = world.emulator.claims(bearer, &ACCESS_BROKER.to_string());
        let mut old = claims.unwrap();
        old.iss = format!("{}/{}/", world.emulator.urls().entra, old.tid);
        "1.0".clone_into(&mut old.ver);
        (old.appid, old.azp) = (old.azp, None);
        let old = world.emulator.sign(&old).unwrap();
        assert_eq!(told(&broker, Some(&old)).await, Ok(()));
    }
}

/// Everybody's tokens are looked at in this way: whoever is refused is told why, and nothing is done.
#[tokio::test]
async fn a_forged_token_opens_nothing() {
    let (world, broker) = world().await;
    let everything = world.redis.everything().await;
    let forger = Forger::new(&world);
    let wish = permanent(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    );
    let calls = |operation| world.count(operation);
    let read = calls(Operation::ManagedClusterRead);
    for (how, reason, token) in forger.all() {
        assert_eq!(kind(&broker, &token).await, refused(reason), "{how}");
        let mut client = broker.client_with(Some(&token));
        let granted = client.grant(wish.clone()).await;
        let refusal = Refusal::from(granted.map(|it| it.map(|_| ())));
        assert_eq!(refusal.code, Code::Unauthenticated, "{how}");
        assert!(!refusal.message.contains(&token), "{how}: {refusal:?}");
    }
    assert_eq!(world.redis.everything().await, everything);
    assert_eq!(calls(Operation::ManagedClusterRead), read);
    assert_eq!(calls(Operation::RoleAssignmentWrite), 0);
    // What they were made of is good.
    assert_eq!(
        kind(&broker, &token(&world.emulator, PLATFORM)).await,
        Ok(())
    );
}

#[tokio::test]
async fn what_is_no_token_at_all_opens_nothing() {
    let (world, broker) = world().await;
    let good = token(&world.emulator, PLATFORM);
    let raw = RawClient::new(&broker).with_token(None);
    let junk = "x".repeat(64 * 1024);
    let dots = "a.".repeat(32 * 1024);
    for (header, reason) in [
        (format!("Bearer {junk}"), "TOKEN_INVALID"),
        (format!("Bearer {dots}"), "TOKEN_INVALID"),
        ("Bearer ".to_owned(), "TOKEN_INVALID"),
        ("Bearer".to_owned(), "TOKEN_MISSING"),
        (format!("Basic {good}"), "TOKEN_MISSING"),
        (good.clone(), "TOKEN_MISSING"),
        (format!("Bearer {good} {good}"), "TOKEN_INVALID"),
        (format!("Bearer {good}."), "TOKEN_INVALID"),
        ("Bearer \u{e9}.\u{e9}.\u{e9}".to_owned(), "TOKEN_INVALID"),
    ] {
        let headers = [("authorization", header.as_str())];
        let refusal = raw.refusal("ListClusters", framed(&[]), &headers).await;
        let refusal = Refusal::of(&refusal.expect("a refusal"));
        let shown = &header[..header.len().min(60)];
        assert_eq!(refusal.code, Code::Unauthenticated, "{shown}");
        assert_eq!(refusal.reason, reason, "{shown}");
    }
    let twice = format!("Bearer {good}");
    let headers = [
        ("authorization", twice.as_str()),
        ("authorization", twice.as_str()),
    ];
    let refusal = raw.refusal("ListClusters", framed(&[]), &headers).await;
    assert_eq!(Refusal::of(&refusal.unwrap()).reason, "TOKEN_INVALID");
    let headers = [("authorization", twice.as_str())];
    assert!(
        raw.refusal("ListClusters", framed(&[]), &headers)
            .await
            .is_none()
    );
}

/// Nothing but a look-up tells a key id that was made up from one that has just come into use: those that wait share one,
/// and look-ups are rare.
#[tokio::test]
async fn a_hundred_unknown_keys_are_asked_for_together() {
    let (world, broker) = world().await;
    let forger = Forger::new(&world);
    let before = world.count(Operation::Keys);
    let tokens: Vec<String> = (0..100)
        .map(|nth| forger.of_key(&format!("key-{nth}")))
        .collect();
    let told = join_all(tokens.iter().map(|token| kind(&broker, token))).await;
    assert_eq!(told, vec![refused("TOKEN_INVALID"); 100]);
    let asked = world.count(Operation::Keys) - before;
    assert!((1..=8).contains(&asked), "{asked} times");
    // What was refused once is not asked for again.
    assert_eq!(kind(&broker, &tokens[0]).await, refused("TOKEN_INVALID"));
    assert_eq!(world.count(Operation::Keys) - before, asked);
}

/// As many as are asked who they are at once, and more, bring keys that were made up, and Entra does not answer.
#[tokio::test]
async fn a_known_key_waits_for_no_other() {
    let (world, broker) = world().await;
    let forger = Forger::new(&world);
    world.emulator.add_fault(Fault::always(
        Operation::Keys,
        FaultEffect::Hold {
            name: "keys".to_owned(),
        },
    ));
    let tokens: Vec<String> = (0..300)
        .map(|nth| forger.of_key(&format!("key-{nth}")))
        .collect();
    let mut waiting: FuturesUnordered<_> =
        tokens.iter().map(|token| kind(&broker, token)).collect();
    // There is room for no more of them: only who waits takes room.
    let overloaded = Err((Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert_eq!(waiting.next().await, Some(overloaded));
    world.emulator.until_held("keys", 1).await;
    // Tokens that nobody has seen before: good ones get in, and a bad one hears what is wrong with it.
    for bearer in [PLATFORM, ALICE] {
        let good = token(&world.emulator, bearer);
        assert_eq!(kind(&broker, &good).await, Ok(()));
    }
    let unsigned = forger.of_graph(&ACCESS_BROKER.to_string());
    assert_eq!(kind(&broker, &unsigned).await, refused("TOKEN_INVALID"));
    // Lets go what is held, and holds nothing more.
    world.emulator.clear_faults();
    let told: Vec<_> = waiting.collect().await;
    let in_order = [
        "OVERLOADED",
        "TOKEN_INVALID",
        "IDENTITY_PROVIDER_UNAVAILABLE",
    ];
    for told in &told {
        let (_, reason) = told.as_ref().expect_err("nobody's key");
        assert!(in_order.contains(&reason.as_str()), "{reason}");
    }
    assert_eq!(told.len(), 299);
}

#[tokio::test]
async fn a_key_id_that_was_made_up_takes_no_look_up_from_a_key_that_comes_into_use() {
    let (world, broker) = world().await;
    let forger = Forger::new(&world);
    for nth in 0..6 {
        let unsigned = forger.of_key(&format!("key-{nth}"));
        assert_eq!(kind(&broker, &unsigned).await, refused("TOKEN_INVALID"));
        world.emulator.roll_over_keys(true).unwrap();
        let new = token(&world.emulator, PLATFORM);
        assert_eq!(kind(&broker, &new).await, Ok(()), "key {nth}");
    }
}

/// Its signature is made over another header than it has: only Graph can check it.
#[tokio::test]
async fn a_token_for_graph_is_refused_by_whom_it_is_for() {
    let (world, broker) = world().await;
    let forger = Forger::new(&world);
    for audience in [
        "00000003-0000-0000-c000-000000000000",
        "https://graph.microsoft.com",
        "https://graph.microsoft.com/",
    ] {
        let refusal = told(&broker, Some(&forger.of_graph(audience))).await;
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.reason, "TOKEN_INVALID");
        let words = format!("for Microsoft Graph, {audience:?}");
        assert!(refusal.message.contains(&words), "{refusal:?}");
        assert!(refusal.message.contains(&ACCESS_BROKER.to_string()));
    }
}

/// What is critical has to be understood: the signature is good, and says so of what it means.
#[tokio::test]
async fn a_token_with_a_critical_extension_is_refused_by_its_name() {
    let (world, broker) = world().await;
    let token = Forger::new(&world).critical(&["http://vendor.example/tenant"]);
    let refusal = told(&broker, Some(&token)).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_INVALID");
    assert!(refusal.message.contains("vendor.example"), "{refusal:?}");
}

#[tokio::test]
async fn a_new_key_is_taken_and_an_old_one_goes_out_of_use() {
    let (world, broker) = world().await;
    let old = token(&world.emulator, PLATFORM);
    assert_eq!(kind(&broker, &old).await, Ok(()));
    world.emulator.roll_over_keys(true).unwrap();
    let new = token(&world.emulator, PLATFORM);
    // Nobody knows its key until Entra is asked, at once.
    assert_eq!(kind(&broker, &new).await, Ok(()));
    assert_eq!(kind(&broker, &old).await, Ok(()));
    let other = world.broker(&Timing::default()).await;
    assert_eq!(kind(&other, &old).await, Ok(()));
    world.emulator.roll_over_keys(false).unwrap();
    let newest = token(&world.emulator, PLATFORM);
    assert_eq!(kind(&other, &newest).await, Ok(()));
    // It was found to be good before: that was then.
    assert_eq!(kind(&other, &old).await, refused("TOKEN_INVALID"));
}

#[tokio::test]
async fn what_is_known_of_keys_is_kept_while_entra_is_down_and_nobody_gets_in_without() {
    let (world, broker) = world().await;
    let down = |operation| {
        let effect = FaultEffect::Status {
            status: 503,
            code: "ServiceUnavailable".to_owned(),
            message: "down".to_owned(),
            retry_after: None,
        };
        world.emulator.add_fault(Fault::always(operation, effect));
    };
    down(Operation::Keys);
    down(Operation::OpenIdConfiguration);
    let good = token(&world.emulator, PLATFORM);
    assert_eq!(kind(&broker, &good).await, Ok(()));
    // Entra may know the key: nobody can say that the token is bad.
    let forged = Forger::new(&world).of_key("unknown");
    let unknown = Err((
        Code::Unavailable,
        "IDENTITY_PROVIDER_UNAVAILABLE".to_owned(),
    ));
    for _ in 0..2 {
        assert_eq!(kind(&broker, &forged).await, unknown);
    }
    // One that has just been started knows no keys.
    let config = config(&world, "");
    let started = BrokerProcess::start_unready(&config).await;
    assert_eq!(kind(&started, &good).await, unknown);
    assert!(!started.is_serving().await);
    world.emulator.clear_faults();
    started.until_serving().await;
    assert_eq!(kind(&started, &good).await, Ok(()));
}

#[tokio::test]
async fn other_tenants_get_in_only_where_they_are_allowed() {
    let (world, broker) = world().await;
    let foreign = Forger::new(&world).of_tenant(Uuid::new_v4());
    let refusal = told(&broker, Some(&foreign)).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_INVALID");
    let allowed = Uuid::new_v4();
    let config = config(&world, &format!("  tenants: [{allowed}]\n"));
    let other = BrokerProcess::start_unready(&config).await;
    let own = token(&world.emulator, PLATFORM);
    assert_eq!(kind(&other, &own).await, refused("TOKEN_INVALID"));
    // The emulator is one tenant alone: of this one there are no keys.
    let foreign = Forger::new(&world).of_tenant(allowed);
    let unknown = Err((
        Code::Unavailable,
        "IDENTITY_PROVIDER_UNAVAILABLE".to_owned(),
    ));
    assert_eq!(kind(&other, &foreign).await, unknown);
}

#[tokio::test]
async fn callers_have_request_ids_and_external_keys_of_their_own() {
    let (world, broker) = world().await;
    let cluster = world.cluster("aks-production");
    let mut wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    "ticket-1".clone_into(&mut wish.external_key);
    let mut platform = broker.client();
    let grant = ask::grant(&mut platform, wish.clone())
        .await
        .0
        .grant
        .unwrap();
    let mut other = broker.client_with(Some(&token(&world.emulator, ALICE)));
    let others = ask::grant(&mut other, wish).await.0.grant.unwrap();
    assert_ne!(others.grant_id, grant.grant_id);
    let tenant = world.emulator.world().tenant;
    let by = |caller: &str| format!("{caller}@{tenant}");
    assert_eq!(grant.requested_by, world.platform_name());
    assert_eq!(others.requested_by, by(&format!("user/{ALICE}")));
    let listed = platform.list_grants(ListGrantsRequest {
        selector: Some(GrantSelector {
            external_key: Some("ticket-1".to_owned()),
            ..GrantSelector::default()
        }),
        ..ListGrantsRequest::default()
    });
    let listed = listed.await.unwrap().into_inner().grants;
    let ids: Vec<&str> = listed.iter().map(|it| it.grant_id.as_str()).collect();
    assert_eq!(ids, [grant.grant_id.as_str()]);
}

#[tokio::test]
async fn no_token_and_no_secret_is_logged_at_any_level() {
    let world = World::start().await;
    let config = config(&world, "");
    let log = world.dir.path().join("log");
    let mut command = BrokerProcess::command(&config);
    command
        .env("AKS_ACCESS_BROKER__LOG__FILTER", "trace")
        .stderr(std::fs::File::create(&log).unwrap());
    let broker = BrokerProcess::start_as(command).await;
    let wish = permanent(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    );
    ask::grant(&mut broker.client(), wish).await;
    let bad = Forger::new(&world).of_key("unknown");
    assert_eq!(kind(&broker, &bad).await, refused("TOKEN_INVALID"));
    let good = broker.token().unwrap().to_owned();
    broker.kill().await;
    let log = std::fs::read_to_string(&log).unwrap();
    // It is the log of all that: a level that says nothing would hide nothing.
    let levels = ["TRACE", "DEBUG", "INFO"].map(|level| log.matches(level).count());
    assert!(levels.iter().all(|count| *count > 0), "{levels:?}");
    for secret in [&good, &bad, "access-broker-secret"] {
        let parts = secret.split('.').filter(|part| part.len() > 40);
        for part in parts.chain([secret]) {
            assert!(!log.contains(part), "{} is in the log", &part[..20]);
        }
    }
    // Nor a token that the broker itself got from Entra.
    let header = good.split('.').next().unwrap();
    assert!(!log.contains(header));
}

#[tokio::test]
async fn a_token_is_taken_until_it_ends() {
    let (world, _) = world().await;
    let broker = BrokerProcess::start(&config(&world, "  clock_skew: 0s\n")).await;
    let mut claims = world
        .emulator
        .claims(PLATFORM, &ACCESS_BROKER.to_string())
        .unwrap();
    claims.exp = claims.iat + 3;
    let short = world.emulator.sign(&claims).unwrap();
    assert_eq!(kind(&broker, &short).await, Ok(()));
    let ended = async {
        while kind(&broker, &short).await == Ok(()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .expect("it ends");
    assert_eq!(kind(&broker, &short).await, refused("TOKEN_EXPIRED"));
}

/// A watch goes on for as long as its job does, and not for longer than its caller's token.
#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let world = World::start().await;
    let broker = BrokerProcess::start(&config(&world, "  clock_skew: 0s\n")).await;
    let never = FaultEffect::Status {
        status: 503,
        code: "ServerError".to_owned(),
        message: "not now".to_owned(),
        retry_after: None,
    };
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentWrite, never));
    let wish = permanent(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    );
    let accepted = broker.client().grant(wish).await.unwrap().into_inner();
    let mut claims = world
        .emulator
        .claims(PLATFORM, &ACCESS_BROKER.to_string())
        .unwrap();
    claims.exp = claims.iat + 3;
    let short = world.emulator.sign(&claims).unwrap();
    let request = WatchJobRequest {
        job_id: accepted.job.unwrap().job_id,
    };
    let watched = broker.client_with(Some(&short)).watch_job(request).await;
    let mut watched = watched.unwrap().into_inner();
    let ended = loop {
        match watched.message().await {
            Ok(told) => assert!(told.is_some(), "the job is not over"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        Refusal::of(&ended).kind(),
        (Code::Unauthenticated, "TOKEN_EXPIRED")
    );
}
