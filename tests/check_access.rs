//! `CheckAccess` against the emulator: by permissions, at every scope, and closed wherever Azure is silent.
#![cfg(feature = "dev")]
#![expect(
    clippy::expect_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "check_access/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::broker::check::{Asked, CheckError, OwnEffect, OwnRecord};
use aks_access_broker::broker::clusters::{ClusterError, ClusterQuery, Clusters};
use aks_access_broker::broker::page::PageSize;
use aks_access_broker::broker::request::{RequestedAccess, RequestedRole};
use aks_access_broker::broker::roles::{RoleError, Roles};
use aks_access_broker::domain::access::{Principal, PrincipalType, RoleAtScope};
use aks_access_broker::domain::evaluate::Decision;
use aks_access_broker::domain::grant::Expiry;
use aks_access_broker::domain::ids::{PrincipalId, RoleDefinitionId, Scope, SubscriptionId};
use aks_access_broker::domain::ownership::assignment_name;
use aks_access_broker::domain::reason::Reason;
use aks_access_broker::domain::role::{BuiltInRole, CLUSTER_ADMIN_ROLE};
use azure_emulator::{CustomRole, Fault, FaultEffect, Operation};
use jiff::{SignedDuration, Timestamp};
use uuid::{Uuid, uuid};
use world::{
    CAROL, DEVELOPMENT, ENGINEERING, INSTANCE, PRODUCTION, asks, cluster_named, nothing_of_our_own,
    person, production, reasons, world,
};

