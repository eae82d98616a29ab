//! What callers read, from what the broker knows.

use std::collections::{BTreeMap, BTreeSet};

use super::super::proto;
use super::*;
use crate::domain::access::{Access, Principal, RoleAtScope};
use crate::domain::effect::Foreign;
use crate::domain::grant::Expiry;
use crate::domain::ids::{
    AssignmentName, ClusterId, GrantId, JobId, Namespace, PrincipalId, RequestId, RoleDefinitionId,
    Scope,
};
use crate::domain::naming::{ExternalKey, LabelKey, LabelValue, OnBehalfOf};

const CLUSTER: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/rg/providers/\
                       microsoft.containerservice/managedclusters/prod";
const CUSTOM: &str = "99999999-9999-4999-8999-999999999999";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn target_id() -> TargetId {
    TargetId {
        cluster: ClusterId::parse(CLUSTER).unwrap(),
        principal: PrincipalId::parse("22222222-2222-4222-8222-222222222222").unwrap(),
    }
}

fn somebody() -> Principal {
    Principal {
        display_name: "On call".to_owned(),
        ..Principal::unnamed(target_id().principal, PrincipalType::Group)
    }
}

fn a_grant() -> Grant {
    Grant {
        id: GrantId::parse("33333333-3333-7333-8333-333333333333").unwrap(),
        target: target_id(),
        principal: somebody(),
        access: Access {
            role: Role::Custom {
                id: RoleDefinitionId::parse(CUSTOM).unwrap(),
                name: "Pod Reader".to_owned(),
            },
            namespaces: BTreeSet::from([Namespace::parse("shop").unwrap()]),
        },
        state: GrantState::Active,
        create_time: time("2026-11-24T12:00:00Z"),
        expiry: Expiry::At(time("2026-11-24T13:00:00.5Z")),
        update_time: time("2026-11-24T12:00:01Z"),
        end_time: None,
        was_active: true,
        requested_by: "somebody".to_owned(),
        ended_by: String::new(),
        justification: "on call".to_owned(),
        labels: BTreeMap::from([(
            LabelKey::parse("ticket").unwrap(),
            LabelValue::parse("INC-1").unwrap(),
        )]),
        external_key: Some(ExternalKey::parse("order 1").unwrap()),
        on_behalf_of: Some(OnBehalfOf::parse("ada@contoso.example").unwrap()),
        job: JobId::parse("44444444-4444-7444-8444-444444444444").unwrap(),
        last_error: None,
    }
}

fn an_effect(known: Known) -> Effect {
    let at = RoleAtScope {
        role: RoleDefinitionId::parse(CUSTOM).unwrap(),
        scope: Scope::parse(&format!("{CLUSTER}/namespaces/shop")).unwrap(),
    };
    let name = AssignmentName::parse("55555555-5555-5555-8555-555555555555").unwrap();
    Effect {
        known,
        ..Effect::untouched(name, at, 0, time("2026-11-24T12:00:00Z"))
    }
}

fn a_job(state: JobState, targets: usize) -> Job {
    let target = JobTarget {
        id: target_id(),
        principal: somebody(),
        state,
        attempts: 2,
        next_attempt_time: None,
        last_error: None,
        grants: BTreeSet::from([a_grant().id]),
        effects: Vec::new(),
    };
    Job {
        id: a_grant().job,
        kind: JobKind::Revoke,
        state,
        version: 1,
        request_id: Some(RequestId::parse(CUSTOM).unwrap()),
        requested_by: "somebody".to_owned(),
        justification: String::new(),
        create_time: time("2026-11-24T12:00:00Z"),
        finish_time: state.is_final().then(|| time("2026-11-24T12:00:05Z")),
        next_attempt_time: None,
        attempts: u32::MAX,
        principal: (targets == 1).then(somebody),
        cluster: (targets == 1).then(|| target_id().cluster),
        matched_grants: 1,
        left_grants: 0,
        total_targets: 1,
        completed_targets: 0,
        last_error: Some(Failure {
            reason: "AZURE_THROTTLED".to_owned(),
            message: "wait".to_owned(),
            azure_correlation_id: CUSTOM.to_owned(),
            retryable: true,
            code: 14,
            metadata: BTreeMap::from([("retry_after".to_owned(), "5s".to_owned())]),
        }),
        consistency_token: None,
        targets: vec![target; targets],
    }
}

