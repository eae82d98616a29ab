//! `CheckAccess` against the emulator: by permissions, at every scope, and closed wherever Azure is silent.
#![cfg(feature = "dev")]
#![expect(
    clippy::expect_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;
#[path = "check_access/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::broker::Need;
use aks_access_broker::broker::check::{Asked, CheckError};
use aks_access_broker::broker::clusters::{ClusterError, ClusterQuery, Clusters};
use aks_access_broker::broker::page::{InvalidPageToken, PageSize};
use aks_access_broker::broker::request::{Question, RequestedAccess, RequestedRole};
use aks_access_broker::broker::roles::{RoleError, Roles};
use aks_access_broker::domain::access::{Principal, PrincipalType};
use aks_access_broker::domain::cluster::Cluster;
use aks_access_broker::domain::evaluate::Decision;
use aks_access_broker::domain::ids::{PrincipalId, RoleDefinitionId, SubscriptionId};
use aks_access_broker::domain::reason::Reason;
use aks_access_broker::domain::role::{BuiltInRole, CLUSTER_ADMIN_ROLE};
use azure_emulator::{CustomRole, Fault, FaultEffect, Operation};
use uuid::{Uuid, uuid};
use world::{
    CAROL, DEVELOPMENT, ENGINEERING, PRODUCTION, asks, cluster_named, person, production, reasons,
    world,
};

/// Whoever asks sees all clusters.
#[expect(clippy::unnecessary_wraps, reason = "the list asks for a result")]
fn everything(_: &Cluster) -> Result<bool, InvalidPageToken> {
    Ok(true)
}

#[tokio::test]
async fn somebody_without_any_role_is_denied_and_told_what_is_missing() {
    let world = world().await;
    let checked = world
        .ask(&asks(production(), BuiltInRole::RbacReader, &[]))
        .await;
    assert_eq!(checked.decision, Decision::Denied);
    assert_eq!(
        reasons(&checked.cluster_access),
        BTreeSet::from(["NO_CLUSTER_USER_ROLE"])
    );
    assert_eq!(
        reasons(&checked.permission),
        BTreeSet::from(["PERMISSION_NOT_HELD", "KUBERNETES_BINDINGS_NOT_READ"])
    );
}

#[tokio::test]
async fn azure_s_own_roles_contain_each_other_as_their_definitions_say() {
    use BuiltInRole::{ClusterUser, RbacAdmin, RbacClusterAdmin, RbacReader, RbacWriter};
    let world = world().await;
    // *RBAC Admin* and *RBAC Cluster Admin* let fetch the credentials themselves, the other two do not.
    for (held, contained) in [
        (ClusterUser, &[ClusterUser][..]),
        (RbacReader, &[RbacReader]),
        (RbacWriter, &[RbacReader, RbacWriter]),
        (RbacAdmin, &[ClusterUser, RbacReader, RbacWriter, RbacAdmin]),
        (RbacClusterAdmin, &BuiltInRole::ALL),
    ] {
        let principal = Uuid::new_v4();
        let user = azure_emulator::Principal::User(azure_emulator::User {
            id: principal,
            display_name: held.to_string(),
            user_principal_name: format!("{principal}@contoso.example"),
            account_enabled: true,
        });
        world.emulator.add_principal(user).expect("a user");
        world.assign(production().as_str(), held.id().guid(), principal, None);
        for asked in BuiltInRole::ALL {
            let request = Asked {
                principal: person(principal),
                ..asks(production(), asked, &[])
            };
            let checked = world.ask(&request).await;
            let expected = if contained.contains(&asked) {
                Decision::Allowed
            } else {
                Decision::Denied
            };
            assert_eq!(
                checked.permission.decision, expected,
                "{held} held, {asked} asked"
            );
        }
    }
}

