//! `validate_only`: says what the same request would do, and changes nothing; and what a grant's answer says of
//! what others have assigned.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    Access, AzureRole, Effect, ExtendGrantRequest, Finding, GrantRequest, GrantSelector,
    RevokeRequest, effect::Change, finding::Severity, grant, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{
    access, active, extension, lasting, permanent, revocation, revocation_of, user,
};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");
const USER_ROLE: &str = "Azure Kubernetes Service Cluster User Role";
const READER_ROLE: &str = "Azure Kubernetes Service RBAC Reader";
const HOUR: Duration = Duration::from_hours(1);

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

fn reader() -> Access {
    access(AzureRole::RbacReader, &[])
}

/// Role, what is below the cluster, what would be done, and whether it is ours.
type Planned = (String, String, Change, bool);

fn planned(effects: &[Effect]) -> BTreeSet<Planned> {
    let told = |effect: &Effect| {
        assert!(effect.resource_id.starts_with(&effect.scope), "{effect:?}");
        assert_eq!(effect.principal_id, ALICE.to_string());
        let below = effect
            .scope
            .strip_prefix(&effect.cluster)
            .expect("at the cluster, or below");
        (
            effect.role.clone(),
            below.to_owned(),
            effect.change(),
            effect.managed,
        )
    };
    let planned: BTreeSet<Planned> = effects.iter().map(told).collect();
    assert_eq!(planned.len(), effects.len(), "each once: {effects:?}");
    planned
}

fn plan(rows: &[(&str, &str, Change, bool)]) -> BTreeSet<Planned> {
    rows.iter()
        .map(|(role, below, change, ours)| {
            ((*role).to_owned(), (*below).to_owned(), *change, *ours)
        })
        .collect()
}

async fn would_grant(
    client: &mut Client,
    request: GrantRequest,
) -> (grant::State, BTreeSet<Planned>, Vec<Finding>) {
    let request = GrantRequest {
        validate_only: true,
        ..request
    };
    let answer = client.grant(request).await.expect("an answer").into_inner();
    assert!(answer.job.is_none());
    (
        answer.grant.expect("a grant").state(),
        planned(&answer.planned_effects),
        answer.findings,
    )
}

async fn would_revoke(client: &mut Client, request: RevokeRequest) -> (i32, BTreeSet<Planned>) {
    let request = RevokeRequest {
        validate_only: true,
        ..request
    };
    let answer = client
        .revoke(request)
        .await
        .expect("an answer")
        .into_inner();
    assert!(answer.job.is_none());
    (answer.matched_grants, planned(&answer.planned_effects))
}

#[tokio::test]
async fn a_grant_that_is_only_looked_at_says_what_it_would_make_and_makes_nothing() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let before = world.redis.everything().await;
    let request = GrantRequest {
        labels: [("team".to_owned(), "a".to_owned())].into(),
        ..lasting(
            ALICE,
            &cluster,
            access(AzureRole::RbacReader, &["shop", "till"]),
            HOUR,
        )
    };
    let answer = client
        .grant(GrantRequest {
            validate_only: true,
            ..request.clone()
        })
        .await
        .unwrap()
        .into_inner();
    let would_be = answer.grant.unwrap();
    assert!(would_be.grant_id.is_empty() && would_be.job_id.is_empty());
    assert!(would_be.expire_time.is_some());
    assert_eq!(
        (would_be.state(), would_be.labels["team"].as_str()),
        (grant::State::Pending, "a")
    );
    let expected = plan(&[
        (USER_ROLE, "", Change::Create, true),
        (READER_ROLE, "/namespaces/shop", Change::Create, true),
        (READER_ROLE, "/namespaces/till", Change::Create, true),
    ]);
    assert_eq!(planned(&answer.planned_effects), expected);
    assert_eq!(world.redis.everything().await, before);
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);

    // The names are those that it then has, and its request id was not used up.
    let names: BTreeSet<String> = answer
        .planned_effects
        .into_iter()
        .map(|e| e.resource_id)
        .collect();
    let made = active(&mut client, request).await;
    let made: BTreeSet<String> = made
        .effects
        .into_iter()
        .map(|effect| effect.resource_id)
        .collect();
    assert_eq!(made, names);
}

