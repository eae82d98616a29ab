//! A filter's field that is set but empty is refused, and never means "any": a caller whose variable turned out to be
//! empty would end, or see, more than it meant.

use aks_access_broker::grpc::proto::grant::State;
use prost::Message;

use super::*;
use crate::support::contract::{Contract, Field, Value};
use crate::support::raw::{RawClient, SERVED, framed};

/// What says which page of a list, or where to go on: it narrows nothing.
const OF_PAGES: [&str; 3] = ["page_size", "page_token", "cursor"];
/// A job's targets are asked for by the job: without its id there is no list.
const REQUIRED: [(&str, &str); 1] = [("ListJobTargetsRequest", "job_id")];
/// Messages that narrow nothing, or that say something when they are empty.
const NO_FILTERS: [(&str, &str); 2] = [
    (".aks.access.v1.Consistency", "how fresh an answer must be"),
    (".google.protobuf.Timestamp", "1970, a moment"),
];

/// The fields of requests that narrow what is meant, by RPC: of a list's request, and of each selector.
fn filters(contract: &Contract) -> Vec<(&str, Field)> {
    let rpcs = contract.rpcs();
    let all = rpcs.flat_map(|(rpc, request)| {
        let fields = contract.fields(request).into_iter();
        fields.map(move |field| (rpc, field))
    });
    all.filter(|(_, field)| narrows(field)).collect()
}

fn narrows(field: &Field) -> bool {
    let (owner, name) = (field.owner(), field.own_name());
    let is_list = owner.starts_with("List") || owner.starts_with("Watch");
    let is_of_filter = is_list && owner != "WatchJobRequest" || owner.ends_with("Selector");
    is_of_filter
        && !field.is_repeated
        && !OF_PAGES.contains(&name)
        && !REQUIRED.contains(&(owner, name))
        && NO_FILTERS.iter().all(|(message, _)| field.of != *message)
}

#[test]
fn every_filters_scalar_that_is_set_but_empty_is_told_from_one_that_is_left_out() {
    let contract = Contract::read();
    let all = filters(&contract);
    let implicit: Vec<_> = all
        .iter()
        .filter(|(_, field)| !field.is_optional)
        .map(|(rpc, field)| (rpc, &field.name))
        .collect();
    assert!(
        implicit.is_empty(),
        "write `optional` before them: {implicit:?}"
    );
    let names: BTreeSet<_> = all
        .iter()
        .map(|(rpc, field)| (*rpc, &*field.name))
        .collect();
    for known in [
        ("Revoke", "selector.external_key"),
        ("ListGrants", "selector.azure_role"),
        ("WatchGrants", "selector.cluster"),
        ("ListJobs", "request_id"),
        ("ListAuditEvents", "actor"),
        ("ListAccess", "cluster"),
        ("ListClusters", "name"),
    ] {
        assert!(
            names.contains(&known),
            "{known:?} was not walked: {names:?}"
        );
    }
}

/// Alone, and beside another field that says something.
#[tokio::test]
async fn every_filters_field_that_is_set_but_empty_is_refused_by_name() {
    let (world, broker, _) = world().await;
    let raw = RawClient::new(&broker);
    let contract = Contract::read();
    let all = filters(&contract);
    let cluster = Value::Text(world.cluster("aks-production"));
    let mut asked = 0;
    for (rpc, field) in &all {
        if !SERVED.contains(rpc) {
            continue;
        }
        let empty = field.encoded(&field.empty());
        let beside = all.iter().find(|(other, it)| {
            other == rpc && it.own_name() == "cluster" && !it.name.starts_with(&field.name)
        });
        let beside = beside.map(|(_, cluster_field)| cluster_field.encoded(&cluster));
        for bytes in [empty.clone(), [beside.unwrap_or_default(), empty].concat()] {
            let refused = raw.refusal(rpc, framed(&bytes), &[]).await;
            let status = refused.unwrap_or_else(|| panic!("{rpc}: {} was taken", field.name));
            let refusal = Refusal::of(&status);
            assert_eq!(refusal.code, Code::InvalidArgument, "{rpc}: {refusal:?}");
            let names = |wrong: &String| {
                let within = wrong.strip_prefix(&field.name);
                within.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            // What is no feature yet is refused whatever it says.
            assert!(
                refusal.fields.iter().any(names),
                "{rpc}, {}: {refusal:?}",
                field.name
            );
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} requests");
}

/// The selector of a portal whose order has no number: everybody's grants on the cluster.
#[tokio::test]
async fn an_empty_external_key_beside_a_cluster_ends_nobodys_grant() {
    let (world, broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let reader = || access(AzureRole::RbacReader, &[]);
    let mut live = Vec::new();
    for user in [ALICE, BOB] {
        let granted = active(&mut client, permanent(user, &cluster, reader())).await;
        live.push(granted.grant_id);
    }
    let empty = [
        GrantSelector {
            external_key: Some(String::new()),
            ..GrantSelector::default()
        },
        GrantSelector {
            requested_by: Some(String::new()),
            ..GrantSelector::default()
        },
        GrantSelector {
            role_definition_id: Some(String::new()),
            ..GrantSelector::default()
        },
        GrantSelector {
            azure_role: Some(0),
            ..GrantSelector::default()
        },
    ];
    for selector in empty {
        let selector = GrantSelector {
            cluster: Some(cluster.clone()),
            ..selector
        };
        let refusal = Refusal::from(client.revoke(revocation_of(selector)).await);
        assert_eq!(refusal.kind(), (Code::InvalidArgument, "INVALID_REQUEST"));
    }
    world.at_rest().await;
    live.reverse();
    let still = GrantSelector {
        cluster: Some(cluster),
        ..GrantSelector::default()
    };
    assert_eq!(listed(&mut client, still, &[State::Active]).await, live);
    drop(broker);
}

/// A client that was generated before fields were `optional` leaves out what is empty: nothing tells the server that the
/// caller meant to narrow. The documentation says so.
#[tokio::test]
async fn a_request_of_an_older_client_means_what_it_meant() {
    let (world, broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let granted = active(
        &mut client,
        permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[])),
    );
    let granted = granted.await.grant_id;
    let request = ListGrantsRequest {
        selector: Some(GrantSelector {
            cluster: Some(cluster.clone()),
            ..GrantSelector::default()
        }),
        ..ListGrantsRequest::default()
    };
    // These bytes are those of the older contract too: its numbers, and nothing of what is empty.
    let encoded = request.encode_to_vec();
    let contract = Contract::read();
    let fields = contract.fields(".aks.access.v1.ListGrantsRequest");
    let of_cluster = fields.iter().find(|field| field.name == "selector.cluster");
    let of_cluster = of_cluster.expect("selector.cluster");
    assert_eq!(of_cluster.path, [3, 2]);
    assert_eq!(encoded, of_cluster.encoded(&Value::Text(cluster)));
    let refused = RawClient::new(&broker)
        .refusal("ListGrants", framed(&encoded), &[])
        .await;
    assert!(refused.is_none(), "{refused:?}");
    let page = client.list_grants(request).await.unwrap().into_inner();
    assert_eq!(page.grants[0].grant_id, granted);
}
