//! Whatever ARM does to a PUT or to a DELETE: the outcome is exact, the job says what befell it and when it is tried
//! again, and no call is made more often than the protocol asks for.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, Failure, GetJobRequest, GrantRequest, GrantSelector, Job, WatchJobRequest, grant,
    job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use futures::future::join_all;
use support::ask::{access, permanent, revocation, revocation_of, user};
use support::broker::Client;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::Uuid;

/// Something that happens to one call, and what is known of it then.
struct Case {
    /// The namespace that it is about, by which its calls are known.
    name: &'static str,
    effect: FaultEffect,
    reason: &'static str,
    /// Whether it may have been carried out: then the call is made once more when that can change nothing more.
    in_doubt: bool,
    principal: Uuid,
}

impl Case {
    fn new(name: &'static str, effect: FaultEffect, reason: &'static str, in_doubt: bool) -> Self {
        Self {
            name,
            effect,
            reason,
            in_doubt,
            principal: Uuid::new_v4(),
        }
    }

    fn request(&self, world: &World) -> GrantRequest {
        let reader = access(AzureRole::RbacReader, &[self.name]);
        permanent(self.principal, &world.cluster("aks-production"), reader)
    }

    /// Aims it at the next such call.
    fn strike(&self, world: &World, operation: Operation) {
        world.emulator.add_fault(Fault {
            path_contains: Some(format!("/namespaces/{}/", self.name)),
            ..Fault::once(operation, self.effect.clone())
        });
    }

    /// How many such calls there were.
    fn calls(&self, world: &World, operation: Operation) -> usize {
        let path = format!("/namespaces/{}/", self.name);
        let calls = world.emulator.calls().into_iter();
        calls
            .filter(|call| call.operation == operation && call.path.contains(&path))
            .count()
    }

    /// The call that was struck, the next one and, where there was doubt, the one that settles it.
    fn expected_calls(&self) -> usize {
        if self.in_doubt { 3 } else { 2 }
    }

    /// How many assignments its principal truly has, under whatever names.
    fn held(&self, world: &World) -> usize {
        let all = world.emulator.role_assignments().into_iter();
        all.filter(|found| found.principal == self.principal)
            .count()
    }

    fn befell(&self, failure: &Failure) {
        let name = self.name;
        assert_eq!(failure.reason, self.reason, "{name}: {failure:?}");
        assert_eq!(
            failure.code,
            i32::from(Code::Unavailable),
            "{name}: {failure:?}"
        );
        assert!(failure.retryable, "{name}: {failure:?}");
        assert!(!failure.message.is_empty(), "{name}");
        let answered = matches!(self.effect, FaultEffect::Status { .. });
        assert_eq!(
            failure.azure_correlation_id.is_empty(),
            !answered,
            "{name}: {failure:?}"
        );
    }

    /// Follows a job to its success. Whatever a watcher hears of on the way is as the contract says.
    async fn succeeds(&self, mut client: Client, job_id: String) -> Job {
        let request = WatchJobRequest {
            job_id: job_id.clone(),
        };
        let told = client.watch_job(request).await.expect("a watch");
        let mut told = told.into_inner();
        let mut last = None;
        while let Some(message) = told.message().await.expect("the watch goes on") {
            let job = message.job.expect("a job");
            if job.state() == job::State::Retrying {
                self.befell(job.last_error.as_ref().expect("a reason"));
                assert!(job.next_attempt_time.is_some(), "{job:?}");
                assert!(job.finish_time.is_none(), "{job:?}");
            }
            last = Some(job);
        }
        let job = last.expect("a state");
        assert_eq!(job.state(), job::State::Succeeded, "{}: {job:?}", self.name);
        assert!(job.next_attempt_time.is_none(), "{job:?}");
        self.befell(job.last_error.as_ref().expect("what befell it on the way"));
        let asked = client.get_job(GetJobRequest { job_id }).await;
        let target = asked.expect("the job").into_inner().targets.remove(0);
        assert_eq!(target.last_error, None, "an attempt has succeeded since");
        job
    }

    async fn is_granted(&self, world: &World, client: Client) {
        let accepted = client.clone().grant(self.request(world)).await;
        let accepted = accepted.expect("accepted").into_inner();
        self.succeeds(client.clone(), accepted.job.expect("a job").job_id)
            .await;
        assert_eq!(self.held(world), 2, "{}", self.name);
        let grant_id = accepted.grant.expect("a grant").grant_id;
        let grant = ask::the_grant(&mut client.clone(), &grant_id).await;
        assert_eq!(grant.state(), grant::State::Active, "{grant:?}");
        assert_eq!(grant.last_error, None, "{}", self.name);
        assert_eq!(grant.effects.len(), 2, "{grant:?}");
    }

    async fn is_revoked(&self, world: &World, client: Client, grant_id: &str) {
        let accepted = client.clone().revoke(revocation(grant_id)).await;
        let job_id = accepted
            .expect("accepted")
            .into_inner()
            .job
            .expect("a job")
            .job_id;
        let job = self.succeeds(client.clone(), job_id).await;
        assert_eq!(self.held(world), 0, "{}: the job is over", self.name);
        let [began, ended] = [job.create_time, job.finish_time].map(|time| {
            let time = time.expect("a time");
            jiff::Timestamp::new(time.seconds, time.nanos).expect("a time")
        });
        let took = Duration::try_from(ended.duration_since(began)).expect("forward");
        if self.in_doubt {
            let name = self.name;
            assert!(
                took >= timing().settle_time,
                "{name}: over after {took:?}, in doubt still"
            );
        }
        let grant = ask::the_grant(&mut client.clone(), grant_id).await;
        assert_eq!(grant.state(), grant::State::Revoked, "{grant:?}");
    }
}

