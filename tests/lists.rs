//! Lists: newest first, by page, and no page is another's.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{
    AzureRole, GetJobRequest, GrantSelector, Job, ListClustersRequest, ListGrantsRequest,
    ListJobTargetsRequest, ListJobsRequest, grant, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, active, permanent, revocation, revocation_of, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

/// Grants to so many people, oldest first.
async fn granted(client: &mut Client, world: &World, people: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..people {
        let reader = access(AzureRole::RbacReader, &[]);
        let request = permanent(Uuid::new_v4(), &world.cluster("aks-production"), reader);
        let accepted = client.grant(request).await.unwrap().into_inner();
        ids.push(accepted.grant.unwrap().grant_id);
    }
    world.at_rest().await;
    ids
}

async fn all_pages(client: &mut Client, mut request: ListGrantsRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = client
            .list_grants(request.clone())
            .await
            .expect("a page")
            .into_inner();
        pages.push(
            page.grants
                .into_iter()
                .map(|grant| grant.grant_id)
                .collect(),
        );
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn grants_come_newest_first_and_each_on_one_page() {
    let (world, _broker, mut client) = world().await;
    let mut newest_first = granted(&mut client, &world, 7).await;
    newest_first.reverse();
    for (page_size, lengths) in [
        (3, vec![3, 3, 1]),
        (7, vec![7]),
        (0, vec![7]),
        (1000, vec![7]),
    ] {
        let request = ListGrantsRequest {
            page_size,
            ..ListGrantsRequest::default()
        };
        let pages = all_pages(&mut client, request).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        assert_eq!(pages.concat(), newest_first);
    }
}

/// What is revoked while somebody turns pages has been shown, or is not shown: nothing comes twice, and what
/// stays is never skipped.
#[tokio::test]
async fn what_changes_between_two_pages_neither_comes_twice_nor_hides_another() {
    let (world, _broker, mut client) = world().await;
    let ids = granted(&mut client, &world, 6).await;
    let mut request = ListGrantsRequest {
        page_size: 2,
        states: vec![grant::State::Active.into(), grant::State::Revoked.into()],
        ..ListGrantsRequest::default()
    };
    let first = client
        .list_grants(request.clone())
        .await
        .unwrap()
        .into_inner();
    ask::revoke(&mut client, &ids[3]).await;
    ask::revoke(&mut client, &ids[4]).await;
    granted(&mut client, &world, 1).await;
    request.page_token = first.next_page_token;
    let rest = all_pages(&mut client, request).await.concat();
    let shown: Vec<&String> = first
        .grants
        .iter()
        .map(|grant| &grant.grant_id)
        .chain(&rest)
        .collect();
    assert_eq!(shown, ids.iter().rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn grants_are_told_by_their_states_with_what_is_in_place_for_them() {
    let (world, _broker, mut client) = world().await;
    let ids = granted(&mut client, &world, 3).await;
    ask::revoke(&mut client, &ids[1]).await;
    for (states, expected) in [
        (vec![], vec![&ids[2], &ids[0]]),
        (vec![grant::State::Active], vec![&ids[2], &ids[0]]),
        (vec![grant::State::Revoked], vec![&ids[1]]),
        (
            vec![grant::State::Active, grant::State::Revoked],
            vec![&ids[2], &ids[1], &ids[0]],
        ),
        (
            vec![
                grant::State::Pending,
                grant::State::Failed,
                grant::State::Expired,
            ],
            vec![],
        ),
        (vec![grant::State::Scheduled], vec![]),
    ] {
        let request = ListGrantsRequest {
            states: states.iter().map(|state| i32::from(*state)).collect(),
            ..ListGrantsRequest::default()
        };
        let page = client.list_grants(request).await.unwrap().into_inner();
        let told: Vec<&String> = page.grants.iter().map(|grant| &grant.grant_id).collect();
        assert_eq!(told, expected, "{states:?}");
        for grant in &page.grants {
            let in_place = if grant.state() == grant::State::Active {
                2
            } else {
                0
            };
            assert_eq!(grant.effects.len(), in_place, "{grant:?}");
        }
    }
}

/// REVOKING grants are in separate lists. Every answer has them in the order of the ids all the same.
#[tokio::test]
async fn grants_that_are_revoking_are_listed_among_all_others_by_state_and_by_page() {
    use grant::State::{Active, Expired, Failed, Revoked, Revoking};
    let (world, _broker, mut client) = world().await;
    let ids = granted(&mut client, &world, 6).await;
    ask::revoke(&mut client, &ids[1]).await;
    let locked = FaultEffect::Status {
        status: 409,
        code: "ScopeLocked".to_owned(),
        message: "locked".to_owned(),
        retry_after: None,
    };
    let fault = Fault::always(Operation::RoleAssignmentDelete, locked);
    world.emulator.add_fault(fault);
    let mut jobs = Vec::new();
    for id in [&ids[3], &ids[4]] {
        let accepted = client.revoke(revocation(id)).await.unwrap().into_inner();
        jobs.push(accepted.job.unwrap().job_id);
    }
    let all_by_two = |states: &[grant::State]| ListGrantsRequest {
        page_size: 2,
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..ListGrantsRequest::default()
    };
    for (states, expected) in [
        (&[Revoking][..], &[4, 3][..]),
        (&[Active], &[5, 2, 0]),
        (&[Active, Revoking], &[5, 4, 3, 2, 0]),
        (&[Revoking, Revoked], &[4, 3, 1]),
        (&[Active, Revoking, Revoked], &[5, 4, 3, 2, 1, 0]),
        (&[Expired, Failed], &[]),
    ] {
        let pages = all_pages(&mut client, all_by_two(states)).await;
        let expected: Vec<String> = expected.iter().map(|n: &usize| ids[*n].clone()).collect();
        assert_eq!(pages.concat(), expected, "{states:?}");
    }
    world.emulator.clear_faults();
    for job in jobs {
        ask::over(&mut client, &job).await;
    }
    let pages = all_pages(&mut client, all_by_two(&[Revoking])).await;
    assert_eq!(pages.concat(), Vec::<String>::new());
    let pages = all_pages(&mut client, all_by_two(&[Revoked])).await;
    assert_eq!(pages.concat().len(), 3);
}

async fn jobs(client: &mut Client, request: ListJobsRequest) -> Vec<Job> {
    client
        .list_jobs(request)
        .await
        .expect("a page")
        .into_inner()
        .jobs
}

#[tokio::test]
async fn jobs_are_found_by_whom_where_kind_state_and_request() {
    let (world, _broker, mut client) = world().await;
    let reader = access(AzureRole::RbacReader, &[]);
    let [production, development] =
        ["aks-production", "aks-development"].map(|name| world.cluster(name));
    let request = permanent(ALICE, &production, reader.clone());
    let request_id = request.request_id.clone();
    let first = active(&mut client, request).await;
    let second = active(&mut client, permanent(ALICE, &development, reader.clone())).await;
    let third = active(&mut client, permanent(Uuid::new_v4(), &production, reader)).await;
    let alices = GrantSelector {
        principal: Some(user(ALICE)),
        ..GrantSelector::default()
    };
    let both = client
        .revoke(revocation_of(alices))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    ask::over(&mut client, &both.job_id).await;
    let [one, two, three, both] = [first.job_id, second.job_id, third.job_id, both.job_id];
    let cases = [
        (
            "all",
            ListJobsRequest::default(),
            vec![&both, &three, &two, &one],
        ),
        (
            "whom",
            ListJobsRequest {
                principal: Some(user(ALICE)),
                ..ListJobsRequest::default()
            },
            vec![&both, &two, &one],
        ),
        (
            "where",
            ListJobsRequest {
                cluster: Some(development.clone()),
                ..ListJobsRequest::default()
            },
            vec![&both, &two],
        ),
        (
            "whom and where",
            ListJobsRequest {
                principal: Some(user(ALICE)),
                cluster: Some(production.clone()),
                ..ListJobsRequest::default()
            },
            vec![&both, &one],
        ),
        (
            "kind",
            ListJobsRequest {
                kinds: vec![job::Kind::Revoke.into(), job::Kind::Repair.into()],
                ..ListJobsRequest::default()
            },
            vec![&both],
        ),
        (
            "state",
            ListJobsRequest {
                states: vec![job::State::Running.into(), job::State::Failed.into()],
                ..ListJobsRequest::default()
            },
            vec![],
        ),
        (
            "request",
            ListJobsRequest {
                request_id: Some(request_id),
                ..ListJobsRequest::default()
            },
            vec![&one],
        ),
    ];
    for (what, request, expected) in cases {
        let found = jobs(&mut client, request).await;
        let ids: Vec<&String> = found.iter().map(|job| &job.job_id).collect();
        assert_eq!(ids, expected, "{what}");
        for job in found {
            let whole = ask::job(&mut client, &job.job_id).await;
            assert_eq!(job, whole, "the same as GetJob tells");
        }
    }
}

#[tokio::test]
async fn the_targets_of_a_job_come_by_page_and_the_first_twenty_with_the_job() {
    let (world, _broker, mut client) = world().await;
    granted(&mut client, &world, 45).await;
    let everybodys = GrantSelector {
        cluster: Some(world.cluster("aks-production")),
        ..GrantSelector::default()
    };
    let job = client
        .revoke(revocation_of(everybodys))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    ask::over(&mut client, &job.job_id).await;
    let request = GetJobRequest {
        job_id: job.job_id.clone(),
    };
    let told = client.get_job(request).await.unwrap().into_inner();
    assert_eq!(
        (told.targets.len(), told.job.unwrap().total_targets),
        (20, 45)
    );
    let mut request = ListJobTargetsRequest {
        job_id: job.job_id.clone(),
        page_size: 20,
        states: vec![job::State::Succeeded.into()],
        ..ListJobTargetsRequest::default()
    };
    let mut targets = Vec::new();
    loop {
        let page = client
            .list_job_targets(request.clone())
            .await
            .unwrap()
            .into_inner();
        targets.extend(page.targets);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let people: BTreeSet<String> = targets
        .iter()
        .map(|target| target.principal.as_ref().unwrap().object_id.clone())
        .collect();
    assert_eq!((targets.len(), people.len()), (45, 45));
    assert_eq!(told.targets, targets[..20]);
    let none = ListJobTargetsRequest {
        states: vec![job::State::Retrying.into()],
        page_token: String::new(),
        ..request
    };
    assert!(
        client
            .list_job_targets(none)
            .await
            .unwrap()
            .into_inner()
            .targets
            .is_empty()
    );
}

#[tokio::test]
async fn a_page_token_of_another_list_or_another_filter_is_refused() {
    let (world, _broker, mut client) = world().await;
    granted(&mut client, &world, 3).await;
    let grants = ListGrantsRequest {
        page_size: 1,
        ..ListGrantsRequest::default()
    };
    let token = client
        .list_grants(grants.clone())
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    assert!(!token.is_empty());
    let job_id = jobs(&mut client, ListJobsRequest::default()).await[0]
        .job_id
        .clone();
    for page_token in [
        token.as_str(),
        "x",
        "00",
        &token[..8],
        &format!("{token}00"),
    ] {
        let page_token = page_token.to_owned();
        let of_alice = ListGrantsRequest {
            selector: Some(GrantSelector {
                principal: Some(user(ALICE)),
                ..GrantSelector::default()
            }),
            page_token: page_token.clone(),
            ..grants.clone()
        };
        let ended = ListGrantsRequest {
            states: vec![grant::State::Revoked.into()],
            page_token: page_token.clone(),
            ..grants.clone()
        };
        for request in [of_alice, ended] {
            Refusal::from(client.list_grants(request).await).names(&["page_token"]);
        }
        let request = ListJobsRequest {
            page_token: page_token.clone(),
            ..ListJobsRequest::default()
        };
        Refusal::from(client.list_jobs(request).await).names(&["page_token"]);
        let request = ListJobTargetsRequest {
            job_id: job_id.clone(),
            page_token: page_token.clone(),
            ..ListJobTargetsRequest::default()
        };
        Refusal::from(client.list_job_targets(request).await).names(&["page_token"]);
        let request = ListClustersRequest {
            page_token,
            ..ListClustersRequest::default()
        };
        Refusal::from(client.list_clusters(request).await).names(&["page_token"]);
    }
    let next = ListGrantsRequest {
        page_token: token,
        page_size: 2,
        ..ListGrantsRequest::default()
    };
    assert_eq!(
        client
            .list_grants(next)
            .await
            .unwrap()
            .into_inner()
            .grants
            .len(),
        2,
        "another size is the same list"
    );
}
