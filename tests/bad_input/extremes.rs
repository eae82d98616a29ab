//! The least and the largest that each scalar field of each request can hold, as the contract's descriptors have them.

use std::collections::BTreeMap;

use std::fmt::Write;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    BatchCheckAccessRequest, CheckAccessRequest, ExtendGrantRequest, GetClusterRequest,
    GetGrantRequest, GetJobRequest, GrantRequest, GrantSelector, ListAccessRequest,
    ListAuditEventsRequest, ListGrantsRequest, ListJobTargetsRequest, ListJobsRequest,
    RevokeRequest, WatchJobRequest,
};

use super::*;
use crate::support::ask::{extension, revocation_of, user};
use crate::support::contract::Contract;

/// A field with a value, as bytes that stand behind a request's own.
#[derive(Debug)]
pub(crate) struct Extreme {
    pub(crate) field: String,
    pub(crate) bytes: Vec<u8>,
}

/// All of them, by RPC.
pub(crate) struct Extremes(BTreeMap<String, Vec<Extreme>>);

impl Extremes {
    pub(crate) fn of_the_contract() -> Self {
        let contract = Contract::read();
        let all = contract.rpcs().map(|(rpc, request)| {
            let fields = contract.fields(request);
            let extremes = fields.iter().filter(|field| field.is_scalar());
            let extremes = extremes.flat_map(|field| {
                field.extremes().into_iter().map(|value| Extreme {
                    field: format!("{} = {:.80}", field.name, format!("{value:?}")),
                    bytes: field.encoded(&value),
                })
            });
            (rpc.to_owned(), extremes.collect())
        });
        Self(all.collect())
    }

    /// One of an RPC's.
    pub(crate) fn of(&self, rpc: &str, index: Index) -> &Extreme {
        index.get(&self.0[rpc])
    }
}

/// Requests that would be carried out as far as they go, by RPC: an extreme is then all that is odd. What changes access
/// is only planned.
fn well_formed(known: &Known) -> Vec<Ask> {
    let cluster = known.clusters[0].clone();
    let reader = access(AzureRole::RbacReader, &["team-a"]);
    let selector = GrantSelector {
        cluster: Some(cluster.clone()),
        ..GrantSelector::default()
    };
    let grant_id = known.grants[0].clone();
    let job_id = known.jobs[0].clone();
    let check = CheckAccessRequest {
        principal: Some(user(ALICE)),
        cluster: cluster.clone(),
        access: Some(reader.clone()),
        ..CheckAccessRequest::default()
    };
    vec![
        Ask::Grant(GrantRequest {
            validate_only: true,
            ..permanent(ALICE, &cluster, reader)
        }),
        Ask::ExtendGrant(ExtendGrantRequest {
            validate_only: true,
            ..extension(&grant_id, Duration::from_hours(1))
        }),
        Ask::Revoke(RevokeRequest {
            validate_only: true,
            ..revocation_of(selector.clone())
        }),
        Ask::BatchCheckAccess(BatchCheckAccessRequest {
            requests: vec![check.clone()],
            ..BatchCheckAccessRequest::default()
        }),
        Ask::CheckAccess(check),
        Ask::ListAccess(ListAccessRequest {
            cluster: Some(cluster.clone()),
            ..ListAccessRequest::default()
        }),
        Ask::GetJob(GetJobRequest {
            job_id: job_id.clone(),
        }),
        Ask::WatchJob(WatchJobRequest {
            job_id: job_id.clone(),
        }),
        Ask::ListJobs(ListJobsRequest::default()),
        Ask::ListJobTargets(ListJobTargetsRequest {
            job_id,
            ..ListJobTargetsRequest::default()
        }),
        Ask::GetGrant(GetGrantRequest { grant_id }),
        Ask::ListGrants(ListGrantsRequest {
            selector: Some(selector),
            ..ListGrantsRequest::default()
        }),
        Ask::GetCluster(GetClusterRequest { cluster }),
        Ask::ListClusters(ListClustersRequest::default()),
        Ask::ListAuditEvents(ListAuditEventsRequest::default()),
    ]
}

