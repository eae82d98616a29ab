//! The contract's RPCs: each checks what was asked, asks the broker, and says what it answered.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::broker::Broker;
use crate::caller::{AuthenticationError, Caller};
use crate::domain::job::Job;

use super::guard::Call;
use super::limits::Kind;
use super::proto::access_broker_service_server::AccessBrokerService;
use super::status::{invalid, not_implemented, of, overloaded, shutting_down, unauthenticated};
use super::{batch, convert, proto, validate};

/// The contract, served.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) broker: Broker,
    /// How far Azure's reads may trail its writes: by then a cluster hears of what a job did.
    pub(super) lag: Duration,
    /// One permit for each stream that is open.
    pub(super) streams: Arc<Semaphore>,
    pub(super) max_streams: usize,
    /// The same for callers without a role, of which there may be few.
    pub(super) strangers_streams: Arc<Semaphore>,
    /// Ends the streams: they would hold up the end of the server.
    pub(super) shutdown: CancellationToken,
}

impl Service {
    fn job(&self, job: &Job) -> proto::Job {
        convert::job(job, self.lag)
    }
}

/// Who calls. The guard has said so; without it nobody is anybody.
fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let call = request.extensions().get::<Call>();
    let call = call.ok_or_else(|| unauthenticated(&AuthenticationError::Missing))?;
    Ok(Arc::clone(&call.caller))
}

