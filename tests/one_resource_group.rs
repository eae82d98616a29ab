//! A caller that policies limit to one resource group sees and touches nothing else: through no RPC, in no list, and in
//! no error's words.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aks_access_broker::grpc::proto::batch_check_access_response::item::Result as Outcome;
use aks_access_broker::grpc::proto::grant::State;
use aks_access_broker::grpc::proto::{
    AzureRole, BatchCheckAccessRequest, CheckAccessRequest, GetClusterRequest, GetGrantRequest,
    GetJobRequest, Grant, GrantRequest, GrantSelector, Job, ListAccessRequest,
    ListAuditEventsRequest, ListClustersRequest, ListGrantsRequest, ListJobTargetsRequest,
    ListJobsRequest, WatchJobRequest,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{
    self, access, extension, lasting, over, permanent, revocation, revocation_of, user,
};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::{Code, Request, Status};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
/// May do everything here.
const HR: Uuid = uuid!("30000000-0000-4000-8000-000000000004");
const PRODUCTION: &str = "00000000-0000-4000-8000-000000000001";
const DEVELOPMENT: &str = "00000000-0000-4000-8000-000000000002";
const HOUR: Duration = Duration::from_hours(1);

/// Two callers: one that may do everything, and one that is limited.
struct Office {
    world: World,
    directory: PathBuf,
    _broker: BrokerProcess,
    all: Client,
    limited: Client,
    production: String,
    development: String,
}

impl Office {
    /// `limit`: what follows the one's policy.
    async fn open(limit: &str) -> Self {
        let world = World::start().await;
        let directory = world.dir.path().join("limited");
        fs::create_dir(&directory).unwrap();
        let tenant = world.emulator.world().tenant;
        let application = |n| {
            format!("AksAccess::Application::\"40000000-0000-4000-8000-00000000000{n}@{tenant}\"")
        };
        let policies = format!(
            "permit (principal == {}, action, resource);\npermit (principal == {}, action, {limit};\n",
            application(4),
            application(3)
        );
        fs::write(directory.join("office.cedar"), policies).unwrap();
        let config = world.config_of_policies(&Timing::default(), Some(&directory));
        let broker = BrokerProcess::start(&config).await;
        Self {
            all: broker.client_with(Some(&token(&world.emulator, HR))),
            limited: broker.client(),
            production: world.cluster("aks-production"),
            development: world.cluster("aks-development"),
            world,
            directory,
            _broker: broker,
        }
    }

    async fn by_place() -> Self {
        let place = format!("/subscriptions/{DEVELOPMENT}/resourcegroups/rg-development");
        Self::open(&format!(
            "resource in AksAccess::ResourceGroup::\"{place}\")"
        ))
        .await
    }

    async fn by_tag() -> Self {
        Self::open(
            "resource is AksAccess::Cluster) when { resource.hasTag(\"environment\") && \
             resource.getTag(\"environment\") == \"development\" }",
        )
        .await
    }
}

fn reader(whom: Uuid, cluster: &str) -> GrantRequest {
    lasting(whom, cluster, access(AzureRole::RbacReader, &[]), HOUR)
}

/// Refused without a word that tells one place from another.
fn same(one: &Refusal, name: &str, other: &Refusal, other_name: &str) {
    assert_eq!(one.kind(), other.kind());
    assert_eq!(one.message.replace(name, other_name), other.message);
    let values = |refusal: &Refusal| refusal.metadata.values().cloned().collect::<Vec<_>>();
    let replaced: Vec<String> = values(one)
        .iter()
        .map(|it| it.replace(name, other_name))
        .collect();
    assert_eq!(replaced, values(other));
}

fn of<T>(answer: Result<tonic::Response<T>, Status>) -> Refusal {
    Refusal::from(answer)
}

/// A grant and its job, carried out.
async fn granted(client: &mut Client, wish: GrantRequest) -> (Grant, Job) {
    let (answer, job) = ask::grant(client, wish).await;
    (answer.grant.unwrap(), job)
}

#[tokio::test]
async fn clusters_elsewhere_are_not_there_and_those_that_are_not_there_are_the_same() {
    for mut office in [Office::by_place().await, Office::by_tag().await] {
        let imagined = office.production.replace("aks-production", "aks-imagined");
        let listed = office
            .limited
            .list_clusters(ListClustersRequest::default())
            .await;
        let listed = listed.unwrap().into_inner().clusters;
        let names: BTreeSet<String> = listed.into_iter().map(|it| it.name).collect();
        assert!(names.contains("aks-development"), "{names:?}");
        assert!(
            !names.contains("aks-production") && !names.contains("aks-no-entra"),
            "{names:?}"
        );
        // Of those that there are, one by one as the pages go: none of the others, and no page without any.
        let pages = ListClustersRequest {
            page_size: 1,
            ..ListClustersRequest::default()
        };
        let page = office
            .limited
            .list_clusters(pages)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (page.clusters.len(), !page.next_page_token.is_empty()),
            (1, names.len() > 1)
        );

        let mut refusals = Vec::new();
        for cluster in [&office.production, &imagined] {
            let cluster = cluster.clone();
            let get = GetClusterRequest {
                cluster: cluster.clone(),
            };
            let check = CheckAccessRequest {
                principal: Some(user(ALICE)),
                cluster: cluster.clone(),
                access: Some(access(AzureRole::RbacReader, &[])),
                ..CheckAccessRequest::default()
            };
            let list = ListAccessRequest {
                cluster: Some(cluster.clone()),
                ..ListAccessRequest::default()
            };
            let batch = BatchCheckAccessRequest {
                requests: vec![check.clone()],
                ..BatchCheckAccessRequest::default()
            };
            let batch = office.limited.batch_check_access(batch).await.unwrap();
            let item = batch.into_inner().items.remove(0).result.unwrap();
            let Outcome::Error(failure) = item else {
                panic!("{item:?}");
            };
            assert_eq!(failure.reason, "PERMISSION_DENIED");
            let limited = &mut office.limited;
            let plan = GrantRequest {
                validate_only: true,
                ..reader(ALICE, &cluster)
            };
            refusals.push([
                of(limited.get_cluster(get).await),
                of(limited.check_access(check).await),
                of(limited.list_access(list).await),
                of(limited.grant(reader(ALICE, &cluster)).await),
                of(limited.grant(plan).await),
            ]);
        }
        for (one, other) in refusals[0].iter().zip(&refusals[1]) {
            assert_eq!(one.code, Code::PermissionDenied);
            same(one, "aks-production", other, "aks-imagined");
        }
        assert_eq!(office.world.count(Operation::RoleAssignmentWrite), 0);
    }
}

