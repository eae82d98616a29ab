//! What the policies that come along bound: what a role can do, not what it is called.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::time::Duration;

use aks_access_broker::grpc::proto::{Access, AzureRole, GrantRequest, RevokeRequest};
use azure_emulator::{CustomRole, Fault, Operation, Permissions, Scope};
use support::ask::{access, active, extension, lasting, permanent, revocation};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, out_of_order};
use tonic::Code;
use uuid::{Uuid, uuid};

const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const OWN_ROLE: Uuid = uuid!("60000000-0000-4000-8000-000000000001");
const HOUR: Duration = Duration::from_hours(1);
const BOUND: &str = "cluster-admin-is-short-and-justified";

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let broker = BrokerProcess::start(&config).await;
    let client = broker.client();
    (world, broker, client)
}

/// The company's own role, of these data actions of clusters.
fn own_role(world: &World, id: Uuid, data_actions: &[&str], not_data_actions: &[&str]) -> Access {
    let below = |actions: &[&str]| {
        let all = actions.iter();
        let below = all.map(|it| format!("Microsoft.ContainerService/managedClusters/{it}"));
        below.collect()
    };
    let role = CustomRole {
        id,
        name: format!("Pod reader {id}"),
        description: "It looks harmless".to_owned(),
        assignable_scopes: vec![
            Scope::parse("/providers/Microsoft.Management/managementGroups/contoso").unwrap(),
        ],
        permissions: vec![Permissions {
            data_actions: below(data_actions),
            not_data_actions: below(not_data_actions),
            ..Permissions::default()
        }],
    };
    world.emulator.add_custom_role(role).expect("a role");
    Access {
        role_definition_id: id.to_string(),
        ..access(AzureRole::Unspecified, &[])
    }
}

fn at(access: Access, namespaces: &[&str]) -> Access {
    Access {
        namespaces: namespaces.iter().map(ToString::to_string).collect(),
        ..access
    }
}

/// Says whether a permanent grant without a reason is accepted; if not, a short one with a reason must be.
async fn is_bounded(world: &World, client: &mut Client, access: &Access) -> bool {
    let cluster = world.cluster("aks-production");
    let see = |request: GrantRequest| GrantRequest {
        validate_only: true,
        ..request
    };
    let reason = "INC-4711".to_owned();
    let justified = GrantRequest {
        justification: reason.clone(),
        ..lasting(BOB, &cluster, access.clone(), HOUR * 8)
    };
    client
        .grant(see(justified))
        .await
        .expect("within the bounds");
    let loose = [
        permanent(BOB, &cluster, access.clone()),
        GrantRequest {
            justification: reason,
            ..lasting(BOB, &cluster, access.clone(), HOUR * 9)
        },
        GrantRequest {
            justification: "\u{200b}".to_owned(),
            ..lasting(BOB, &cluster, access.clone(), HOUR)
        },
    ];
    let mut refused = Vec::new();
    for request in loose {
        let answer = client.grant(see(request)).await;
        refused.push(answer.is_err());
        if answer.is_err() {
            let kind = (Code::PermissionDenied, "PERMISSION_DENIED");
            assert_eq!(Refusal::from(answer).kind(), kind, "{access:?}");
            let refusals = world.refusals().await;
            assert_eq!(refusals.last().unwrap()[3], BOUND);
        }
    }
    assert!(
        refused.iter().all(|it| *it == refused[0]),
        "{access:?}: {refused:?}"
    );
    refused[0]
}

