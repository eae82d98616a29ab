//! What is asked about: the emulator's world, with everything of the broker's that answers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::redis::RedisServer;
use aks_access_broker::azure::{Azure, AzureSettings};
use aks_access_broker::broker::Need;
use aks_access_broker::broker::check::{Asked, Check, CheckError, Staleness};
use aks_access_broker::broker::clusters::Clusters;
use aks_access_broker::broker::request::{Question, RequestedAccess, RequestedRole};
use aks_access_broker::broker::roles::Roles;
use aks_access_broker::config::{self, ClientSecretCredential, Cloud, Credential, Secret};
use aks_access_broker::domain::access::{Principal, PrincipalType};
use aks_access_broker::domain::evaluate::{Answer, Layer};
use aks_access_broker::domain::ids::{ClusterId, Namespace, PrincipalId, SubscriptionId};
use aks_access_broker::domain::kubernetes_request::Features;
use aks_access_broker::domain::role::BuiltInRole;
use aks_access_broker::store::{Changes, Store};
use aks_access_broker::view::{View, ViewSettings};
use azure_emulator::{Emulator, Event, NewRoleAssignment, Operation, Options, Settings};
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;
use uuid::{Uuid, uuid};

pub(super) const PRODUCTION: Uuid = uuid!("00000000-0000-4000-8000-000000000001");
pub(super) const DEVELOPMENT: Uuid = uuid!("00000000-0000-4000-8000-000000000002");
pub(super) const CAROL: Uuid = uuid!("10000000-0000-4000-8000-000000000003");
/// Carol is on call, on-call is in platform, platform in engineering.
pub(super) const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");

pub(super) struct World {
    pub(super) emulator: Emulator,
    pub(super) azure: Azure,
    pub(super) view: View,
    pub(super) clusters: Clusters,
    pub(super) roles: Roles,
    pub(super) check: Check,
    _redis: RedisServer,
    _dir: TempDir,
    _stop: DropGuard,
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
    let dir = tempfile::tempdir().expect("a directory");
    let redis = RedisServer::start(&dir.path().join("redis"), &[]).await;
    let settings = config::Redis {
        url: redis.url().parse().expect("a URL"),
        ..config::Redis::default()
    };
    let store = Store::new(&settings, Duration::from_hours(24)).expect("a store");
    let stop = CancellationToken::new();
    let (changes, reader) = Changes::new(store.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(reader));
    let minute = Duration::from_mins(1);
    let subscriptions = BTreeSet::from([PRODUCTION, DEVELOPMENT].map(SubscriptionId::new));
    let view = View::new(
        store,
        &azure,
        &ViewSettings {
            subscriptions: subscriptions.clone(),
            longest_staleness: 10 * minute,
            renew_after: minute / 3,
            lag: SignedDuration::from_mins(10),
            most_assignments: 100_000,
            most_principals: 1_000,
            features: Features {
                custom_resources: true,
                subresources: true,
            },
        },
    );
    let followed = view.clone().follow(changes);
    tokio::spawn(stop.clone().run_until_cancelled_owned(followed));
    let clusters = Clusters::new(azure.clone(), view.clone(), subscriptions, minute);
    let roles = Roles::new(azure.clone(), minute);
    let staleness = Staleness {
        usual: minute,
        longest: 10 * minute,
    };
    let check = Check::new(view.clone(), clusters.clone(), roles.clone(), staleness);
    World {
        emulator,
        azure,
        view,
        clusters,
        roles,
        check,
        _redis: redis,
        _dir: dir,
        _stop: stop.drop_guard(),
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
        asks: Question::Access(RequestedAccess {
            role: RequestedRole::BuiltIn(role),
            namespaces: namespaces
                .iter()
                .map(|name| Namespace::parse(name).expect("a name"))
                .collect(),
        }),
    }
}

pub(super) fn person(id: Uuid) -> Principal {
    Principal::unnamed(PrincipalId::new(id), PrincipalType::User)
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

    /// Asks Azure now, and why.
    pub(super) async fn ask(&self, request: &Asked) -> Answer {
        self.try_to_ask(request).await.expect("an answer")
    }

    pub(super) async fn try_to_ask(&self, request: &Asked) -> Result<Answer, CheckError> {
        let now = Need::within(Duration::ZERO);
        let checked = self.check.check_access(request, now, true).await?;
        Ok(checked.why.expect("it was asked why"))
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        let history = self.emulator.history();
        let of = |event: &&Event| matches!(event, Event::Call(call) if call.operation == operation);
        history.iter().filter(of).count()
    }
}
