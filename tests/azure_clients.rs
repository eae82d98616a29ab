//! The clients of Azure against the emulator: what goes over the wire, and what is made of what comes back.
#![cfg(feature = "dev")]
#![expect(
    clippy::expect_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "azure_clients/bench.rs"]
mod bench;
#[path = "azure_clients/bounds.rs"]
mod bounds;
#[path = "azure_clients/clouds.rs"]
mod clouds;
#[path = "azure_clients/deny.rs"]
mod deny;
#[path = "azure_clients/graph.rs"]
mod graph;
#[path = "azure_clients/groups.rs"]
mod groups;
#[path = "azure_clients/tokens.rs"]
mod tokens;

use std::time::{Duration, Instant};

use aks_access_broker::azure::{
    Azure, AzureSettings, Disposition, Filter, Outcome, Place, Purpose,
};
use aks_access_broker::domain::access::{PrincipalType, RoleAtScope};
use aks_access_broker::domain::ids::{
    AssignmentName, ClusterId, Namespace, RoleDefinitionId, Scope,
};
use aks_access_broker::domain::reason::Reason;
use aks_access_broker::domain::role::BuiltInRole;
use azure_emulator::{Event, FaultEffect, Operation, Settings};
use bench::{
    ALICE, NAME, PRODUCTION, at_cluster, azure, calls, cluster, emulator, fault, put, settings,
    status,
};
use url::Url;
use uuid::Uuid;

#[tokio::test]
async fn an_assignment_is_put_read_listed_and_deleted() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let namespace = RoleAtScope {
        scope: Scope::Namespace(cluster(), Namespace::parse("team-a").expect("a namespace")),
        ..at_cluster()
    };
    for at in [at_cluster(), namespace] {
        let id = Uuid::new_v4();
        let put = azure
            .put_role_assignment(NAME, &at, ALICE, PrincipalType::User, "made by a test", id)
            .await
            .expect("it is made");
        assert!(put.assignment.is_at(&at));
        assert_eq!(put.assignment.principal_type, Some(PrincipalType::User));
        assert!(!put.correlation_id.is_empty());
        let again = azure
            .put_role_assignment(NAME, &at, ALICE, PrincipalType::User, "changed", id)
            .await
            .expect("the same PUT again");
        assert_eq!(again.assignment.description.as_deref(), Some("changed"));
        assert_eq!(again.remaining, put.remaining.map(|left| left - 1));

        let read = azure
            .role_assignment(NAME, &at.scope, id)
            .await
            .expect("a read");
        assert_eq!(read.as_ref(), Some(&again.assignment));
        let listed = azure
            .role_assignments(
                &Place::Scope(at.scope.clone()),
                Filter::Principal(ALICE),
                id,
            )
            .await
            .expect("a list");
        assert!(listed.contains(&again.assignment));

        let deleted = azure
            .delete_role_assignment(NAME, &at.scope, id)
            .await
            .expect("a delete");
        assert!(deleted.was_there);
        let nothing = azure
            .delete_role_assignment(NAME, &at.scope, id)
            .await
            .expect("again");
        assert!(!nothing.was_there);
        assert_eq!(azure.role_assignment(NAME, &at.scope, id).await, Ok(None));
    }
    assert!(
        emulator
            .history()
            .iter()
            .any(|event| matches!(event, Event::Call(call)
        if call.operation == Operation::RoleAssignmentWrite && call.client_request_id.is_some()))
    );
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let emulator = emulator(Settings {
        page_size: 1,
        ..Settings::immediate()
    })
    .await;
    let azure = azure(&emulator);
    for n in 0..5 {
        let at = RoleAtScope {
            scope: Scope::Namespace(
                cluster(),
                Namespace::parse(&format!("n{n}")).expect("a namespace"),
            ),
            ..at_cluster()
        };
        put(&azure, AssignmentName::new(Uuid::from_u128(n)), &at)
            .await
            .expect("it is made");
    }
    let id = Uuid::new_v4();
    let place = Place::Subscription(PRODUCTION);
    let all = azure
        .role_assignments(&place, Filter::All, id)
        .await
        .expect("a list");
    assert!(
        all.iter().filter(|row| row.principal == ALICE).count() == 5,
        "{all:?}"
    );
    let hers = azure
        .role_assignments(&place, Filter::AssignedTo(ALICE), id)
        .await
        .expect("a list");
    assert_eq!(hers.len(), 5);
    let at_cluster = Place::Scope(Scope::Cluster(cluster()));
    let above = azure
        .role_assignments(&at_cluster, Filter::AtScopeAssignedTo(ALICE), id)
        .await
        .expect("a list");
    assert!(
        above.iter().all(|row| !row.scope.contains("/namespaces/")),
        "{above:?}"
    );
    let clusters = azure
        .managed_clusters(PRODUCTION, id)
        .await
        .expect("a list");
    let names: Vec<&str> = clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_told_from_one_that_cannot_be_seen() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let read = azure
        .managed_cluster(&cluster(), Uuid::new_v4())
        .await
        .expect("a cluster");
    assert_eq!(
        (read.name.as_str(), read.azure_rbac),
        ("aks-production", true)
    );
    emulator.delete_cluster(cluster().as_str()).expect("an id");
    let gone = azure
        .managed_cluster(&cluster(), Uuid::new_v4())
        .await
        .expect_err("none");
    assert!(gone.is_gone(), "{gone:?}");
    let elsewhere = cluster()
        .as_str()
        .replace("8000-000000000001", "8000-000000000009");
    let elsewhere = ClusterId::parse(&elsewhere).expect("an id");
    let unseen = azure
        .managed_cluster(&elsewhere, Uuid::new_v4())
        .await
        .expect_err("none");
    assert!(!unseen.is_gone(), "{unseen:?}");
}

