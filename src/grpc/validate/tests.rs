//! Each field of each request: what is taken, and under which path what is refused.

use super::super::proto::{self, AzureRole, PrincipalType};
use super::*;
use crate::broker::request::{RequestedEnd, RequestedRole};
use crate::domain::role::BuiltInRole;

mod checks;
mod naming;
mod which;
mod who_and_what;

const ID: &str = "11111111-1111-4111-8111-111111111111";
const CLUSTER: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/\
                       Microsoft.ContainerService/managedClusters/prod";
const DAY: i64 = 24 * 60 * 60;

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn in_seconds(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: now().as_second() + seconds,
        nanos: 0,
    }
}

fn principal() -> proto::PrincipalRef {
    proto::PrincipalRef {
        object_id: ID.to_owned(),
        r#type: PrincipalType::User.into(),
        ..proto::PrincipalRef::default()
    }
}

fn access() -> proto::Access {
    proto::Access {
        azure_role: AzureRole::RbacReader.into(),
        namespaces: vec!["shop".to_owned(), "till".to_owned()],
        ..proto::Access::default()
    }
}

fn a_grant() -> proto::GrantRequest {
    proto::GrantRequest {
        request_id: ID.to_owned(),
        principal: Some(principal()),
        cluster: CLUSTER.to_owned(),
        access: Some(access()),
        ttl: Some(seconds(3600)),
        justification: "on call".to_owned(),
        ..proto::GrantRequest::default()
    }
}

fn fields<T: std::fmt::Debug>(result: Result<T, Vec<Violation>>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(wrong) => wrong.into_iter().map(|v| v.field).collect(),
    }
}

