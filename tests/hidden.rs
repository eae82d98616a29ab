//! What a caller may not see cannot be told from what is not there: not by the answer, not by what it leaves, and not by
//! how long it takes.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::{Duration, Instant};

use aks_access_broker::grpc::proto::{
    AzureRole, ExtendGrantRequest, GetGrantRequest, GetJobRequest, ListJobTargetsRequest,
    RevokeRequest, WatchJobRequest,
};
use support::ask::{access, active, permanent, revocation, revoke};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const STRANGER: Uuid = uuid!("30000000-0000-4000-8000-000000000006");

/// What takes the id of a grant, or of a job.
const RPCS: [&str; 8] = [
    "GetGrant",
    "ExtendGrant",
    "ExtendGrant, validate_only",
    "Revoke",
    "Revoke, validate_only",
    "GetJob",
    "WatchJob",
    "ListJobTargets",
];

/// What an RPC says of an id.
async fn asked(client: &mut Client, rpc: &str, id: &str) -> Refusal {
    let (grant_id, job_id) = (id.to_owned(), id.to_owned());
    let extension = ExtendGrantRequest {
        request_id: Uuid::new_v4().to_string(),
        grant_id: grant_id.clone(),
        ttl: Some(Duration::from_hours(100).try_into().unwrap()),
        validate_only: rpc.ends_with("validate_only"),
        ..ExtendGrantRequest::default()
    };
    let revocation = RevokeRequest {
        validate_only: rpc.ends_with("validate_only"),
        ..revocation(id)
    };
    match rpc.split(',').next().unwrap() {
        "GetGrant" => Refusal::from(client.get_grant(GetGrantRequest { grant_id }).await),
        "ExtendGrant" => Refusal::from(client.extend_grant(extension).await),
        "Revoke" => Refusal::from(client.revoke(revocation).await),
        "GetJob" => Refusal::from(client.get_job(GetJobRequest { job_id }).await),
        "WatchJob" => {
            let told = client.watch_job(WatchJobRequest { job_id }).await;
            let told = told.expect("a stream").into_inner().message().await;
            Refusal::of(&told.expect_err("nothing is told"))
        }
        "ListJobTargets" => {
            let request = ListJobTargetsRequest {
                job_id,
                ..ListJobTargetsRequest::default()
            };
            Refusal::from(client.list_job_targets(request).await)
        }
        other => panic!("{other} is not asked here"),
    }
}

struct Office {
    world: World,
    _broker: BrokerProcess,
    stranger: Client,
    /// The ids of a grant and of a job that the stranger may not see.
    hidden: (String, String),
}

impl Office {
    /// With a broker that lets a caller be refused as often as a test needs.
    async fn open() -> Self {
        let world = World::start().await;
        let config = world.config_of_policies(&Timing::default(), None);
        let mut command = BrokerProcess::command(&config);
        for (key, value) in [("CAPACITY", "100000"), ("PER_SECOND", "100000")] {
            command.env(format!("AKS_ACCESS_BROKER__LIMITS__REFUSALS__{key}"), value);
        }
        let broker = BrokerProcess::start_as(command).await;
        let mut client = broker.client();
        let reader = access(AzureRole::RbacReader, &[]);
        let request = permanent(ALICE, &world.cluster("aks-production"), reader.clone());
        let grant = active(&mut client, request).await.grant_id;
        let request = permanent(ALICE, &world.cluster("aks-development"), reader);
        let other = active(&mut client, request).await.grant_id;
        let job = revoke(&mut client, &other).await.job_id;
        world.at_rest().await;
        Self {
            stranger: broker.client_with(Some(&token(&world.emulator, STRANGER))),
            world,
            _broker: broker,
            hidden: (grant, job),
        }
    }

    fn hidden_from(&self, rpc: &str) -> String {
        let (grant, job) = &self.hidden;
        if rpc.contains("Job") { job } else { grant }.clone()
    }
}

#[tokio::test]
async fn what_is_hidden_is_answered_and_written_down_as_what_is_not_there() {
    let mut office = Office::open().await;
    for rpc in RPCS {
        let mut answers = Vec::new();
        for id in [office.hidden_from(rpc), Uuid::now_v7().to_string()] {
            let before = office.world.trail().await.len();
            let refusal = asked(&mut office.stranger, rpc, &id).await;
            assert_eq!(refusal.code, Code::NotFound, "{rpc}: {refusal:?}");
            let after = office.world.trail().await.len();
            assert_eq!(after, before + 1, "{rpc}: each is written down");
            answers.push(format!("{refusal:?}").replace(&id, "ID"));
        }
        assert_eq!(answers[0], answers[1], "{rpc}");
    }
}

/// By the shortest times, interleaved: what else the machine does only adds to them. A difference that is the broker's own
/// shows in each of the rounds; one of the machine's does not.
#[tokio::test]
async fn time_does_not_tell_what_is_hidden_from_what_is_not_there() {
    const ROUNDS: usize = 6;
    let mut office = Office::open().await;
    for rpc in RPCS {
        let mut rounds = Vec::new();
        let is_alike = loop {
            let [hidden, absent] = shortest_times(&mut office, rpc).await;
            rounds.push((hidden, absent));
            if hidden.max(absent) < hidden.min(absent) * 3 / 2 {
                break true;
            }
            if rounds.len() == ROUNDS {
                break false;
            }
        };
        assert!(is_alike, "{rpc}: hidden and not there took {rounds:?}");
    }
}

/// How long an RPC takes at least: of what is hidden, and of what is not there.
async fn shortest_times(office: &mut Office, rpc: &str) -> [Duration; 2] {
    const TIMES: usize = 25;
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..TIMES {
        let ids = [office.hidden_from(rpc), Uuid::now_v7().to_string()];
        for (id, shortest) in ids.iter().zip(&mut shortest) {
            let begun = Instant::now();
            asked(&mut office.stranger, rpc, id).await;
            *shortest = begun.elapsed().min(*shortest);
        }
    }
    shortest
}