/// Each by itself, and each in a request in which nothing else is odd.
#[test]
fn every_scalar_of_every_request_is_answered_in_good_form_at_its_extremes() {
    let bench = Bench::start();
    let raw = RawClient::new(&bench.broker);
    let extremes = Extremes::of_the_contract();
    let mut asked = 0;
    for ask in well_formed(&bench.known) {
        let (rpc, whole) = (ask.rpc(), ask.encoded());
        assert!(SERVED.contains(&rpc));
        let before = bench.kept();
        for extreme in &extremes.0[rpc] {
            for base in [&[][..], &whole] {
                let body = framed(&[base, &extreme.bytes].concat());
                let refused = bench.runtime.block_on(raw.refusal(rpc, body, &[]));
                if let Some(status) = refused {
                    eprintln!("{rpc} {}", extreme.field);
                    is_well_formed(&status, false);
                }
                asked += 1;
            }
        }
        // A revocation that an extreme makes a real one has a job of its own.
        if rpc != "Revoke" {
            assert!(bench.kept() == before, "{rpc}: something was changed");
        }
    }
    assert!(asked > 1_000, "{asked} requests");
    bench.nothing_has_panicked();
}

/// Whoever makes up a token writes behind the mark of a real one whatever they want.
#[test]
fn a_page_token_that_was_made_up_is_answered_in_good_form() {
    let bench = Bench::start();
    let raw = RawClient::new(&bench.broker);
    let cluster = bench.world.cluster("aks-development");
    let bob = uuid!("10000000-0000-4000-8000-000000000002");
    for somebody in [ALICE, bob] {
        let reader = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");
        bench
            .world
            .somebody_else_gives(&cluster, reader, somebody, None);
    }
    let one = |page_token: &str| {
        let (page_size, page_token) = (1, page_token.to_owned());
        [
            Ask::ListJobs(ListJobsRequest {
                page_size,
                page_token: page_token.clone(),
                ..ListJobsRequest::default()
            }),
            Ask::ListClusters(ListClustersRequest {
                page_size,
                page_token: page_token.clone(),
                ..ListClustersRequest::default()
            }),
            Ask::ListAuditEvents(ListAuditEventsRequest {
                page_size,
                page_token: page_token.clone(),
                ..ListAuditEventsRequest::default()
            }),
            Ask::ListAccess(ListAccessRequest {
                page_size,
                page_token,
                cluster: Some(cluster.clone()),
                ..ListAccessRequest::default()
            }),
        ]
    };
    let mut client = bench.broker.client();
    for first in one("") {
        let (rpc, token) = bench.runtime.block_on(next_page(&mut client, first));
        let mark = &token[..8];
        for made_up in [
            "",
            "0",
            "0-0",
            "0-1",
            "18446744073709551615-18446744073709551615",
            "\0",
            "(",
            "+",
            "-",
            "ä",
        ] {
            let token = format!("{mark}{}", hex(made_up));
            let again = one(&token).into_iter();
            let again = again
                .filter(|ask| ask.rpc() == rpc)
                .map(|ask| framed(&ask.encoded()));
            for body in again {
                let refused = bench.runtime.block_on(raw.refusal(rpc, body, &[]));
                if let Some(status) = refused {
                    Refusal::of(&status).names(&["page_token"]);
                }
            }
        }
        // The first place of all: what is before it is no page.
        if rpc == "ListAuditEvents" {
            let body = one(&format!("{mark}302d30")).map(|ask| (ask.rpc(), ask.encoded()));
            let (_, body) = body.into_iter().find(|(it, _)| *it == rpc).expect("it");
            let refused = bench.runtime.block_on(raw.refusal(rpc, framed(&body), &[]));
            Refusal::of(&refused.expect("a refusal")).names(&["page_token"]);
        }
    }
    bench.nothing_has_panicked();
}

async fn next_page(client: &mut Client, ask: Ask) -> (&'static str, String) {
    let rpc = ask.rpc();
    let token = match ask {
        Ask::ListJobs(it) => {
            client
                .list_jobs(it)
                .await
                .expect("a page")
                .into_inner()
                .next_page_token
        }
        Ask::ListClusters(it) => {
            client
                .list_clusters(it)
                .await
                .expect("a page")
                .into_inner()
                .next_page_token
        }
        Ask::ListAuditEvents(it) => {
            client
                .list_audit_events(it)
                .await
                .expect("a page")
                .into_inner()
                .next_page_token
        }
        Ask::ListAccess(it) => {
            client
                .list_access(it)
                .await
                .expect("a page")
                .into_inner()
                .next_page_token
        }
        other => panic!("{other:?} has no pages here"),
    };
    assert!(token.len() > 8, "{rpc}: {token:?}");
    (rpc, token)
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes it");
        hex
    })
}
