//! `serve`: puts the broker together and runs it until it is told to end.

use std::collections::BTreeSet;
use std::io::{self, Write, stdout};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::SignedDuration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::export::Export;
use crate::audit::sealer::Sealer;
use crate::azure::{Azure, AzureSettings, http_client};
use crate::broker::check::Staleness;
use crate::broker::{Broker, BrokerSettings};
use crate::caller::policy::Policies;
use crate::caller::{Authenticator, TokenSettings, Tokens};
use crate::config::Config;
use crate::domain::ids::InstanceId;
use crate::domain::kubernetes_request::Features;
use crate::grpc::Readiness;
use crate::grpc::Tls;
use crate::reconcile::Reconciler;
use crate::store::{Changes, Doubt, Keep, RefusalBounds, Store, StoreError};
use crate::telemetry::Repeats;
use crate::view::{View, ViewSettings};
use crate::{grpc, telemetry};

use super::signals::Signals;
use super::tasks::Tasks;
use super::{AnyError, ConfigFile, block_on};

/// What the first line on standard output begins with, once the port is open; the address follows.
pub(super) const LISTENING: &str = "listening on ";

/// The wait between two looks at what is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How often the log repeats what is not there yet.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// What health says while Redis is away.
const REDIS_IS_AWAY: &str = "Redis is away: it cannot be reached, or cannot keep what the broker accepts. The broker's log \
                             says why. The broker serves again by itself when Redis is back";

/// Why the broker does not start, or ends.
#[derive(Debug, Error)]
enum ServeError {
    #[error(
        "callers' tokens would travel to {listen} in plain text: set server.tls or, if a service mesh encrypts them or \
         nobody is on the way, server.allow_plaintext to true"
    )]
    Plaintext { listen: SocketAddr },
    #[error(
        "server.listen: cannot listen on {listen}: {source}; end what listens there, or set another port"
    )]
    Listen {
        listen: SocketAddr,
        source: io::Error,
    },
    #[error(
        "metrics.listen: cannot listen on {listen}: {source}; end what listens there, or set another port"
    )]
    Metrics {
        listen: SocketAddr,
        source: io::Error,
    },
    #[error("told twice to end: calls under way were cut off")]
    Aborted,
}

pub(super) fn run(file: &ConfigFile) -> Result<(), AnyError> {
    let config = Config::load(file.path.as_deref())?;
    telemetry::init(&config.log)?;
    if config.not_served_because().is_some() {
        return Err(Box::new(ServeError::Plaintext {
            listen: config.server.listen,
        }));
    }
    block_on(serve(&config))
}

async fn serve(config: &Config) -> Result<(), AnyError> {
    let mut signals = Signals::take()?;
    let shutdown = CancellationToken::new();
    let broker = run_until(config, &shutdown);
    let mut broker = std::pin::pin!(broker);
    tokio::select! {
        outcome = &mut broker => return outcome,
        () = signals.next() => {
            tracing::info!("told to end: no new calls are taken");
            shutdown.cancel();
        }
    }
    tokio::select! {
        outcome = broker => outcome,
        () = signals.next() => Err(Box::new(ServeError::Aborted)),
    }
}

/// Runs the whole broker until `shutdown`, or until a background task ends too soon.
async fn run_until(config: &Config, shutdown: &CancellationToken) -> Result<(), AnyError> {
    let tasks = Tasks::new(shutdown.clone());
    supervise(&tasks, run_broker(config, &tasks)).await
}

/// Runs `work` to its end. A background task that ends before shutdown begins the shutdown, and is the outcome.
async fn supervise(
    tasks: &Tasks,
    work: impl Future<Output = Result<(), AnyError>>,
) -> Result<(), AnyError> {
    let outcome = {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            outcome = &mut work => outcome,
            _ = tasks.first_to_end() => {
                // The others can still finish what they have in hand, and hand their leases back.
                tasks.shutdown().cancel();
                work.await
            }
        }
    };
    match tasks.ended() {
        Some(ended) => Err(ended.into()),
        None => outcome,
    }
}