#[tokio::test]
async fn roles_of_groups_count_and_so_do_those_from_far_above() {
    let world = world().await;
    let above = "/providers/Microsoft.Management/managementGroups/contoso";
    world.assign(above, BuiltInRole::RbacAdmin.id().guid(), ENGINEERING, None);
    let checked = world
        .ask(&asks(
            production(),
            BuiltInRole::RbacWriter,
            &["team-a", "team-b"],
        ))
        .await;
    assert_eq!(checked.decision, Decision::Allowed);
    let path = &checked.permission.paths[0];
    assert!(path.inherited && !path.managed);
    assert_eq!(path.via, [PrincipalId::new(ENGINEERING)]);
    assert_eq!(checked.expire_time, None);

    let of_the_group = Asked {
        principal: Principal::unnamed(PrincipalId::new(ENGINEERING), PrincipalType::Group),
        ..asks(production(), BuiltInRole::RbacWriter, &[])
    };
    assert_eq!(world.ask(&of_the_group).await.decision, Decision::Allowed);
    let of_another = Asked {
        principal: Principal::unnamed(
            PrincipalId::new(uuid!("20000000-0000-4000-8000-000000000002")),
            PrincipalType::Group,
        ),
        ..of_the_group
    };
    // Platform is in engineering, and cluster admins are not.
    assert_eq!(world.ask(&of_another).await.decision, Decision::Allowed);
    let cluster_admins = PrincipalId::new(uuid!("20000000-0000-4000-8000-000000000005"));
    let of_a_third = Asked {
        principal: Principal::unnamed(cluster_admins, PrincipalType::Group),
        ..of_another
    };
    assert_eq!(world.ask(&of_a_third).await.decision, Decision::Denied);
}

#[tokio::test]
async fn a_role_in_one_namespace_permits_nothing_in_another() {
    let world = world().await;
    let cluster = production();
    world.assign(
        cluster.as_str(),
        BuiltInRole::ClusterUser.id().guid(),
        CAROL,
        None,
    );
    let in_team_a = format!("{cluster}/namespaces/team-a");
    world.assign(&in_team_a, BuiltInRole::RbacReader.id().guid(), CAROL, None);
    for (namespaces, expected) in [
        (&["team-a"][..], Decision::Allowed),
        (&["team-b"], Decision::Denied),
        (&["team-a", "team-b"], Decision::Denied),
        (&[], Decision::Denied),
    ] {
        let checked = world
            .ask(&asks(cluster.clone(), BuiltInRole::RbacReader, namespaces))
            .await;
        assert_eq!(checked.decision, expected, "{namespaces:?}");
    }
}

#[tokio::test]
async fn a_conditional_assignment_makes_the_answer_conditional() {
    let world = world().await;
    let condition = Some("@Request[subOperation] StringEquals 'x'");
    let admin = BuiltInRole::RbacClusterAdmin.id().guid();
    world.assign(production().as_str(), admin, CAROL, condition);
    let checked = world
        .ask(&asks(production(), BuiltInRole::RbacReader, &[]))
        .await;
    assert_eq!(checked.decision, Decision::Conditional);
}