fn timing() -> Timing {
    Timing {
        call_timeout: Duration::from_millis(700),
        settle_time: Duration::from_secs(3),
        ..Timing::default()
    }
}

fn answered(status: u16, code: &str) -> FaultEffect {
    FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "a fault of the test's".to_owned(),
        retry_after: None,
    }
}

fn cases() -> Vec<Case> {
    // Long after the caller gave up, and in time before it counts as settled.
    let late = |hang| FaultEffect::CommitLate {
        delay: Duration::from_millis(1_200),
        hang,
    };
    let unavailable = "AZURE_UNAVAILABLE";
    vec![
        Case::new(
            "error",
            answered(500, "InternalServerError"),
            unavailable,
            true,
        ),
        Case::new(
            "gateway",
            answered(504, "GatewayTimeout"),
            unavailable,
            true,
        ),
        Case::new(
            "unheard-of-5xx",
            answered(599, "Lightning"),
            unavailable,
            true,
        ),
        Case::new("unheard-of", answered(418, "Teapot"), "AZURE_ERROR", false),
        Case::new("no-code", answered(400, ""), "AZURE_ERROR", false),
        Case::new("hangs", late(true), unavailable, true),
        Case::new("cut-and-late", late(false), unavailable, true),
        Case::new(
            "cut-before",
            FaultEffect::CutBeforeCommit,
            unavailable,
            true,
        ),
        Case::new("cut-after", FaultEffect::CutAfterCommit, unavailable, true),
    ]
}

#[tokio::test]
async fn i2_i4_i5_whatever_arm_does_to_a_call_its_outcome_is_exact_and_no_call_is_made_for_nothing()
{
    let world = World::start().await;
    let broker = world.broker(&timing()).await;
    let client = broker.client();
    // What is revoked later is granted in good weather, so that Azure's answers of it can be believed by then.
    let revoked = cases();
    let grants = join_all(revoked.iter().map(|case| {
        let (mut client, request) = (client.clone(), case.request(&world));
        async move { ask::active(&mut client, request).await.grant_id }
    }));
    let grants = grants.await;

    world.emulator.clear_history();
    let granted = cases();
    for case in &granted {
        case.strike(&world, Operation::RoleAssignmentWrite);
    }
    join_all(
        granted
            .iter()
            .map(|case| case.is_granted(&world, client.clone())),
    )
    .await;
    world.at_rest().await;
    for case in &granted {
        let calls = case.calls(&world, Operation::RoleAssignmentWrite);
        assert_eq!(calls, case.expected_calls(), "PUTs where one {}", case.name);
        assert_eq!(case.held(&world), 2, "{}", case.name);
    }

    for case in &revoked {
        case.strike(&world, Operation::RoleAssignmentDelete);
    }
    let each = revoked.iter().zip(&grants);
    join_all(each.map(|(case, grant)| case.is_revoked(&world, client.clone(), grant))).await;
    world.at_rest().await;
    world.emulator.quiesce().await;
    for case in &revoked {
        let calls = case.calls(&world, Operation::RoleAssignmentDelete);
        assert_eq!(
            calls,
            case.expected_calls(),
            "DELETEs where one {}",
            case.name
        );
        assert_eq!(case.held(&world), 0, "{}", case.name);
    }
    assert_eq!(world.truth().len(), 2 * granted.len());
}

/// The whole subscription waits, no longer than Azure says; and where Azure says nothing, for a second.
#[tokio::test]
async fn a_call_that_azure_throttles_waits_for_as_long_as_azure_says_and_is_made_once_more() {
    let world = World::start().await;
    let broker = world.broker(&timing()).await;
    let mut client = broker.client();
    for retry_after in [None, Some("1"), Some("0")] {
        let throttled = FaultEffect::Status {
            status: 429,
            code: "SubscriptionRequestsThrottled".to_owned(),
            message: "wait".to_owned(),
            retry_after: retry_after.map(str::to_owned),
        };
        let case = Case::new("throttled", throttled, "AZURE_THROTTLED", false);
        world.emulator.clear_history();
        case.strike(&world, Operation::RoleAssignmentWrite);
        case.is_granted(&world, client.clone()).await;
        let puts = case.calls(&world, Operation::RoleAssignmentWrite);
        assert_eq!(puts, case.expected_calls());

        case.strike(&world, Operation::RoleAssignmentDelete);
        let hers = revocation_of(GrantSelector {
            principal: Some(user(case.principal)),
            ..GrantSelector::default()
        });
        let accepted = client.revoke(hers).await.expect("accepted").into_inner();
        let job_id = accepted.job.expect("a job").job_id;
        let retrying = ask::until(&mut client, &job_id, job::State::Retrying).await;
        case.befell(retrying.last_error.as_ref().expect("a reason"));
        case.succeeds(client.clone(), job_id).await;
        let deletes = case.calls(&world, Operation::RoleAssignmentDelete);
        assert_eq!(deletes, case.expected_calls());
    }
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}
