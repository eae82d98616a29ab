//! Requests with anything in their fields: about as often what belongs there as something else.

use std::collections::HashMap;

use aks_access_broker::grpc::proto::{
    Access, BatchCheckAccessRequest, CheckAccessRequest, ExtendGrantRequest, GetClusterRequest,
    GetGrantRequest, GetJobRequest, GrantRequest, GrantSelector, KubernetesRole, ListAccessRequest,
    ListAuditEventsRequest, ListClustersRequest, ListGrantsRequest, ListJobTargetsRequest,
    ListJobsRequest, PrincipalRef, RevokeRequest, WatchJobRequest,
};
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;

#[path = "checks.rs"]
mod checks;

/// A request to one of the RPCs that are served.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Grant(GrantRequest),
    ExtendGrant(ExtendGrantRequest),
    Revoke(RevokeRequest),
    CheckAccess(CheckAccessRequest),
    BatchCheckAccess(BatchCheckAccessRequest),
    ListAccess(ListAccessRequest),
    GetJob(GetJobRequest),
    WatchJob(WatchJobRequest),
    ListJobs(ListJobsRequest),
    ListJobTargets(ListJobTargetsRequest),
    GetGrant(GetGrantRequest),
    ListGrants(ListGrantsRequest),
    GetCluster(GetClusterRequest),
    ListClusters(ListClustersRequest),
    ListAuditEvents(ListAuditEventsRequest),
}

impl Ask {
    /// The RPC's name.
    pub(crate) const fn rpc(&self) -> &'static str {
        match self {
            Self::Grant(_) => "Grant",
            Self::ExtendGrant(_) => "ExtendGrant",
            Self::Revoke(_) => "Revoke",
            Self::CheckAccess(_) => "CheckAccess",
            Self::BatchCheckAccess(_) => "BatchCheckAccess",
            Self::ListAccess(_) => "ListAccess",
            Self::GetJob(_) => "GetJob",
            Self::WatchJob(_) => "WatchJob",
            Self::ListJobs(_) => "ListJobs",
            Self::ListJobTargets(_) => "ListJobTargets",
            Self::GetGrant(_) => "GetGrant",
            Self::ListGrants(_) => "ListGrants",
            Self::GetCluster(_) => "GetCluster",
            Self::ListClusters(_) => "ListClusters",
            Self::ListAuditEvents(_) => "ListAuditEvents",
        }
    }

    /// The request as it is sent.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Grant(it) => it.encode_to_vec(),
            Self::ExtendGrant(it) => it.encode_to_vec(),
            Self::Revoke(it) => it.encode_to_vec(),
            Self::CheckAccess(it) => it.encode_to_vec(),
            Self::BatchCheckAccess(it) => it.encode_to_vec(),
            Self::ListAccess(it) => it.encode_to_vec(),
            Self::GetJob(it) => it.encode_to_vec(),
            Self::WatchJob(it) => it.encode_to_vec(),
            Self::ListJobs(it) => it.encode_to_vec(),
            Self::ListJobTargets(it) => it.encode_to_vec(),
            Self::GetGrant(it) => it.encode_to_vec(),
            Self::ListGrants(it) => it.encode_to_vec(),
            Self::GetCluster(it) => it.encode_to_vec(),
            Self::ListClusters(it) => it.encode_to_vec(),
            Self::ListAuditEvents(it) => it.encode_to_vec(),
        }
    }
}

/// What there is: values that mean something. Nothing can be granted on any of the clusters, and no grant is live.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) clusters: Vec<String>,
    pub(crate) principals: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) applications: Vec<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) grants: Vec<String>,
    pub(crate) jobs: Vec<String>,
    pub(crate) requests: Vec<String>,
    pub(crate) page_tokens: Vec<String>,
    /// The broker's instance id, as consistency tokens name it.
    pub(crate) broker: String,
}

/// Words that have a meaning somewhere on the way.
const SPECIAL: [&str; 18] = [
    "\0",
    " ",
    "\r\n",
    "\u{7f}\u{85}\u{2028}",
    "\u{202e}abc\u{feff}",
    "{aab:main}:meta",
    "|",
    "*",
    "../../..",
    "/",
    "%00%2f",
    "' or '1' eq '1",
    "\"}]}",
    "null",
    "NaN",
    "ÄÖÜß",
    "🦀🦀🦀",
    "00000000-0000-0000-0000-000000000000",
];