#[tokio::test]
async fn grants_and_jobs_elsewhere_are_not_there() {
    let mut office = Office::by_place().await;
    let (there, their_job) = granted(&mut office.all, reader(BOB, &office.production)).await;
    let (here, own_job) = granted(&mut office.all, reader(BOB, &office.development)).await;
    let limited = &mut office.limited;

    let listed = limited
        .list_grants(ListGrantsRequest::default())
        .await
        .unwrap();
    let listed: Vec<String> = listed
        .into_inner()
        .grants
        .into_iter()
        .map(|it| it.grant_id)
        .collect();
    assert_eq!(listed, std::slice::from_ref(&here.grant_id));
    let listed = limited.list_jobs(ListJobsRequest::default()).await.unwrap();
    let listed: Vec<String> = listed
        .into_inner()
        .jobs
        .into_iter()
        .map(|it| it.job_id)
        .collect();
    assert_eq!(listed, std::slice::from_ref(&own_job.job_id));
    limited
        .get_grant(GetGrantRequest {
            grant_id: here.grant_id.clone(),
        })
        .await
        .expect("seen");
    over(limited, &own_job.job_id).await;

    let (unknown, there_id) = (Uuid::now_v7().to_string(), there.grant_id.clone());
    let (unknown_job, there_job) = (Uuid::now_v7().to_string(), their_job.job_id.clone());
    let mut refusals = Vec::new();
    for (grant_id, job_id) in [(&there_id, &there_job), (&unknown, &unknown_job)] {
        let watch = WatchJobRequest {
            job_id: job_id.clone(),
        };
        let mut watched = limited.watch_job(watch).await.unwrap().into_inner();
        let targets = ListJobTargetsRequest {
            job_id: job_id.clone(),
            ..ListJobTargetsRequest::default()
        };
        let mut planned = revocation(grant_id);
        planned.validate_only = true;
        refusals.push([
            of(limited
                .get_grant(GetGrantRequest {
                    grant_id: grant_id.clone(),
                })
                .await),
            of(limited.extend_grant(extension(grant_id, HOUR * 2)).await),
            of(limited.revoke(revocation(grant_id)).await),
            of(limited.revoke(planned).await),
            of(limited
                .get_job(GetJobRequest {
                    job_id: job_id.clone(),
                })
                .await),
            Refusal::of(&watched.message().await.expect_err("no such job")),
            of(limited.list_job_targets(targets).await),
        ]);
    }
    for (one, other) in refusals[0].iter().zip(&refusals[1]) {
        assert_eq!(one.code, Code::NotFound);
        let (name, another) = if one.reason == "GRANT_NOT_FOUND" {
            (&there_id, &unknown)
        } else {
            (&there_job, &unknown_job)
        };
        same(one, name, other, another);
    }
    assert_eq!(
        ask::the_grant(&mut office.all, &there_id).await.state(),
        State::Active
    );
}

