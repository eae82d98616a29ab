//! What is asked about: the emulator's world, with everything of the broker's that answers.

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::azure::{Azure, AzureSettings};
use aks_access_broker::broker::check::{Asked, Check, Checked, OwnRecord};
use aks_access_broker::broker::clusters::Clusters;
use aks_access_broker::broker::request::{RequestedAccess, RequestedRole};
use aks_access_broker::broker::roles::Roles;
use aks_access_broker::config::{ClientSecretCredential, Cloud, Credential, Secret};
use aks_access_broker::domain::access::{Principal, PrincipalType};
use aks_access_broker::domain::evaluate::Layer;
use aks_access_broker::domain::ids::{
    ClusterId, InstanceId, Namespace, PrincipalId, SubscriptionId,
};
use aks_access_broker::domain::role::BuiltInRole;
use azure_emulator::{Emulator, Event, NewRoleAssignment, Operation, Options, Settings};
use jiff::{SignedDuration, Timestamp};
use url::Url;
use uuid::{Uuid, uuid};

pub(super) const PRODUCTION: Uuid = uuid!("00000000-0000-4000-8000-000000000001");
pub(super) const DEVELOPMENT: Uuid = uuid!("00000000-0000-4000-8000-000000000002");
pub(super) const CAROL: Uuid = uuid!("10000000-0000-4000-8000-000000000003");
/// Carol is on call, on-call is in platform, platform in engineering.
pub(super) const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
pub(super) const INSTANCE: InstanceId = InstanceId::new(Uuid::from_u128(9));

pub(super) struct World {
    pub(super) emulator: Emulator,
    pub(super) azure: Azure,
    pub(super) clusters: Clusters,
    pub(super) roles: Roles,
    pub(super) check: Check,
}

pub(super) async fn world() -> World {
    let emulator = Emulator::start(Options {
        settings: Settings::immediate(),
        ..Options::default()
    })
    .await
    .expect("an emulator");
    let azure = Azure::new(AzureSettings {
        arm_endpoint: Url::parse(&emulator.urls().arm).expect("a URL"),
        graph_endpoint: Url::parse(&emulator.urls().graph).expect("a URL"),
        authority: Url::parse(&emulator.urls().entra).expect("a URL"),
        cloud: Cloud::Public,
        tenant: emulator.world().tenant,
        credential: Credential::ClientSecret(ClientSecretCredential {
            client_id: uuid!("40000000-0000-4000-8000-000000000001"),
            client_secret_file: None,
            client_secret: Some(Secret::new("access-broker-secret".to_owned())),
        }),
        ca_pem: Some(emulator.ca_pem().as_bytes().to_vec()),
        call_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(5),
    })
    .expect("clients");
    let minute = Duration::from_mins(1);
    let subscriptions = [PRODUCTION, DEVELOPMENT].map(SubscriptionId::new);
    let clusters = Clusters::new(azure.clone(), subscriptions.into(), minute);
    let roles = Roles::new(azure.clone(), minute);
    let lag = SignedDuration::from_mins(10);
    let check = Check::new(azure.clone(), clusters.clone(), roles.clone(), lag);
    World {
        emulator,
        azure,
        clusters,
        roles,
        check,
    }
}

pub(super) fn cluster_named(subscription: Uuid, group: &str, name: &str) -> ClusterId {
    ClusterId::parse(&format!(
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/\
         managedClusters/{name}"
    ))
    .expect("a cluster's id")
}

pub(super) fn production() -> ClusterId {
    cluster_named(PRODUCTION, "rg-production", "aks-production")
}

pub(super) fn asks(cluster: ClusterId, role: BuiltInRole, namespaces: &[&str]) -> Asked {
    Asked {
        principal: person(CAROL),
        cluster,
        access: RequestedAccess {
            role: RequestedRole::BuiltIn(role),
            namespaces: namespaces
                .iter()
                .map(|name| Namespace::parse(name).expect("a name"))
                .collect(),
        },
    }
}

pub(super) fn person(id: Uuid) -> Principal {
    Principal::unnamed(PrincipalId::new(id), PrincipalType::User)
}

pub(super) fn nothing_of_our_own() -> OwnRecord {
    OwnRecord {
        instance: INSTANCE,
        cluster_uid: String::new(),
        effects: Vec::new(),
    }
}

pub(super) fn reasons(layer: &Layer) -> BTreeSet<&'static str> {
    layer
        .findings
        .iter()
        .map(|finding| finding.reason)
        .collect()
}

impl World {
    /// As the portal or another tool would.
    pub(super) fn assign(&self, scope: &str, role: Uuid, principal: Uuid, condition: Option<&str>) {
        let new = NewRoleAssignment {
            scope: azure_emulator::Scope::parse(scope).expect("a scope"),
            role,
            principal,
            name: None,
            description: None,
            condition: condition.map(ToOwned::to_owned),
        };
        self.emulator
            .put_role_assignment_as_somebody_else(&new)
            .expect("an assignment");
    }

    pub(super) async fn ask(&self, request: &Asked) -> Checked {
        self.check
            .check_access(request, &nothing_of_our_own(), Timestamp::now())
            .await
            .expect("an answer")
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        let history = self.emulator.history();
        let of = |event: &&Event| matches!(event, Event::Call(call) if call.operation == operation);
        history.iter().filter(of).count()
    }
}
