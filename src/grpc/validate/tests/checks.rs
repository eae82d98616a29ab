//! What may be asked about access, and how fresh the answer may have to be.

use super::super::super::proto;
use super::super::{batch, check, check_of_batch, list_access};
use super::{CLUSTER, Case, access, fields, principal, seconds};
use crate::broker::request::AccessOf;
use crate::domain::freshness::Freshness;

fn a_check() -> proto::CheckAccessRequest {
    proto::CheckAccessRequest {
        principal: Some(principal()),
        cluster: CLUSTER.to_owned(),
        access: Some(access()),
        ..proto::CheckAccessRequest::default()
    }
}

fn a_request() -> proto::KubernetesRequest {
    proto::KubernetesRequest {
        verb: "get".to_owned(),
        resource: "pods".to_owned(),
        namespace: "web".to_owned(),
        ..proto::KubernetesRequest::default()
    }
}

#[test]
fn a_check_asks_one_question() {
    let cases: &[Case<proto::CheckAccessRequest>] = &[
        ("about an access", |_| {}, &[]),
        ("nothing", |r| r.access = None, &["access"]),
        (
            "about a request",
            |r| {
                r.access = None;
                r.request = Some(a_request());
            },
            &[],
        ),
        ("both", |r| r.request = Some(a_request()), &["request"]),
        ("no principal", |r| r.principal = None, &["principal"]),
        ("no cluster", |r| r.cluster.clear(), &["cluster"]),
    ];
    for (name, change, expected) in cases {
        let mut request = a_check();
        change(&mut request);
        assert_eq!(fields(check(&request)), *expected, "{name}");
    }
}

#[test]
fn a_kubernetes_request_is_for_objects_or_for_a_path() {
    let cases: &[Case<proto::KubernetesRequest>] = &[
        ("pods", |_| {}, &[]),
        (
            "nothing",
            |r| *r = proto::KubernetesRequest::default(),
            &["request.verb", "request.resource"],
        ),
        (
            "everything",
            |r| {
                r.verb = "*".to_owned();
                r.api_group = "*".to_owned();
                r.resource = "*".to_owned();
            },
            &[],
        ),
        ("a shout", |r| r.verb = "GET".to_owned(), &["request.verb"]),
        (
            "a kind",
            |r| r.resource = "Pod".to_owned(),
            &["request.resource"],
        ),
        (
            "a path as a resource",
            |r| r.resource = "pods/log".to_owned(),
            &["request.resource"],
        ),
        (
            "a step in a path",
            |r| r.resource = "..".to_owned(),
            &["request.resource"],
        ),
        (
            "a namespace that cannot be",
            |r| {
                *r = proto::KubernetesRequest {
                    verb: "get".to_owned(),
                    resource: "namespaces".to_owned(),
                    name: "Web".to_owned(),
                    ..proto::KubernetesRequest::default()
                };
            },
            &["request.name"],
        ),
        ("a subresource", |r| r.subresource = "log".to_owned(), &[]),
        (
            "a group and its version",
            |r| r.api_group = "apps/v1".to_owned(),
            &["request.api_group"],
        ),
        (
            "no namespace's name",
            |r| r.namespace = "Web".to_owned(),
            &["request.namespace"],
        ),
        ("a name", |r| r.name = "web-0".to_owned(), &[]),
        (
            "a long name",
            |r| r.name = "x".repeat(254),
            &["request.name"],
        ),
        (
            "a path",
            |r| {
                *r = proto::KubernetesRequest {
                    verb: "get".to_owned(),
                    path: "/healthz".to_owned(),
                    ..proto::KubernetesRequest::default()
                };
            },
            &[],
        ),
        (
            "a path beside a resource",
            |r| r.path = "/x".to_owned(),
            &["request.resource", "request.namespace"],
        ),
        (
            "no path",
            |r| {
                *r = proto::KubernetesRequest {
                    verb: "get".to_owned(),
                    path: "healthz?verbose".to_owned(),
                    ..proto::KubernetesRequest::default()
                };
            },
            &["request.path"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_check();
        request.access = None;
        change(request.request.insert(a_request()));
        assert_eq!(fields(check(&request)), *expected, "{name}");
    }
}

#[test]
fn an_answer_is_as_fresh_as_is_asked_in_one_way() {
    let cases: &[Case<proto::Consistency>] = &[
        ("as configured", |_| {}, &[]),
        ("an age", |c| c.max_staleness = Some(seconds(5)), &[]),
        (
            "no age",
            |c| c.max_staleness = Some(seconds(-5)),
            &["consistency.max_staleness"],
        ),
        (
            "a token",
            |c| {
                c.at_least_as_fresh =
                    "0198d5d0-0000-7000-8000-000000000001/1790000000000-0".to_owned();
            },
            &[],
        ),
        (
            "no token",
            |c| c.at_least_as_fresh = "soon".to_owned(),
            &["consistency.at_least_as_fresh"],
        ),
        ("now", |c| c.fully_consistent = true, &[]),
        (
            "two ways",
            |c| {
                c.fully_consistent = true;
                c.max_staleness = Some(seconds(5));
            },
            &["consistency"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_check();
        change(request.consistency.insert(proto::Consistency::default()));
        assert_eq!(fields(check(&request)), *expected, "{name}");
        assert_eq!(fields(check_of_batch(&request)), ["consistency"], "{name}");
    }
    assert_eq!(check(&a_check()).unwrap().1, Freshness::Configured);
    assert!(check_of_batch(&a_check()).is_ok());
}

#[test]
fn a_batch_has_one_to_a_thousand_checks() {
    for (count, is_well_formed) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
        let request = proto::BatchCheckAccessRequest {
            requests: vec![proto::CheckAccessRequest::default(); count],
            ..proto::BatchCheckAccessRequest::default()
        };
        assert_eq!(batch(&request).is_ok(), is_well_formed, "{count}");
    }
}

#[test]
fn access_is_listed_by_cluster_or_by_principal() {
    let whole = || proto::ListAccessRequest {
        cluster: Some(CLUSTER.to_owned()),
        principal: Some(principal()),
        request: Some(a_request()),
        ..proto::ListAccessRequest::default()
    };
    let cases: &[Case<proto::ListAccessRequest>] = &[
        ("both", |_| {}, &[]),
        ("a cluster", |r| r.principal = None, &[]),
        (
            "everything of somebody",
            |r| {
                r.cluster = None;
                r.request = None;
            },
            &[],
        ),
        ("a request somewhere", |r| r.cluster = None, &["cluster"]),
        (
            "everything of everybody",
            |r| {
                *r = proto::ListAccessRequest::default();
            },
            &["cluster"],
        ),
        (
            "no principal's name",
            |r| r.principal = Some(proto::PrincipalRef::default()),
            &["principal"],
        ),
        ("a long page", |r| r.page_size = 1_001, &["page_size"]),
    ];
    for (name, change, expected) in cases {
        let mut request = whole();
        change(&mut request);
        assert_eq!(fields(list_access(&request)), *expected, "{name}");
    }
    let of_cluster = list_access(&whole()).unwrap().of;
    assert!(matches!(of_cluster, AccessOf::Cluster { .. }));
}
