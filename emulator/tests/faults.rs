//! What a network and a cloud can do to a call, and what the history then says.

mod support;

use std::time::Duration;

use azure_emulator::{Call, Change, ChangeKind, Event, Fault, FaultEffect, Operation};
use reqwest::StatusCode;
use serde_json::json;
use support::{
    ALICE, Answer, Azure, BROKER, CLUSTER, RBAC_READER, RBAC_WRITER, assignment, body, guid,
};
use uuid::Uuid;

const NAME: Uuid = Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0001);
const OTHER: Uuid = Uuid::from_u128(0x8888_8888_0000_0000_0000_0000_0000_0002);
const WRITE: Operation = Operation::RoleAssignmentWrite;
const DELETE: Operation = Operation::RoleAssignmentDelete;

fn calls(events: &[Event]) -> Vec<&Call> {
    events.iter().filter_map(Event::as_call).collect()
}

fn changes(events: &[Event]) -> Vec<&Change> {
    events.iter().filter_map(Event::as_change).collect()
}

fn exists(azure: &Azure, name: Uuid) -> bool {
    azure
        .emulator
        .role_assignments()
        .iter()
        .any(|it| it.name == name)
}

#[tokio::test]
async fn the_history_has_each_call_and_what_it_committed() {
    let azure = Azure::immediate().await;
    let put = azure
        .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
        .header("x-ms-client-request-id", "mine");
    put.send().await.expect("an answer");
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    azure.delete(CLUSTER, NAME).await;
    azure.get(&assignment(CLUSTER, NAME)).await;

    let events = azure.emulator.history();
    let calls = calls(&events);
    let seen: Vec<_> = calls
        .iter()
        .map(|call| (call.operation.as_str(), call.status))
        .collect();
    assert_eq!(
        seen,
        [
            ("roleAssignments/write", Some(201)),
            ("roleAssignments/write", Some(201)),
            ("roleAssignments/delete", Some(200)),
            ("roleAssignments/read", Some(404)),
        ]
    );
    let first = calls[0];
    assert_eq!(first.method, "PUT");
    assert_eq!(first.path, assignment(CLUSTER, NAME));
    assert_eq!(first.principal, Some(guid(BROKER)));
    assert_eq!(first.client_request_id.as_deref(), Some("mine"));
    assert!(first.closed.expect("closed").elapsed >= first.received.elapsed);
    assert!(
        calls[1].received.elapsed >= first.closed.expect("closed").elapsed,
        "one after the other"
    );

    let done: Vec<_> = changes(&events)
        .iter()
        .map(|change| (change.kind, change.call))
        .collect();
    assert_eq!(
        done,
        [
            (ChangeKind::Created, Some(calls[0].sequence)),
            (ChangeKind::Updated, Some(calls[1].sequence)),
            (ChangeKind::Deleted, Some(calls[2].sequence)),
        ]
    );
    let deleted = changes(&events)[2];
    assert_eq!(deleted.name, NAME.to_string());
    assert_eq!(deleted.scope.as_ref().expect("a scope"), CLUSTER);
    assert_eq!(
        (deleted.principal, deleted.role),
        (Some(guid(ALICE)), Some(guid(RBAC_READER)))
    );
    azure.emulator.clear_history();
    assert!(azure.emulator.history().is_empty());
}

#[tokio::test]
async fn a_cut_before_the_commit_leaves_nothing_and_one_after_it_leaves_everything() {
    let azure = Azure::immediate().await;
    for (effect, name, left) in [
        (FaultEffect::CutBeforeCommit, NAME, false),
        (FaultEffect::CutAfterCommit, OTHER, true),
    ] {
        azure.emulator.clear_history();
        azure.emulator.add_fault(Fault::once(WRITE, effect));
        let error = azure
            .put_request(CLUSTER, name, &body(RBAC_READER, ALICE))
            .send()
            .await
            .expect_err("cut");
        assert!(!error.is_timeout() && error.status().is_none(), "{error:?}");
        assert_eq!(exists(&azure, name), left);
        let events = azure
            .emulator
            .until(|events| calls(events).iter().all(|call| call.closed.is_some()))
            .await;
        assert_eq!(calls(&events).len(), 1, "sent once");
        assert_eq!(calls(&events)[0].status, None);
    }
}

