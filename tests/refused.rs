//! What the broker refuses: clearly, with the reason, and before anything is queued.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used)]

mod support;

use aks_access_broker::grpc::proto::{Access, AzureRole, GrantRequest};
use azure_emulator::{CustomRole, Operation, Permissions, Scope};
use support::ask::{access, permanent};
use support::{Timing, World};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_ADMIN: &str = "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8";
const CONTROL_PLANE: &str = "99999999-9999-4999-8999-999999999999";

fn by_definition(id: &str) -> Access {
    Access {
        role_definition_id: id.to_owned(),
        ..Access::default()
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no details: {status:?}"));
    info.reason.clone()
}

/// A custom role with a data action of clusters and a control-plane action besides.
fn control_plane_role(world: &World) -> CustomRole {
    let subscription = world.emulator.world().subscriptions[0].id;
    CustomRole {
        id: CONTROL_PLANE.parse().unwrap(),
        name: "Pod Reader and more".to_owned(),
        description: String::new(),
        assignable_scopes: vec![Scope::parse(&format!("/subscriptions/{subscription}")).unwrap()],
        permissions: vec![Permissions {
            actions: vec![
                "Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action"
                    .to_owned(),
            ],
            data_actions: vec!["Microsoft.ContainerService/managedClusters/pods/read".to_owned()],
            ..Permissions::default()
        }],
    }
}

#[tokio::test]
async fn i8_what_may_never_be_granted_is_refused_before_anything_is_queued() {
    let world = World::start().await;
    world
        .emulator
        .add_custom_role(control_plane_role(&world))
        .unwrap();
    let broker = world.broker(&Timing::default()).await;
    let production = world.cluster("aks-production");
    let subscription = production.split('/').nth(2).unwrap();
    let full_id = format!(
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{}",
        CLUSTER_ADMIN.to_uppercase()
    );
    let reader = || access(AzureRole::RbacReader, &[]);
    let cluster_user = access(AzureRole::ClusterUser, &[]);
    for (cluster, access, expected, word) in [
        (
            "aks-production",
            by_definition(CLUSTER_ADMIN),
            "ROLE_NOT_ALLOWED",
            "Cluster Admin",
        ),
        (
            "aks-production",
            by_definition(&full_id),
            "ROLE_NOT_ALLOWED",
            "Cluster Admin",
        ),
        (
            "aks-production",
            by_definition(CONTROL_PLANE),
            "ROLE_NOT_ALLOWED",
            "control-plane action",
        ),
        (
            "aks-no-entra",
            reader(),
            "ENTRA_INTEGRATION_REQUIRED",
            "--enable-aad",
        ),
        (
            "aks-no-entra",
            cluster_user,
            "ENTRA_INTEGRATION_REQUIRED",
            "--enable-aad",
        ),
        (
            "aks-kubernetes-rbac",
            reader(),
            "AZURE_RBAC_DISABLED",
            "--enable-azure-rbac",
        ),
    ] {
        let request = permanent(ALICE, &world.cluster(cluster), access);
        let refused = broker.client().grant(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert_eq!(reason(&refused), expected, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
        let details = refused.get_error_details();
        let violated = &details.precondition_failure().unwrap().violations[0];
        assert_eq!(violated.r#type, expected);
    }
    nothing_was_begun(&world).await;
}

#[tokio::test]
async fn a_malformed_request_is_refused_before_anything_is_queued() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let request = GrantRequest {
        request_id: "once".to_owned(),
        cluster: "aks-production".to_owned(),
        access: Some(access(AzureRole::RbacReader, &["Shop", "till", "till"])),
        ..GrantRequest::default()
    };
    let refused = broker.client().grant(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
    let expected = [
        "request_id",
        "principal",
        "cluster",
        "access.namespaces[0]",
        "access.namespaces[2]",
        "ttl",
    ];
    assert_eq!(fields, expected);
    nothing_was_begun(&world).await;
}

/// No grant, no job and no target is kept, and Azure was asked to change nothing.
async fn nothing_was_begun(world: &World) {
    let mut connection = world.redis.connection().await;
    for kind in ["grant", "job", "target", "req"] {
        let kept: Vec<String> = redis::cmd("KEYS")
            .arg(format!("{{aab:main}}:{kind}:*"))
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(kept.is_empty(), "{kept:?}");
    }
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);
}
