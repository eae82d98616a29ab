//! Redis is emptied or replaced while brokers run. A broker that went on would write role assignments under an id that
//! no other replica knows, and a job could be over while Azure has the earlier access (I2, I6, I7). So the broker
//! accepts and carries out nothing until the operator has settled that. Health reports it, and the log says what to do.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, CheckAccessRequest, GetGrantRequest, GetJobRequest, Grant, GrantRequest,
    ListGrantsRequest, WatchJobRequest, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, active, end_of, extension, lasting, now, over, revocation, the_grant};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const HOUR: Duration = Duration::from_hours(1);
/// What the log and health say in each of these cases.
const REMEDIES: [&str; 3] = ["{aab:main}:meta", "restore it", "restart every replica"];

/// A world with a broker whose log is kept, and a grant that is active.
struct Office {
    world: World,
    config: PathBuf,
    log: PathBuf,
    broker: BrokerProcess,
    grant: Grant,
}

impl Office {
    async fn open() -> Self {
        let world = World::start().await;
        let log = world.dir.path().join("broker.log");
        let config = world.config_with(&Timing::default(), &[]);
        let mut command = BrokerProcess::command(&config);
        command.env("AKS_ACCESS_BROKER__LOG__FILTER", "warn");
        command.stderr(fs::File::create(&log).unwrap());
        let broker = BrokerProcess::start_as(command).await;
        let grant = active(&mut broker.client(), reader(&world, ALICE)).await;
        world.at_rest_but_for_expiries().await;
        Self {
            world,
            config,
            log,
            broker,
            grant,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    async fn until_logged(&self, words: &str) {
        while !self.log().contains(words) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// An extension succeeds once Azure has the new end on everything.
    async fn is_extended(&self) {
        let mut client = self.broker.client();
        let accepted = client.extend_grant(extension(&self.grant.grant_id, 3 * HOUR));
        let accepted = accepted.await.expect("accepted").into_inner();
        let job = over(&mut client, &accepted.job.expect("a job").job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        let grant = the_grant(&mut client, &self.grant.grant_id).await;
        assert!(end_of(&grant) > end_of(&self.grant));
        let ends = self.world.described_ends();
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [end_of(&grant)]);
    }
}

fn reader(world: &World, principal: Uuid) -> GrantRequest {
    let access = access(AzureRole::RbacReader, &["shop"]);
    lasting(principal, &world.cluster("aks-production"), access, HOUR)
}

fn is_in_doubt(refusal: &Refusal) {
    let expected = (Code::Unavailable, "STORE_IN_DOUBT");
    assert_eq!(refusal.kind(), expected, "{refusal:?}");
    assert!(refusal.retry_after.is_some(), "{refusal:?}");
    assert!(refusal.message.contains("operator"), "{refusal:?}");
    for word in ["aab", "redis", "restart"] {
        let message = refusal.message.to_lowercase();
        assert!(!message.contains(word), "{refusal:?}");
    }
}

/// Checks that the broker refuses each change and each question, and says why.
async fn refuses_everything(world: &World, client: &mut Client, grant: &Grant) {
    let grant_id = &grant.grant_id;
    is_in_doubt(&Refusal::from(client.grant(reader(world, BOB)).await));
    let later = extension(grant_id, 2 * HOUR);
    is_in_doubt(&Refusal::from(client.extend_grant(later).await));
    is_in_doubt(&Refusal::from(client.revoke(revocation(grant_id)).await));
    let asked = GetGrantRequest {
        grant_id: grant_id.clone(),
    };
    is_in_doubt(&Refusal::from(client.get_grant(asked).await));
    let asked = ListGrantsRequest::default();
    is_in_doubt(&Refusal::from(client.list_grants(asked).await));
    let asked = GetJobRequest {
        job_id: grant.job_id.clone(),
    };
    is_in_doubt(&Refusal::from(client.get_job(asked).await));
    let asked = WatchJobRequest {
        job_id: grant.job_id.clone(),
    };
    let mut watch = client
        .watch_job(asked)
        .await
        .expect("a stream")
        .into_inner();
    is_in_doubt(&Refusal::of(&watch.message().await.expect_err("no job")));
    let request = reader(world, ALICE);
    let asked = CheckAccessRequest {
        principal: request.principal,
        cluster: request.cluster,
        access: request.access,
        consistency: Some(now()),
        ..CheckAccessRequest::default()
    };
    is_in_doubt(&Refusal::from(client.check_access(asked).await));
}

/// Checks that the log has one line about the doubt. The broker repeats it only after a minute.
fn is_logged_once(log: &str, instances: &[&str]) {
    let told: Vec<&str> = log.lines().filter(|it| it.contains("in doubt")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    for word in REMEDIES.iter().chain(instances) {
        assert!(told[0].contains(word), "{word} is not in {}", told[0]);
    }
}

async fn keys(world: &World) -> Vec<String> {
    let mut connection = world.redis.connection().await;
    redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .expect("the keys")
}

/// Which commands of these Redis has ever carried out.
async fn commands(world: &World, prefix: &str) -> Vec<String> {
    let mut connection = world.redis.connection().await;
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut connection)
        .await
        .expect("statistics");
    let lines = stats.lines().filter(|line| line.starts_with(prefix));
    lines.map(str::to_owned).collect()
}

/// The connection is not cut: each call sees by itself that Redis is another one. A second replica, which starts then,
/// knows nothing of what was accepted before.
#[tokio::test]
async fn i2_i7_after_redis_was_emptied_no_job_succeeds_unless_azure_agrees() {
    let office = Office::open().await;
    let (world, first, grant) = (&office.world, &office.broker, &office.grant);
    let (began_with, old_ends) = (world.instance().await, world.described_ends());
    let backup = world.redis.backup().await;
    let writes = world.count(Operation::RoleAssignmentWrite);

    world.redis.tell("FLUSHALL").await;
    let later = extension(&grant.grant_id, 2 * HOUR);
    is_in_doubt(&Refusal::from(
        first.client().extend_grant(later.clone()).await,
    ));
    first.until_not_serving().await;
    refuses_everything(world, &mut first.client(), grant).await;
    assert_eq!(keys(world).await, Vec::<String>::new());
    let why = first.why_not_serving().await.expect("health says why");
    for word in REMEDIES.iter().chain(&[began_with.as_str()]) {
        assert!(why.contains(word), "{word} is not in {why}");
    }
    is_logged_once(&office.log(), &[&began_with, "holds nothing now"]);

    let second = BrokerProcess::start(&office.config).await;
    let refusal = Refusal::from(second.client().extend_grant(later).await);
    let expected = (Code::NotFound, "GRANT_NOT_FOUND");
    assert_eq!(refusal.kind(), expected, "{refusal:?}");
    assert_ne!(world.instance().await, began_with);
    refuses_everything(world, &mut first.client(), grant).await;
    assert!(!first.is_serving().await && second.is_serving().await);
    assert_eq!(world.described_ends(), old_ends);
    assert_eq!(world.count(Operation::RoleAssignmentWrite), writes);

    world.redis.restore(&backup).await;
    first.until_serving().await;
    assert_eq!(first.why_not_serving().await, None);
    office.is_extended().await;
    // The other broker began with a Redis that is gone.
    second.until_not_serving().await;
    refuses_everything(world, &mut second.client(), grant).await;
}

/// Another Redis takes the old one's address. The broker notices at the next connection.
#[tokio::test]
async fn i6_i7_a_replaced_redis_is_not_written_and_the_old_one_ends_the_doubt() {
    let mut office = Office::open().await;
    let began_with = office.world.instance().await;
    let dir = office.world.dir.path().to_owned();
    let folder = |name: &str| Path::new(&dir).join(name);
    office.world.redis.replace(&folder("another")).await;
    office.broker.until_not_serving().await;
    let (world, grant) = (&office.world, &office.grant);
    refuses_everything(world, &mut office.broker.client(), grant).await;
    assert_eq!(keys(world).await, Vec::<String>::new());
    let scripts = commands(world, "cmdstat_eval").await;
    assert!(scripts.is_empty(), "no script was even sent: {scripts:?}");
    is_logged_once(&office.log(), &[&began_with, "holds nothing now"]);

    // A broker that starts now begins with the new Redis. That is the remedy if the old data is lost for good.
    let other = BrokerProcess::start(&office.config).await;
    let granted = active(&mut other.client(), reader(world, BOB)).await;
    assert!(!granted.grant_id.is_empty());
    other.signal("TERM").await;
    other.ended().await;

    office.world.redis.replace(&folder("redis")).await;
    office.broker.until_serving().await;
    let mut client = office.broker.client();
    let grant = the_grant(&mut client, &office.grant.grant_id).await;
    assert_eq!(grant.expire_time, office.grant.expire_time);
}

/// A pass waits for the answer to its present call to Azure. Then it makes no further call, and records nothing. Its
/// intents are in the earlier Redis; once that is back, the next pass continues from them.
#[tokio::test]
async fn i2_i4_a_pass_under_way_makes_no_further_call_and_records_nothing() {
    let office = Office::open().await;
    let world = &office.world;
    let hold = FaultEffect::Hold {
        name: "put".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentWrite, hold);
    world.emulator.add_fault(fault);
    let writes = world.count(Operation::RoleAssignmentWrite);
    let mut client = office.broker.client();
    let accepted = client.grant(reader(world, BOB)).await.expect("accepted");
    let job_id = accepted.into_inner().job.expect("a job").job_id;
    world.emulator.until_held("put", 1).await;
    let backup = world.redis.backup().await;

    world.redis.tell("FLUSHALL").await;
    office.broker.until_not_serving().await;
    assert_eq!(world.emulator.release("put"), 1);
    office
        .until_logged("the broker could not record a pass")
        .await;
    assert_eq!(world.count(Operation::RoleAssignmentWrite), writes + 1);
    assert_eq!(keys(world).await, Vec::<String>::new());

    world.redis.restore(&backup).await;
    let job = over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 4);
}
