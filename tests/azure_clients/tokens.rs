//! Access tokens: fetched once, renewed in time, and whose fault it is where there is none.

use aks_access_broker::azure::{Azure, AzureSettings, Outcome};
use aks_access_broker::config::{Credential, WorkloadIdentityCredential};
use aks_access_broker::domain::reason::Reason;
use azure_emulator::{Fault, FaultEffect, Operation, Settings};
use uuid::{Uuid, uuid};

use super::bench::{
    NAME, at_cluster, azure, calls, cluster, emulator, fault, put, secret, settings, status,
};

#[tokio::test]
async fn a_refused_token_request_is_a_definite_no_and_says_whose_fault_it_is() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = Azure::new(AzureSettings {
        credential: secret("an old secret"),
        ..settings(&emulator)
    })
    .expect("clients");
    let error = put(&azure, NAME, &at_cluster())
        .await
        .expect_err("no token");
    assert_eq!(error.outcome, Outcome::Definite);
    assert_eq!(error.reason(), Reason::AzureCredentialsRefused, "{error:?}");
    assert!(!error.message.contains("an old secret"));
    assert_eq!(calls(&emulator, Operation::RoleAssignmentWrite), 0);

    fault(
        &emulator,
        Operation::Token,
        status(500, "server_error", None),
    );
    let before = calls(&emulator, Operation::Token);
    let error = azure.fetch_access_token().await.expect_err("no token");
    assert_eq!(error.reason(), Reason::AzureUnavailable, "{error:?}");
    assert_eq!(calls(&emulator, Operation::Token), before + 1);
}

#[tokio::test]
async fn whoever_waits_for_a_token_shares_the_failure_to_get_one() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    emulator.add_fault(Fault::always(
        Operation::Token,
        FaultEffect::CutBeforeCommit,
    ));
    let waiting = (0..8).map(|_| azure.fetch_access_token());
    for fetched in futures::future::join_all(waiting).await {
        assert_eq!(fetched.expect_err("no token").outcome, Outcome::Definite);
    }
    assert_eq!(calls(&emulator, Operation::Token), 1);
    emulator.clear_faults();
    azure.fetch_access_token().await.expect("a token");
}

#[tokio::test]
async fn one_token_serves_many_calls_and_a_refused_one_is_replaced() {
    let emulator = emulator(Settings::immediate()).await;
    let azure = azure(&emulator);
    let reads = (0..8).map(|_| async { azure.managed_cluster(&cluster(), Uuid::new_v4()).await });
    for read in futures::future::join_all(reads).await {
        read.expect("a cluster");
    }
    assert_eq!(calls(&emulator, Operation::Token), 1);

    fault(
        &emulator,
        Operation::ManagedClusterRead,
        status(401, "ExpiredAuthenticationToken", None),
    );
    let refused = azure
        .managed_cluster(&cluster(), Uuid::new_v4())
        .await
        .expect_err("refused");
    assert_eq!(refused.outcome, Outcome::Definite);
    azure
        .managed_cluster(&cluster(), Uuid::new_v4())
        .await
        .expect("a cluster");
    assert_eq!(calls(&emulator, Operation::Token), 2);
}

#[tokio::test]
async fn a_service_account_s_token_is_taken_for_the_broker() {
    let emulator = emulator(Settings::immediate()).await;
    let now = jiff::Timestamp::now().as_second();
    let assertion = emulator
        .sign(&serde_json::json!({
            "iss": "https://kubernetes.contoso.example/",
            "sub": "system:serviceaccount:access-broker:access-broker",
            "aud": ["api://AzureADTokenExchange"],
            "iat": now, "nbf": now, "exp": now + 600,
        }))
        .expect("a token");
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, assertion).expect("a file");
    let azure = Azure::new(AzureSettings {
        credential: Credential::WorkloadIdentity(WorkloadIdentityCredential {
            client_id: uuid!("40000000-0000-4000-8000-000000000001"),
            token_file,
        }),
        ..settings(&emulator)
    })
    .expect("clients");
    azure
        .managed_cluster(&cluster(), Uuid::new_v4())
        .await
        .expect("a cluster");
}