#[tokio::test]
async fn a_role_is_bounded_by_what_it_can_do_and_not_by_its_name() {
    let (world, _broker, mut client) = world().await;
    let mut number = OWN_ROLE.as_u128();
    let mut custom = |given: &[&str], taken_out: &[&str]| {
        number += 1;
        own_role(&world, Uuid::from_u128(number), given, taken_out)
    };
    let built_in = |role| access(role, &[]);
    let everything = custom(&["*"], &[]);
    let nearly = custom(&["*"], &["events/read"]);
    let piecemeal = custom(&["*/read", "*/write", "*/delete", "*/action"], &[]);
    let as_admin = custom(&["*"], &["namespaces/*", "resourcequotas/*"]);
    let binds = custom(
        &["rbac.authorization.k8s.io/clusterrolebindings/write"],
        &[],
    );
    let impersonates = custom(&["*/impersonate/action"], &[]);
    let writes_pods = custom(&["pods/write"], &[]);
    let execs = custom(&["pods/exec/action"], &[]);
    let reads = custom(&["*"], &["*/write", "*/delete", "*/action"]);
    let (whole, shop, system): (&[&str], &[&str], &[&str]) = (&[], &["shop"], &["kube-system"]);
    for (role, expected) in [
        (&built_in(AzureRole::RbacClusterAdmin), [true, true, true]),
        (&built_in(AzureRole::RbacAdmin), [true, false, true]),
        (&built_in(AzureRole::RbacWriter), [false, false, true]),
        (&built_in(AzureRole::RbacReader), [false, false, false]),
        (&everything, [true, true, true]),
        (&nearly, [true, true, true]),
        (&piecemeal, [true, true, true]),
        (&as_admin, [true, false, true]),
        (&binds, [true, false, true]),
        (&impersonates, [true, false, true]),
        (&writes_pods, [false, false, true]),
        (&execs, [false, false, true]),
        (&reads, [false, false, false]),
    ] {
        for (namespaces, expected) in [whole, shop, system].into_iter().zip(expected) {
            let access = at(role.clone(), namespaces);
            let bounded = is_bounded(&world, &mut client, &access).await;
            assert_eq!(bounded, expected, "{access:?}");
        }
    }
    // One namespace among others.
    let mixed = access(AzureRole::RbacWriter, &["shop", "kube-system"]);
    assert!(is_bounded(&world, &mut client, &mixed).await);
}

/// An extension is judged by what the role can do by now, and a revocation by nothing of the kind.
#[tokio::test]
async fn a_role_that_was_widened_is_extended_within_the_bounds_of_what_it_can_do_now() {
    let (world, broker, mut client) = world().await;
    let role = own_role(&world, OWN_ROLE, &["pods/read"], &[]);
    let cluster = world.cluster("aks-production");
    let request = lasting(BOB, &cluster, role, HOUR);
    let grant = active(&mut client, request).await;
    own_role(&world, OWN_ROLE, &["*"], &[]);
    let longer = extension(&grant.grant_id, HOUR * 2);
    let refusal = Refusal::from(client.extend_grant(longer.clone()).await);
    assert_eq!(
        refusal.kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    assert_eq!(world.refusals().await.last().unwrap()[3], BOUND);
    let justified = aks_access_broker::grpc::proto::ExtendGrantRequest {
        justification: "INC-4711".to_owned(),
        ..longer
    };
    client.extend_grant(justified).await.expect("accepted");

    // Nobody can read the role: it is taken away all the same.
    let away = out_of_order();
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleDefinitionRead, away));
    let later = extension(&grant.grant_id, HOUR * 3);
    let refusal = Refusal::from(client.extend_grant(later).await);
    assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_UNAVAILABLE"));
    let revoke: RevokeRequest = revocation(&grant.grant_id);
    client.revoke(revoke).await.expect("accepted");
    drop(broker);
}

/// What cannot be read counts as everything: a policy that lets callers take away only the lesser roles takes this one
/// for a greater one.
#[tokio::test]
async fn what_a_revocation_cannot_read_counts_as_everything() {
    let world = World::start().await;
    let policies = world.dir.path().join("lesser");
    std::fs::create_dir(&policies).unwrap();
    let text = r#"
        permit (principal, action in [AksAccess::Action::"Grant", AksAccess::Action::"Read"], resource);
        permit (principal, action == AksAccess::Action::"Revoke", resource) unless { context.power.everything };
    "#;
    std::fs::write(policies.join("lesser.cedar"), text).unwrap();
    let config = world.config_of_policies(&Timing::default(), Some(&policies));
    let broker = BrokerProcess::start(&config).await;
    let role = own_role(&world, OWN_ROLE, &["pods/read"], &[]);
    let request = permanent(BOB, &world.cluster("aks-production"), role);
    let grant = active(&mut broker.client(), request).await;
    let away = out_of_order();
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleDefinitionRead, away));
    // One that has never read the role.
    let newcomer = BrokerProcess::start(&config).await;
    let mut client = newcomer.client();
    let refusal = Refusal::from(client.revoke(revocation(&grant.grant_id)).await);
    assert_eq!(
        refusal.kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    world.emulator.clear_faults();
    let accepted = client.revoke(revocation(&grant.grant_id)).await;
    accepted.expect("it is a lesser one");
}
