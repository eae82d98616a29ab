//! The broker as `serve` runs it, without a reconciler: nothing is granted here.
//!
//! Its view is warm and stays so: data are not renewed while a benchmark runs, because the Azure that they would be
//! read from is in the same process, and it is not Azure's own cost that is measured.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aks_access_broker::azure::{Azure, AzureSettings, http_client};
use aks_access_broker::broker::check::Staleness;
use aks_access_broker::broker::{Broker, BrokerSettings};
use aks_access_broker::caller::policy::{DEFAULT, Policies};
use aks_access_broker::caller::{Authenticator, Caller, TokenSettings, Tokens};
use aks_access_broker::config::{self, ClientSecretCredential, Cloud, Credential, Secret};
use aks_access_broker::domain::ids::SubscriptionId;
use aks_access_broker::domain::kubernetes_request::Features;
use aks_access_broker::grpc;
use aks_access_broker::store::{Changes, RefusalBounds, Store};
use aks_access_broker::view::{View, ViewSettings};
use azure_emulator::Emulator;
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::azure::{APPLICATION, SECRET};
use super::company::{Company, Holder, guid, subscription_id};
use super::redis::RedisServer;
use super::report::AnyError;

/// No benchmark takes as long.
const FOR_GOOD: Duration = Duration::from_hours(12);

/// A broker that is served.
pub(crate) struct Service {
    /// Where.
    pub(crate) address: SocketAddr,
    /// Where the same broker is served to those who bring a token.
    pub(crate) with_token: SocketAddr,
    /// Such a token: of somebody who is in twenty groups.
    pub(crate) token: String,
    /// A token of somebody who has no role.
    pub(crate) strangers_token: String,
    stop: CancellationToken,
    _redis: RedisServer,
    _dir: TempDir,
    _ready: watch::Sender<grpc::Readiness>,
}

