//! Callers that ask for fresher data than the broker keeps spend a budget of their own, and not everybody's. Beyond it
//! they are told when to ask again, and never answered from older data.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::{Duration, Instant};

use aks_access_broker::grpc::proto::{
    BatchCheckAccessRequest, CheckAccessRequest, CheckAccessResponse, Consistency,
    ListAccessRequest, batch_check_access_response::item::Result as Outcome,
};
use azure_emulator::Operation;
use support::ask::{now, reads, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::{Code, Status};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const AUDITOR: Uuid = uuid!("30000000-0000-4000-8000-000000000005");

/// So many checks a caller can have at once: one takes eight calls.
const CHECKS: usize = 3;

/// A broker whose callers can have [`CHECKS`] fresh checks at once, and hardly any more; all together twice as many.
async fn broker(world: &World) -> BrokerProcess {
    let config = world.config_of_policies(&Timing::default(), None);
    let mut command = BrokerProcess::command(&config);
    for (key, value) in [
        ("PER_CALLER__CAPACITY", "24"),
        ("PER_CALLER__PER_MINUTE", "6"),
        ("PER_SUBSCRIPTION__CAPACITY", "42"),
        ("PER_SUBSCRIPTION__PER_MINUTE", "6"),
    ] {
        let variable = format!("AKS_ACCESS_BROKER__LIMITS__FRESH_READS__{key}");
        command.env(variable, value);
    }
    // What is renewed in the background is nobody's to pay, and nothing to count here.
    command.env("AKS_ACCESS_BROKER__VIEW__RENEW_AFTER", "50s");
    BrokerProcess::start_as(command).await
}

fn question(world: &World, consistency: Option<Consistency>) -> CheckAccessRequest {
    CheckAccessRequest {
        consistency,
        ..reads(ALICE, &world.cluster("aks-production"))
    }
}

async fn ask(
    client: &mut Client,
    request: CheckAccessRequest,
) -> Result<CheckAccessResponse, Status> {
    let answer = client.check_access(request).await;
    answer.map(tonic::Response::into_inner)
}

fn is_told_to_wait(status: &Status) {
    let refusal = Refusal::of(status);
    let limited = (Code::ResourceExhausted, "RATE_LIMITED");
    assert_eq!(refusal.kind(), limited, "{refusal:?}");
    let wait = refusal.retry_after.expect("when to ask again");
    assert!(
        !wait.is_zero() && wait <= Duration::from_mins(2),
        "{wait:?}"
    );
    assert!(refusal.message.contains("max_staleness"), "{refusal:?}");
}

/// How many lists of assignments were read.
fn lists(world: &World) -> usize {
    world.count(Operation::RoleAssignmentList)
}

/// Asks until it is told to wait, and says how often it was answered.
async fn until_told_to_wait(
    client: &mut Client,
    world: &World,
    consistency: impl Fn() -> Consistency,
) -> usize {
    for answered in 0..100 {
        match ask(client, question(world, Some(consistency()))).await {
            Ok(_) => {}
            Err(status) => {
                is_told_to_wait(&status);
                return answered;
            }
        }
    }
    panic!("a loop spends what is everybody's");
}

fn within(nanos: i32) -> Consistency {
    Consistency {
        max_staleness: Some(prost_types::Duration { seconds: 0, nanos }),
        ..Consistency::default()
    }
}

#[tokio::test]
async fn a_loop_spends_its_own_budget_and_is_never_answered_from_older_data() {
    for consistency in [now, || within(0), || within(1)] {
        let world = World::start().await;
        let broker = broker(&world).await;
        let mut client = broker.client();
        let begun = Instant::now();
        let answered = until_told_to_wait(&mut client, &world, consistency).await;
        let brought = usize::try_from(begun.elapsed().as_secs()).unwrap() / 60;
        assert!(
            (CHECKS..=CHECKS + 1 + brought).contains(&answered),
            "{answered}"
        );
        let read = lists(&world);
        // However long it goes on, it gets nothing, and nothing is read for it.
        for _ in 0..20 {
            let told = ask(&mut client, question(&world, Some(consistency()))).await;
            is_told_to_wait(&told.expect_err("there is nothing left"));
        }
        assert_eq!(lists(&world), read);
        // Whoever takes what is known is answered, and so is another caller, for whom it is read.
        let usual = ask(&mut client, question(&world, None)).await;
        usual.expect("an answer");
        assert_eq!(lists(&world), read);
        let mut other = broker.client_with(Some(&token(&world.emulator, AUDITOR)));
        let fresh = ask(&mut other, question(&world, Some(consistency()))).await;
        fresh.expect("another caller has a budget of its own");
        assert!(lists(&world) > read);
    }
}

#[tokio::test]
async fn all_callers_together_leave_a_subscription_most_of_its_own_budget() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let mut client = broker.client();
    let mut other = broker.client_with(Some(&token(&world.emulator, AUDITOR)));
    let of_one = until_told_to_wait(&mut client, &world, now).await;
    let of_other = until_told_to_wait(&mut other, &world, now).await;
    // 42 calls of the subscription's are six checks: a look at the groups is the directory's.
    assert!(
        (5..=7).contains(&(of_one + of_other)),
        "{of_one} and {of_other}"
    );
}

/// What a batch and a list have to read they pay for once; what is beyond the budget is told by itself.
#[tokio::test]
async fn a_batch_and_a_list_pay_for_what_they_read_and_no_more() {
    let world = World::start().await;
    let broker = broker(&world).await;
    let mut client = broker.client();
    let of = |principal| CheckAccessRequest {
        principal: Some(user(principal)),
        ..question(&world, None)
    };
    // One look at the cluster, and one at the groups of each: 7 + 2 of 24.
    let requests = [ALICE, BOB].into_iter().cycle().take(20).map(of).collect();
    let batch = BatchCheckAccessRequest {
        requests,
        consistency: Some(now()),
        ..BatchCheckAccessRequest::default()
    };
    let answer = client.batch_check_access(batch).await.expect("answers");
    for item in answer.into_inner().items {
        assert!(
            matches!(item.result, Some(Outcome::Response(_))),
            "{item:?}"
        );
    }
    // 15 are left, seven of them for the cluster, and each of these is somebody else.
    let requests = (1..=40).map(|n| of(Uuid::from_u128(n))).collect();
    let batch = BatchCheckAccessRequest {
        requests,
        consistency: Some(now()),
        ..BatchCheckAccessRequest::default()
    };
    let answer = client.batch_check_access(batch).await.expect("answers");
    let items = answer.into_inner().items;
    let refused = items.iter().filter(|item| match &item.result {
        Some(Outcome::Error(failure)) => {
            assert_eq!(failure.reason, "RATE_LIMITED", "{failure:?}");
            true
        }
        _ => false,
    });
    assert!(
        refused.count() >= 40 - 15,
        "no more than 15 could be paid for"
    );
    let list = ListAccessRequest {
        principal: Some(user(ALICE)),
        consistency: Some(now()),
        ..ListAccessRequest::default()
    };
    let told = client.list_access(list).await;
    is_told_to_wait(&told.expect_err("there is nothing left"));
}
