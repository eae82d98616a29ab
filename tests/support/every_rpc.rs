//! Every RPC that is served, asked at once: what a fault of something that all of them need does to each.

use aks_access_broker::grpc::proto::{
    AzureRole, CheckAccessRequest, ExtendGrantRequest, GetClusterRequest, GetGrantRequest,
    GetJobRequest, GrantRequest, GrantSelector, ListAccessRequest, ListClustersRequest,
    ListGrantsRequest, ListJobTargetsRequest, ListJobsRequest, RevokeRequest, WatchJobRequest,
};
use futures::future::{BoxFuture, FutureExt, join_all};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Status;
use uuid::Uuid;

use super::World;
use super::ask::{
    access, active, extension, lasting, now, permanent, revocation, revocation_of, user,
};
use super::broker::Client;

/// What the RPCs answer, by name.
pub type Answers = BTreeMap<&'static str, Result<(), Status>>;

/// A request to each RPC, the same however often they are sent.
#[derive(Clone)]
pub struct EveryRpc {
    /// For somebody who has nothing yet.
    pub grant: GrantRequest,
    /// Of a grant that is active.
    pub extend: ExtendGrantRequest,
    /// Of another such grant.
    pub revoke: RevokeRequest,
    /// Of everything on another cluster: of one grant.
    pub revoke_selected: RevokeRequest,
    check: CheckAccessRequest,
    job_id: String,
}

impl EveryRpc {
    /// Grants what they are about: three grants that last for hours.
    pub async fn prepare(world: &World, client: &mut Client) -> Self {
        let cluster = world.cluster("aks-production");
        let reader = access(AzureRole::RbacReader, &["team-a"]);
        let hours = Duration::from_hours(2);
        let lasting = |cluster: &str| lasting(Uuid::new_v4(), cluster, reader.clone(), hours);
        let kept = active(client, lasting(&cluster)).await;
        let revoked = active(client, lasting(&cluster)).await;
        let elsewhere = world.cluster("aks-development");
        active(client, lasting(&elsewhere)).await;
        let somebody = Uuid::new_v4();
        Self {
            grant: permanent(somebody, &cluster, reader.clone()),
            extend: extension(&kept.grant_id, hours * 2),
            revoke: revocation(&revoked.grant_id),
            revoke_selected: revocation_of(GrantSelector {
                cluster: Some(elsewhere),
                ..GrantSelector::default()
            }),
            check: CheckAccessRequest {
                principal: Some(user(somebody)),
                cluster,
                access: Some(reader),
                consistency: Some(now()),
                ..CheckAccessRequest::default()
            },
            job_id: kept.job_id,
        }
    }

    /// Asks every RPC for which something has to be read or kept.
    pub async fn with_the_store(&self, client: &Client) -> Answers {
        let asked: [(&'static str, BoxFuture<'_, Result<(), Status>>); 15] = [
            ("Grant", self.grant(client, false).boxed()),
            ("Grant?", self.grant(client, true).boxed()),
            ("ExtendGrant", self.extend(client, false).boxed()),
            ("ExtendGrant?", self.extend(client, true).boxed()),
            ("Revoke", revoke(client, &self.revoke, false).boxed()),
            ("Revoke?", revoke(client, &self.revoke, true).boxed()),
            (
                "Revoke selected",
                revoke(client, &self.revoke_selected, false).boxed(),
            ),
            ("CheckAccess", self.check(client).boxed()),
            ("ListAccess", self.list_access(client).boxed()),
            ("GetJob", self.get_job(client).boxed()),
            ("WatchJob", self.watch_job(client).boxed()),
            ("ListJobs", list_jobs(client).boxed()),
            ("ListJobTargets", self.list_job_targets(client).boxed()),
            ("GetGrant", self.get_grant(client).boxed()),
            ("ListGrants", list_grants(client).boxed()),
        ];
        let named = asked.map(|(name, answer)| async move { (name, answer.await) });
        join_all(named).await.into_iter().collect()
    }

    /// Asks those that need nothing but Azure.
    pub async fn without_the_store(&self, client: &Client) -> Answers {
        let request = GetClusterRequest {
            cluster: self.check.cluster.clone(),
        };
        let one = client.clone().get_cluster(request).await.map(drop);
        let request = ListClustersRequest::default();
        let all = client.clone().list_clusters(request).await.map(drop);
        BTreeMap::from([("GetCluster", one), ("ListClusters", all)])
    }

    async fn grant(&self, client: &Client, validate_only: bool) -> Result<(), Status> {
        let request = GrantRequest {
            validate_only,
            ..self.grant.clone()
        };
        client.clone().grant(request).await.map(drop)
    }

    async fn extend(&self, client: &Client, validate_only: bool) -> Result<(), Status> {
        let request = ExtendGrantRequest {
            validate_only,
            ..self.extend.clone()
        };
        client.clone().extend_grant(request).await.map(drop)
    }

    async fn list_access(&self, client: &Client) -> Result<(), Status> {
        let request = ListAccessRequest {
            cluster: Some(self.check.cluster.clone()),
            consistency: Some(now()),
            ..ListAccessRequest::default()
        };
        client.clone().list_access(request).await.map(drop)
    }

    async fn check(&self, client: &Client) -> Result<(), Status> {
        let request = self.check.clone();
        client.clone().check_access(request).await.map(drop)
    }

    async fn get_job(&self, client: &Client) -> Result<(), Status> {
        let request = GetJobRequest {
            job_id: self.job_id.clone(),
        };
        client.clone().get_job(request).await.map(drop)
    }

    /// Until the first message.
    async fn watch_job(&self, client: &Client) -> Result<(), Status> {
        let request = WatchJobRequest {
            job_id: self.job_id.clone(),
        };
        let mut told = client.clone().watch_job(request).await?.into_inner();
        told.message().await.map(drop)
    }

    async fn list_job_targets(&self, client: &Client) -> Result<(), Status> {
        let request = ListJobTargetsRequest {
            job_id: self.job_id.clone(),
            ..ListJobTargetsRequest::default()
        };
        client.clone().list_job_targets(request).await.map(drop)
    }

    async fn get_grant(&self, client: &Client) -> Result<(), Status> {
        let request = GetGrantRequest {
            grant_id: self.extend.grant_id.clone(),
        };
        client.clone().get_grant(request).await.map(drop)
    }
}

async fn revoke(
    client: &Client,
    request: &RevokeRequest,
    validate_only: bool,
) -> Result<(), Status> {
    let request = RevokeRequest {
        validate_only,
        ..request.clone()
    };
    client.clone().revoke(request).await.map(drop)
}

async fn list_jobs(client: &Client) -> Result<(), Status> {
    let request = ListJobsRequest::default();
    client.clone().list_jobs(request).await.map(drop)
}

async fn list_grants(client: &Client) -> Result<(), Status> {
    let request = ListGrantsRequest::default();
    client.clone().list_grants(request).await.map(drop)
}