/// Anything.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::sample::select(&SPECIAL[..]).prop_map(str::to_owned),
        3 => any::<String>(),
        1 => ("\\PC{1,3}", 100_usize..60_000).prop_map(|(part, times)| part.repeat(times)),
        1 => "[a-z0-9-]{1,40}",
    ]
}

/// Mostly one of these.
fn mostly(good: &[String]) -> BoxedStrategy<String> {
    prop_oneof![
        30 => proptest::sample::select(good.to_vec()),
        1 => proptest::sample::select(good.to_vec()).prop_map(|text| text.to_uppercase()),
        1 => Just(String::new()),
        1 => (proptest::sample::select(good.to_vec()), any_text(), any::<prop::sample::Index>())
            .prop_map(|(good, odd, at)| spliced(&good, &odd, at)),
        1 => any_text(),
    ]
    .boxed()
}

/// Mostly left out.
fn rarely(good: &[String]) -> BoxedStrategy<String> {
    prop_oneof![8 => Just(String::new()), 1 => mostly(good)].boxed()
}

fn spliced(good: &str, odd: &str, at: prop::sample::Index) -> String {
    let places: Vec<usize> = good.char_indices().map(|(at, _)| at).collect();
    let (before, behind) = good.split_at(*at.get(&places));
    format!("{before}{odd}{behind}")
}

fn number() -> BoxedStrategy<i32> {
    prop_oneof![
        20 => Just(0),
        6 => 1..4_i32,
        1 => 4..10_i32,
        1 => proptest::sample::select(&[-1, 1_000, 1_001, i32::MAX, i32::MIN][..]),
        1 => any::<i32>(),
    ]
    .boxed()
}

fn seconds() -> BoxedStrategy<i64> {
    prop_oneof![
        12 => 1..100_000_i64,
        2 => 1_700_000_000..4_200_000_000_i64,
        1 => proptest::sample::select(&[0, -1, i64::MAX, i64::MIN, 253_402_300_800][..]),
        1 => any::<i64>(),
    ]
    .boxed()
}

fn nanos() -> BoxedStrategy<i32> {
    prop_oneof![9 => Just(0), 1 => any::<i32>()].boxed()
}

prop_compose! {
    fn duration()(seconds in seconds(), nanos in nanos()) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }
}

prop_compose! {
    fn timestamp()(seconds in seconds(), nanos in nanos()) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos }
    }
}

fn namespaces() -> BoxedStrategy<Vec<String>> {
    let name = || mostly(&["team-a", "team-b", "c", "0"].map(str::to_owned));
    prop_oneof![
        12 => vec(name(), 0..3),
        1 => vec(name(), 0..40),
        1 => vec("[a-z]{0,3}", 1_000..5_000),
    ]
    .boxed()
}

fn labels() -> BoxedStrategy<HashMap<String, String>> {
    let key = || mostly(&["ticket", "team", "cost/center"].map(str::to_owned));
    let value = || mostly(&["INC-1", "platform", "ä"].map(str::to_owned));
    prop_oneof![
        12 => Just(HashMap::new()),
        3 => hash_map(key(), value(), 0..3),
        1 => hash_map("[a-z]{1,9}", "[a-z]{0,9}", 0..2_000),
    ]
    .boxed()
}

/// Exactly one way to be named, or any of them.
fn principal(known: &Known) -> BoxedStrategy<PrincipalRef> {
    let ways = prop_oneof![
        3 => mostly(&known.principals).prop_map(|id| [id, String::new(), String::new()]),
        1 => mostly(&known.names).prop_map(|name| [String::new(), name, String::new()]),
        1 => mostly(&known.applications).prop_map(|id| [String::new(), String::new(), id]),
        1 => [rarely(&known.principals), rarely(&known.names), rarely(&known.applications)],
    ];
    (ways, number())
        .prop_map(
            |([object_id, user_principal_name, application_id], kind)| PrincipalRef {
                object_id,
                user_principal_name,
                application_id,
                r#type: kind,
            },
        )
        .boxed()
}

fn kubernetes_role() -> BoxedStrategy<Option<KubernetesRole>> {
    option::weighted(0.05, Just(KubernetesRole::default())).boxed()
}

