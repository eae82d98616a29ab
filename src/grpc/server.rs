//! The gRPC server: the service behind its guard, health and reflection beside it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::broker::Broker;
use crate::caller::Authenticator;
use crate::config;

use super::guard::{Answer, Bounds, Guarded};
use super::proto::access_broker_service_server::AccessBrokerServiceServer;
use super::service::Service;
use super::tls::Tls;
use super::{DESCRIPTORS, connections};

/// Why the server ended, or never began.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The descriptors that reflection serves cannot be read.
    #[error("the contract's descriptors cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
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
        shutdown: shutdown.clone(),
    };
    let service = AccessBrokerServiceServer::new(service)
        .max_decoding_message_size(settings.max_message_bytes);
    let bounds = Bounds {
        in_flight: settings.max_in_flight,
        per_caller,
        longest: settings.max_deadline,
        message_bytes: settings.max_message_bytes,
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut beside = Routes::new(health);
    if settings.reflection {
        beside = beside
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
    }
    let service = Served {
        broker: Guarded::new(service, authenticator, bounds),
        beside: beside.prepare(),
        ready: ready.clone(),
    };
    let at_once = connections::Limits {
        connections: settings.max_connections,
        streams: streams(settings),
    };
    let drain = settings.drain;
    Ok(async move {
        // Sets health before the first caller can ask, because its default is "serving".
        let is_ready = *ready.borrow() == Readiness::Ready;
        report(&reporter, is_ready).await;
        let server = connections::serve(listener, tls, service, at_once, shutdown.clone());
        let server = within_drain(server, &shutdown, drain);
        // Both run on one task. If the update of health ends too soon, the server ends with it, so the failure is
        // noticed.
        let telling = tell_health(reporter, ready, shutdown.clone());
        let (ended, ()) = tokio::join!(server, telling);
        if ended.is_none() {
            tracing::warn!(
                ?drain,
                "calls are still under way after server.drain: they are cut off"
            );
        }
    })
}

/// The broker's service, and what stands beside it: health and reflection.
///
/// Most calls are for the broker, and a look at the path tells: the others go through tonic's router.
#[derive(Clone)]
struct Served<S> {
    broker: S,
    beside: Routes,
    ready: watch::Receiver<Readiness>,
}

impl<S> tower::Service<Request<Body>> for Served<S>
where
    S: NamedService
        + tower::Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = Answer,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        self.broker.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let path = request.uri().path().strip_prefix('/');
        let method = path.and_then(|path| path.strip_prefix(S::NAME));
        if method.is_some_and(|method| method.starts_with('/')) {
            self.broker.call(request)
        } else {
            let why = why_not_ready(path, &self.ready);
            let answer = self.beside.call(request);
            Box::pin(async move {
                let mut answer = answer.await?;
                answer.headers_mut().extend(why);
                Ok(answer)
            })
        }
    }
}

/// The response header with the reason, because the message of health has no field for one.
const WHY_NOT_READY: HeaderName = HeaderName::from_static("not-serving-because");

/// The header of a health answer, while there is a reason.
fn why_not_ready(
    path: Option<&str>,
    ready: &watch::Receiver<Readiness>,
) -> Option<(HeaderName, HeaderValue)> {
    path?.strip_prefix("grpc.health.v1.Health/")?;
    match &*ready.borrow() {
        Readiness::NotReady(why) => {
            let why = HeaderValue::from_str(why).ok()?;
            Some((WHY_NOT_READY, why))
        }
        Readiness::Starting | Readiness::Ready => None,
    }
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

/// Reflection of everything that is served, and of the error details, without which `grpcurl` could not
/// print them.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Either version lists both; by itself each lists but itself.
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}

/// What health is asked about: the whole server, and the service by name.
const NAMES: [&str; 2] = ["", AccessBrokerServiceServer::<Service>::NAME];

async fn report(reporter: &HealthReporter, ready: bool) {
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in NAMES {
        reporter.set_service_status(name, status).await;
    }
}

/// Keeps what health says true until the server ends.
async fn tell_health(
    mut reporter: HealthReporter,
    mut ready: watch::Receiver<Readiness>,
    shutdown: CancellationToken,
) {
    let follow = async {
        while ready.changed().await.is_ok() {
            let now = *ready.borrow_and_update() == Readiness::Ready;
            report(&reporter, now).await;
        }
    };
    tokio::select! {
        () = follow => {}
        () = shutdown.cancelled() => {}
    }
    report(&reporter, false).await;
    shutdown.cancelled().await;
    for name in NAMES {
        // Ends those who watch: they would hold up the end of the server.
        reporter.clear_service_status(name).await;
    }
}