/// A change to a request, by name, and the fields that are then wrong.
type Case<R> = (&'static str, fn(&mut R), &'static [&'static str]);

#[test]
fn a_whole_grant_comes_through_as_it_was_asked_for() {
    let wish = grant(&a_grant(), now()).unwrap();
    assert_eq!(wish.request_id.unwrap().to_string(), ID);
    assert_eq!(wish.cluster.as_str(), CLUSTER.to_ascii_lowercase());
    assert_eq!(
        wish.access.role,
        RequestedRole::BuiltIn(BuiltInRole::RbacReader)
    );
    assert_eq!(wish.access.namespaces.len(), 2);
    assert_eq!(
        wish.end,
        RequestedEnd::Ttl(std::time::Duration::from_hours(1))
    );
}

#[test]
fn an_empty_grant_is_told_everything_that_it_lacks() {
    assert_eq!(
        fields(grant(&proto::GrantRequest::default(), now())),
        ["principal", "cluster", "access", "ttl"]
    );
}

#[test]
fn every_field_of_a_grant_is_checked() {
    let cases: &[Case<proto::GrantRequest>] = &[
        ("no request id", |r| r.request_id.clear(), &[]),
        (
            "no UUID",
            |r| r.request_id = "once".to_owned(),
            &["request_id"],
        ),
        ("no cluster", |r| r.cluster.clear(), &["cluster"]),
        ("no ARM id", |r| r.cluster = "prod".to_owned(), &["cluster"]),
        ("no justification", |r| r.justification.clear(), &[]),
        (
            "the longest justification",
            |r| r.justification = "ä".repeat(1024),
            &[],
        ),
        (
            "too long a justification",
            |r| r.justification = "ä".repeat(1025),
            &["justification"],
        ),
        (
            "start_time",
            |r| r.start_time = Some(in_seconds(60)),
            &["start_time"],
        ),
        (
            "a key that nobody can see",
            |r| r.external_key = "\u{200b}\u{3164}".to_owned(),
            &["external_key"],
        ),
        (
            "a key that can be read",
            |r| r.external_key = "\u{200b}!".to_owned(),
            &[],
        ),
        (
            "on behalf of a name that nobody can see",
            |r| r.on_behalf_of = "\u{200b}@contoso.example".to_owned(),
            &["on_behalf_of"],
        ),
        (
            "on behalf of somebody nowhere",
            |r| r.on_behalf_of = "ada@\u{2060}".to_owned(),
            &["on_behalf_of"],
        ),
        (
            "several at once",
            |r| {
                r.cluster.clear();
                r.on_behalf_of = "somebody".to_owned();
                r.request_id = "once".to_owned();
            },
            &["request_id", "cluster", "on_behalf_of"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_grant();
        change(&mut request);
        assert_eq!(fields(grant(&request, now())), *expected, "{name}");
    }
}

#[test]
fn a_grant_has_exactly_one_end() {
    let cases: &[Case<proto::GrantRequest>] = &[
        ("none", |r| r.ttl = None, &["ttl"]),
        ("two", |r| r.permanent = true, &["ttl"]),
        (
            "two, one of them wrong",
            |r| r.expire_time = Some(in_seconds(-1)),
            &["ttl", "expire_time"],
        ),
        ("the shortest", |r| r.ttl = Some(seconds(1)), &[]),
        ("the longest", |r| r.ttl = Some(seconds(366 * DAY)), &[]),
        ("too short", |r| r.ttl = Some(seconds(0)), &["ttl"]),
        (
            "too long",
            |r| r.ttl = Some(seconds(366 * DAY + 1)),
            &["ttl"],
        ),
        ("negative", |r| r.ttl = Some(seconds(-5)), &["ttl"]),
        (
            "the least of all",
            |r| r.ttl = Some(seconds(i64::MIN)),
            &["ttl"],
        ),
        (
            "the most of all",
            |r| r.ttl = Some(seconds(i64::MAX)),
            &["ttl"],
        ),
        (
            "a fraction of more than a second",
            |r| {
                r.ttl = Some(prost_types::Duration {
                    seconds: 5,
                    nanos: i32::MAX,
                });
            },
            &["ttl"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_grant();
        change(&mut request);
        assert_eq!(fields(grant(&request, now())), *expected, "{name}");
    }
}

#[test]
fn an_expire_time_is_in_the_coming_366_days() {
    let expire_time = "expire_time";
    for (time, right) in [
        (in_seconds(1), true),
        (in_seconds(366 * DAY), true),
        (in_seconds(366 * DAY + 1), false),
        // The past alone refuses nothing here: it may be a replay's.
        (in_seconds(-1), true),
        (
            prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            },
            false,
        ),
        (
            prost_types::Timestamp {
                nanos: -1,
                ..in_seconds(60)
            },
            false,
        ),
        (
            prost_types::Timestamp {
                nanos: i32::MIN,
                ..in_seconds(60)
            },
            false,
        ),
    ] {
        let request = proto::GrantRequest {
            ttl: None,
            expire_time: Some(time),
            ..a_grant()
        };
        let expected: &[&str] = if right { &[] } else { &[expire_time] };
        assert_eq!(fields(grant(&request, now())), expected, "{time:?}");
    }
    let permanent = proto::GrantRequest {
        ttl: None,
        permanent: true,
        ..a_grant()
    };
    assert_eq!(
        grant(&permanent, now()).unwrap().end,
        RequestedEnd::Permanent
    );
}

#[test]
fn ids_are_required_and_well_formed() {
    for text in ["", "x", "11111111111141118111111111111111"] {
        assert_eq!(fields(job_id(text)), ["job_id"], "{text:?}");
        assert_eq!(fields(grant_id(text)), ["grant_id"], "{text:?}");
        assert_eq!(fields(cluster_id(text)), ["cluster"], "{text:?}");
    }
    assert!(job_id(ID).is_ok() && grant_id(ID).is_ok() && cluster_id(CLUSTER).is_ok());
}

#[test]
fn a_page_is_fifty_unless_said_and_a_thousand_at_most() {
    for (given, expected) in [
        (0, Some(50)),
        (1, Some(1)),
        (1000, Some(1000)),
        (1001, None),
        (-1, None),
    ] {
        let request = proto::ListClustersRequest {
            page_size: given,
            ..proto::ListClustersRequest::default()
        };
        let size = clusters(&request).map(|query| query.size.rows());
        assert_eq!(size.as_ref().ok(), expected.as_ref(), "{given}");
        if expected.is_none() {
            assert_eq!(fields(size), ["page_size"]);
        }
    }
}