fn access(known: &Known) -> BoxedStrategy<Access> {
    let role = prop_oneof![
        8 => (1..6_i32).prop_map(|role| (role, String::new())),
        2 => mostly(&known.roles).prop_map(|id| (0, id)),
        1 => (number(), rarely(&known.roles)),
    ];
    (role, namespaces(), kubernetes_role())
        .prop_map(
            |((azure_role, role_definition_id), namespaces, kubernetes_role)| Access {
                azure_role,
                role_definition_id,
                kubernetes_role,
                namespaces,
            },
        )
        .boxed()
}

fn some<T: std::fmt::Debug + 'static>(it: BoxedStrategy<T>) -> BoxedStrategy<Option<T>> {
    option::weighted(0.9, it).boxed()
}

fn seldom<T: std::fmt::Debug + 'static>(it: BoxedStrategy<T>) -> BoxedStrategy<Option<T>> {
    option::weighted(0.15, it).boxed()
}

/// A filter's scalar: empty now and then, which is at fault, and mostly left out.
fn filter(it: BoxedStrategy<String>) -> BoxedStrategy<Option<String>> {
    (it, proptest::bool::weighted(0.05))
        .prop_map(|(it, even_empty)| Some(it).filter(|it| even_empty || !it.is_empty()))
        .boxed()
}

fn yes_seldom() -> BoxedStrategy<bool> {
    proptest::bool::weighted(0.15).boxed()
}

fn free_text() -> BoxedStrategy<String> {
    prop_oneof![8 => Just(String::new()), 1 => any_text()].boxed()
}

fn ways_to_end() -> BoxedStrategy<(
    Option<prost_types::Duration>,
    Option<prost_types::Timestamp>,
    bool,
)> {
    prop_oneof![
        8 => duration().prop_map(|ttl| (Some(ttl), None, false)),
        1 => timestamp().prop_map(|at| (None, Some(at), false)),
        1 => Just((None, None, true)),
        1 => (seldom(duration().boxed()), seldom(timestamp().boxed()), yes_seldom()),
    ]
    .boxed()
}

fn selector(known: &Known) -> BoxedStrategy<GrantSelector> {
    let what = (
        seldom(number()),
        filter(rarely(&known.roles)),
        kubernetes_role(),
        seldom(namespaces()),
    );
    let whose = (
        filter(rarely(&known.clusters)),
        filter(free_text()),
        filter(free_text()),
        labels(),
    );
    (seldom(principal(known)), what, whose)
        .prop_map(|(principal, what, whose)| GrantSelector {
            principal,
            cluster: whose.0,
            azure_role: what.0,
            role_definition_id: what.1,
            kubernetes_role: what.2,
            namespaces: what.3.unwrap_or_default(),
            labels: whose.3,
            requested_by: whose.1,
            external_key: whose.2,
        })
        .boxed()
}

fn grant(known: &Known) -> BoxedStrategy<Ask> {
    let what = (
        rarely(&known.requests),
        some(principal(known)),
        mostly(&known.clusters),
        some(access(known)),
        ways_to_end(),
    );
    let besides = (free_text(), labels(), free_text(), rarely(&known.names));
    let flags = (yes_seldom(), option::weighted(0.05, timestamp()));
    (what, besides, flags)
        .prop_map(|(what, besides, flags)| {
            Ask::Grant(GrantRequest {
                request_id: what.0,
                principal: what.1,
                cluster: what.2,
                access: what.3,
                ttl: what.4.0,
                expire_time: what.4.1,
                permanent: what.4.2,
                justification: besides.0,
                labels: besides.1,
                external_key: besides.2,
                on_behalf_of: besides.3,
                validate_only: flags.0,
                start_time: flags.1,
            })
        })
        .boxed()
}

fn extension(known: &Known) -> BoxedStrategy<Ask> {
    let who = (
        rarely(&known.requests),
        mostly(&known.grants),
        rarely(&known.names),
    );
    (who, ways_to_end(), free_text(), yes_seldom())
        .prop_map(|(who, end, justification, validate_only)| {
            Ask::ExtendGrant(ExtendGrantRequest {
                request_id: who.0,
                grant_id: who.1,
                on_behalf_of: who.2,
                ttl: end.0,
                expire_time: end.1,
                justification,
                validate_only,
            })
        })
        .boxed()
}

