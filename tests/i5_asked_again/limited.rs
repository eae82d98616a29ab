//! Grants that are already REVOKING, and that the caller may not revoke, or about which the broker cannot decide.

use std::fs;
use std::path::PathBuf;

use azure_emulator::{Fault, FaultEffect, Operation};
use tonic::Code;
use uuid::{Uuid, uuid};

use super::support::broker::BrokerProcess;
use super::support::refusal::Refusal;
use super::support::token;
use super::{
    BOB, Client, Timing, World, active, everything_of, nothing_is_deleted, over_when_it_is_gone,
    reader, revocation, revoked, waits,
};

/// May do everything here.
const HR: Uuid = uuid!("30000000-0000-4000-8000-000000000004");
const PRODUCTION: &str = "00000000-0000-4000-8000-000000000001";
const DEVELOPMENT: &str = "00000000-0000-4000-8000-000000000002";

/// One caller may do everything, and the world's own platform only what `limit` says of a resource.
fn limited(world: &World, limit: &str) -> PathBuf {
    let directory = world.dir.path().join("limited");
    fs::create_dir(&directory).unwrap();
    let tenant = world.emulator.world().tenant;
    let policy = |n: u32, rest: &str| {
        let id = format!("40000000-0000-4000-8000-00000000000{n}@{tenant}");
        format!("permit (principal == AksAccess::Application::\"{id}\", action, {rest};\n")
    };
    let policies = [policy(4, "resource)"), policy(3, limit)].concat();
    fs::write(directory.join("office.cedar"), policies).unwrap();
    world.config_of_policies(&Timing::default(), Some(&directory))
}

/// Bob's grants on both clusters, made by the caller that may do everything.
async fn bobs(world: &World, all: &mut Client) -> [String; 2] {
    let mut ids = Vec::new();
    for cluster in ["aks-production", "aks-development"] {
        let grant = active(all, reader(BOB, &world.cluster(cluster))).await;
        ids.push(grant.grant_id);
    }
    ids.try_into().expect("two")
}

#[tokio::test]
async fn a_revoking_grant_that_the_caller_may_not_revoke_is_neither_waited_for_nor_counted() {
    let world = World::start().await;
    let place = format!("/subscriptions/{DEVELOPMENT}/resourcegroups/rg-development");
    let limit = format!("resource in AksAccess::ResourceGroup::\"{place}\")");
    let config = limited(&world, &limit);
    let broker = BrokerProcess::start(&config).await;
    let mut all = broker.client_with(Some(&token(&world.emulator, HR)));
    let mut limited = broker.client();
    bobs(&world, &mut all).await;
    nothing_is_deleted(&world);
    let both = revoked(&mut all, everything_of(BOB)).await;
    assert_eq!(both.matched_grants, 2);
    let both = both.job.expect("a job");

    let own = waits(&revoked(&mut limited, everything_of(BOB)).await);
    assert_eq!(own.total_targets, 1);
    let development = world.cluster("aks-development").to_lowercase();
    assert_eq!(own.cluster, development);
    // Its own job does not wait for the other cluster.
    over_when_it_is_gone(&world, &mut all, &[both, own]).await;
}

/// If the broker cannot decide, the revocation does not look done, although the grant is already REVOKING.
#[tokio::test]
async fn a_revoking_grant_that_nobody_can_decide_about_is_asked_for_again_or_counts_as_left() {
    let world = World::start().await;
    let limit = "resource is AksAccess::Cluster) when { resource.hasTag(\"environment\") }";
    let config = limited(&world, limit);
    let broker = BrokerProcess::start(&config).await;
    let mut all = broker.client_with(Some(&token(&world.emulator, HR)));
    let [production, _] = bobs(&world, &mut all).await;
    nothing_is_deleted(&world);
    revoked(&mut all, revocation(&production)).await;
    // A broker that has read nothing yet, and cannot read what the one cluster is like.
    let other = BrokerProcess::start(&config).await;
    let mut limited = other.client();
    for operation in [Operation::ManagedClusterRead, Operation::ManagedClusterList] {
        world.emulator.add_fault(Fault {
            path_contains: Some(PRODUCTION.to_owned()),
            ..Fault::always(operation, FaultEffect::CutBeforeCommit)
        });
    }
    let answer = revoked(&mut limited, everything_of(BOB)).await;
    assert_eq!((answer.matched_grants, answer.left_grants), (1, 1));
    let job = answer.job.expect("a job");
    assert_eq!(job.total_targets, 1, "the live one, of which it is known");

    // Only the other cluster is asked about: the broker promises nothing.
    let mut alone = everything_of(BOB);
    let selector = alone.selector.as_mut().expect("a selector");
    selector.cluster = Some(world.cluster("aks-production"));
    let refusal = Refusal::from(limited.revoke(alone.clone()).await);
    assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_UNAVAILABLE"));

    world.emulator.clear_faults();
    nothing_is_deleted(&world);
    let waiting = waits(&revoked(&mut limited, alone).await);
    over_when_it_is_gone(&world, &mut limited, &[waiting]).await;
}