#[tokio::test]
async fn custom_roles_are_judged_by_what_they_give() {
    let world = world().await;
    let id = Uuid::from_u128(77);
    let subscription = format!("/subscriptions/{PRODUCTION}");
    let custom = |data_action: &str, action: Option<&str>| CustomRole {
        id,
        name: "Pod readers".to_owned(),
        description: String::new(),
        assignable_scopes: vec![azure_emulator::Scope::parse(&subscription).expect("a scope")],
        permissions: vec![azure_emulator::Permissions {
            actions: action.into_iter().map(ToOwned::to_owned).collect(),
            data_actions: vec![data_action.to_owned()],
            ..azure_emulator::Permissions::default()
        }],
    };
    let pods = "Microsoft.ContainerService/managedClusters/pods/read";
    world
        .emulator
        .add_custom_role(custom(pods, None))
        .expect("a role");
    for role in [BuiltInRole::ClusterUser, BuiltInRole::RbacReader] {
        world.assign(production().as_str(), role.id().guid(), CAROL, None);
    }
    let asked = RequestedRole::Definition(RoleDefinitionId::new(id));
    let request = Asked {
        asks: Question::Access(RequestedAccess {
            role: asked,
            namespaces: BTreeSet::new(),
        }),
        ..asks(production(), BuiltInRole::RbacReader, &[])
    };
    assert_eq!(world.ask(&request).await.decision, Decision::Allowed);
    let subscription = SubscriptionId::new(PRODUCTION);
    let role = world
        .roles
        .assignable(subscription, asked)
        .await
        .expect("it may be granted");
    assert_eq!(role.display_name(), "Pod readers");

    world
        .emulator
        .add_custom_role(custom(pods, Some("*/read")))
        .expect("a role");
    let fresh = Roles::new(world.azure.clone(), Duration::from_mins(1));
    let refused = fresh.assignable(subscription, asked).await;
    assert!(
        matches!(refused, Err(RoleError::NotAllowed(_))),
        "i8: {refused:?}"
    );
    let cluster_admin = RequestedRole::Definition(CLUSTER_ADMIN_ROLE);
    let refused = fresh.assignable(subscription, cluster_admin).await;
    assert!(
        matches!(refused, Err(RoleError::NotAllowed(_))),
        "i8: {refused:?}"
    );
    let unknown = RequestedRole::Definition(RoleDefinitionId::new(Uuid::from_u128(1)));
    let refused = fresh
        .assignable(subscription, unknown)
        .await
        .expect_err("none");
    assert_eq!(refused.reason(), Reason::RoleNotFound);
}

#[tokio::test]
async fn i9_clusters_that_do_not_ask_azure_permit_nothing_through_it() {
    let world = world().await;
    let everywhere = "/providers/Microsoft.Management/managementGroups/contoso";
    let cluster_admin = BuiltInRole::RbacClusterAdmin.id().guid();
    world.assign(everywhere, cluster_admin, CAROL, None);
    let kubernetes_rbac = cluster_named(DEVELOPMENT, "rg-development", "aks-kubernetes-rbac");
    let checked = world
        .ask(&asks(kubernetes_rbac.clone(), BuiltInRole::RbacReader, &[]))
        .await;
    assert_eq!(checked.decision, Decision::Denied);
    assert_eq!(checked.cluster_access.decision, Decision::Allowed);
    assert!(reasons(&checked.permission).contains("AZURE_RBAC_DISABLED"));
    let checked = world
        .ask(&asks(kubernetes_rbac, BuiltInRole::ClusterUser, &[]))
        .await;
    assert_eq!(checked.decision, Decision::Allowed);

    let no_entra = cluster_named(DEVELOPMENT, "rg-legacy", "aks-no-entra");
    let checked = world
        .ask(&asks(no_entra, BuiltInRole::ClusterUser, &[]))
        .await;
    assert_eq!(checked.decision, Decision::Denied);
    assert!(reasons(&checked.cluster_access).contains("ENTRA_INTEGRATION_REQUIRED"));
}