fn revocation(known: &Known) -> BoxedStrategy<Ask> {
    let which = prop_oneof![
        2 => mostly(&known.grants).prop_map(|id| (id, None)),
        2 => selector(known).prop_map(|selector| (String::new(), Some(selector))),
        1 => (rarely(&known.grants), seldom(selector(known))),
    ];
    let who = (rarely(&known.requests), rarely(&known.names));
    let flags = (proptest::bool::weighted(0.05), yes_seldom(), number());
    (which, who, free_text(), flags)
        .prop_map(|((grant_id, selector), who, justification, flags)| {
            Ask::Revoke(RevokeRequest {
                request_id: who.0,
                grant_id,
                selector,
                justification,
                on_behalf_of: who.1,
                include_unmanaged: flags.0,
                validate_only: flags.1,
                max_grants: flags.2,
            })
        })
        .boxed()
}

fn lists(known: &Known) -> BoxedStrategy<Ask> {
    let page = || (number(), rarely(&known.page_tokens));
    let enums = || prop_oneof![2 => vec(number(), 0..4), 1 => vec(1..7_i32, 0..2_000)];
    let jobs = (
        page(),
        (
            seldom(principal(known)),
            filter(rarely(&known.clusters)),
            filter(rarely(&known.requests)),
        ),
        (enums(), enums()),
    )
        .prop_map(|((page_size, page_token), of, (states, kinds))| {
            Ask::ListJobs(ListJobsRequest {
                page_size,
                page_token,
                principal: of.0,
                cluster: of.1,
                request_id: of.2,
                states,
                kinds,
            })
        });
    let targets = (page(), mostly(&known.jobs), enums()).prop_map(
        |((page_size, page_token), job_id, states)| {
            Ask::ListJobTargets(ListJobTargetsRequest {
                page_size,
                page_token,
                job_id,
                states,
            })
        },
    );
    let grants = (page(), seldom(selector(known)), enums()).prop_map(
        |((page_size, page_token), selector, states)| {
            Ask::ListGrants(ListGrantsRequest {
                page_size,
                page_token,
                selector,
                states,
            })
        },
    );
    let clusters = (page(), filter(free_text())).prop_map(|((page_size, page_token), name)| {
        Ask::ListClusters(ListClustersRequest {
            page_size,
            page_token,
            name,
        })
    });
    prop_oneof![jobs, targets, grants, clusters, events(known)].boxed()
}

fn events(known: &Known) -> BoxedStrategy<Ask> {
    let page = (number(), rarely(&known.page_tokens));
    let about = (
        seldom(principal(known)),
        filter(rarely(&known.clusters)),
        filter(rarely(&known.grants)),
        filter(rarely(&known.jobs)),
        filter(free_text()),
    );
    let within = (seldom(timestamp().boxed()), seldom(timestamp().boxed()));
    (page, about, within)
        .prop_map(|(page, about, (start_time, end_time))| {
            Ask::ListAuditEvents(ListAuditEventsRequest {
                page_size: page.0,
                page_token: page.1,
                principal: about.0,
                cluster: about.1,
                grant_id: about.2,
                job_id: about.3,
                actor: about.4,
                start_time,
                end_time,
            })
        })
        .boxed()
}

fn reads(known: &Known) -> BoxedStrategy<Ask> {
    let job = || mostly(&known.jobs);
    prop_oneof![
        job().prop_map(|job_id| Ask::GetJob(GetJobRequest { job_id })),
        job().prop_map(|job_id| Ask::WatchJob(WatchJobRequest { job_id })),
        mostly(&known.grants).prop_map(|grant_id| Ask::GetGrant(GetGrantRequest { grant_id })),
        mostly(&known.clusters).prop_map(|cluster| Ask::GetCluster(GetClusterRequest { cluster })),
    ]
    .boxed()
}

/// A request to any of the RPCs.
pub(crate) fn ask(known: &Known) -> BoxedStrategy<Ask> {
    prop_oneof![
        3 => grant(known),
        2 => extension(known),
        3 => revocation(known),
        2 => checks::check(known),
        3 => lists(known),
        1 => reads(known),
    ]
    .boxed()
}