#[tokio::test]
async fn what_is_there_already_is_kept_or_brought_up_to_date() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let shorter = active(
        &mut client,
        lasting(ALICE, &cluster, access(AzureRole::ClusterUser, &[]), HOUR),
    )
    .await;
    let same = lasting(
        ALICE,
        &cluster,
        access(AzureRole::ClusterUser, &[]),
        HOUR / 2,
    );
    let (_, effects, _) = would_grant(&mut client, same).await;
    assert_eq!(effects, plan(&[(USER_ROLE, "", Change::None, true)]));
    let longer = permanent(ALICE, &cluster, reader());
    let (_, effects, _) = would_grant(&mut client, longer.clone()).await;
    let expected = plan(&[
        (USER_ROLE, "", Change::Update, true),
        (READER_ROLE, "", Change::Create, true),
    ]);
    assert_eq!(effects, expected);

    let request = ExtendGrantRequest {
        validate_only: true,
        ..extension(&shorter.grant_id, HOUR * 2)
    };
    let answer = client.extend_grant(request).await.unwrap().into_inner();
    assert!(answer.job.is_none());
    assert_eq!(
        planned(&answer.planned_effects),
        plan(&[(USER_ROLE, "", Change::Update, true)])
    );
    assert!(
        answer.grant.unwrap().expire_time.unwrap().seconds > shorter.expire_time.unwrap().seconds
    );
    let now = ask::the_grant(&mut client, &shorter.grant_id).await;
    assert_eq!(now.expire_time, shorter.expire_time);

    // Named by its key it is the grant that is there.
    let named = GrantRequest {
        external_key: "mine".to_owned(),
        ..longer
    };
    let there = active(&mut client, named.clone()).await;
    let (state, effects, _) = would_grant(&mut client, named).await;
    assert_eq!(state, grant::State::Active);
    let expected = plan(&[
        (USER_ROLE, "", Change::None, true),
        (READER_ROLE, "", Change::None, true),
    ]);
    assert_eq!(effects, expected);
    assert!(!there.grant_id.is_empty());
}

#[tokio::test]
async fn a_revocation_that_is_only_looked_at_says_what_would_go_and_what_other_grants_keep() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let stays = active(
        &mut client,
        lasting(
            ALICE,
            &cluster,
            access(AzureRole::RbacWriter, &["shop"]),
            HOUR,
        ),
    )
    .await;
    let goes = active(&mut client, permanent(ALICE, &cluster, reader())).await;
    let expected = plan(&[
        (USER_ROLE, "", Change::Update, true),
        (READER_ROLE, "", Change::Delete, true),
    ]);
    assert_eq!(
        would_revoke(&mut client, revocation(&goes.grant_id)).await,
        (1, expected)
    );
    let everything = revocation_of(GrantSelector {
        principal: Some(user(ALICE)),
        ..GrantSelector::default()
    });
    let (matched, effects) = would_revoke(&mut client, everything).await;
    assert_eq!((matched, effects.len()), (2, 3));
    assert!(
        effects
            .iter()
            .all(|(_, _, change, _)| *change == Change::Delete),
        "{effects:?}"
    );
    for grant in [&stays, &goes] {
        let now = ask::the_grant(&mut client, &grant.grant_id).await;
        assert_eq!(now.state(), grant::State::Active);
    }

    let job = ask::revoke(&mut client, &goes.grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded);
    assert_eq!(
        would_revoke(&mut client, revocation(&goes.grant_id)).await,
        (0, BTreeSet::new())
    );
    let unknown = revocation(&Uuid::now_v7().to_string());
    let refusal = Refusal::from(
        client
            .revoke(RevokeRequest {
                validate_only: true,
                ..unknown
            })
            .await,
    );
    assert_eq!(refusal.kind(), (Code::NotFound, "GRANT_NOT_FOUND"));
}

/// I5: a grant that is already REVOKING may still give access. "Nothing to do" would be wrong.
#[tokio::test]
async fn i5_validate_only_of_a_revocation_shows_what_still_stands_of_revoking_grants() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let going = active(&mut client, permanent(ALICE, &cluster, reader())).await;
    let busy = FaultEffect::Status {
        status: 503,
        code: "ServerTimeout".to_owned(),
        message: "busy".to_owned(),
        retry_after: None,
    };
    let fault = Fault::always(Operation::RoleAssignmentDelete, busy);
    world.emulator.add_fault(fault);
    let named = revocation(&going.grant_id);
    let accepted = client.revoke(named).await.unwrap().into_inner();
    let alices = || {
        revocation_of(GrantSelector {
            principal: Some(user(ALICE)),
            ..GrantSelector::default()
        })
    };
    let both = plan(&[
        (USER_ROLE, "", Change::Delete, true),
        (READER_ROLE, "", Change::Delete, true),
    ]);
    for request in [revocation(&going.grant_id), alices()] {
        let told = would_revoke(&mut client, request).await;
        assert_eq!(told, (0, both.clone()));
    }
    world.emulator.clear_faults();
    ask::over(&mut client, &accepted.job.unwrap().job_id).await;
    for request in [revocation(&going.grant_id), alices()] {
        let told = would_revoke(&mut client, request).await;
        assert_eq!(told, (0, BTreeSet::new()), "it is gone");
    }
}

#[tokio::test]
async fn what_would_be_refused_is_refused() {
    let (world, _broker, mut client) = world().await;
    for (cluster, reason) in [
        ("aks-no-entra", "ENTRA_INTEGRATION_REQUIRED"),
        ("aks-kubernetes-rbac", "AZURE_RBAC_DISABLED"),
    ] {
        let request = GrantRequest {
            validate_only: true,
            ..permanent(ALICE, &world.cluster(cluster), reader())
        };
        let refusal = Refusal::from(client.grant(request).await);
        assert_eq!(refusal.reason, reason);
    }
}

