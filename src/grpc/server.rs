//! The gRPC server: the service behind its guard, health and reflection beside it.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::v1::server_reflection_server as v1;
use tonic_reflection::pb::v1alpha::server_reflection_server as v1alpha;

use crate::broker::Broker;
use crate::caller::Authenticator;
use crate::config;

use super::connections;
use super::front::{Front, LARGEST_NAME};
use super::guard::{Bounds, Guarded};
use super::health::Health;
use super::limits::{Most, share_of_strangers};
use super::proto::access_broker_service_server::AccessBrokerServiceServer;
use super::reflection::Reflection;
use super::service::Service;
use super::tls::Tls;

/// Why the server ended, or never began.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The descriptors that reflection serves cannot be read.
    #[error("the contract's descriptors cannot be served: {0}")]
    Reflection(#[from] prost_reflect::DescriptorError),
}

/// Whether the broker can do its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Not yet: it starts.
    Starting,
    /// It can.
    Ready,
    /// It cannot, until the operator acts. The text says what to do, in ASCII.
    NotReady(Arc<str>),
}

/// What the server needs besides its settings.
#[derive(Clone)]
pub struct Parts {
    /// Who carries the requests out.
    pub broker: Broker,
    /// Who says who calls.
    pub authenticator: Authenticator,
    /// The certificate to serve with; `None`: plain text.
    pub tls: Option<Tls>,
    /// How much one caller may ask.
    pub per_caller: config::Limits,
    /// How far Azure's reads may trail its writes.
    pub lag: Duration,
    /// Whether the broker can do its work: what health says. Its end is the end of being ready.
    pub ready: watch::Receiver<Readiness>,
    /// Ends the server: no new calls, streams are ended, calls under way may finish.
    pub shutdown: CancellationToken,
}

/// Serves until `shutdown` is cancelled, then finishes the calls under way, for at most `server.drain`.
///
/// # Errors
/// [`ServeError`]
pub fn serve(
    settings: &config::Server,
    listener: TcpListener,
    parts: Parts,
) -> Result<impl Future<Output = ()> + Send + use<>, ServeError> {
    let Parts {
        broker,
        authenticator,
        tls,
        per_caller,
        lag,
        ready,
        shutdown,
    } = parts;
    let service = Service {
        broker,
        lag,
        streams: Arc::new(Semaphore::new(settings.max_streams)),
        max_streams: settings.max_streams,
        strangers_streams: Arc::new(Semaphore::new(share_of_strangers(settings.max_streams))),
        shutdown: shutdown.clone(),
    };
    let service = AccessBrokerServiceServer::new(service)
        .max_decoding_message_size(settings.max_message_bytes);
    let bounds = Bounds {
        most: Most {
            calls: settings.max_in_flight,
            bytes: settings.max_bytes_in_flight,
        },
        per_caller,
        longest: settings.max_deadline,
        message_bytes: settings.max_message_bytes,
    };
    let health = Health {
        ready: ready.clone(),
        shutdown: shutdown.clone(),
    };
    let mut beside = Routes::new(HealthServer::new(health).max_decoding_message_size(LARGEST_NAME));
    if settings.reflection {
        let reflection = Reflection::new(settings.max_deadline, shutdown.clone())?;
        let v1 = v1::ServerReflectionServer::new(reflection.clone());
        let v1alpha = v1alpha::ServerReflectionServer::new(reflection);
        beside = beside
            .add_service(v1.max_decoding_message_size(LARGEST_NAME))
            .add_service(v1alpha.max_decoding_message_size(LARGEST_NAME));
    }
    let guarded = Guarded::new(service, authenticator, bounds);
    let front = Front::new(guarded, beside, ready);
    let limits = connections::Limits {
        connections: settings.max_connections,
        per_address: settings.max_connections_per_address,
        age: settings
            .max_connection_age
            .map(|age| (age, settings.max_connection_age_grace)),
        streams: streams(settings),
    };
    let drain = settings.drain;
    Ok(async move {
        let server = connections::serve(listener, tls, front, limits, shutdown.clone());
        if within_drain(server, &shutdown, drain).await.is_none() {
            tracing::warn!(
                ?drain,
                "calls are still under way after server.drain: they are cut off"
            );
        }
    })
}

/// How many streams one connection may have: what the whole server takes, and a few more, so that it is the guard that
/// refuses what is too much, and says so.
fn streams(settings: &config::Server) -> u32 {
    const BESIDE: usize = 128;
    let calls = settings.max_in_flight.saturating_add(settings.max_streams);
    u32::try_from(calls.saturating_add(BESIDE)).unwrap_or(u32::MAX)
}

/// Waits for `work`, and once it was told to end no longer than `drain`: then `None`.
pub async fn within_drain<T>(
    work: impl Future<Output = T>,
    shutdown: &CancellationToken,
    drain: Duration,
) -> Option<T> {
    let over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        ended = work => Some(ended),
        () = over => None,
    }
}
