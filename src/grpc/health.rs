//! `grpc.health.v1`: whether the broker can do its work, asked once or watched.
//!
//! The library's own service answers `Watch` of a name that it does not know with an error, where the protocol says
//! `SERVICE_UNKNOWN` on a stream that stays open.

use std::pin::Pin;

use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::proto::access_broker_service_server::AccessBrokerServiceServer;
use super::server::Readiness;
use super::service::Service;
use super::status;

/// What health is asked about: the whole server, and the service by name.
const NAMES: [&str; 2] = ["", AccessBrokerServiceServer::<Service>::NAME];

/// The name by which health says that the process answers, whatever Redis and Azure do. Nothing that a restart does not
/// mend may be asked about by it: a liveness probe restarts what does not serve.
const LIVE: &str = "live";

/// The service.
#[derive(Clone)]
pub(super) struct Health {
    /// Whether the broker can do its work. Its end is the end of being ready.
    pub(super) ready: watch::Receiver<Readiness>,
    /// From then on nothing is served, and watches end.
    pub(super) shutdown: CancellationToken,
}

impl Health {
    fn of(&self, name: &str) -> ServingStatus {
        // Also while the process ends: a drain is no reason to kill it.
        if name == LIVE {
            return ServingStatus::Serving;
        }
        if !NAMES.contains(&name) {
            return ServingStatus::ServiceUnknown;
        }
        let is_there = self.ready.has_changed().is_ok() && !self.shutdown.is_cancelled();
        if is_there && *self.ready.borrow() == Readiness::Ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        match self.of(name) {
            ServingStatus::ServiceUnknown => Err(status::unknown_service(name)),
            known => Ok(Response::new(response(known))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut health = self.clone();
        let name = request.into_inner().service;
        let states = async_stream::stream! {
            let mut told = None;
            loop {
                let is_over = health.shutdown.is_cancelled();
                let now = health.of(&name);
                if told.replace(now) != Some(now) {
                    yield Ok(response(now));
                }
                if is_over {
                    return;
                }
                let shutdown = health.shutdown.clone();
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    changed = health.ready.changed() => if changed.is_err() {
                        // Nobody will say that it is ready again. That is told below, and then nothing changes.
                        let now = health.of(&name);
                        if told.replace(now) != Some(now) {
                            yield Ok(response(now));
                        }
                        shutdown.cancelled().await;
                    },
                }
            }
        };
        Ok(Response::new(Box::pin(states)))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use health_server::Health as _;

    use super::*;

    fn health() -> (watch::Sender<Readiness>, Health) {
        let (sender, ready) = watch::channel(Readiness::Starting);
        let shutdown = CancellationToken::new();
        (sender, Health { ready, shutdown })
    }

    async fn watched(
        health: &Health,
        name: &str,
    ) -> impl Stream<Item = ServingStatus> + Unpin + use<> {
        let request = Request::new(HealthCheckRequest {
            service: name.to_owned(),
        });
        let states = health.watch(request).await.unwrap().into_inner();
        states.map(|state| state.unwrap().status())
    }

    #[tokio::test]
    async fn a_watch_tells_each_change_and_ends_with_the_server() {
        let (sender, health) = health();
        let mut states = watched(&health, "").await;
        assert_eq!(states.next().await, Some(ServingStatus::NotServing));
        sender.send_replace(Readiness::Ready);
        assert_eq!(states.next().await, Some(ServingStatus::Serving));
        health.shutdown.cancel();
        assert_eq!(states.next().await, Some(ServingStatus::NotServing));
        assert_eq!(states.next().await, None);
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_name_says_so_and_stays_open() {
        let (sender, health) = health();
        let mut states = watched(&health, "no.such.Service").await;
        assert_eq!(states.next().await, Some(ServingStatus::ServiceUnknown));
        sender.send_replace(Readiness::Ready);
        assert!(futures::poll!(states.next()).is_pending());
        health.shutdown.cancel();
        assert_eq!(states.next().await, None);
    }

    #[tokio::test]
    async fn the_process_is_live_whatever_it_waits_for() {
        let (sender, health) = health();
        let mut states = watched(&health, LIVE).await;
        assert_eq!(states.next().await, Some(ServingStatus::Serving));
        sender.send_replace(Readiness::NotReady("Redis is away".into()));
        assert!(futures::poll!(states.next()).is_pending());
        health.shutdown.cancel();
        assert_eq!(states.next().await, None);
        assert_eq!(health.of(LIVE), ServingStatus::Serving);
    }

    #[tokio::test]
    async fn the_end_of_being_ready_is_told() {
        let (sender, health) = health();
        sender.send_replace(Readiness::Ready);
        let mut states = watched(&health, NAMES[1]).await;
        assert_eq!(states.next().await, Some(ServingStatus::Serving));
        drop(sender);
        assert_eq!(states.next().await, Some(ServingStatus::NotServing));
    }
}