async fn run_broker(config: &Config, tasks: &Tasks) -> Result<(), AnyError> {
    let shutdown = tasks.shutdown();
    let store = Store::new(&config.redis, config.reconciler.retention)?;
    let settings = AzureSettings::from_config(&config.azure)?;
    let azure = Azure::new(settings.clone())?;
    let policies = Policies::load(config.policy.directory.as_deref())?;
    tasks.spawn("policies", policies.clone().follow());
    let listener = listen(config.server.listen).await?;
    if let Some(listen) = config.metrics.listen {
        tasks.spawn(
            "metrics",
            telemetry::serve_metrics(open_metrics(listen).await?),
        );
    }
    let work = Arc::new(Notify::new());
    let (changes, reader) = Changes::new(store.clone());
    tasks.spawn("stream of changes", reader);
    let view = View::new(store.clone(), &azure, &view_settings(config));
    tasks.spawn("view", view.clone().follow(changes.clone()));
    let broker = Broker::new(
        store.clone(),
        azure.clone(),
        view,
        changes,
        policies,
        Arc::clone(&work),
        broker_settings(config),
    );
    let tokens = tokens(config, &settings, tasks)?;
    let (ready, is_ready) = watch::channel(Readiness::Starting);
    let parts = grpc::Parts {
        broker,
        authenticator: Authenticator::Proof {
            tokens: tokens.clone(),
        },
        tls: tls(config, tasks).await?,
        per_caller: config.limits,
        lag: config.reconciler.lag,
        ready: is_ready,
        shutdown: shutdown.clone(),
    };
    let server = grpc::serve(&config.server, listener, parts)?;
    let server = tasks
        .spawn_to_its_end("gRPC server", server)
        .map(|_| Ok(()));
    let reconciler = async {
        let there = async {
            if let Some(tokens) = &tokens {
                keys_are_there(tokens).await;
            }
            a_token_is_there(&azure).await;
        };
        let worked = reconcile(config, store, azure.clone(), work, there, &ready, tasks).await;
        worked.map_err(AnyError::from)
    };
    tokio::try_join!(server, reconciler).map(|_| ())
}

fn broker_settings(config: &Config) -> BrokerSettings {
    BrokerSettings {
        tenant: config.azure.tenant_id,
        subscriptions: config.azure.subscriptions.iter().copied().collect(),
        known_for: config.reconciler.cluster_cache,
        lag: config.reconciler.lag,
        patience: config.server.max_deadline,
        staleness: Staleness {
            usual: config.view.max_staleness,
            longest: config.view.longest_staleness,
        },
        fresh_reads: config.limits.fresh_reads,
        refusals: refusal_bounds(config),
    }
}

/// The certificate to serve with, which is read anew when its files change.
async fn tls(config: &Config, tasks: &Tasks) -> Result<Option<Tls>, AnyError> {
    let Some(files) = &config.server.tls else {
        return Ok(None);
    };
    let tls = Tls::load(files.clone()).await?;
    tasks.spawn("files of server.tls", tls.clone().follow());
    Ok(Some(tls))
}

/// Who checks callers' tokens, where they are taken: by the keys of the same Entra that the broker signs in to.
fn tokens(
    config: &Config,
    azure: &AzureSettings,
    tasks: &Tasks,
) -> Result<Option<Tokens>, AnyError> {
    let authentication = &config.authentication;
    if authentication.audiences.is_empty() {
        return Ok(None);
    }
    let tenants = authentication.tenants.iter().copied();
    let mut tenants: BTreeSet<Uuid> = tenants.collect();
    if tenants.is_empty() {
        tenants.insert(config.azure.tenant_id);
    }
    let settings = TokenSettings {
        authority: azure.authority.clone(),
        tenants,
        audiences: authentication.audiences.iter().cloned().collect(),
        clock_skew: authentication.clock_skew,
    };
    let tokens = Tokens::new(settings, &http_client(azure)?);
    tasks.spawn("keys of callers' tokens", tokens.clone().follow());
    Ok(Some(tokens))
}

