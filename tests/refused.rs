//! Refused, clearly, before anything is queued: whoever asks for what the broker never does, or for what it
//! cannot read, is told everything that is wrong, and Redis and Azure are as they were.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::{
    Access, AzureRole, CheckAccessRequest, GetClusterRequest, GetGrantRequest, GetJobRequest,
    GrantRequest, PrincipalRef, RevokeRequest, WatchJobRequest, job,
};
use azure_emulator::{CustomRole, Operation, Permissions, Scope};
use support::ask::{access, lasting, permanent, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_ADMIN: &str = "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8";
const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
const READ_PODS: &str = "Microsoft.ContainerService/managedClusters/pods/read";
const DATA_ROLES: [AzureRole; 4] = [
    AzureRole::RbacReader,
    AzureRole::RbacWriter,
    AzureRole::RbacAdmin,
    AzureRole::RbacClusterAdmin,
];

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

/// Refused for what Azure is like, as a precondition that names itself.
async fn refuses(client: &mut Client, request: GrantRequest, reason: &str) -> Refusal {
    let told = format!("{request:?}");
    let refusal = Refusal::from(client.grant(request).await);
    assert_eq!(
        refusal.kind(),
        (Code::FailedPrecondition, reason),
        "{told}: {refusal:?}"
    );
    assert_eq!(refusal.preconditions, [reason]);
    refusal
}

fn by_id(role: &str) -> Access {
    Access {
        role_definition_id: role.to_owned(),
        ..Access::default()
    }
}

fn full_id(role: &str) -> String {
    format!(
        "/subscriptions/00000000-0000-4000-8000-000000000001/providers/Microsoft.Authorization/\
         roleDefinitions/{role}"
    )
}

/// A role that the company has made itself.
fn custom(world: &World, actions: &[&str], data_actions: &[&str]) -> String {
    let id = Uuid::new_v4();
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let role = CustomRole {
        id,
        name: format!("Custom {id}"),
        description: String::new(),
        assignable_scopes: vec![
            Scope::parse("/providers/Microsoft.Management/managementGroups/contoso").unwrap(),
        ],
        permissions: vec![Permissions {
            actions: owned(actions),
            data_actions: owned(data_actions),
            ..Permissions::default()
        }],
    };
    world.emulator.add_custom_role(role).expect("a role");
    id.to_string()
}

#[tokio::test]
async fn the_cluster_admin_role_is_refused_by_guid_and_by_full_id_in_any_case() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    for role in [
        CLUSTER_ADMIN.to_owned(),
        CLUSTER_ADMIN.to_uppercase(),
        full_id(CLUSTER_ADMIN),
        full_id(CLUSTER_ADMIN).to_uppercase(),
        format!("/providers/Microsoft.Authorization/roleDefinitions/{CLUSTER_ADMIN}"),
    ] {
        let request = permanent(ALICE, &cluster, by_id(&role));
        let refusal = refuses(&mut client, request, "ROLE_NOT_ALLOWED").await;
        assert!(
            refusal.message.contains("never assigned"),
            "{}",
            refusal.message
        );
    }
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn only_roles_that_hold_nothing_but_data_actions_of_clusters_are_ever_assigned() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let list_admin_credential =
        "Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action";
    for (role, named) in [
        (OWNER.to_owned(), "built-in"),
        (
            custom(&world, &[list_admin_credential], &[READ_PODS]),
            list_admin_credential,
        ),
        (custom(&world, &["*"], &[]), "control-plane action *"),
        (custom(&world, &[], &["*"]), "data action *"),
        (
            custom(
                &world,
                &[],
                &[
                    READ_PODS,
                    "Microsoft.KeyVault/vaults/secrets/getSecret/action",
                ],
            ),
            "Microsoft.KeyVault",
        ),
        (custom(&world, &[], &[]), "gives nothing"),
    ] {
        for id in [role.clone(), full_id(&role)] {
            let request = permanent(ALICE, &cluster, by_id(&id));
            let refusal = refuses(&mut client, request, "ROLE_NOT_ALLOWED").await;
            assert!(refusal.message.contains(named), "{}", refusal.message);
        }
    }
    let nobodys = permanent(ALICE, &cluster, by_id(&Uuid::new_v4().to_string()));
    let refusal = Refusal::from(client.grant(nobodys).await);
    assert_eq!(refusal.kind(), (Code::NotFound, "ROLE_NOT_FOUND"));
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn on_a_cluster_without_entra_integration_every_grant_is_refused() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-no-entra");
    let custom = custom(&world, &[], &[READ_PODS]);
    let mut asked: Vec<Access> = DATA_ROLES.map(|role| access(role, &[])).to_vec();
    asked.push(access(AzureRole::ClusterUser, &[]));
    asked.push(access(AzureRole::RbacReader, &["team-a"]));
    asked.push(by_id(&custom));
    for access in asked {
        let request = lasting(ALICE, &cluster, access, Duration::from_mins(1));
        let refusal = refuses(&mut client, request, "ENTRA_INTEGRATION_REQUIRED").await;
        assert_eq!(refusal.metadata["cluster"], cluster.to_lowercase());
        assert!(
            refusal.message.contains(
                "--resource-group 'rg-legacy' --name aks-no-entra --enable-aad --enable-azure-rbac"
            ),
            "with its remedy: {}",
            refusal.message
        );
    }
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn on_a_cluster_without_azure_rbac_only_cluster_user_may_be_granted() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-kubernetes-rbac");
    let custom = custom(&world, &[], &[READ_PODS]);
    let mut asked: Vec<Access> = DATA_ROLES.map(|role| access(role, &[])).to_vec();
    asked.push(access(AzureRole::RbacReader, &["team-a"]));
    asked.push(by_id(&custom));
    for access in asked {
        let request = permanent(ALICE, &cluster, access);
        let refusal = refuses(&mut client, request, "AZURE_RBAC_DISABLED").await;
        assert_eq!(refusal.metadata["cluster"], cluster.to_lowercase());
        assert!(
            refusal.message.contains(
                "--resource-group 'rg-development' --name aks-kubernetes-rbac --enable-azure-rbac"
            ),
            "with its remedy: {}",
            refusal.message
        );
    }
    nothing_was_queued(&world).await;

    // The first of AKS's two questions Azure answers there as well.
    let request = permanent(ALICE, &cluster, access(AzureRole::ClusterUser, &[]));
    let (_, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 1);
}

