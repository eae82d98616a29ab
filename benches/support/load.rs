//! The client: so many connections, so many calls in flight on each, the next one sent when one is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aks_access_broker::domain::role::BuiltInRole;
use aks_access_broker::grpc::proto::access_broker_service_client::AccessBrokerServiceClient;
use aks_access_broker::grpc::proto::{
    Access, AzureRole, CheckAccessRequest, CheckAccessResponse, Decision, KubernetesRequest,
    PrincipalRef, PrincipalType,
};
use futures::future::try_join_all;
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::bearer::Bearer;
use super::company::{Company, Holder, NAMESPACES, USERS, cluster_id, namespace};
use super::process::processor_time;
use super::questions::{KINDS, What, question, scattered};
use super::report::AnyError;

/// Before anything is counted, so that all calls are under way.
const RUN_UP: Duration = Duration::from_millis(300);
/// So long is counted.
const COUNTED: Duration = Duration::from_secs(2);

type Client = AccessBrokerServiceClient<InterceptedService<Channel, Bearer>>;

/// How much at once.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// How many connections.
    pub(crate) connections: usize,
    /// How many calls in flight on each of them.
    pub(crate) in_flight: usize,
}

/// A server under load, and who is asked about.
pub(crate) struct Side {
    clients: Vec<Client>,
    questions: Arc<[CheckAccessRequest]>,
    /// What its threads are called.
    threads: &'static str,
}

/// What one round came to.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// Calls a second.
    pub(crate) rate: f64,
    /// Half of the calls took no longer, in milliseconds.
    pub(crate) p50: f64,
    /// 99 of 100 calls took no longer, in milliseconds.
    pub(crate) p99: f64,
    /// Processor time that the server's threads took a call, in microseconds.
    pub(crate) server_time: f64,
    /// How many of 100 were allowed.
    pub(crate) allowed: f64,
}

/// What one caller saw: how long each of its calls took, in nanoseconds.
#[derive(Default)]
struct Seen {
    nanoseconds: Vec<u32>,
    allowed: usize,
}

/// Questions of all kinds about all clusters of a company, to be asked in this order.
pub(crate) fn questions(company: Company, count: usize) -> Arc<[CheckAccessRequest]> {
    let asked = (0..count).map(|nth| {
        // Every kind of every cluster comes before any of them comes again.
        let (cluster, kind) = (nth % company.clusters, nth / company.clusters % KINDS);
        let what = question(kind, scattered(2 * nth, NAMESPACES));
        let mut request = CheckAccessRequest {
            principal: Some(PrincipalRef {
                object_id: Holder::User(scattered(2 * nth + 1, USERS)).id().to_string(),
                r#type: PrincipalType::User.into(),
                ..PrincipalRef::default()
            }),
            cluster: cluster_id(cluster),
            ..CheckAccessRequest::default()
        };
        match what {
            What::Access(role, namespaces) => {
                request.access = Some(Access {
                    azure_role: azure_role(role).into(),
                    namespaces: namespaces.into_iter().map(namespace).collect(),
                    ..Access::default()
                });
            }
            What::Request(asked) => {
                request.request = Some(KubernetesRequest {
                    verb: asked.verb.to_owned(),
                    api_group: asked.api_group.to_owned(),
                    resource: asked.resource.to_owned(),
                    subresource: asked.subresource.to_owned(),
                    namespace: asked.namespace.map(namespace).unwrap_or_default(),
                    ..KubernetesRequest::default()
                });
            }
        }
        request
    });
    asked.collect()
}

const fn azure_role(role: BuiltInRole) -> AzureRole {
    match role {
        BuiltInRole::ClusterUser => AzureRole::ClusterUser,
        BuiltInRole::RbacReader => AzureRole::RbacReader,
        BuiltInRole::RbacWriter => AzureRole::RbacWriter,
        BuiltInRole::RbacAdmin => AzureRole::RbacAdmin,
        BuiltInRole::RbacClusterAdmin => AzureRole::RbacClusterAdmin,
    }
}