fn view_settings(config: &Config) -> ViewSettings {
    let lag = SignedDuration::try_from(config.reconciler.lag);
    ViewSettings {
        subscriptions: config.azure.subscriptions.iter().copied().collect(),
        longest_staleness: config.view.longest_staleness,
        renew_after: config.view.renew_after,
        lag: lag.unwrap_or(SignedDuration::MAX),
        most_assignments: config.view.max_assignments,
        most_principals: config.view.max_principals,
        features: Features {
            custom_resources: config.view.custom_resource_conditions,
            subresources: config.view.subresource_conditions,
        },
    }
}

/// Carries out what was accepted, from the moment at which Redis is there. Health hears when the rest is
/// `there` as well, and from then on whether Redis is away or in doubt.
async fn reconcile(
    config: &Config,
    store: Store,
    azure: Azure,
    work: Arc<Notify>,
    there: impl Future<Output = ()>,
    ready: &watch::Sender<Readiness>,
    tasks: &Tasks,
) -> Result<(), StoreError> {
    let shutdown = tasks.shutdown();
    let Some(instance) = shutdown.run_until_cancelled(redis_is_there(&store)).await else {
        return Ok(());
    };
    let instance = instance?;
    let (doubt, away) = (store.doubt(), store.away());
    let sealed = sealer(config, &store, instance).run(shutdown.clone());
    tasks.spawn_to_its_end("audit sealer", sealed);
    let reconciler = Reconciler::new(
        store,
        azure,
        config.reconciler.clone(),
        config.azure.call_timeout,
        instance,
        work,
    );
    // At shutdown the server itself reports NOT_SERVING, whatever is still under way here.
    let told = shutdown.run_until_cancelled(async {
        there.await;
        tell_readiness(doubt, away, ready).await;
    });
    let drain = config.server.drain;
    let passes = tasks.spawn_to_its_end("reconciler", reconciler.run(shutdown.clone()));
    let passes = grpc::within_drain(passes, shutdown, drain);
    let (_, ended) = tokio::join!(told, passes);
    if ended.is_none() {
        tracing::warn!(
            ?drain,
            "passes are still under way after server.drain: their leases end by themselves"
        );
    }
    Ok(())
}

fn refusal_bounds(config: &Config) -> RefusalBounds {
    let audit = &config.audit;
    RefusalBounds {
        per_minute: audit.refusals_per_minute,
        share: audit.max_events / 100 * u64::from(audit.refusals_percent),
        over: audit.retention,
    }
}

/// Seals the audit trail, and exports it.
fn sealer(config: &Config, store: &Store, instance: InstanceId) -> Sealer {
    let keep = Keep {
        age: config.audit.retention,
        count: config.audit.max_events,
    };
    let export = Export::new(config.audit.file.clone());
    let bounds = refusal_bounds(config);
    Sealer::new(store.clone(), instance, keep, bounds, export)
}

/// Opens the port, and says so.
async fn listen(listen: SocketAddr) -> Result<TcpListener, ServeError> {
    let at = |source| ServeError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(at)?;
    let address = listener.local_addr().map_err(at)?;
    tracing::info!(%address, "listening");
    // Whoever started us may have closed our standard output, which is no reason not to serve.
    let _ = writeln!(stdout(), "{LISTENING}{address}");
    Ok(listener)
}