#[tokio::test]
async fn a_role_definition_is_read_with_its_permissions() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    for role in BuiltInRole::ALL {
        let definition = azure
            .role_definition(PRODUCTION, role.id(), Uuid::new_v4())
            .await
            .expect("a definition");
        assert_eq!(definition.name, role.display_name());
        assert!(!definition.custom);
    }
    let unknown = RoleDefinitionId::new(Uuid::from_u128(1));
    let error = azure
        .role_definition(PRODUCTION, unknown, Uuid::new_v4())
        .await
        .expect_err("none");
    assert_eq!(error.reason(), Reason::RoleNotFound);
}

#[tokio::test]
async fn i4_a_cut_connection_leaves_the_outcome_unknown_whether_it_was_done_or_not() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    azure.fetch_access_token().await.expect("a token");
    for (effect, done) in [
        (FaultEffect::CutBeforeCommit, false),
        (FaultEffect::CutAfterCommit, true),
    ] {
        fault(&emulator, Operation::RoleAssignmentWrite, effect);
        let before = calls(&emulator, Operation::RoleAssignmentWrite);
        let error = put(&azure, NAME, &at_cluster())
            .await
            .expect_err("no answer");
        assert_eq!(error.outcome, Outcome::Unknown, "{error:?}");
        assert_eq!(error.status, None);
        // Nothing underneath may send it again.
        assert_eq!(calls(&emulator, Operation::RoleAssignmentWrite), before + 1);
        let there = emulator
            .role_assignments()
            .iter()
            .any(|row| row.name == NAME.guid());
        assert_eq!(there, done);
    }
}

#[tokio::test]
async fn i4_a_call_that_takes_too_long_is_given_up_in_time_with_its_outcome_unknown() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = Azure::new(AzureSettings {
        call_timeout: Duration::from_millis(300),
        ..settings(&emulator)
    })
    .expect("clients");
    azure.fetch_access_token().await.expect("a token");
    let delay = Duration::from_millis(900);
    fault(
        &emulator,
        Operation::RoleAssignmentDelete,
        FaultEffect::Latency { delay },
    );
    let started = Instant::now();
    let error = azure
        .delete_role_assignment(NAME, &at_cluster().scope, Uuid::new_v4())
        .await
        .expect_err("no answer");
    assert!(started.elapsed() < delay);
    assert_eq!(error.outcome, Outcome::Unknown);
    assert_eq!(error.reason(), Reason::AzureUnavailable);
    assert!(error.message.contains("no answer within 0.3 s"), "{error}");
}