type Answer<T> = Result<Response<T>, Status>;
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AccessBrokerService for Service {
    async fn grant(&self, request: Request<proto::GrantRequest>) -> Answer<proto::GrantResponse> {
        let caller = caller(&request)?;
        let wish = validate::grant(request.get_ref(), Timestamp::now()).map_err(|v| invalid(&v))?;
        if request.get_ref().validate_only {
            let plan = self.broker.plan_grant(&caller, wish).await;
            return Ok(Response::new(convert::planned_grant(
                &plan.map_err(|e| of(&e))?,
            )));
        }
        let granted = self.broker.grant(&caller, wish).await.map_err(|e| of(&e))?;
        Ok(Response::new(proto::GrantResponse {
            grant: Some(convert::grant(&granted.grant, &[])),
            job: Some(self.job(&granted.job)),
            findings: granted.findings.iter().map(convert::finding).collect(),
            ..proto::GrantResponse::default()
        }))
    }

    async fn extend_grant(
        &self,
        request: Request<proto::ExtendGrantRequest>,
    ) -> Answer<proto::ExtendGrantResponse> {
        let caller = caller(&request)?;
        let wish =
            validate::extend(request.get_ref(), Timestamp::now()).map_err(|v| invalid(&v))?;
        if request.get_ref().validate_only {
            let plan = self
                .broker
                .plan_extension(&caller, &wish)
                .await
                .map_err(|e| of(&e))?;
            return Ok(Response::new(convert::planned_extension(&plan.0, &plan.1)));
        }
        let (grant, job) = self
            .broker
            .extend(&caller, wish)
            .await
            .map_err(|e| of(&e))?;
        Ok(Response::new(proto::ExtendGrantResponse {
            grant: Some(convert::grant(&grant, &[])),
            job: Some(self.job(&job)),
            ..proto::ExtendGrantResponse::default()
        }))
    }

    async fn revoke(
        &self,
        request: Request<proto::RevokeRequest>,
    ) -> Answer<proto::RevokeResponse> {
        let caller = caller(&request)?;
        let wish = validate::revoke(request.get_ref()).map_err(|v| invalid(&v))?;
        if request.get_ref().validate_only {
            let plan = self.broker.plan_revocation(&caller, &wish).await;
            return Ok(Response::new(convert::planned_revocation(
                &plan.map_err(|e| of(&e))?,
            )));
        }
        let job = self
            .broker
            .revoke(&caller, wish)
            .await
            .map_err(|e| of(&e))?;
        Ok(Response::new(proto::RevokeResponse {
            matched_grants: convert::count(job.matched_grants),
            left_grants: convert::count(job.left_grants),
            job: Some(self.job(&job)),
            ..proto::RevokeResponse::default()
        }))
    }

    async fn check_access(
        &self,
        request: Request<proto::CheckAccessRequest>,
    ) -> Answer<proto::CheckAccessResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let (question, freshness) = validate::check(&request).map_err(|v| invalid(&v))?;
        let need = self
            .broker
            .need(&caller, freshness)
            .await
            .map_err(|e| of(&e))?;
        let checked = self
            .broker
            .check_access(&caller, question, need, request.explain)
            .await;
        let (asked, checked) = checked.map_err(|e| of(&e))?;
        Ok(Response::new(convert::answer(&asked, &checked)))
    }

    async fn batch_check_access(
        &self,
        request: Request<proto::BatchCheckAccessRequest>,
    ) -> Answer<proto::BatchCheckAccessResponse> {
        let caller = caller(&request)?;
        let call = request.extensions().get::<Call>().cloned();
        let request = request.into_inner();
        let freshness = validate::batch(&request).map_err(|v| invalid(&v))?;
        // One of them was counted when the call was taken.
        let more = u32::try_from(request.requests.len().saturating_sub(1)).unwrap_or(u32::MAX);
        if let Some(call) = &call {
            call.allowance.take(Kind::Check, more)?;
        }
        let need = self
            .broker
            .need(&caller, freshness)
            .await
            .map_err(|e| of(&e))?;
        let (items, refused) = batch::answered(&self.broker, &caller, need, request).await;
        if let Some(call) = call {
            for _ in 0..refused {
                call.allowance.is_refused();
            }
        }
        Ok(Response::new(proto::BatchCheckAccessResponse { items }))
    }

    async fn list_access(
        &self,
        request: Request<proto::ListAccessRequest>,
    ) -> Answer<proto::ListAccessResponse> {
        let caller = caller(&request)?;
        let query = validate::list_access(request.get_ref()).map_err(|v| invalid(&v))?;
        let page = self.broker.list_access(&caller, &query).await;
        let page = page.map_err(|e| of(&e))?;
        Ok(Response::new(convert::access_page(&page)))
    }

    async fn get_job(
        &self,
        request: Request<proto::GetJobRequest>,
    ) -> Answer<proto::GetJobResponse> {
        let caller = caller(&request)?;
        let id = validate::job_id(&request.get_ref().job_id).map_err(|v| invalid(&v))?;
        let job = self.broker.get_job(&caller, id).await.map_err(|e| of(&e))?;
        Ok(Response::new(proto::GetJobResponse {
            job: Some(self.job(&job)),
            targets: convert::targets(&job),
        }))
    }

    type WatchJobStream = Messages<proto::WatchJobResponse>;

    async fn watch_job(
        &self,
        request: Request<proto::WatchJobRequest>,
    ) -> Answer<Self::WatchJobStream> {
        let caller = caller(&request)?;
        let id = validate::job_id(&request.get_ref().job_id).map_err(|v| invalid(&v))?;
        let call = request.extensions().get::<Call>().cloned();
        let allowance = call.as_ref().map(|call| Arc::clone(&call.allowance));
        let own = call
            .as_ref()
            .map(|call| call.allowance.stream())
            .transpose()?;
        let streams = if caller.is_stranger() {
            &self.strangers_streams
        } else {
            &self.streams
        };
        let Ok(permit) = Arc::clone(streams).try_acquire_owned() else {
            return Err(overloaded("streams", self.max_streams));
        };
        let permit = (permit, own);
        let lag = self.lag;
        let mut before: Option<Job> = None;
        let told = self.broker.watch_job(caller, id).map(move |job| {
            let _held_while_the_stream_is = &permit;
            let job = job.map_err(|e| {
                if let Some(allowance) = &allowance {
                    allowance.is_refused();
                }
                of(&e)
            })?;
            let targets = match &before {
                Some(before) => convert::changed_targets(&job, before),
                None => convert::targets(&job),
            };
            let message = proto::WatchJobResponse {
                job: Some(convert::job(&job, lag)),
                targets,
            };
            before = Some(job);
            Ok(message)
        });
        let until = self.end_of_streams(call);
        Ok(Response::new(Box::pin(ended_by(told, until))))
    }

    async fn get_grant(
        &self,
        request: Request<proto::GetGrantRequest>,
    ) -> Answer<proto::GetGrantResponse> {
        let caller = caller(&request)?;
        let id = validate::grant_id(&request.get_ref().grant_id).map_err(|v| invalid(&v))?;
        let found = self.broker.get_grant(&caller, id).await;
        let found = found.map_err(|e| of(&e))?;
        Ok(Response::new(proto::GetGrantResponse {
            grant: Some(convert::grant(&found.grant, &found.effects)),
        }))
    }

    async fn list_grants(
        &self,
        request: Request<proto::ListGrantsRequest>,
    ) -> Answer<proto::ListGrantsResponse> {
        let caller = caller(&request)?;
        let query = validate::grants(request.get_ref()).map_err(|v| invalid(&v))?;
        let page = self
            .broker
            .list_grants(&caller, &query)
            .await
            .map_err(|e| of(&e))?;
        let grants = page.rows.iter();
        Ok(Response::new(proto::ListGrantsResponse {
            grants: grants
                .map(|found| convert::grant(&found.grant, &found.effects))
                .collect(),
            next_page_token: page.next,
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<proto::ListJobsRequest>,
    ) -> Answer<proto::ListJobsResponse> {
        let caller = caller(&request)?;
        let query = validate::jobs(request.get_ref()).map_err(|v| invalid(&v))?;
        let page = self
            .broker
            .list_jobs(&caller, &query)
            .await
            .map_err(|e| of(&e))?;
        Ok(Response::new(proto::ListJobsResponse {
            jobs: page.rows.iter().map(|job| self.job(job)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn list_job_targets(
        &self,
        request: Request<proto::ListJobTargetsRequest>,
    ) -> Answer<proto::ListJobTargetsResponse> {
        let caller = caller(&request)?;
        let query = validate::job_targets(request.get_ref()).map_err(|v| invalid(&v))?;
        let page = self
            .broker
            .list_job_targets(&caller, &query)
            .await
            .map_err(|e| of(&e))?;
        Ok(Response::new(proto::ListJobTargetsResponse {
            targets: page.rows.iter().map(convert::target).collect(),
            next_page_token: page.next,
        }))
    }

    async fn get_cluster(
        &self,
        request: Request<proto::GetClusterRequest>,
    ) -> Answer<proto::GetClusterResponse> {
        let caller = caller(&request)?;
        let id = validate::cluster_id(&request.get_ref().cluster).map_err(|v| invalid(&v))?;
        let found = self.broker.get_cluster(&caller, &id).await;
        let (cluster, findings) = found.map_err(|e| of(&e))?;
        Ok(Response::new(proto::GetClusterResponse {
            cluster: Some(convert::cluster(&cluster, &findings)),
        }))
    }

    async fn list_clusters(
        &self,
        request: Request<proto::ListClustersRequest>,
    ) -> Answer<proto::ListClustersResponse> {
        let caller = caller(&request)?;
        let query = validate::clusters(request.get_ref()).map_err(|v| invalid(&v))?;
        let page = self
            .broker
            .list_clusters(&caller, &query)
            .await
            .map_err(|e| of(&e))?;
        Ok(Response::new(convert::clusters(&page)))
    }

    async fn list_audit_events(
        &self,
        request: Request<proto::ListAuditEventsRequest>,
    ) -> Answer<proto::ListAuditEventsResponse> {
        let caller = caller(&request)?;
        let query = validate::audit_events(request.get_ref()).map_err(|v| invalid(&v))?;
        let page = self.broker.list_audit_events(&caller, &query).await;
        Ok(Response::new(convert::audit_page(
            page.map_err(|e| of(&e))?,
        )))
    }

    // What follows is in the contract, and not served yet.

    async fn offboard(
        &self,
        _: Request<proto::OffboardRequest>,
    ) -> Answer<proto::OffboardResponse> {
        Err(not_implemented("Offboard"))
    }

    async fn lift_offboarding(
        &self,
        _: Request<proto::LiftOffboardingRequest>,
    ) -> Answer<proto::LiftOffboardingResponse> {
        Err(not_implemented("LiftOffboarding"))
    }

    async fn list_offboardings(
        &self,
        _: Request<proto::ListOffboardingsRequest>,
    ) -> Answer<proto::ListOffboardingsResponse> {
        Err(not_implemented("ListOffboardings"))
    }

    type WatchGrantsStream = Messages<proto::WatchGrantsResponse>;

    async fn watch_grants(
        &self,
        _: Request<proto::WatchGrantsRequest>,
    ) -> Answer<Self::WatchGrantsStream> {
        Err(not_implemented("WatchGrants"))
    }

    async fn get_kubeconfig(
        &self,
        _: Request<proto::GetKubeconfigRequest>,
    ) -> Answer<proto::GetKubeconfigResponse> {
        Err(not_implemented("GetKubeconfig"))
    }
}

impl Service {
    /// What ends a stream from outside: the caller's deadline, the end of its token or certificate, or the end of the server.
    fn end_of_streams(&self, call: Option<Call>) -> impl Future<Output = Status> + Send + 'static {
        let shutdown = self.shutdown.clone();
        async move {
            // The guard has said who calls; without it nobody is anybody.
            let Some(call) = call else {
                return unauthenticated(&AuthenticationError::Missing);
            };
            tokio::select! {
                status = call.deadline.passed() => status,
                () = call.caller.is_over() => unauthenticated(&call.caller.why_over()),
                () = shutdown.cancelled() => shutting_down(),
            }
        }
    }
}

/// A stream that ends with its last item, with its first error or, in an error, when `end` says so.
fn ended_by<T: Send>(
    items: impl Stream<Item = Result<T, Status>> + Send,
    end: impl Future<Output = Status> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    async_stream::stream! {
        let mut items = std::pin::pin!(items);
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                status = &mut end => {
                    yield Err(status);
                    break;
                }
                item = items.next() => match item {
                    Some(Ok(item)) => yield Ok(item),
                    Some(Err(status)) => {
                        yield Err(status);
                        break;
                    }
                    None => break,
                },
            }
        }
    }
}