#[tokio::test]
async fn a_status_is_answered_as_azure_would_and_nothing_is_done() {
    let azure = Azure::immediate().await;
    azure.emulator.add_fault(Fault::once(
        WRITE,
        FaultEffect::Status {
            status: 503,
            code: "ServerTimeout".to_owned(),
            message: "Later.".to_owned(),
            retry_after: Some("7".to_owned()),
        },
    ));
    let answer = azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.json(),
        json!({"error": {"code": "ServerTimeout", "message": "Later."}})
    );
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert!(!exists(&azure, NAME));
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_fault_is_aimed_by_operation_and_path() {
    let azure = Azure::immediate().await;
    azure.emulator.add_fault(Fault {
        operation: Some("roleAssignments/*".to_owned()),
        path_contains: Some("/NAMESPACES/web/".to_owned()),
        effect: FaultEffect::CutBeforeCommit,
        times: None,
        probability: None,
    });
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
    let namespace = format!("{CLUSTER}/namespaces/web");
    for _ in 0..2 {
        azure
            .put_request(&namespace, OTHER, &body(RBAC_READER, ALICE))
            .send()
            .await
            .expect_err("cut");
    }
    azure.emulator.clear_faults();
    assert_eq!(
        azure
            .put(&namespace, OTHER, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_late_commit_comes_when_the_client_is_long_gone() {
    let azure = Azure::immediate().await;
    let delay = Duration::from_millis(300);
    azure.emulator.add_fault(Fault::once(
        WRITE,
        FaultEffect::CommitLate { delay, hang: false },
    ));
    azure
        .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
        .send()
        .await
        .expect_err("cut at once");
    assert!(!exists(&azure, NAME), "not yet");
    azure.emulator.quiesce().await;
    assert!(exists(&azure, NAME));
    let events = azure.emulator.history();
    let (call, change) = (calls(&events)[0], changes(&events)[0]);
    assert!(change.time.elapsed >= call.received.elapsed + delay);
    assert!(
        change.time.elapsed > call.closed.expect("closed").elapsed,
        "committed after the cut"
    );
}

#[tokio::test]
async fn a_late_commit_keeps_to_the_rules_of_its_time() {
    let azure = Azure::immediate().await;
    let delay = Duration::from_millis(800);
    // A delete overtakes the PUT: what comes last wins, here the PUT that nobody waits for.
    azure.emulator.add_fault(Fault::once(
        WRITE,
        FaultEffect::CommitLate { delay, hang: false },
    ));
    azure
        .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
        .send()
        .await
        .expect_err("cut");
    assert_eq!(
        azure.delete(CLUSTER, NAME).await.status,
        StatusCode::NO_CONTENT
    );
    azure.emulator.quiesce().await;
    assert!(exists(&azure, NAME), "back from the dead");
    // And a late DELETE takes away what was written again meanwhile.
    azure.emulator.add_fault(Fault::once(
        DELETE,
        FaultEffect::CommitLate { delay, hang: false },
    ));
    azure
        .arm_as(BROKER, reqwest::Method::DELETE, &assignment(CLUSTER, NAME))
        .send()
        .await
        .expect_err("cut");
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
    azure.emulator.quiesce().await;
    assert!(!exists(&azure, NAME));
    // A late PUT of a twin is refused, as one in time would be.
    azure.emulator.add_fault(Fault::once(
        WRITE,
        FaultEffect::CommitLate { delay, hang: false },
    ));
    azure
        .put_request(CLUSTER, OTHER, &body(RBAC_READER, ALICE))
        .send()
        .await
        .expect_err("cut");
    assert_eq!(
        azure
            .put(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .await
            .status,
        StatusCode::CREATED
    );
    azure.emulator.quiesce().await;
    assert!(exists(&azure, NAME) && !exists(&azure, OTHER));
}

/// Sends a PUT and gives up once it has arrived.
async fn put_and_give_up(azure: &Azure) {
    let put = tokio::spawn(
        azure
            .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .send(),
    );
    azure
        .emulator
        .until(|events| !calls(events).is_empty())
        .await;
    put.abort();
    azure
        .emulator
        .until(|events| calls(events).iter().all(|call| call.closed.is_some()))
        .await;
}

#[tokio::test]
async fn a_hanging_call_commits_and_stays_open_until_its_client_gives_up() {
    let azure = Azure::immediate().await;
    let delay = Duration::from_millis(300);
    azure.emulator.add_fault(Fault::once(
        WRITE,
        FaultEffect::CommitLate { delay, hang: true },
    ));
    let put = tokio::spawn(
        azure
            .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .send(),
    );
    let events = azure
        .emulator
        .until(|events| !changes(events).is_empty())
        .await;
    assert_eq!(
        calls(&events)[0].closed,
        None,
        "committed, and still without an answer"
    );
    put.abort();
    let events = azure
        .emulator
        .until(|events| calls(events)[0].closed.is_some())
        .await;
    assert_eq!(calls(&events)[0].status, None);
}

#[tokio::test]
async fn a_slow_call_goes_on_without_its_client() {
    let azure = Azure::immediate().await;
    let delay = Duration::from_millis(500);
    azure
        .emulator
        .add_fault(Fault::once(WRITE, FaultEffect::Latency { delay }));
    put_and_give_up(&azure).await;
    azure.emulator.quiesce().await;
    assert!(exists(&azure, NAME));
}

#[tokio::test]
async fn latency_and_a_cut_come_together() {
    let azure = Azure::immediate().await;
    let delay = Duration::from_millis(100);
    azure
        .emulator
        .add_fault(Fault::once(WRITE, FaultEffect::Latency { delay }));
    azure
        .emulator
        .add_fault(Fault::once(WRITE, FaultEffect::CutAfterCommit));
    azure
        .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
        .send()
        .await
        .expect_err("cut");
    let events = azure.emulator.history();
    assert!(changes(&events)[0].time.elapsed >= calls(&events)[0].received.elapsed + delay);
}

#[tokio::test]
async fn a_lagging_replica_knows_of_nothing_to_delete() {
    let azure = Azure::immediate().await;
    azure.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    azure.emulator.add_fault(Fault {
        operation: None,
        path_contains: None,
        effect: FaultEffect::LaggingNoContent { within: None },
        times: Some(1),
        probability: None,
    });
    assert_eq!(
        azure.get(&assignment(CLUSTER, NAME)).await.status,
        StatusCode::OK,
        "reads are left alone"
    );
    assert_eq!(
        azure.delete(CLUSTER, NAME).await.status,
        StatusCode::NO_CONTENT
    );
    assert!(exists(&azure, NAME));
    assert_eq!(azure.delete(CLUSTER, NAME).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_call_is_held_before_its_commit_until_it_is_released() {
    let azure = Azure::immediate().await;
    azure.emulator.add_fault(Fault::once(
        WRITE,
        FaultEffect::Hold {
            name: "gate".to_owned(),
        },
    ));
    let held = tokio::spawn(
        azure
            .put_request(CLUSTER, NAME, &body(RBAC_READER, ALICE))
            .send(),
    );
    azure.emulator.until_held("gate", 1).await;
    assert!(!exists(&azure, NAME));
    assert_eq!(azure.emulator.release("gate"), 1);
    assert_eq!(
        held.await.expect("a task").expect("an answer").status(),
        StatusCode::CREATED
    );
    assert!(exists(&azure, NAME));
    assert_eq!(
        azure.emulator.release("gate"),
        0,
        "nobody is there any more"
    );
}

#[tokio::test]
async fn a_call_is_held_after_its_commit_until_faults_are_cleared() {
    let azure = Azure::immediate().await;
    azure.emulator.add_fault(Fault::always(
        WRITE,
        FaultEffect::HoldAfterCommit {
            name: "gate".to_owned(),
        },
    ));
    let held = tokio::spawn(
        azure
            .put_request(CLUSTER, NAME, &body(RBAC_WRITER, ALICE))
            .send(),
    );
    azure.emulator.until_held("gate", 1).await;
    assert!(exists(&azure, NAME), "committed");
    azure.emulator.quiesce().await;
    let events = azure.emulator.history();
    assert_eq!(calls(&events)[0].closed, None, "and not answered");
    azure.emulator.clear_faults();
    assert_eq!(
        held.await.expect("a task").expect("an answer").status(),
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_fault_at_graph_and_entra_is_answered_in_their_form() {
    let azure = Azure::immediate().await;
    let busy = |operation| {
        Fault::once(
            operation,
            FaultEffect::Status {
                status: 429,
                code: "TooManyRequests".to_owned(),
                message: "Please retry again later.".to_owned(),
                retry_after: Some("2.128".to_owned()),
            },
        )
    };
    azure.emulator.add_fault(busy(Operation::UserRead));
    azure.emulator.add_fault(busy(Operation::Token));
    let mut answer: Answer = azure
        .graph(reqwest::Method::GET, &format!("/v1.0/users/{ALICE}"), None)
        .await;
    assert_eq!(answer.header("retry-after"), Some("2.128"));
    let mut graph = answer.json();
    graph["error"]["innerError"]["date"].take();
    graph["error"]["innerError"]["request-id"].take();
    assert_eq!(
        graph,
        json!({"error": {
            "code": "TooManyRequests",
            "innerError": {"code": "429", "date": null, "message": "Please retry after", "request-id": null, "status": "429"},
            "message": "Please retry again later.",
        }})
    );
    answer = azure.token(&[("grant_type", "client_credentials")]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]),
        (429, &json!("TooManyRequests"))
    );
}