#[test]
fn a_grant_names_its_role_and_what_is_in_place() {
    let somebody_elses = AssignmentName::parse("66666666-6666-4666-8666-666666666666").unwrap();
    let foreign = Known::Foreign(Foreign {
        name: somebody_elses,
        conditional: false,
    });
    let told = grant(&a_grant(), &[an_effect(Known::Present), an_effect(foreign)]);
    let access = told.access.unwrap();
    assert_eq!(
        (access.azure_role, access.role_definition_id.as_str()),
        (0, CUSTOM)
    );
    assert_eq!(access.namespaces, ["shop"]);
    let principal = told.principal.unwrap();
    assert_eq!(principal.r#type(), proto::PrincipalType::Group);
    assert_eq!(principal.display_name, "On call");
    assert_eq!(told.labels["ticket"], "INC-1");
    assert_eq!(told.external_key, "order 1");
    assert_eq!(told.on_behalf_of, "ada@contoso.example");
    let expire_time = told.expire_time.unwrap();
    assert_eq!(expire_time.nanos, 500_000_000);
    let [ours, theirs] = told.effects.as_slice() else {
        panic!("{:?}", told.effects)
    };
    assert!(ours.managed && !theirs.managed);
    assert_eq!(
        [ours.change(), theirs.change()],
        [proto::effect::Change::Unspecified; 2],
        "they are shown as they stand"
    );
    assert_eq!(ours.role, "Pod Reader");
    assert_eq!(ours.scope, format!("{CLUSTER}/namespaces/shop"));
    assert!(theirs.resource_id.ends_with(&somebody_elses.to_string()));
    assert!(theirs.resource_id.starts_with(CLUSTER));
}

#[test]
fn every_state_of_a_grant_has_its_own() {
    use proto::grant::State;
    for (state, expected) in [
        (GrantState::Pending, State::Pending),
        (GrantState::Active, State::Active),
        (GrantState::Revoking(Ending::Failed), State::Revoking),
        (GrantState::Ended(Ending::Revoked), State::Revoked),
        (GrantState::Ended(Ending::Expired), State::Expired),
        (GrantState::Ended(Ending::Failed), State::Failed),
    ] {
        let told = grant(&Grant { state, ..a_grant() }, &[]);
        assert_eq!(told.state(), expected);
    }
}

#[test]
fn a_job_that_is_over_says_by_when_clusters_have_heard() {
    let told = job(&a_job(JobState::Succeeded, 1), Duration::from_mins(10));
    let wait = told.enforce_time.unwrap().seconds - told.finish_time.unwrap().seconds;
    assert_eq!(wait, 18 * 60);
    assert_eq!(told.cluster, CLUSTER);
    assert_eq!(told.attempts, i32::MAX);
    let failure = told.last_error.unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.code),
        ("AZURE_THROTTLED", 14)
    );
    let running = job(&a_job(JobState::Running, 1), Duration::from_mins(10));
    assert!(running.enforce_time.is_none() && running.finish_time.is_none());
}

#[test]
fn a_job_of_several_targets_has_no_principal_of_its_own() {
    let several = a_job(JobState::Running, 25);
    assert!(job(&several, Duration::ZERO).principal.is_none());
    assert_eq!(targets(&several).len(), 20);
}

#[test]
fn a_watcher_is_told_the_targets_that_changed() {
    let before = a_job(JobState::Running, 1);
    assert!(changed_targets(&before, &before).is_empty());
    let after = a_job(JobState::Succeeded, 1);
    assert_eq!(changed_targets(&after, &before).len(), 1);
}

#[test]
fn a_time_before_1970_counts_forward() {
    let told = timestamp(time("1969-12-31T23:59:58.75Z"));
    assert_eq!((told.seconds, told.nanos), (-2, 750_000_000));
}
