//! Questions about access with anything in their fields.

use aks_access_broker::grpc::proto::{
    BatchCheckAccessRequest, CheckAccessRequest, Consistency, KubernetesRequest, ListAccessRequest,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{
    Ask, Known, access, duration, filter, free_text, mostly, number, principal, rarely, seldom,
    some,
};

fn consistency(known: &Known) -> BoxedStrategy<Option<Consistency>> {
    let places = [
        "0-0",
        "1-0@1790000000000",
        "0-0@-62135596800000",
        "0-0@253402300799999",
    ];
    let tokens = places.map(|place| format!("{}/{place}", known.broker));
    let token = prop_oneof![
        6 => Just(String::new()),
        2 => proptest::sample::select(tokens.to_vec()),
        1 => free_text(),
    ];
    let fresh = (seldom(duration().boxed()), token, any::<bool>());
    seldom(
        fresh
            .prop_map(
                |(max_staleness, at_least_as_fresh, fully_consistent)| Consistency {
                    max_staleness,
                    at_least_as_fresh,
                    fully_consistent,
                },
            )
            .boxed(),
    )
    .boxed()
}

fn kubernetes_request() -> BoxedStrategy<KubernetesRequest> {
    let one_of =
        |words: &[&str]| mostly(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
    (
        one_of(&["get", "create", "*", "bind"]),
        rarely(&["apps".to_owned(), "*".to_owned(), "example.com".to_owned()]),
        one_of(&["pods", "secrets", "*", "widgets"]),
        rarely(&["exec".to_owned(), "log".to_owned()]),
        rarely(&["team-a".to_owned()]),
        rarely(&["web-0".to_owned()]),
        rarely(&["/healthz".to_owned(), "/metrics".to_owned()]),
    )
        .prop_map(
            |(verb, api_group, resource, subresource, namespace, name, path)| KubernetesRequest {
                verb,
                api_group,
                resource,
                subresource,
                namespace,
                name,
                path,
            },
        )
        .boxed()
}

fn one_check(known: &Known) -> BoxedStrategy<CheckAccessRequest> {
    let what = (
        some(principal(known)),
        mostly(&known.clusters),
        option::of(access(known)),
        option::of(kubernetes_request()),
    );
    (what, consistency(known), any::<bool>())
        .prop_map(
            |((principal, cluster, access, request), consistency, explain)| CheckAccessRequest {
                principal,
                cluster,
                access,
                request,
                consistency,
                explain,
            },
        )
        .boxed()
}

pub(super) fn check(known: &Known) -> BoxedStrategy<Ask> {
    let batch = (
        vec(one_check(known), 0..4),
        consistency(known),
        any::<bool>(),
    );
    let batch = batch.prop_map(|(requests, consistency, explain)| {
        Ask::BatchCheckAccess(BatchCheckAccessRequest {
            requests,
            consistency,
            explain,
        })
    });
    let list = (
        (filter(rarely(&known.clusters)), seldom(principal(known))),
        (number(), rarely(&known.page_tokens)),
        consistency(known),
        seldom(kubernetes_request()),
    );
    let list = list.prop_map(|((cluster, principal), page, consistency, request)| {
        Ask::ListAccess(ListAccessRequest {
            cluster,
            principal,
            page_size: page.0,
            page_token: page.1,
            consistency,
            request,
        })
    });
    prop_oneof![
        2 => one_check(known).prop_map(Ask::CheckAccess),
        1 => batch,
        1 => list,
    ]
    .boxed()
}
