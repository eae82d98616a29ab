//! Requests as platforms send them, and waiting for what they lead to.

use std::time::Duration;

use aks_access_broker::grpc::proto::{
    Access, AzureRole, CheckAccessRequest, CheckAccessResponse, Consistency, ExtendGrantRequest,
    GetGrantRequest, GetJobRequest, Grant, GrantRequest, GrantResponse, GrantSelector, Job,
    PrincipalRef, PrincipalType, RevokeRequest, RevokeResponse, WatchJobRequest, job,
};
use uuid::Uuid;

use super::broker::Client;

/// A user, by object id.
pub fn user(id: Uuid) -> PrincipalRef {
    principal(id, PrincipalType::User)
}

/// Anybody, by object id and type.
pub fn principal(id: Uuid, kind: PrincipalType) -> PrincipalRef {
    PrincipalRef {
        object_id: id.to_string(),
        r#type: kind.into(),
        ..PrincipalRef::default()
    }
}

/// A built-in role on the whole cluster, or on some namespaces.
pub fn access(role: AzureRole, namespaces: &[&str]) -> Access {
    Access {
        azure_role: role.into(),
        namespaces: namespaces.iter().map(ToString::to_string).collect(),
        ..Access::default()
    }
}

/// A grant until it is revoked.
pub fn permanent(principal: Uuid, cluster: &str, access: Access) -> GrantRequest {
    GrantRequest {
        request_id: Uuid::new_v4().to_string(),
        principal: Some(user(principal)),
        cluster: cluster.to_owned(),
        access: Some(access),
        permanent: true,
        ..GrantRequest::default()
    }
}

/// A grant for so long.
pub fn lasting(principal: Uuid, cluster: &str, access: Access, ttl: Duration) -> GrantRequest {
    GrantRequest {
        permanent: false,
        ttl: Some(ttl.try_into().expect("a ttl")),
        ..permanent(principal, cluster, access)
    }
}

/// The revocation of one grant.
pub fn revocation(grant_id: &str) -> RevokeRequest {
    RevokeRequest {
        request_id: Uuid::new_v4().to_string(),
        grant_id: grant_id.to_owned(),
        ..RevokeRequest::default()
    }
}

/// As a description writes the end of a grant.
pub fn end_of(grant: &Grant) -> String {
    let end = grant.expire_time.expect("an end");
    jiff::Timestamp::new(end.seconds, end.nanos)
        .expect("a time")
        .to_string()
}

/// A later end, so long from now.
pub fn extension(grant_id: &str, ttl: Duration) -> ExtendGrantRequest {
    ExtendGrantRequest {
        request_id: Uuid::new_v4().to_string(),
        grant_id: grant_id.to_owned(),
        ttl: Some(ttl.try_into().expect("a ttl")),
        ..ExtendGrantRequest::default()
    }
}

/// The revocation of all that match.
pub fn revocation_of(selector: GrantSelector) -> RevokeRequest {
    RevokeRequest {
        selector: Some(selector),
        ..revocation("")
    }
}

/// Grants, and gives the grant once it is active.
pub async fn active(client: &mut Client, request: GrantRequest) -> Grant {
    let (accepted, job) = grant(client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    the_grant(client, &accepted.grant.expect("a grant").grant_id).await
}

/// Grants, and follows the job to its end.
pub async fn grant(client: &mut Client, request: GrantRequest) -> (GrantResponse, Job) {
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    let job = over(client, &accepted.job.as_ref().expect("a job").job_id).await;
    (accepted, job)
}

/// Grants, and gives the ids of the grant and of its job.
pub async fn accepted(client: &mut Client, request: GrantRequest) -> (String, String) {
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    (
        accepted.grant.expect("a grant").grant_id,
        accepted.job.expect("a job").job_id,
    )
}

/// Revokes, and gives the answer.
pub async fn revoked(client: &mut Client, request: RevokeRequest) -> RevokeResponse {
    client.revoke(request).await.expect("accepted").into_inner()
}

/// Revokes, and follows the job to its end.
pub async fn revoke(client: &mut Client, grant_id: &str) -> Job {
    let accepted = revoked(client, revocation(grant_id)).await;
    over(client, &accepted.job.expect("a job").job_id).await
}

/// Follows a job to its end.
pub async fn over(client: &mut Client, job_id: &str) -> Job {
    let request = WatchJobRequest {
        job_id: job_id.to_owned(),
    };
    let mut told = client
        .watch_job(request)
        .await
        .expect("a watch")
        .into_inner();
    let mut last = None;
    while let Some(response) = told.message().await.expect("the watch goes on") {
        last = response.job;
    }
    let job = last.expect("a watch tells at least one state");
    assert!(
        job.finish_time.is_some(),
        "a watch ended before its job: {job:?}"
    );
    job
}

/// A job as it is now.
pub async fn job(client: &mut Client, job_id: &str) -> Job {
    let request = GetJobRequest {
        job_id: job_id.to_owned(),
    };
    client
        .get_job(request)
        .await
        .expect("the job")
        .into_inner()
        .job
        .expect("a job")
}

/// A grant as it is now.
pub async fn the_grant(client: &mut Client, grant_id: &str) -> Grant {
    let request = GetGrantRequest {
        grant_id: grant_id.to_owned(),
    };
    let found = client.get_grant(request).await.expect("the grant");
    found.into_inner().grant.expect("a grant")
}

/// Follows a job until it is in `state`.
pub async fn until(client: &mut Client, job_id: &str, state: job::State) -> Job {
    let request = WatchJobRequest {
        job_id: job_id.to_owned(),
    };
    let mut told = client
        .watch_job(request)
        .await
        .expect("a watch")
        .into_inner();
    while let Some(response) = told.message().await.expect("the watch goes on") {
        let job = response.job.expect("a job");
        if job.state() == state {
            return job;
        }
    }
    panic!("job {job_id} was over before it was {state:?}");
}

/// Data that are asked of Azure, and of the broker's own record, now.
pub fn now() -> Consistency {
    Consistency {
        fully_consistent: true,
        ..Consistency::default()
    }
}

/// Whether somebody may read all that is on a cluster, as fresh as the configuration says.
pub fn reads(principal: Uuid, cluster: &str) -> CheckAccessRequest {
    CheckAccessRequest {
        principal: Some(user(principal)),
        cluster: cluster.to_owned(),
        access: Some(access(AzureRole::RbacReader, &[])),
        ..CheckAccessRequest::default()
    }
}

/// Whether the principal holds an access now, with paths and findings.
pub async fn check(
    client: &mut Client,
    principal: Uuid,
    cluster: &str,
    access: Access,
) -> CheckAccessResponse {
    let request = CheckAccessRequest {
        principal: Some(user(principal)),
        cluster: cluster.to_owned(),
        access: Some(access),
        consistency: Some(now()),
        explain: true,
        ..CheckAccessRequest::default()
    };
    client
        .check_access(request)
        .await
        .expect("an answer")
        .into_inner()
}
