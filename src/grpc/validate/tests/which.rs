//! Which grants and jobs: revocations, extensions, selectors, lists.

use std::collections::HashMap;

use super::*;
use crate::broker::request::RequestedSelector;
use crate::domain::grant::Phase;

fn selector() -> proto::GrantSelector {
    proto::GrantSelector {
        cluster: Some(CLUSTER.to_owned()),
        ..proto::GrantSelector::default()
    }
}

#[test]
fn a_revocation_names_one_grant_or_a_selector() {
    let cases: &[Case<proto::RevokeRequest>] = &[
        ("by id", |_| {}, &[]),
        ("nothing", |r| r.grant_id.clear(), &["grant_id"]),
        ("no UUID", |r| r.grant_id = "g".to_owned(), &["grant_id"]),
        (
            "no UUID as key",
            |r| r.request_id = "r".to_owned(),
            &["request_id"],
        ),
        (
            "too long",
            |r| r.justification = "j".repeat(1025),
            &["justification"],
        ),
        (
            "by selector",
            |r| {
                r.grant_id.clear();
                r.selector = Some(selector());
            },
            &[],
        ),
        ("both", |r| r.selector = Some(selector()), &["selector"]),
        (
            "an empty selector",
            |r| {
                r.grant_id.clear();
                r.selector = Some(proto::GrantSelector::default());
            },
            &["selector"],
        ),
        (
            "include_unmanaged",
            |r| r.include_unmanaged = true,
            &["include_unmanaged"],
        ),
        ("only to see", |r| r.validate_only = true, &[]),
        ("a limit for one", |r| r.max_grants = 1, &["max_grants"]),
        (
            "a limit",
            |r| {
                r.grant_id.clear();
                r.selector = Some(selector());
                r.max_grants = 1000;
            },
            &[],
        ),
        (
            "too high a limit",
            |r| {
                r.grant_id.clear();
                r.selector = Some(selector());
                r.max_grants = 1001;
            },
            &["max_grants"],
        ),
        (
            "a limit below nothing",
            |r| r.max_grants = -1,
            &["max_grants"],
        ),
        ("for somebody", |r| r.on_behalf_of = ID.to_owned(), &[]),
        (
            "for anybody",
            |r| r.on_behalf_of = "x".to_owned(),
            &["on_behalf_of"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = proto::RevokeRequest {
            grant_id: ID.to_owned(),
            ..proto::RevokeRequest::default()
        };
        change(&mut request);
        assert_eq!(fields(revoke(&request)), *expected, "{name}");
    }
}

#[test]
fn what_a_selector_says_nothing_of_is_never_taken_for_any() {
    let cases: &[Case<proto::GrantSelector>] = &[
        ("a cluster", |_| {}, &[]),
        (
            "no cluster's id",
            |s| s.cluster = Some("prod".to_owned()),
            &["selector.cluster"],
        ),
        (
            "an empty principal",
            |s| s.principal = Some(proto::PrincipalRef::default()),
            &["selector.principal"],
        ),
        (
            "a principal named twice",
            |s| {
                s.principal = Some(proto::PrincipalRef {
                    application_id: ID.to_owned(),
                    ..principal()
                });
            },
            &["selector.principal"],
        ),
        (
            "a type of no kind",
            |s| {
                s.principal = Some(proto::PrincipalRef {
                    r#type: 77,
                    ..principal()
                });
            },
            &["selector.principal.type"],
        ),
        ("a principal", |s| s.principal = Some(principal()), &[]),
        (
            "a role of no kind",
            |s| s.azure_role = Some(77),
            &["selector.azure_role"],
        ),
        (
            "a role",
            |s| s.azure_role = Some(AzureRole::RbacReader.into()),
            &[],
        ),
        (
            "two roles",
            |s| {
                s.azure_role = Some(AzureRole::RbacReader.into());
                s.role_definition_id = Some(ID.to_owned());
            },
            &["selector"],
        ),
        (
            "no role's id",
            |s| s.role_definition_id = Some("reader".to_owned()),
            &["selector.role_definition_id"],
        ),
        (
            "a role in the cluster",
            |s| s.kubernetes_role = Some(proto::KubernetesRole::default()),
            &["selector.kubernetes_role"],
        ),
        (
            "no namespace",
            |s| s.namespaces = vec!["Shop".to_owned()],
            &["selector.namespaces[0]"],
        ),
        (
            "no label",
            |s| s.labels = HashMap::from([("-".to_owned(), String::new())]),
            &["selector.labels[\"-\"]"],
        ),
        (
            "too long a caller",
            |s| s.requested_by = Some("c".repeat(257)),
            &["selector.requested_by"],
        ),
        (
            "too long a key",
            |s| s.external_key = Some("k".repeat(129)),
            &["selector.external_key"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut changed = selector();
        change(&mut changed);
        let revocation = proto::RevokeRequest {
            selector: Some(changed.clone()),
            ..proto::RevokeRequest::default()
        };
        let list = proto::ListGrantsRequest {
            selector: Some(changed),
            ..proto::ListGrantsRequest::default()
        };
        assert_eq!(fields(revoke(&revocation)), *expected, "to revoke: {name}");
        assert_eq!(fields(grants(&list)), *expected, "to list: {name}");
    }
}

#[test]
fn a_list_without_a_selector_is_of_all_live_grants() {
    let everything = grants(&proto::ListGrantsRequest::default()).unwrap();
    assert_eq!(everything.selector, RequestedSelector::default());
    assert_eq!(everything.phases, Phase::LIVE.into());
    let empty = proto::ListGrantsRequest {
        selector: Some(proto::GrantSelector::default()),
        ..proto::ListGrantsRequest::default()
    };
    assert_eq!(fields(grants(&empty)), ["selector"]);
}

#[test]
fn an_extension_has_one_end_and_is_never_for_good() {
    let cases: &[Case<proto::ExtendGrantRequest>] = &[
        ("for an hour", |_| {}, &[]),
        ("no id", |r| r.grant_id.clear(), &["grant_id"]),
        ("no UUID", |r| r.grant_id = "g".to_owned(), &["grant_id"]),
        (
            "no UUID as key",
            |r| r.request_id = "r".to_owned(),
            &["request_id"],
        ),
        ("no end", |r| r.ttl = None, &["ttl"]),
        (
            "two ends",
            |r| r.expire_time = Some(in_seconds(60)),
            &["ttl"],
        ),
        (
            "until a time",
            |r| {
                r.ttl = None;
                r.expire_time = Some(in_seconds(60));
            },
            &[],
        ),
        ("too long", |r| r.ttl = Some(seconds(367 * DAY)), &["ttl"]),
        ("no time", |r| r.ttl = Some(seconds(0)), &["ttl"]),
        (
            "why at length",
            |r| r.justification = "j".repeat(1025),
            &["justification"],
        ),
        (
            "for anybody",
            |r| r.on_behalf_of = "x".to_owned(),
            &["on_behalf_of"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = proto::ExtendGrantRequest {
            grant_id: ID.to_owned(),
            ttl: Some(seconds(3600)),
            ..proto::ExtendGrantRequest::default()
        };
        change(&mut request);
        assert_eq!(fields(extend(&request, now())), *expected, "{name}");
    }
}

#[test]
fn lists_are_narrowed_by_what_there_is() {
    let asked = proto::ListGrantsRequest {
        page_size: -1,
        states: vec![0, 2, 99],
        ..proto::ListGrantsRequest::default()
    };
    assert_eq!(
        fields(grants(&asked)),
        ["page_size", "states[0]", "states[2]"]
    );
    let scheduled = proto::ListGrantsRequest {
        states: vec![proto::grant::State::Scheduled.into()],
        ..proto::ListGrantsRequest::default()
    };
    assert!(
        grants(&scheduled).unwrap().phases.is_empty(),
        "none is scheduled, and none is told"
    );

    let asked = proto::ListJobsRequest {
        page_size: 1001,
        principal: Some(proto::PrincipalRef::default()),
        cluster: Some("x".to_owned()),
        request_id: Some("x".to_owned()),
        states: vec![0],
        kinds: vec![7],
        ..proto::ListJobsRequest::default()
    };
    assert_eq!(
        fields(jobs(&asked)),
        [
            "page_size",
            "principal",
            "cluster",
            "request_id",
            "states[0]",
            "kinds[0]"
        ]
    );
    assert!(
        jobs(&proto::ListJobsRequest::default())
            .unwrap()
            .states
            .is_none()
    );

    let asked = proto::ListJobTargetsRequest {
        states: vec![-1],
        ..proto::ListJobTargetsRequest::default()
    };
    assert_eq!(fields(job_targets(&asked)), ["job_id", "states[0]"]);
}