#[tokio::test]
async fn a_server_error_leaves_the_outcome_unknown_and_is_asked_once() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    for (code, name) in [
        (500, "InternalServerError"),
        (503, "ServerTimeout"),
        (502, ""),
    ] {
        fault(
            &emulator,
            Operation::RoleAssignmentWrite,
            status(code, name, None),
        );
        let before = calls(&emulator, Operation::RoleAssignmentWrite);
        let error = put(&azure, NAME, &at_cluster())
            .await
            .expect_err("an error");
        assert_eq!(
            (error.outcome, error.status),
            (Outcome::Unknown, Some(code))
        );
        assert_eq!(
            error.disposition(Purpose::Grant),
            Disposition::Retry { slow: false }
        );
        assert_eq!(calls(&emulator, Operation::RoleAssignmentWrite), before + 1);
    }
}

#[tokio::test]
async fn a_request_that_never_left_is_a_definite_no() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = Azure::new(AzureSettings {
        // Entra answers, ARM's port is closed.
        arm_endpoint: Url::parse("https://127.0.0.1:1").expect("a URL"),
        ..settings(&emulator)
    })
    .expect("clients");
    let error = put(&azure, NAME, &at_cluster())
        .await
        .expect_err("no connection");
    assert_eq!(error.outcome, Outcome::Definite, "{error:?}");
    assert_eq!(error.reason(), Reason::AzureUnavailable);
}

#[tokio::test]
async fn a_throttled_call_is_a_definite_no_with_the_time_to_wait() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    for (said, seconds) in [(Some("7"), 7), (Some("0"), 1), (None, 1)] {
        fault(
            &emulator,
            Operation::RoleAssignmentWrite,
            status(429, "SubscriptionRequestsThrottled", said),
        );
        let error = put(&azure, NAME, &at_cluster())
            .await
            .expect_err("throttled");
        assert_eq!(error.outcome, Outcome::Definite);
        assert_eq!(
            error.disposition(Purpose::Revocation),
            Disposition::Throttled
        );
        assert_eq!(error.retry_after, Some(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn what_azure_says_of_a_write_is_sorted_by_the_table() {
    let emulator = emulator(Settings {
        hash_conflict_probability: 0.0,
        ..Settings::immediate()
    })
    .await;
    let azure = azure(&emulator);
    put(&azure, NAME, &at_cluster()).await.expect("it is made");
    let same_under_another_name = AssignmentName::new(Uuid::from_u128(2));
    let error = put(&azure, same_under_another_name, &at_cluster())
        .await
        .expect_err("it exists");
    assert_eq!(
        error.disposition(Purpose::Grant),
        Disposition::ReadBack,
        "{error:?}"
    );

    emulator.set_settings(Settings {
        hash_conflict_probability: 1.0,
        ..Settings::immediate()
    });
    let writer = RoleAtScope {
        role: BuiltInRole::RbacWriter.id(),
        ..at_cluster()
    };
    let error = put(&azure, AssignmentName::new(Uuid::from_u128(3)), &writer)
        .await
        .expect_err("refused");
    assert_eq!(
        error.disposition(Purpose::Grant),
        Disposition::NextName,
        "{error:?}"
    );
    assert_eq!(error.outcome, Outcome::Definite);
    assert!(!error.correlation_id.is_empty());

    emulator
        .lock(azure_emulator::Lock {
            scope: azure_emulator::Scope::parse(cluster().as_str()).expect("a scope"),
            level: azure_emulator::LockLevel::CanNotDelete,
        })
        .expect("a lock");
    let error = azure
        .delete_role_assignment(NAME, &at_cluster().scope, Uuid::new_v4())
        .await
        .expect_err("locked");
    assert_eq!(error.reason(), Reason::ScopeLocked, "{error:?}");
    assert_eq!(
        error.disposition(Purpose::Revocation),
        Disposition::Retry { slow: true }
    );
}
