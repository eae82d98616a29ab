//! How much of Azure's answers is read: a list that is too long is an error, never a list without its end.

use aks_access_broker::azure::{AzureError, Filter, Outcome, Place, RoleAssignment};
use aks_access_broker::domain::ids::Scope;
use aks_access_broker::domain::reason::Reason;
use azure_emulator::{Emulator, NewRoleAssignment, Operation, Settings};
use uuid::Uuid;

use super::bench::{ALICE, azure, calls, cluster, emulator};

/// Somebody assigns alice a role at the namespace `n{n}`, and describes it in `length` letters.
fn assign(emulator: &Emulator, n: usize, length: usize) -> Uuid {
    let scope = format!("{}/namespaces/n{n}", cluster());
    let new = NewRoleAssignment {
        scope: azure_emulator::Scope::parse(&scope).expect("a scope"),
        role: Uuid::from_u128(0x7f6c_6a51_bcf8_42ba_9220_52d6_2157_d7db),
        principal: ALICE.guid(),
        name: None,
        description: Some("x".repeat(length)),
        condition: None,
    };
    let made = emulator.put_role_assignment_as_somebody_else(&new);
    made.expect("it is made").name
}

async fn hers(emulator: &Emulator) -> Result<Vec<RoleAssignment>, AzureError> {
    let place = Place::Scope(Scope::Cluster(cluster()));
    azure(emulator)
        .role_assignments(&place, Filter::Principal(ALICE), Uuid::new_v4())
        .await
}

#[tokio::test]
async fn a_list_of_ten_thousand_rows_is_read_and_one_more_is_an_error() {
    let emulator = emulator(Settings {
        page_size: 5_000,
        ..Settings::immediate()
    })
    .await;
    for n in 0..9_999 {
        assign(&emulator, n, 0);
    }
    let last = assign(&emulator, 9_999, 0);
    assert_eq!(hers(&emulator).await.expect("a list").len(), 10_000);
    assign(&emulator, 10_000, 0);
    let error = hers(&emulator).await.expect_err("too many");
    assert_eq!(error.reason(), Reason::AzureError);
    assert!(
        error.message.contains("more than 10000 rows"),
        "{}",
        error.message
    );
    assert!(!error.correlation_id.is_empty());
    emulator.delete_role_assignment(last).expect("it was there");
    assert_eq!(hers(&emulator).await.expect("a list").len(), 10_000);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end_and_leaves_nothing_decided() {
    let emulator = emulator(Settings::immediate()).await;
    assign(&emulator, 0, 1 << 20);
    assert_eq!(hers(&emulator).await.expect("a list").len(), 1);
    assign(&emulator, 1, 64 << 20);
    let error = hers(&emulator).await.expect_err("too large");
    assert_eq!(error.reason(), Reason::AzureError);
    assert_eq!(error.outcome, Outcome::Unknown);
    assert!(
        error.message.contains("larger than 64 MiB"),
        "{}",
        error.message
    );
    assert_eq!(calls(&emulator, Operation::RoleAssignmentList), 2, "once");
}
