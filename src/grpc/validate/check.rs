//! `CheckAccess`, `BatchCheckAccess` and `ListAccess`.

use std::fmt::Display;

use crate::broker::page::PageSize;
use crate::broker::request::{AccessOf, AccessQuery, CheckRequest, Question};
use crate::domain::freshness::{ConsistencyToken, Freshness};
use crate::domain::ids::{ClusterId, Namespace};
use crate::domain::kubernetes_request::{KubernetesRequest, ResourceRequest};
use crate::grpc::proto;
use crate::grpc::status::Violation;

use super::super::rpcs::CHECKS;
use super::{Violations, access, cluster, filter, optional, principal, time};

/// No verb, group, resource or subresource of Kubernetes' is longer.
const LONGEST_WORD: usize = 253;

/// No path is longer.
const LONGEST_PATH: usize = 1_024;

/// A `CheckAccessRequest`, and how fresh its answer must be.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn check(
    request: &proto::CheckAccessRequest,
) -> Result<(CheckRequest, Freshness), Vec<Violation>> {
    let mut wrong = Violations::default();
    let check = checked(request, &mut wrong);
    let freshness = consistency(request.consistency.as_ref(), &mut wrong);
    let whole = check.zip(freshness);
    wrong.finish(whole)
}

/// One of a batch's checks: how fresh its answer must be is the batch's to say.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn check_of_batch(
    request: &proto::CheckAccessRequest,
) -> Result<CheckRequest, Vec<Violation>> {
    let mut wrong = Violations::default();
    let check = checked(request, &mut wrong);
    if request.consistency.is_some() {
        wrong.add("consistency", "say it once for the whole batch");
    }
    wrong.finish(check)
}

/// How fresh all answers of a batch must be.
///
/// # Errors
/// Every field that is wrong, those of its checks aside.
pub(in crate::grpc) fn batch(
    request: &proto::BatchCheckAccessRequest,
) -> Result<Freshness, Vec<Violation>> {
    let mut wrong = Violations::default();
    let count = request.requests.len();
    if count == 0 {
        wrong.add("requests", "required");
    }
    if let Some(too_many) = CHECKS.too_many(count) {
        wrong.add(CHECKS.field, too_many);
    }
    let freshness = consistency(request.consistency.as_ref(), &mut wrong);
    wrong.finish(freshness)
}