#[tokio::test]
async fn malformed_ids_of_every_field_are_named_all_at_once() {
    let (world, _broker, mut client) = world().await;
    let request = GrantRequest {
        request_id: "once".to_owned(),
        principal: Some(PrincipalRef {
            object_id: "alice".to_owned(),
            ..user(ALICE)
        }),
        cluster: "/subscriptions/1/resourceGroups/rg/providers/x/managedClusters/prod".to_owned(),
        access: Some(Access {
            namespaces: ["team-a", "Team-B", "team-a", ""]
                .map(str::to_owned)
                .to_vec(),
            ..by_id("reader")
        }),
        justification: "x".repeat(1_025),
        ..GrantRequest::default()
    };
    Refusal::from(client.grant(request).await).names(&[
        "request_id",
        "principal.object_id",
        "cluster",
        "access.role_definition_id",
        "access.namespaces[1]",
        "access.namespaces[2]",
        "access.namespaces[3]",
        "ttl",
        "justification",
    ]);
    let request = RevokeRequest {
        request_id: "once".to_owned(),
        grant_id: "my-grant".to_owned(),
        justification: "x".repeat(1_025),
        ..RevokeRequest::default()
    };
    Refusal::from(client.revoke(request).await).names(&["request_id", "grant_id", "justification"]);
    let request = CheckAccessRequest {
        principal: Some(PrincipalRef {
            object_id: "{10000000-0000-4000-8000-000000000001}".to_owned(),
            ..user(ALICE)
        }),
        cluster: "aks-production".to_owned(),
        access: Some(access(AzureRole::ClusterUser, &["team-a"])),
        ..CheckAccessRequest::default()
    };
    Refusal::from(client.check_access(request).await).names(&[
        "principal.object_id",
        "cluster",
        "access.namespaces",
    ]);
    for id in ["", "7", "my-id"].map(str::to_owned) {
        let job_id = id.clone();
        Refusal::from(client.get_job(GetJobRequest { job_id }).await).names(&["job_id"]);
        let job_id = id.clone();
        Refusal::from(client.watch_job(WatchJobRequest { job_id }).await).names(&["job_id"]);
        let grant_id = id.clone();
        Refusal::from(client.get_grant(GetGrantRequest { grant_id }).await).names(&["grant_id"]);
        let cluster = id;
        Refusal::from(client.get_cluster(GetClusterRequest { cluster }).await).names(&["cluster"]);
    }
    nothing_was_queued(&world).await;
}

#[tokio::test]
async fn a_grant_says_exactly_once_when_it_ends() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let whole = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let ttl = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let year = 366 * 24 * 3_600;
    let now = jiff::Timestamp::now().as_second();
    for (ttl, expire_time, permanent, fields) in [
        (None, None, false, &["ttl"][..]),
        (ttl(60, 0), None, true, &["ttl"]),
        (ttl(60, 0), at(now + 60, 0), false, &["ttl"]),
        (ttl(60, 0), at(now + 60, 0), true, &["ttl"]),
        (ttl(0, 0), None, false, &["ttl"]),
        (ttl(0, 999_999_999), None, false, &["ttl"]),
        (ttl(-60, 0), None, false, &["ttl"]),
        (ttl(60, -1), None, false, &["ttl"]),
        (ttl(year, 1), None, false, &["ttl"]),
        (ttl(i64::MAX, i32::MAX), None, false, &["ttl"]),
        (ttl(i64::MIN, i32::MIN), None, false, &["ttl"]),
        (None, at(now - 1, 0), false, &["expire_time"]),
        (None, at(now + year + 60, 0), false, &["expire_time"]),
        (None, at(now + 60, 1_000_000_000), false, &["expire_time"]),
        (None, at(i64::MIN, 0), false, &["expire_time"]),
        (None, at(i64::MAX, 0), false, &["expire_time"]),
        (
            ttl(0, 0),
            at(now - 1, 0),
            false,
            &["ttl", "ttl", "expire_time"],
        ),
    ] {
        let request = GrantRequest {
            ttl,
            expire_time,
            permanent,
            ..whole.clone()
        };
        Refusal::from(client.grant(request).await).names(fields);
    }
    nothing_was_queued(&world).await;
}