#[tokio::test]
async fn a_selector_revokes_what_the_caller_may_revoke_and_a_job_of_both_is_not_seen() {
    let mut office = Office::by_place().await;
    let (there, _) = granted(&mut office.all, reader(BOB, &office.production)).await;
    granted(&mut office.all, reader(BOB, &office.development)).await;
    let all_of_bobs = || {
        revocation_of(GrantSelector {
            principal: Some(user(BOB)),
            ..GrantSelector::default()
        })
    };
    let mut plan = all_of_bobs();
    plan.validate_only = true;
    let plan = office.limited.revoke(plan).await.unwrap().into_inner();
    assert_eq!((plan.matched_grants, plan.left_grants), (1, 0));
    // One is as many as the caller was ready to end: what it does not see does not count.
    let mut request = all_of_bobs();
    request.max_grants = 1;
    let answer = office.limited.revoke(request).await.unwrap().into_inner();
    assert_eq!((answer.matched_grants, answer.left_grants), (1, 0));
    let job = over(&mut office.limited, &answer.job.unwrap().job_id).await;
    assert_eq!(job.total_targets, 1);
    let still = ask::the_grant(&mut office.all, &there.grant_id).await;
    assert_eq!(still.state(), State::Active);

    // A job of the other caller's, about both places.
    granted(&mut office.all, reader(BOB, &office.development)).await;
    let both = office.all.revoke(all_of_bobs()).await.unwrap().into_inner();
    let both = over(&mut office.all, &both.job.unwrap().job_id).await;
    assert_eq!(both.total_targets, 2);
    let answer = office
        .limited
        .get_job(GetJobRequest {
            job_id: both.job_id.clone(),
        })
        .await;
    assert_eq!(of(answer).reason, "JOB_NOT_FOUND");
    let listed = office
        .limited
        .list_jobs(ListJobsRequest::default())
        .await
        .unwrap();
    assert!(
        listed
            .into_inner()
            .jobs
            .iter()
            .all(|job| job.job_id != both.job_id)
    );
}

#[tokio::test]
async fn what_is_seen_and_may_not_be_revoked_is_counted() {
    let mut office = Office::open(
        "resource) unless { action == AksAccess::Action::\"Revoke\" && resource is AksAccess::Cluster && \
         resource.name == \"aks-production\" }",
    )
    .await;
    granted(&mut office.all, reader(BOB, &office.production)).await;
    granted(&mut office.all, reader(BOB, &office.development)).await;
    let all_of_bobs = revocation_of(GrantSelector {
        principal: Some(user(BOB)),
        ..GrantSelector::default()
    });
    let answer = office
        .limited
        .revoke(all_of_bobs.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.matched_grants, answer.left_grants), (1, 1));
    // The same request again is told the same.
    let again = office
        .limited
        .revoke(all_of_bobs)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((again.matched_grants, again.left_grants), (1, 1));
    let listed = office
        .limited
        .list_grants(ListGrantsRequest::default())
        .await
        .unwrap();
    let left = listed
        .into_inner()
        .grants
        .into_iter()
        .find(|it| it.cluster.eq_ignore_ascii_case(&office.production));
    let answer = office
        .limited
        .revoke(revocation(&left.unwrap().grant_id))
        .await;
    assert_eq!(
        of(answer).kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
}

#[tokio::test]
async fn somebodys_access_is_listed_where_the_caller_may_look() {
    let mut office = Office::by_place().await;
    for cluster in [&office.production, &office.development] {
        granted(
            &mut office.all,
            permanent(BOB, cluster, access(AzureRole::RbacReader, &[])),
        )
        .await;
    }
    let of_bob = ListAccessRequest {
        principal: Some(user(BOB)),
        consistency: Some(ask::now()),
        ..ListAccessRequest::default()
    };
    let clusters = async |client: &mut Client| {
        let page = client
            .list_access(of_bob.clone())
            .await
            .unwrap()
            .into_inner();
        page.entries
            .into_iter()
            .map(|it| it.path.unwrap().cluster)
            .collect::<BTreeSet<String>>()
    };
    assert_eq!(clusters(&mut office.all).await.len(), 2);
    let seen = clusters(&mut office.limited).await;
    assert_eq!(seen, BTreeSet::from([office.development.to_lowercase()]));
}

