//! What is kept, by which lists it is found, and that nothing is left of it in the end.

use std::collections::BTreeMap;

use aks_access_broker::domain::ids::{ClusterId, JobId};
use aks_access_broker::domain::naming::{ExternalKey, LabelKey, LabelValue};
use aks_access_broker::domain::selector::GrantSelector;
use aks_access_broker::store::{
    Accepted, Begun, JobSelector, ListScope, Lives, NewGrant, NewRevocation, Recorded, Revoked,
};

use super::ALICE;
use super::bench::{Bench, reader, revocation, terms};

const BOB: u128 = 2;

fn named(principal: u128, key: &str) -> NewGrant {
    let label = |key: &str, value: &str| {
        let key = LabelKey::parse(key).unwrap();
        (key, LabelValue::parse(value).unwrap())
    };
    NewGrant {
        external_key: Some(ExternalKey::parse(key).unwrap()),
        labels: BTreeMap::from([label("team", "a \"b\" / c=d"), label("empty", "")]),
        ..reader(principal)
    }
}

/// Goes through passes until no target is ready.
async fn carry_out(bench: &Bench) {
    while let Some(mut pass) = bench.pass_on(&terms()).await {
        assert_eq!(pass.begin(bench).await, Begun::Begun);
        pass.all_answered();
        assert_eq!(pass.record(bench).await, Recorded::Recorded);
    }
}

async fn keys(bench: &mut Bench, pattern: &str) -> Vec<String> {
    bench
        .ask("KEYS", &[&format!("{{aab:main}}:{pattern}")])
        .await
}

/// Grants, one asked for twice, a revocation of both in one job: once all are over and forgotten, no key is left
/// but those that run out by themselves.
#[tokio::test]
async fn nothing_is_left_of_what_is_forgotten() {
    let mut bench = Bench::start().await;
    let mut grants = Vec::new();
    for (principal, key) in [(ALICE, "one"), (BOB, "two")] {
        let new = named(principal, key);
        bench.store.accept_grant(&new).await.unwrap();
        let again = named(principal, key);
        let again = bench.store.accept_grant(&again).await.unwrap();
        assert_eq!(again, Accepted::New(new.job, Some(new.grant)));
        grants.push(new.grant);
    }
    carry_out(&bench).await;
    let all = NewRevocation {
        grants: Revoked::Selected(grants.clone()),
        ..revocation(grants[0])
    };
    bench.store.accept_revocation(&all).await.unwrap();
    carry_out(&bench).await;
    let job = bench.job(all.job).await;
    assert_eq!((job.completed_targets, job.matched_grants), (2, 2));
    for family in ["live", "going"] {
        let lists = keys(&mut bench, &format!("grants:{family}:*")).await;
        assert!(lists.is_empty(), "{lists:?}");
    }

    let retired: Vec<String> = bench
        .ask("ZRANGE", &["{aab:main}:retired", "0", "-1"])
        .await;
    assert_eq!(
        retired.len(),
        5,
        "two grants, their two jobs, and the revocation"
    );
    for member in retired {
        let _: i64 = bench
            .ask("ZADD", &["{aab:main}:retired", "1", &member])
            .await;
    }
    assert_eq!(bench.store.forget(10).await.unwrap(), 5);
    for pattern in ["grant*", "job*", "retired", "expiries", "due"] {
        let left = keys(&mut bench, pattern).await;
        assert!(left.is_empty(), "{left:?}");
    }
    for pattern in ["req:*", "target:*"] {
        let left = keys(&mut bench, pattern).await;
        assert!(!left.is_empty());
        for key in left {
            let life: i64 = bench.ask("PTTL", &[&key]).await;
            assert!(life > 0, "{key} never runs out");
        }
    }
}