/// Connects so many times.
pub(crate) async fn connected(
    address: SocketAddr,
    connections: usize,
    threads: &'static str,
    questions: Arc<[CheckAccessRequest]>,
    bearer: Bearer,
) -> Result<Side, AnyError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channels = (0..connections).map(|_| endpoint.connect());
    let channels = try_join_all(channels).await?;
    Ok(Side {
        clients: channels
            .into_iter()
            .map(|channel| AccessBrokerServiceClient::with_interceptor(channel, bearer.clone()))
            .collect(),
        questions,
        threads,
    })
}

impl Side {
    /// The answer to the first question. Waits for a broker that has not heard of its store yet.
    pub(crate) async fn first_answer(&self) -> Result<CheckAccessResponse, AnyError> {
        let (client, request) = self
            .clients
            .first()
            .zip(self.questions.first())
            .ok_or("nothing to ask")?;
        let mut client = client.clone();
        for _ in 0..100 {
            match client.check_access(request.clone()).await {
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answer => return Ok(answer?.into_inner()),
            }
        }
        Err("the broker has not heard of its store in ten seconds".into())
    }

    /// Asks everything once, a few at a time, so that nothing is asked for the first time later.
    pub(crate) async fn warm(&self, at_once: usize) -> Result<(), AnyError> {
        let callers = (0..at_once).map(|caller| {
            let mut client = self.clients[caller % self.clients.len()].clone();
            let questions = Arc::clone(&self.questions);
            tokio::spawn(async move {
                for request in questions.iter().skip(caller).step_by(at_once) {
                    client.check_access(request.clone()).await?;
                }
                Ok::<_, Status>(())
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await??;
        }
        Ok(())
    }

    /// One round.
    pub(crate) async fn round(&self, load: Load) -> Result<Round, AnyError> {
        let from = Instant::now() + RUN_UP;
        let until = from + COUNTED;
        let callers: Vec<JoinHandle<Result<Seen, Status>>> = self
            .clients
            .iter()
            .take(load.connections)
            .flat_map(|client| std::iter::repeat_n(client, load.in_flight))
            .enumerate()
            .map(|(nth, client)| {
                let caller = Caller {
                    client: client.clone(),
                    questions: Arc::clone(&self.questions),
                    // Callers far from each other in the same list.
                    first: scattered(nth, self.questions.len()),
                };
                tokio::spawn(caller.ask(from, until))
            })
            .collect();
        tokio::time::sleep_until(from.into()).await;
        let before = processor_time(self.threads)?;
        tokio::time::sleep_until(until.into()).await;
        let used = processor_time(self.threads)?.saturating_sub(before);
        let mut all = Seen::default();
        for caller in callers {
            let seen = caller.await??;
            all.nanoseconds.extend(seen.nanoseconds);
            all.allowed += seen.allowed;
        }
        all.round(used)
    }
}

impl Seen {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of calls are far below 2^52"
    )]
    fn round(mut self, used: Duration) -> Result<Round, AnyError> {
        self.nanoseconds.sort_unstable();
        let calls = self.nanoseconds.len();
        let at = |hundredths: usize| {
            let nanoseconds = self.nanoseconds.get(calls * hundredths / 100);
            nanoseconds.map(|it| f64::from(*it) / 1e6)
        };
        let (p50, p99) = at(50).zip(at(99)).ok_or("no call was answered")?;
        Ok(Round {
            rate: calls as f64 / COUNTED.as_secs_f64(),
            p50,
            p99,
            server_time: used.as_secs_f64() * 1e6 / calls as f64,
            allowed: self.allowed as f64 * 100.0 / calls as f64,
        })
    }
}

struct Caller {
    client: Client,
    questions: Arc<[CheckAccessRequest]>,
    first: usize,
}

impl Caller {
    /// What is answered in time counts.
    async fn ask(mut self, from: Instant, until: Instant) -> Result<Seen, Status> {
        let mut seen = Seen {
            nanoseconds: Vec::with_capacity(4_096),
            allowed: 0,
        };
        let mut next = self.first;
        loop {
            let request = self.questions[next].clone();
            next = (next + 1) % self.questions.len();
            let sent = Instant::now();
            let answer = self.client.check_access(request).await?;
            let answered = Instant::now();
            if answered > until {
                return Ok(seen);
            }
            if answered >= from {
                let took = answered - sent;
                seen.nanoseconds
                    .push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
                seen.allowed += usize::from(answer.get_ref().decision() == Decision::Allowed);
            }
        }
    }
}
