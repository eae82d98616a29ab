//! What is not there is said to be not there: features of the contract that have not been built yet, values that
//! nobody knows, and things that nobody has heard of. Nothing that a caller says is ignored.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::{Duration, SystemTime};

use aks_access_broker::grpc::proto::{
    Access, AzureRole, CheckAccessRequest, ExtendGrantRequest, GetClusterRequest, GetGrantRequest,
    GetJobRequest, GetKubeconfigRequest, GrantRequest, GrantSelector, KubernetesRole,
    LiftOffboardingRequest, ListJobTargetsRequest, ListOffboardingsRequest, OffboardRequest,
    PrincipalRef, RevokeRequest, WatchGrantsRequest, WatchJobRequest,
};
use azure_emulator::Operation;
use support::ask::{access, permanent, revocation, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

/// Nothing is kept but the broker's own instance, and nobody has tried to assign anything.
async fn nothing_was_queued(world: &World) {
    let kept: Vec<String> = world.redis.everything().await.into_keys().collect();
    assert_eq!(kept, ["{aab:main}:meta"]);
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);
}

#[tokio::test]
async fn fields_whose_feature_is_not_there_yet_are_refused_by_name_and_never_ignored() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let soon = prost_types::Timestamp::from(SystemTime::now() + Duration::from_mins(1));
    let grant = GrantRequest {
        access: Some(Access {
            kubernetes_role: Some(KubernetesRole::default()),
            ..Access::default()
        }),
        start_time: Some(soon),
        ..permanent(ALICE, &cluster, Access::default())
    };
    Refusal::from(client.grant(grant).await).names(&["access.kubernetes_role", "start_time"]);
    let revoke = RevokeRequest {
        selector: Some(GrantSelector {
            kubernetes_role: Some(KubernetesRole::default()),
            ..GrantSelector::default()
        }),
        include_unmanaged: true,
        ..revocation("")
    };
    Refusal::from(client.revoke(revoke).await)
        .names(&["selector.kubernetes_role", "include_unmanaged"]);
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn values_that_no_enum_has_are_refused() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let principal = Some(PrincipalRef {
        r#type: 99,
        ..user(ALICE)
    });
    let unheard_of = Access {
        azure_role: 99,
        ..Access::default()
    };
    let grant = GrantRequest {
        principal: principal.clone(),
        ..permanent(ALICE, &cluster, unheard_of.clone())
    };
    let fields = ["principal.type", "access.azure_role"];
    Refusal::from(client.grant(grant).await).names(&fields);
    let check = CheckAccessRequest {
        principal,
        cluster: cluster.clone(),
        access: Some(unheard_of),
        ..CheckAccessRequest::default()
    };
    Refusal::from(client.check_access(check).await).names(&fields);
    // An enum's zero is "not set": here, no role at all. And two roles are one too many.
    for asked in [
        Access::default(),
        Access {
            role_definition_id: "7f6c6a51-bcf8-42ba-9220-52d62157d7db".to_owned(),
            ..access(AzureRole::RbacReader, &[])
        },
    ] {
        let grant = permanent(ALICE, &cluster, asked);
        Refusal::from(client.grant(grant).await).names(&["access"]);
    }
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn an_empty_request_is_told_everything_that_it_lacks() {
    let (world, _broker, mut client) = world().await;
    let lacking = ["principal", "cluster", "access", "ttl"];
    let grant = client.grant(GrantRequest::default()).await;
    Refusal::from(grant).names(&lacking);
    let revoke = client.revoke(RevokeRequest::default()).await;
    Refusal::from(revoke).names(&["grant_id"]);
    let extend = client.extend_grant(ExtendGrantRequest::default()).await;
    Refusal::from(extend).names(&["grant_id", "ttl"]);
    let targets = client
        .list_job_targets(ListJobTargetsRequest::default())
        .await;
    Refusal::from(targets).names(&["job_id"]);
    let check = client.check_access(CheckAccessRequest::default()).await;
    Refusal::from(check).names(&lacking[..3]);
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn rpcs_that_are_not_there_yet_say_so() {
    let (world, _broker, client) = world().await;
    macro_rules! unimplemented {
        ($($rpc:ident($request:expr)),* $(,)?) => {$(
            let refusal = Refusal::from(client.clone().$rpc($request).await);
            assert_eq!(
                refusal.kind(),
                (Code::Unimplemented, "NOT_IMPLEMENTED"),
                "{}: {refusal:?}",
                stringify!($rpc)
            );
        )*};
    }
    unimplemented!(
        offboard(OffboardRequest::default()),
        lift_offboarding(LiftOffboardingRequest::default()),
        list_offboardings(ListOffboardingsRequest::default()),
        watch_grants(WatchGrantsRequest::default()),
        get_kubeconfig(GetKubeconfigRequest::default()),
    );
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn what_nobody_has_heard_of_is_not_found() {
    let (world, _broker, mut client) = world().await;
    let id = Uuid::now_v7().to_string();

    let job_id = id.clone();
    let refusal = Refusal::from(client.get_job(GetJobRequest { job_id }).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "JOB_NOT_FOUND"));
    assert_eq!(refusal.metadata["job_id"], id);
    let job_id = id.clone();
    let watch = client.watch_job(WatchJobRequest { job_id }).await;
    let told = watch.expect("a stream").into_inner().message().await;
    let refusal = Refusal::of(&told.expect_err("there is nothing to tell"));
    assert_eq!(refusal.kind(), (Code::NotFound, "JOB_NOT_FOUND"));

    let grant_id = id.clone();
    let refusal = Refusal::from(client.get_grant(GetGrantRequest { grant_id }).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "GRANT_NOT_FOUND"));
    let extension = ExtendGrantRequest {
        grant_id: id.clone(),
        ttl: Some(Duration::from_mins(1).try_into().unwrap()),
        ..ExtendGrantRequest::default()
    };
    let refusal = Refusal::from(client.extend_grant(extension).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "GRANT_NOT_FOUND"));
    let targets = ListJobTargetsRequest {
        job_id: id.clone(),
        ..ListJobTargetsRequest::default()
    };
    let refusal = Refusal::from(client.list_job_targets(targets).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "JOB_NOT_FOUND"));
    let refusal = Refusal::from(client.revoke(revocation(&id)).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "GRANT_NOT_FOUND"));
    assert_eq!(refusal.metadata["grant_id"], id);
    nothing_was_queued(&world).await;
}

