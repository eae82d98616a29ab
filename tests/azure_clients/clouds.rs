//! Which cloud it is, and whose certificates are trusted there.

use aks_access_broker::azure::{Azure, AzureSettings, Outcome};
use aks_access_broker::config::Cloud;
use aks_access_broker::domain::reason::Reason;
use azure_emulator::{Cloud as EmulatedCloud, Settings};
use uuid::Uuid;

use super::bench::{ALICE, cluster, emulator, settings};

const CLOUDS: [(Cloud, EmulatedCloud); 3] = [
    (Cloud::Public, EmulatedCloud::Public),
    (Cloud::UsGovernment, EmulatedCloud::UsGovernment),
    (Cloud::China, EmulatedCloud::China),
];

#[tokio::test]
async fn tokens_are_asked_for_in_the_name_of_the_cloud_s_own_services() {
    for (there, emulated) in CLOUDS {
        let emulator = emulator(Settings {
            cloud: emulated,
            ..Settings::immediate()
        })
        .await;
        for (cloud, _) in CLOUDS {
            let azure = Azure::new(AzureSettings {
                cloud,
                ..settings(&emulator)
            })
            .expect("clients");
            let read = azure.managed_cluster(&cluster(), Uuid::new_v4()).await;
            let looked_up = azure.directory_object(ALICE, Uuid::new_v4()).await;
            if cloud == there {
                read.expect("a cluster");
                looked_up.expect("an answer of Graph's");
                continue;
            }
            let error = read.expect_err("another cloud's token");
            assert_eq!(error.reason(), Reason::AzureCredentialsRefused);
            let asked_for = cloud.origins().arm;
            assert!(error.message.contains(asked_for), "{error}");
            let error = looked_up.expect_err("another cloud's token");
            assert_eq!(error.reason(), Reason::AzureCredentialsRefused);
            let asked_for = cloud.origins().graph;
            assert!(error.message.contains(asked_for), "{error}");
        }
    }
}

#[tokio::test]
async fn an_authority_that_nobody_trusts_is_sent_nothing_and_the_setting_is_named() {
    let emulator_without_ca = emulator(Settings::immediate()).await;
    let azure = Azure::new(AzureSettings {
        ca_pem: None,
        ..settings(&emulator_without_ca)
    })
    .expect("clients");
    let no_token = azure.fetch_access_token().await.expect_err("no token");

    // Entra is trusted here, ARM is not, though its authority goes by the same name.
    let entra = emulator(Settings::immediate()).await;
    let azure = Azure::new(AzureSettings {
        arm_endpoint: settings(&emulator_without_ca).arm_endpoint,
        ..settings(&entra)
    })
    .expect("clients");
    let no_answer = azure
        .managed_cluster(&cluster(), Uuid::new_v4())
        .await
        .expect_err("no answer");

    for (error, why) in [(no_token, "UnknownIssuer"), (no_answer, "BadSignature")] {
        assert_eq!(error.outcome, Outcome::Definite, "{error:?}");
        assert_eq!(error.reason(), Reason::AzureUnavailable, "{error:?}");
        for part in [why, "azure.ca_file"] {
            assert!(error.message.contains(part), "{part:?} is not in {error}");
        }
    }
    assert_eq!(emulator_without_ca.calls().len(), 0);
    assert_eq!(entra.calls().len(), 1, "the token's");
}