impl Service {
    /// Serves a company's clusters, of which Azure tells.
    pub(crate) async fn start(company: Company, emulator: &Emulator) -> Result<Self, AnyError> {
        let dir = tempfile::tempdir()?;
        let redis = RedisServer::start(&dir.path().join("redis"), &[]).await;
        let settings = config::Redis {
            url: redis.url().parse()?,
            ..config::Redis::default()
        };
        let store = Store::new(&settings, Duration::from_hours(24))?;
        let stop = CancellationToken::new();
        let policies = dir.path().join("policies");
        fs::create_dir(&policies)?;
        fs::write(policies.join("default.cedar"), DEFAULT)?;
        fs::write(policies.join("anybody.cedar"), ANYBODY_MAY_ASK)?;
        let policies = Policies::load(Some(&policies))?;
        let broker = broker(company, emulator, store, policies, &stop)?;
        let (ready, is_ready) = watch::channel(grpc::Readiness::Ready);
        let parts = grpc::Parts {
            broker,
            authenticator: Authenticator::Unasked(Arc::new(caller())),
            tls: None,
            per_caller: boundless(),
            lag: config::Reconciler::default().lag,
            ready: is_ready,
            shutdown: stop.clone(),
        };
        let with_token = grpc::Parts {
            authenticator: Authenticator::Proof {
                tokens: Some(tokens(emulator)?),
            },
            ..parts.clone()
        };
        let user = Holder::User(0).id();
        Ok(Self {
            address: served(parts).await?,
            with_token: served(with_token).await?,
            token: token(emulator, user, &["Access.Check"])?,
            strangers_token: token(emulator, Holder::User(1).id(), &[])?,
            stop,
            _redis: redis,
            _dir: dir,
            _ready: ready,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves, and says where.
async fn served(parts: grpc::Parts) -> Result<SocketAddr, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(grpc::serve(&config::Server::default(), listener, parts)?);
    Ok(address)
}

/// Beside the policies that the broker brings along: those who ask here have no role.
const ANYBODY_MAY_ASK: &str =
    r#"permit (principal, action == AksAccess::Action::"CheckAccess", resource);"#;

/// As much as anybody likes to ask.
fn boundless() -> config::Limits {
    let rate = config::Rate {
        capacity: NonZeroU32::MAX,
        per_second: NonZeroU32::MAX,
    };
    config::Limits {
        grants: rate,
        revocations: rate,
        checks: rate,
        reads: rate,
        refusals: rate,
        in_flight_per_caller: config::Server::default().max_in_flight,
        ..config::Limits::default()
    }
}

/// Who checks tokens.
fn tokens(emulator: &Emulator) -> Result<Tokens, AnyError> {
    let settings = TokenSettings {
        authority: Url::parse(&emulator.urls().entra)?,
        tenants: BTreeSet::from([guid("tenant", 0)]),
        audiences: BTreeSet::from([APPLICATION.to_string()]),
        clock_skew: Duration::from_mins(1),
    };
    let http = http_client(&azure_settings(emulator)?)?;
    Ok(Tokens::new(settings, &http))
}

/// Whoever asks: with a role, because callers without one share a small part of the room.
fn caller() -> Caller {
    let [tenant, object, application] = ["tenant", "caller", "application"].map(|it| guid(it, 0));
    let roles = BTreeSet::from(["Access.Check".to_owned()]);
    Caller::application(tenant, object, application).with(roles, BTreeSet::new(), false)
}

/// A token with these app roles.
fn token(emulator: &Emulator, bearer: Uuid, roles: &[&str]) -> Result<String, AnyError> {
    let mut claims = emulator.claims(bearer, &APPLICATION.to_string())?;
    claims.roles = roles.iter().map(ToString::to_string).collect();
    Ok(emulator.sign(&claims)?)
}

fn broker(
    company: Company,
    emulator: &Emulator,
    store: Store,
    policies: Policies,
    stop: &CancellationToken,
) -> Result<Broker, AnyError> {
    let azure = Azure::new(azure_settings(emulator)?)?;
    let ids = (0..company.subscriptions()).map(|it| SubscriptionId::new(subscription_id(it)));
    let subscriptions: BTreeSet<SubscriptionId> = ids.collect();
    let usual = config::View::default();
    let lag = config::Reconciler::default().lag;
    let view = View::new(
        store.clone(),
        &azure,
        &ViewSettings {
            subscriptions: subscriptions.clone(),
            longest_staleness: FOR_GOOD,
            renew_after: FOR_GOOD,
            lag: SignedDuration::try_from(lag)?,
            most_assignments: usual.max_assignments,
            most_principals: usual.max_principals,
            features: Features {
                custom_resources: usual.custom_resource_conditions,
                subresources: usual.subresource_conditions,
            },
        },
    );
    let (changes, reader) = Changes::new(store.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(reader));
    let followed = view.clone().follow(changes.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(followed));
    let settings = BrokerSettings {
        refusals: RefusalBounds {
            per_minute: 1,
            share: 1_000,
            over: Duration::from_hours(1),
        },
        tenant: guid("tenant", 0),
        subscriptions,
        known_for: FOR_GOOD,
        lag,
        patience: config::Server::default().max_deadline,
        staleness: Staleness {
            usual: FOR_GOOD,
            longest: FOR_GOOD,
        },
        fresh_reads: config::Limits::default().fresh_reads,
    };
    let work = Arc::new(Notify::new());
    Ok(Broker::new(
        store, azure, view, changes, policies, work, settings,
    ))
}

fn azure_settings(emulator: &Emulator) -> Result<AzureSettings, AnyError> {
    let urls = emulator.urls();
    let credential = ClientSecretCredential {
        client_id: APPLICATION,
        client_secret_file: None,
        client_secret: Some(Secret::new(SECRET.to_owned())),
    };
    Ok(AzureSettings {
        arm_endpoint: Url::parse(&urls.arm)?,
        graph_endpoint: Url::parse(&urls.graph)?,
        authority: Url::parse(&urls.entra)?,
        cloud: Cloud::Public,
        tenant: super::company::guid("tenant", 0),
        credential: Credential::ClientSecret(credential),
        ca_pem: Some(emulator.ca_pem().as_bytes().to_vec()),
        call_timeout: Duration::from_mins(2),
        connect_timeout: Duration::from_secs(30),
    })
}