fn reasons(findings: &[Finding]) -> BTreeMap<String, Severity> {
    findings
        .iter()
        .map(|finding| (finding.reason.clone(), finding.severity()))
        .collect()
}

#[tokio::test]
async fn i7_a_grant_is_told_of_what_somebody_else_has_assigned_and_will_outlive_it() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    world.somebody_else_gives(&cluster, READER, ALICE, None);
    let request = permanent(ALICE, &cluster, reader());
    let (_, effects, findings) = would_grant(&mut client, request.clone()).await;
    let expected = plan(&[
        (USER_ROLE, "", Change::Create, true),
        (READER_ROLE, "", Change::None, false),
    ]);
    assert_eq!(effects, expected);
    assert_eq!(
        reasons(&findings)["UNMANAGED_ASSIGNMENT"],
        Severity::Warning
    );
    let answer = client.grant(request).await.unwrap().into_inner();
    let told = answer
        .findings
        .iter()
        .find(|found| found.reason == "UNMANAGED_ASSIGNMENT")
        .unwrap();
    assert!(
        told.message.contains("stays when the grant ends"),
        "{told:?}"
    );
    assert!(
        told.remediation
            .starts_with("az role assignment delete --ids /subscriptions/")
    );
    ask::over(&mut client, &answer.job.unwrap().job_id).await;
    let bobs = permanent(Uuid::new_v4(), &cluster, reader());
    let answer = client.grant(bobs).await.unwrap().into_inner();
    assert!(
        !reasons(&answer.findings).contains_key("UNMANAGED_ASSIGNMENT"),
        "{:?}",
        answer.findings
    );
}

#[tokio::test]
async fn i7_what_is_inherited_from_above_outlives_a_grant_as_well() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let (group, _) = cluster.split_once("/providers/").unwrap();
    world.somebody_else_gives(group, READER, ALICE, Some("@Resource[x] StringEquals 'y'"));
    let request = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &["shop"]));
    let answer = client.grant(request).await.unwrap().into_inner();
    assert_eq!(
        reasons(&answer.findings)["UNMANAGED_ASSIGNMENT"],
        Severity::Warning
    );
    let job = ask::over(&mut client, &answer.job.unwrap().job_id).await;
    assert_eq!(
        job.state(),
        job::State::Succeeded,
        "from above it stands in nobody's way"
    );
}

#[tokio::test]
async fn i7_a_grant_that_somebody_elses_condition_stands_in_the_way_of_is_told_so() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    world.somebody_else_gives(
        &cluster,
        READER,
        ALICE,
        Some("@Resource[x] StringEquals 'y'"),
    );
    let request = permanent(ALICE, &cluster, reader());
    let (_, _, findings) = would_grant(&mut client, request.clone()).await;
    assert_eq!(
        reasons(&findings)["CONDITIONAL_ASSIGNMENT_EXISTS"],
        Severity::Error
    );
    let answer = client.grant(request).await.unwrap().into_inner();
    assert_eq!(
        reasons(&answer.findings)["CONDITIONAL_ASSIGNMENT_EXISTS"],
        Severity::Error
    );
    let job = ask::over(&mut client, &answer.job.unwrap().job_id).await;
    assert_eq!(job.state(), job::State::Failed);
}

#[tokio::test]
async fn a_grant_is_accepted_though_nobody_can_look_at_what_others_assigned() {
    let (world, _broker, mut client) = world().await;
    let refused = FaultEffect::Status {
        status: 503,
        code: "ServerTimeout".to_owned(),
        message: "busy".to_owned(),
        retry_after: None,
    };
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentList, refused));
    let local_accounts = world.cluster("aks-local-accounts");
    let request = permanent(ALICE, &local_accounts, reader());
    let answer = client.grant(request).await.unwrap().into_inner();
    let reasons = reasons(&answer.findings);
    assert_eq!(reasons["ASSIGNMENTS_NOT_READ"], Severity::Info);
    assert!(
        reasons.contains_key("LOCAL_ACCOUNTS_ENABLED"),
        "{reasons:?}"
    );
    let job = ask::over(&mut client, &answer.job.unwrap().job_id).await;
    assert_eq!(job.state(), job::State::Succeeded);
}

#[tokio::test]
async fn an_end_is_told_as_it_would_be_kept_to_the_millisecond() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let finer = jiff::Timestamp::now().as_second() + 3_600;
    let request = GrantRequest {
        permanent: false,
        expire_time: Some(prost_types::Timestamp {
            seconds: finer,
            nanos: 123_456_789,
        }),
        ..permanent(ALICE, &cluster, reader())
    };
    for validate_only in [true, false] {
        let request = GrantRequest {
            validate_only,
            ..request.clone()
        };
        let answer = client.grant(request).await.unwrap().into_inner();
        let end = answer.grant.unwrap().expire_time.unwrap();
        assert_eq!((end.seconds, end.nanos), (finer, 123_000_000));
    }
}