#[tokio::test]
async fn i9_whatever_cannot_be_read_is_an_error_and_never_an_answer() {
    let world = world().await;
    let cluster_admin = BuiltInRole::RbacClusterAdmin.id().guid();
    world.assign(production().as_str(), cluster_admin, CAROL, None);
    let request = asks(production(), BuiltInRole::RbacReader, &["team-a"]);
    for operation in [
        Operation::ManagedClusterRead,
        Operation::RoleDefinitionList,
        Operation::RoleAssignmentList,
        Operation::DenyAssignmentList,
    ] {
        let fault = Fault::once(operation, FaultEffect::CutBeforeCommit);
        world.emulator.add_fault(fault);
        let error = world.try_to_ask(&request).await.expect_err("no answer");
        assert_eq!(
            error.reason(),
            Reason::AzureUnavailable,
            "{operation}: {error}"
        );
    }
    assert_eq!(world.ask(&request).await.decision, Decision::Allowed);

    let nowhere = cluster_named(PRODUCTION, "rg-production", "no-such");
    let error = world
        .try_to_ask(&asks(nowhere, BuiltInRole::RbacReader, &[]))
        .await
        .expect_err("no cluster");
    assert!(
        matches!(error, CheckError::Cluster(ClusterError::NotFound { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_hundred_who_miss_the_same_make_one_call_each() {
    let world = world().await;
    let request = asks(production(), BuiltInRole::RbacReader, &[]);
    let minute = Duration::from_mins(1);
    let ask = |_| async {
        let need = Need::within(minute);
        let checked = world.check.check_access(&request, need, false).await;
        checked.expect("an answer")
    };
    futures::future::join_all((0..100).map(ask)).await;
    let calls = || {
        [
            Operation::ManagedClusterRead,
            Operation::RoleAssignmentList,
            Operation::DenyAssignmentList,
            Operation::RoleDefinitionList,
            Operation::GetMemberGroups,
        ]
        .map(|operation| world.calls(operation))
    };
    // Of assignments: below and above. Of roles: Azure's own and the tenant's.
    assert_eq!(calls(), [1, 2, 2, 2, 1]);
    // What is known is good for all of its subscription's clusters, and for a minute.
    ask(0).await;
    assert_eq!(calls(), [1, 2, 2, 2, 1]);
    // Whoever asks now asks Azure, all together once.
    let now = |_| world.ask(&request);
    futures::future::join_all((0..2).map(now)).await;
    let [clusters, assignments, ..] = calls();
    assert!(
        (2..=3).contains(&clusters) && (4..=6).contains(&assignments),
        "{:?}",
        calls()
    );
    world
        .clusters
        .get_fresh(&production())
        .await
        .expect("a cluster");
    assert_eq!(world.calls(Operation::ManagedClusterRead), clusters + 1);
}

#[tokio::test]
async fn clusters_are_listed_by_page_and_by_name_and_what_is_out_of_reach_is_named() {
    let world = world().await;
    let mut query = ClusterQuery {
        name: None,
        size: PageSize::try_new(2).expect("a size"),
        token: String::new(),
    };
    let mut names = Vec::new();
    loop {
        let page = world
            .clusters
            .list(&query, everything)
            .await
            .expect("a page");
        assert!(page.clusters.len() <= 2 && page.unreachable.is_empty());
        names.extend(page.clusters.iter().map(|cluster| cluster.name.clone()));
        if page.next.is_empty() {
            break;
        }
        query.token = page.next;
    }
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(world.calls(Operation::ManagedClusterList), 2);
    query.name = Some("AKS-Production".to_owned());
    assert!(
        world.clusters.list(&query, everything).await.is_err(),
        "a token of another filter"
    );
    query.token = String::new();
    let page = world
        .clusters
        .list(&query, everything)
        .await
        .expect("a page");
    assert_eq!(page.clusters.len(), 1);

    let unknown = SubscriptionId::new(Uuid::from_u128(1));
    let subscriptions = BTreeSet::from([SubscriptionId::new(PRODUCTION), unknown]);
    let minute = Duration::from_mins(1);
    let clusters = Clusters::new(
        world.azure.clone(),
        world.view.clone(),
        subscriptions,
        minute,
    );
    query.name = None;
    let page = clusters.list(&query, everything).await.expect("a page");
    assert_eq!((page.clusters.len(), page.unreachable), (2, vec![unknown]));
    let elsewhere = cluster_named(DEVELOPMENT, "rg-development", "aks-development");
    let error = clusters.get(&elsewhere).await.expect_err("not managed");
    assert_eq!(error.reason(), Reason::ClusterNotFound);
}