/// A revocation by selector finds live and REVOKING grants without reading those that have ended.
#[tokio::test]
async fn a_grant_is_found_in_one_family_of_lists_at_a_time() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    let selector = GrantSelector {
        principal: Some(granted.target.principal),
        ..GrantSelector::default()
    };
    let families = async |bench: &mut Bench| {
        let mut found = Vec::new();
        for of in [Lives::Live, Lives::Revoking, Lives::Past, Lives::Either] {
            let grants = bench
                .store
                .find_grants(&selector, &ListScope::All, of, None, 10)
                .await;
            found.push(grants.unwrap().rows.len());
        }
        let mut names = Vec::new();
        for name in ["live", "going", "past"] {
            let lists = keys(bench, &format!("grants:{name}:*")).await;
            names.push(lists.len());
        }
        (found, names)
    };
    assert_eq!(
        families(&mut bench).await,
        (vec![1, 0, 0, 1], vec![4, 0, 0])
    );
    bench.revoke(granted.grant).await;
    assert_eq!(
        families(&mut bench).await,
        (vec![0, 1, 1, 1], vec![0, 4, 0])
    );
    carry_out(&bench).await;
    assert_eq!(
        families(&mut bench).await,
        (vec![0, 0, 1, 1], vec![0, 0, 4])
    );
}

/// Each caller has a name space of its own.
#[tokio::test]
async fn a_job_is_found_by_its_callers_own_request_id() {
    let bench = Bench::start().await;
    let mine = reader(ALICE);
    let mut theirs = reader(BOB);
    theirs.request.id = mine.request.id;
    theirs.request.caller = "somebody else".to_owned();
    bench.store.accept_grant(&mine).await.unwrap();
    bench.store.accept_grant(&theirs).await.unwrap();
    for new in [mine, theirs] {
        assert_eq!(found(&bench, &new).await, [new.job]);
    }
}

/// The same again by an external key is answered with a job that was there.
#[tokio::test]
async fn a_job_is_found_by_each_request_that_it_was_the_answer_to() {
    let bench = Bench::start().await;
    let first = named(ALICE, "one");
    let again = named(ALICE, "one");
    bench.store.accept_grant(&first).await.unwrap();
    bench.store.accept_grant(&again).await.unwrap();
    for new in [&first, &again] {
        assert_eq!(found(&bench, new).await, [first.job]);
    }
    let selector = JobSelector {
        principal: Some(reader(BOB).target.principal),
        request: Some((again.request.caller, again.request.id)),
        ..JobSelector::default()
    };
    let jobs = bench
        .store
        .find_jobs(&selector, &ListScope::All, None, 10)
        .await
        .unwrap();
    assert_eq!(jobs.rows, [], "and it is nobody else's");
}

async fn found(bench: &Bench, new: &NewGrant) -> Vec<JobId> {
    let selector = JobSelector {
        request: Some((new.request.caller.clone(), new.request.id)),
        ..JobSelector::default()
    };
    let found = bench
        .store
        .find_jobs(&selector, &ListScope::All, None, 10)
        .await
        .unwrap();
    assert_eq!(found.looked_to, None);
    found.rows.into_iter().map(|job| job.id).collect()
}

/// In the order of their clusters, though one name begins with another; however few are read at a time.
#[tokio::test]
async fn the_targets_of_a_job_come_in_the_order_of_their_clusters() {
    let bench = Bench::start().await;
    let mut grants = Vec::new();
    for cluster in ["prod-2", "test", "prod"] {
        let mut new = reader(ALICE);
        let id = new.target.cluster.to_string();
        new.target.cluster = ClusterId::parse(&id.replace("/one", &format!("/{cluster}"))).unwrap();
        bench.store.accept_grant(&new).await.unwrap();
        grants.push(new.grant);
    }
    let all = NewRevocation {
        grants: Revoked::Selected(grants.clone()),
        ..revocation(grants[0])
    };
    bench.store.accept_revocation(&all).await.unwrap();
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let read = bench.store.job_targets(all.job, after.as_ref(), 2).await;
        let read = read.unwrap().expect("the job is kept");
        names.extend(read.iter().map(|it| it.id.cluster.name().to_owned()));
        after = read.last().map(|it| it.id.clone());
        if read.len() < 2 {
            break;
        }
    }
    assert_eq!(names, ["prod", "prod-2", "test"]);
    let job = bench.job(all.job).await;
    assert_eq!(job.targets.len(), 3);
    assert_eq!(job.principal.unwrap().id, reader(ALICE).target.principal);
}