/// Opens the port of the metrics.
async fn open_metrics(listen: SocketAddr) -> Result<TcpListener, ServeError> {
    let at = |source| ServeError::Metrics { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(at)?;
    let address = listener.local_addr().map_err(at)?;
    tracing::info!(%address, "serving metrics at /metrics");
    Ok(listener)
}

/// Waits for a Redis that can keep what is accepted, and gives the broker's instance id.
async fn redis_is_there(store: &Store) -> Result<InstanceId, StoreError> {
    loop {
        match store.instance().await {
            Ok(instance) => {
                tracing::info!(%instance, "Redis keeps what is accepted");
                return Ok(instance);
            }
            // Waiting would not mend these: the operator has to.
            Err(error @ (StoreError::NotDurable { .. } | StoreError::Misconfigured(_))) => {
                return Err(error);
            }
            Err(error) if store.has_logged(&error) => {}
            Err(error) => tracing::warn!(%error, "Redis is not there yet"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits for the keys that callers' tokens are checked with.
async fn keys_are_there(tokens: &Tokens) {
    let told = Repeats::every(SAY_AGAIN);
    while let Err(error) = tokens.prepare().await {
        if told.is_due(&error.to_string()) {
            tracing::warn!(%error, "callers' tokens cannot be checked yet");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Keeps health up to date about Redis, until the broker ends. The store learns whether Redis is away or in doubt from
/// the outcome of its calls. Its loops make calls all the time, so no request is needed for that.
async fn tell_readiness(
    mut doubt: watch::Receiver<Option<Doubt>>,
    mut away: watch::Receiver<bool>,
    ready: &watch::Sender<Readiness>,
) {
    loop {
        let in_doubt = doubt.borrow_and_update().as_ref().map(Doubt::to_string);
        let is_away = *away.borrow_and_update();
        let now = match in_doubt {
            Some(doubt) => Readiness::NotReady(doubt.into()),
            None if is_away => Readiness::NotReady(REDIS_IS_AWAY.into()),
            None => Readiness::Ready,
        };
        ready.send_replace(now);
        let changed = tokio::select! {
            changed = doubt.changed() => changed,
            changed = away.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Waits for a first access token.
///
/// Later trouble with Entra or Azure does not make the broker unready again: it accepts all the same, and carries out
/// later. A Redis that is away does: the broker can accept nothing. Where every replica sees the same, callers that come
/// through a load balancer hear from that instead, with UNAVAILABLE and without `RetryInfo`; a replica that alone has
/// lost its way to Redis is passed over. A Redis in doubt does too: replicas that started after Redis was replaced can
/// serve, and this one cannot. Whether to restart the process is asked by the name `live`, which none of this touches.
async fn a_token_is_there(azure: &Azure) {
    let told = Repeats::every(SAY_AGAIN);
    while let Err(error) = azure.fetch_access_token().await {
        if told.is_due(&error.to_string()) {
            tracing::warn!(%error, "there is no access token for Azure yet");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    tracing::info!("ready");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tasks::TaskEnded;

    /// What is under way is finished first: here, the work that hears of the shutdown and takes a while to end.
    #[tokio::test]
    async fn a_background_task_that_panics_shuts_the_process_down_and_is_its_outcome() {
        let tasks = Tasks::new(CancellationToken::new());
        let has_finished = std::cell::Cell::new(false);
        tasks.spawn("sealer", async { panic!("a bug") });
        let outcome = supervise(&tasks, async {
            tasks.shutdown().cancelled().await;
            tokio::task::yield_now().await;
            has_finished.set(true);
            Ok(())
        });
        let error = outcome.await.expect_err("the task has ended by itself");
        assert!(error.is::<TaskEnded>(), "{error}");
        assert!(error.to_string().contains("sealer"), "{error}");
        assert!(has_finished.get());
    }

    #[tokio::test]
    async fn a_process_that_is_told_to_end_ends_well_whatever_its_tasks_do_then() {
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let stopped = shutdown.clone();
        tasks.spawn("sealer", async move { stopped.cancelled().await });
        shutdown.cancel();
        let outcome = supervise(&tasks, async { Ok(()) }).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