/// Of another subscription's clusters the broker knows nothing, even where they exist.
#[tokio::test]
async fn a_cluster_that_is_not_there_is_not_found_whatever_is_asked_about_it() {
    let (world, _broker, mut client) = world().await;
    let there = world.cluster("aks-production");
    for cluster in [
        there.replace("aks-production", "aks-imaginary"),
        there.replace("rg-production", "rg-imaginary"),
        there.replace(
            "00000000-0000-4000-8000-000000000001",
            &Uuid::new_v4().to_string(),
        ),
    ] {
        let asked = access(AzureRole::RbacReader, &[]);
        let grant = permanent(ALICE, &cluster, asked.clone());
        let check = CheckAccessRequest {
            principal: Some(user(ALICE)),
            cluster: cluster.clone(),
            access: Some(asked),
            ..CheckAccessRequest::default()
        };
        let get = GetClusterRequest {
            cluster: cluster.clone(),
        };
        for refusal in [
            Refusal::from(client.grant(grant).await),
            Refusal::from(client.check_access(check).await),
            Refusal::from(client.get_cluster(get).await),
        ] {
            let not_found = (Code::NotFound, "CLUSTER_NOT_FOUND");
            assert_eq!(refusal.kind(), not_found, "{refusal:?}");
            let told = &refusal.metadata["cluster"];
            assert!(told.eq_ignore_ascii_case(&cluster), "{refusal:?}");
            let times = refusal.message.matches(told.as_str()).count();
            assert_eq!(times, 1, "{refusal:?}");
        }
    }
    nothing_was_queued(&world).await;
}