#[tokio::test]
async fn somebody_without_any_role_is_denied_and_told_what_is_missing() {
    let world = world().await;
    let checked = world
        .ask(&asks(production(), BuiltInRole::RbacReader, &[]))
        .await;
    assert_eq!(checked.answer.decision, Decision::Denied);
    assert_eq!(
        reasons(&checked.answer.cluster_access),
        BTreeSet::from(["NO_CLUSTER_USER_ROLE"])
    );
    assert_eq!(
        reasons(&checked.answer.permission),
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
                checked.answer.permission.decision, expected,
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
    assert_eq!(checked.answer.decision, Decision::Allowed);
    let path = &checked.answer.permission.paths[0];
    assert!(path.inherited && !path.managed);
    assert_eq!(path.via, Some(PrincipalId::new(ENGINEERING)));
    assert_eq!(checked.answer.expire_time, None);

    let of_the_group = Asked {
        principal: Principal::unnamed(PrincipalId::new(ENGINEERING), PrincipalType::Group),
        ..asks(production(), BuiltInRole::RbacWriter, &[])
    };
    assert_eq!(
        world.ask(&of_the_group).await.answer.decision,
        Decision::Allowed
    );
    let of_another = Asked {
        principal: Principal::unnamed(
            PrincipalId::new(uuid!("20000000-0000-4000-8000-000000000002")),
            PrincipalType::Group,
        ),
        ..of_the_group
    };
    let checked = world.ask(&of_another).await;
    assert_eq!(checked.answer.decision, Decision::Denied);
    assert!(reasons(&checked.answer.permission).contains("GROUP_MEMBERSHIPS_NOT_READ"));
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
        assert_eq!(checked.answer.decision, expected, "{namespaces:?}");
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
    assert_eq!(checked.answer.decision, Decision::Conditional);
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
    let request = Asked {
        access: RequestedAccess {
            role: RequestedRole::Definition(RoleDefinitionId::new(id)),
            namespaces: BTreeSet::new(),
        },
        ..asks(production(), BuiltInRole::RbacReader, &[])
    };
    assert_eq!(world.ask(&request).await.answer.decision, Decision::Allowed);
    let subscription = SubscriptionId::new(PRODUCTION);
    let role = world
        .roles
        .assignable(subscription, request.access.role)
        .await
        .expect("it may be granted");
    assert_eq!(role.display_name(), "Pod readers");

    world
        .emulator
        .add_custom_role(custom(pods, Some("*/read")))
        .expect("a role");
    let fresh = Roles::new(world.azure.clone(), Duration::from_mins(1));
    let refused = fresh.assignable(subscription, request.access.role).await;
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
async fn what_we_did_within_the_lag_is_laid_over_what_azure_lists() {
    let world = world().await;
    let now = Timestamp::now();
    let at = RoleAtScope {
        role: BuiltInRole::RbacClusterAdmin.id(),
        scope: Scope::Cluster(production()),
    };
    let principal = PrincipalId::new(CAROL);
    let expiry = now + SignedDuration::from_hours(1);
    let own = |present: bool, changed: Timestamp| OwnRecord {
        instance: INSTANCE,
        cluster_uid: String::new(),
        effects: vec![OwnEffect {
            name: assignment_name(INSTANCE, &at, principal, 0),
            at: at.clone(),
            present,
            changed,
            grants: Vec::new(),
            expiry: Expiry::At(expiry),
        }],
    };
    let request = asks(production(), BuiltInRole::RbacReader, &["team-a"]);
    let moment = SignedDuration::from_secs(5);
    let checked = world
        .check
        .check_access(&request, &own(true, now - moment), now)
        .await
        .expect("an answer");
    assert_eq!(checked.answer.decision, Decision::Allowed);
    assert_eq!(checked.answer.expire_time, Some(expiry));
    assert!(checked.answer.permission.paths[0].managed);
    let at_another = OwnRecord {
        cluster_uid: "of a cluster that stood under this id before".to_owned(),
        ..own(true, now - moment)
    };
    let checked = world
        .check
        .check_access(&request, &at_another, now)
        .await
        .expect("an answer");
    assert_eq!(checked.answer.decision, Decision::Denied, "i9");
    let long_ago = now - SignedDuration::from_hours(1);
    let checked = world
        .check
        .check_access(&request, &own(true, long_ago), now)
        .await
        .expect("an answer");
    assert_eq!(checked.answer.decision, Decision::Denied);

    let name = assignment_name(INSTANCE, &at, principal, 0);
    world
        .azure
        .put_role_assignment(
            name,
            &at,
            principal,
            PrincipalType::User,
            "ours",
            Uuid::new_v4(),
        )
        .await
        .expect("it is made");
    let checked = world
        .check
        .check_access(&request, &own(false, now - moment), now)
        .await
        .expect("an answer");
    assert_eq!(checked.answer.decision, Decision::Denied);
    let checked = world
        .check
        .check_access(&request, &own(false, long_ago), now)
        .await
        .expect("an answer");
    assert_eq!(checked.answer.decision, Decision::Allowed);
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
    assert_eq!(checked.answer.decision, Decision::Denied);
    assert_eq!(checked.answer.cluster_access.decision, Decision::Allowed);
    assert!(reasons(&checked.answer.permission).contains("AZURE_RBAC_DISABLED"));
    let checked = world
        .ask(&asks(kubernetes_rbac, BuiltInRole::ClusterUser, &[]))
        .await;
    assert_eq!(checked.answer.decision, Decision::Allowed);

    let no_entra = cluster_named(DEVELOPMENT, "rg-legacy", "aks-no-entra");
    let checked = world
        .ask(&asks(no_entra, BuiltInRole::ClusterUser, &[]))
        .await;
    assert_eq!(checked.answer.decision, Decision::Denied);
    assert!(reasons(&checked.answer.cluster_access).contains("ENTRA_INTEGRATION_REQUIRED"));
}

#[tokio::test]
async fn i9_whatever_cannot_be_read_is_an_error_and_never_an_answer() {
    let world = world().await;
    let cluster_admin = BuiltInRole::RbacClusterAdmin.id().guid();
    world.assign(production().as_str(), cluster_admin, CAROL, None);
    let request = asks(production(), BuiltInRole::RbacReader, &["team-a"]);
    for operation in [
        Operation::ManagedClusterRead,
        Operation::RoleDefinitionRead,
        Operation::RoleAssignmentList,
        Operation::RoleAssignmentList,
    ] {
        let fault = Fault::once(operation, FaultEffect::CutBeforeCommit);
        world.emulator.add_fault(fault);
        let error = world
            .check
            .check_access(&request, &nothing_of_our_own(), Timestamp::now())
            .await
            .expect_err("no answer");
        assert_eq!(
            error.reason(),
            Reason::AzureUnavailable,
            "{operation}: {error}"
        );
    }
    assert_eq!(world.ask(&request).await.answer.decision, Decision::Allowed);

    let nowhere = cluster_named(PRODUCTION, "rg-production", "no-such");
    let error = world
        .check
        .check_access(
            &asks(nowhere, BuiltInRole::RbacReader, &[]),
            &nothing_of_our_own(),
            Timestamp::now(),
        )
        .await
        .expect_err("no cluster");
    assert!(
        matches!(error, CheckError::Cluster(ClusterError::NotFound { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn concurrent_questions_about_a_cluster_read_it_once() {
    let world = world().await;
    let request = asks(production(), BuiltInRole::RbacReader, &[]);
    let questions = (0..16).map(|_| world.ask(&request));
    futures::future::join_all(questions).await;
    assert_eq!(world.calls(Operation::ManagedClusterRead), 1);
    assert_eq!(world.calls(Operation::RoleDefinitionRead), 1);
    assert_eq!(world.calls(Operation::RoleAssignmentList), 16);
    world
        .clusters
        .get_fresh(&production())
        .await
        .expect("a cluster");
    assert_eq!(world.calls(Operation::ManagedClusterRead), 2);
}

#[tokio::test]
async fn clusters_are_listed_by_page_and_by_name_and_what_is_out_of_reach_is_named() {
    let world = world().await;
    let mut query = ClusterQuery {
        name: String::new(),
        size: PageSize::try_new(2).expect("a size"),
        token: String::new(),
    };
    let mut names = Vec::new();
    loop {
        let page = world.clusters.list(&query).await.expect("a page");
        assert!(page.clusters.len() <= 2 && page.unreachable.is_empty());
        names.extend(page.clusters.iter().map(|cluster| cluster.name.clone()));
        if page.next.is_empty() {
            break;
        }
        query.token = page.next;
    }
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(world.calls(Operation::ManagedClusterList), 2);
    query.name = "AKS-Production".to_owned();
    assert!(
        world.clusters.list(&query).await.is_err(),
        "a token of another filter"
    );
    query.token = String::new();
    let page = world.clusters.list(&query).await.expect("a page");
    assert_eq!(page.clusters.len(), 1);

    let unknown = SubscriptionId::new(Uuid::from_u128(1));
    let subscriptions = BTreeSet::from([SubscriptionId::new(PRODUCTION), unknown]);
    let clusters = Clusters::new(world.azure.clone(), subscriptions, Duration::from_mins(1));
    query.name = String::new();
    let page = clusters.list(&query).await.expect("a page");
    assert_eq!((page.clusters.len(), page.unreachable), (2, vec![unknown]));
    let elsewhere = cluster_named(DEVELOPMENT, "rg-development", "aks-development");
    let error = clusters.get(&elsewhere).await.expect_err("not managed");
    assert_eq!(error.reason(), Reason::ClusterNotFound);
}