#[tokio::test]
async fn what_could_not_be_listed_is_told_where_the_caller_may_look() {
    for (lost, told) in [(PRODUCTION, false), (DEVELOPMENT, true)] {
        let mut office = Office::by_place().await;
        let refused = FaultEffect::Status {
            status: 403,
            code: "AuthorizationFailed".to_owned(),
            message: "not yours".to_owned(),
            retry_after: None,
        };
        office.world.emulator.add_fault(Fault {
            path_contains: Some(lost.to_owned()),
            ..Fault::always(Operation::ManagedClusterList, refused)
        });
        let place = format!("/subscriptions/{lost}");
        let page = office
            .limited
            .list_clusters(ListClustersRequest::default())
            .await;
        let page = page.unwrap().into_inner();
        assert_eq!(page.unreachable.contains(&place), told, "{page:?}");
        let of_bob = ListAccessRequest {
            principal: Some(user(BOB)),
            consistency: Some(ask::now()),
            ..ListAccessRequest::default()
        };
        let page = office
            .limited
            .list_access(of_bob)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(page.unreachable.contains(&place), told, "{page:?}");
    }
}

#[tokio::test]
async fn the_trail_of_elsewhere_is_not_there() {
    let mut office = Office::by_place().await;
    for cluster in [&office.production, &office.development] {
        granted(&mut office.all, reader(BOB, cluster)).await;
    }
    let clusters = async |client: &mut Client| {
        let asked = ListAuditEventsRequest {
            page_size: 1_000,
            ..ListAuditEventsRequest::default()
        };
        let page = client.list_audit_events(asked).await.unwrap().into_inner();
        let clusters = page.events.into_iter().map(|event| event.cluster);
        clusters.collect::<BTreeSet<String>>()
    };
    assert_eq!(clusters(&mut office.all).await.len(), 2);
    let seen = clusters(&mut office.limited).await;
    assert_eq!(seen, BTreeSet::from([office.development.to_lowercase()]));
}

/// Taking access away does not wait for what a cluster is like; giving it does.
#[tokio::test]
async fn a_revocation_does_not_wait_for_azure() {
    let mut office = Office::open(
        "resource) unless { resource is AksAccess::Cluster && resource.hasTag(\"closed\") }",
    )
    .await;
    let mut ids = Vec::new();
    for cluster in [&office.production, &office.development] {
        let (grant, _) = granted(&mut office.all, reader(BOB, cluster)).await;
        ids.push(grant.grant_id);
    }
    // A broker that has read nothing yet, and an Azure that does not answer about clusters.
    let patient = Timing {
        call_timeout: Duration::from_secs(25),
        settle_time: Duration::from_secs(30),
        lease: Duration::from_mins(1),
        ..Timing::default()
    };
    let config = office
        .world
        .config_of_policies(&patient, Some(&office.directory));
    let other = BrokerProcess::start(&config).await;
    let mut limited = other.client();
    for operation in [Operation::ManagedClusterRead, Operation::ManagedClusterList] {
        let silent = FaultEffect::Latency {
            delay: patient.call_timeout,
        };
        office
            .world
            .emulator
            .add_fault(Fault::always(operation, silent));
    }
    let all_of_bobs = revocation_of(GrantSelector {
        principal: Some(user(BOB)),
        ..GrantSelector::default()
    });
    for _ in 0..2 {
        let mut request = Request::new(all_of_bobs.clone());
        // Less than one call to Azure takes, and there are two clusters.
        request.set_timeout(Duration::from_secs(15));
        let answer = limited.revoke(request).await.unwrap().into_inner();
        assert_eq!(answer.matched_grants, 2);
    }
    let extended = limited.extend_grant(extension(&ids[0], HOUR * 2));
    let waits = tokio::time::timeout(Duration::from_secs(1), extended).await;
    assert!(waits.is_err(), "{waits:?}");
}

/// What nobody can decide does not look as if it were done: the caller asks again.
#[tokio::test]
async fn a_revocation_that_nobody_can_decide_is_asked_again() {
    let mut office = Office::by_tag().await;
    let (grant, _) = granted(&mut office.all, reader(BOB, &office.development)).await;
    let config = office
        .world
        .config_of_policies(&Timing::default(), Some(&office.directory));
    let other = BrokerProcess::start(&config).await;
    let mut limited = other.client();
    for operation in [Operation::ManagedClusterRead, Operation::ManagedClusterList] {
        let away = FaultEffect::CutBeforeCommit;
        office
            .world
            .emulator
            .add_fault(Fault::always(operation, away));
    }
    let all_of_bobs = revocation_of(GrantSelector {
        principal: Some(user(BOB)),
        ..GrantSelector::default()
    });
    for request in [revocation(&grant.grant_id), all_of_bobs.clone()] {
        let refusal = of(limited.revoke(request).await);
        assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_UNAVAILABLE"));
        assert!(refusal.retry_after.is_some());
    }
    office.world.emulator.clear_faults();
    let answer = limited.revoke(all_of_bobs).await.unwrap().into_inner();
    assert_eq!((answer.matched_grants, answer.left_grants), (1, 0));
}