/// A `ListAccessRequest`. Whether its token is one of this list's only the list can tell.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn list_access(
    request: &proto::ListAccessRequest,
) -> Result<AccessQuery, Vec<Violation>> {
    let mut wrong = Violations::default();
    let cluster = filter::parsed(
        "cluster",
        request.cluster.as_deref(),
        ClusterId::parse,
        &mut wrong,
    );
    let principal = principal::optional("principal", request.principal.as_ref(), &mut wrong);
    let size = wrong.take("page_size", PageSize::try_new(request.page_size));
    let freshness = consistency(request.consistency.as_ref(), &mut wrong);
    let asked = match &request.request {
        None => Some(None),
        Some(asked) => kubernetes_request("request", asked, &mut wrong).map(Some),
    };
    let of = match (cluster, principal, asked) {
        (Some(Some(cluster)), Some(principal), Some(request)) => Some(AccessOf::Cluster {
            cluster,
            principal,
            request,
        }),
        (Some(None), Some(_), Some(Some(_))) => {
            wrong.add("cluster", "required with request");
            None
        }
        (Some(None), Some(Some(principal)), Some(None)) => Some(AccessOf::Principal(principal)),
        (Some(None), Some(None), Some(None)) => {
            wrong.add("cluster", "set at least one of cluster and principal");
            None
        }
        _ => None,
    };
    let whole = || {
        Some(AccessQuery {
            of: of?,
            freshness: freshness?,
            size: size?,
            token: request.page_token.clone(),
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

fn checked(request: &proto::CheckAccessRequest, wrong: &mut Violations) -> Option<CheckRequest> {
    let principal = principal::required("principal", request.principal.as_ref(), wrong);
    let cluster = cluster(&request.cluster, wrong);
    let asks = match (&request.access, &request.request) {
        (Some(_), None) => access::required(request.access.as_ref(), wrong).map(Question::Access),
        (None, Some(asked)) => kubernetes_request("request", asked, wrong).map(Question::Request),
        (None, None) => {
            wrong.add(
                "access",
                "nothing is asked: set exactly one of access and request",
            );
            None
        }
        (Some(_), Some(_)) => {
            wrong.add(
                "request",
                "two questions: set exactly one of access and request",
            );
            None
        }
    };
    Some(CheckRequest {
        principal: principal?,
        cluster: cluster?,
        asks: asks?,
    })
}

fn consistency(asked: Option<&proto::Consistency>, wrong: &mut Violations) -> Option<Freshness> {
    let Some(asked) = asked else {
        return Some(Freshness::Configured);
    };
    let proto::Consistency {
        max_staleness,
        at_least_as_fresh,
        fully_consistent,
    } = asked;
    let set = [
        max_staleness.is_some(),
        !at_least_as_fresh.is_empty(),
        *fully_consistent,
    ];
    if set.iter().filter(|set| **set).count() > 1 {
        wrong.add(
            "consistency",
            "set at most one of max_staleness, at_least_as_fresh and fully_consistent",
        );
        return None;
    }
    if let Some(given) = max_staleness {
        let Some(age) = time::duration(*given) else {
            let (seconds, nanos) = (given.seconds, given.nanos);
            let problem = format!(
                "{seconds} seconds and {nanos} nanoseconds are not an age: expected 0 or more"
            );
            wrong.add("consistency.max_staleness", problem);
            return None;
        };
        return Some(Freshness::AtMost(age));
    }
    if !at_least_as_fresh.is_empty() {
        let token = at_least_as_fresh.parse::<ConsistencyToken>();
        let token = wrong.take("consistency.at_least_as_fresh", token);
        return token.map(Freshness::AtLeast);
    }
    Some(if *fully_consistent {
        Freshness::Now
    } else {
        Freshness::Configured
    })
}

fn kubernetes_request(
    field: &str,
    asked: &proto::KubernetesRequest,
    wrong: &mut Violations,
) -> Option<KubernetesRequest> {
    let verb = word(format_args!("{field}.verb"), &asked.verb, false, wrong);
    if asked.path.is_empty() {
        return resource_request(field, asked, verb, wrong);
    }
    let is_path = asked.path.starts_with('/')
        && asked.path.len() <= LONGEST_PATH
        && !asked
            .path
            .contains(|c: char| c.is_control() || c.is_whitespace() || "?#".contains(c));
    // AKS may resolve such segments before it asks: then the question would be another one.
    let is_path = is_path && !asked.path.split('/').any(|it| [".", ".."].contains(&it));
    if !is_path {
        wrong.add(
            format_args!("{field}.path"),
            format!(
                "expected a path such as /healthz, of at most {LONGEST_PATH} characters, without a query, '.' or '..'"
            ),
        );
    }
    let beside = [
        ("api_group", &asked.api_group),
        ("resource", &asked.resource),
        ("subresource", &asked.subresource),
        ("namespace", &asked.namespace),
        ("name", &asked.name),
    ];
    for (name, value) in beside {
        if !value.is_empty() {
            wrong.add(
                format_args!("{field}.{name}"),
                "goes with a resource: leave it out beside path",
            );
        }
    }
    Some(KubernetesRequest::Path {
        path: asked.path.clone(),
        verb: verb?,
    })
}

fn resource_request(
    field: &str,
    asked: &proto::KubernetesRequest,
    verb: Option<String>,
    wrong: &mut Violations,
) -> Option<KubernetesRequest> {
    let group = word(
        format_args!("{field}.api_group"),
        &asked.api_group,
        true,
        wrong,
    );
    let resource = word(
        format_args!("{field}.resource"),
        &asked.resource,
        false,
        wrong,
    );
    let subresource = word(
        format_args!("{field}.subresource"),
        &asked.subresource,
        true,
        wrong,
    );
    let (of, namespace) = if names_a_namespace(asked) {
        (format_args!("{field}.name"), &asked.name)
    } else {
        (format_args!("{field}.namespace"), &asked.namespace)
    };
    let namespace = optional(of, namespace, Namespace::parse, wrong);
    if asked.name.len() > LONGEST_WORD {
        wrong.add(
            format_args!("{field}.name"),
            format!(
                "{} characters long; at most {LONGEST_WORD}",
                asked.name.len()
            ),
        );
    }
    Some(KubernetesRequest::Resource(ResourceRequest {
        verb: verb?,
        api_group: group?,
        resource: resource?,
        subresource: subresource?,
        namespace: namespace?,
    }))
}

/// Whether the namespace that is asked about is the object itself: of `/api/v1/namespaces/{name}` the API server says that
/// it is in the namespace of that name [kubernetes apiserver/pkg/endpoints/request/requestinfo.go].
fn names_a_namespace(asked: &proto::KubernetesRequest) -> bool {
    let is_named = !asked.name.is_empty() && asked.namespace.is_empty();
    let is_of_many = ["create", "list", "watch", "deletecollection"].contains(&asked.verb.as_str());
    is_named && !is_of_many && asked.api_group.is_empty() && asked.resource == "namespaces"
}

/// A verb, a group, a resource: as Kubernetes writes them, or `*`.
fn word(
    field: impl Display,
    text: &str,
    may_be_empty: bool,
    wrong: &mut Violations,
) -> Option<String> {
    if text.is_empty() && may_be_empty || text == "*" {
        return Some(text.to_owned());
    }
    if text.is_empty() {
        wrong.add(field, "required");
        return None;
    }
    let of_kubernetes =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    // What begins or ends with a dot may be taken for a step in a path.
    let is_plain = text.len() <= LONGEST_WORD && text.chars().all(of_kubernetes);
    if !is_plain || text.starts_with(['.', '-']) || text.ends_with(['.', '-']) {
        let given: String = text.chars().take(80).collect();
        wrong.add(
            field,
            format!(
                "{given:?} is not as Kubernetes writes it: expected at most {LONGEST_WORD} lower-case letters, digits, \
                 and '-' and '.' between them, or *"
            ),
        );
        return None;
    }
    Some(text.to_owned())
}
