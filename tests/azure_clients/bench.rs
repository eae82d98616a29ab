//! An emulator, the clients of it, and what both are asked.

use std::time::Duration;

use aks_access_broker::azure::{Azure, AzureError, AzureSettings};
use aks_access_broker::config::{ClientSecretCredential, Cloud, Credential, Secret};
use aks_access_broker::domain::access::{PrincipalType, RoleAtScope};
use aks_access_broker::domain::ids::{
    AssignmentName, ClusterId, PrincipalId, Scope, SubscriptionId,
};
use aks_access_broker::domain::role::BuiltInRole;
use azure_emulator::{Emulator, Event, Fault, FaultEffect, Operation, Options, Settings};
use url::Url;
use uuid::{Uuid, uuid};

pub(super) const PRODUCTION: SubscriptionId =
    SubscriptionId::new(uuid!("00000000-0000-4000-8000-000000000001"));
pub(super) const ALICE: PrincipalId =
    PrincipalId::new(uuid!("10000000-0000-4000-8000-000000000001"));
pub(super) const NAME: AssignmentName =
    AssignmentName::new(uuid!("77777777-0000-4000-8000-000000000001"));

pub(super) async fn emulator(settings: Settings) -> Emulator {
    let options = Options {
        settings,
        ..Options::default()
    };
    Emulator::start(options).await.expect("an emulator")
}

pub(super) fn settings(emulator: &Emulator) -> AzureSettings {
    AzureSettings {
        arm_endpoint: Url::parse(&emulator.urls().arm).expect("a URL"),
        graph_endpoint: Url::parse(&emulator.urls().graph).expect("a URL"),
        authority: Url::parse(&emulator.urls().entra).expect("a URL"),
        cloud: Cloud::Public,
        tenant: emulator.world().tenant,
        credential: secret("access-broker-secret"),
        ca_pem: Some(emulator.ca_pem().as_bytes().to_vec()),
        call_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(5),
    }
}

pub(super) fn secret(secret: &str) -> Credential {
    Credential::ClientSecret(ClientSecretCredential {
        client_id: uuid!("40000000-0000-4000-8000-000000000001"),
        client_secret_file: None,
        client_secret: Some(Secret::new(secret.to_owned())),
    })
}

pub(super) fn azure(emulator: &Emulator) -> Azure {
    Azure::new(settings(emulator)).expect("clients")
}

pub(super) fn cluster() -> ClusterId {
    ClusterId::parse(
        "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/rg-production/providers/\
         Microsoft.ContainerService/managedClusters/aks-production",
    )
    .expect("a cluster's id")
}

pub(super) fn at_cluster() -> RoleAtScope {
    RoleAtScope {
        role: BuiltInRole::RbacReader.id(),
        scope: Scope::Cluster(cluster()),
    }
}

pub(super) async fn put(
    azure: &Azure,
    name: AssignmentName,
    at: &RoleAtScope,
) -> Result<(), AzureError> {
    let id = Uuid::new_v4();
    azure
        .put_role_assignment(name, at, ALICE, PrincipalType::User, "made by a test", id)
        .await
        .map(drop)
}

pub(super) fn calls(emulator: &Emulator, operation: Operation) -> usize {
    emulator
        .history()
        .iter()
        .filter(|event| matches!(event, Event::Call(call) if call.operation == operation))
        .count()
}

pub(super) fn fault(emulator: &Emulator, operation: Operation, effect: FaultEffect) {
    emulator.add_fault(Fault::once(operation, effect));
}

pub(super) fn status(status: u16, code: &str, retry_after: Option<&str>) -> FaultEffect {
    FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "Azure's own words.".to_owned(),
        retry_after: retry_after.map(ToOwned::to_owned),
    }
}
