//! Who is refused whatever is assigned, and what a denial says beside that.

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{
    Access, AzureRole, CheckAccessRequest, Decision, PrincipalRef, PrincipalType,
};
use azure_emulator::{
    DenyAssignment, Fault, FaultEffect, Group, Operation, Principal, Scope, ServicePrincipal, User,
};
use tonic::Code;
use uuid::{Uuid, uuid};

use super::support::ask::{now, principal, user};
use super::support::refusal::Refusal;
use super::{
    ALICE, Asked, CLUSTER_ADMIN, CLUSTER_USER, ENGINEERING, PAYMENTS, READER, reasons, to,
};

/// *Reader*: of everything, at the control plane.
const GENERAL_READER: Uuid = uuid!("acdd72a7-3385-48ef-bd42-f606fba81ae7");

/// Whoever AKS refuses whatever is assigned is refused here.
#[tokio::test]
async fn i9_some_are_refused_whatever_is_assigned_to_them() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    let [robot, system, deleted] = [201, 202, 203].map(Uuid::from_u128);
    let emulator = &asked.world.emulator;
    let robots = ServicePrincipal {
        id: robot,
        app_id: Uuid::from_u128(301),
        display_name: "Robot".to_owned(),
        account_enabled: true,
        secrets: Vec::new(),
        federated_credentials: Vec::new(),
        graph_permissions: Vec::new(),
        app_role_assignments: Vec::new(),
    };
    let person = |id: Uuid, name: &str| {
        Principal::User(User {
            id,
            display_name: name.to_owned(),
            user_principal_name: format!("{name}@contoso.example"),
            account_enabled: true,
        })
    };
    let group = |number: u128| {
        Principal::Group(Group {
            id: Uuid::from_u128(1_000 + number),
            display_name: format!("group {number}"),
            security_enabled: true,
            members: vec![robot],
        })
    };
    let principals = [
        Principal::ServicePrincipal(robots),
        person(system, "System:robot"),
        person(deleted, "gone"),
    ];
    for principal in principals.into_iter().chain((0..200).map(group)) {
        emulator.add_principal(principal).expect("it is added");
    }
    for who in [robot, system, deleted] {
        asked.assign(&cluster, CLUSTER_USER, who);
        asked.assign(&cluster, CLUSTER_ADMIN, who);
    }
    let by_name = PrincipalRef {
        user_principal_name: "System:robot@contoso.example".to_owned(),
        ..PrincipalRef::default()
    };
    let pods = || to("list", "pods", "web");
    // Two hundred groups are not too many, and one more is, whatever the caller says that it is.
    let robots = principal(robot, PrincipalType::ServicePrincipal);
    let answer = asked.ask(robots.clone(), pods()).await;
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let answer = asked.ask(user(deleted), pods()).await;
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let emulator = &asked.world.emulator;
    emulator.add_principal(group(200)).expect("it is added");
    emulator.delete_principal(deleted).expect("it is deleted");
    for (who, reason) in [
        (robots, "TOO_MANY_GROUPS"),
        (user(robot), "TOO_MANY_GROUPS"),
        (by_name, "SYSTEM_NAME"),
        (user(deleted), "PRINCIPAL_NOT_IN_DIRECTORY"),
    ] {
        let answer = asked.ask(who.clone(), pods()).await;
        let permission = answer.permission.expect("a layer");
        assert_eq!(permission.decision(), Decision::Denied, "{who:?}");
        assert!(reasons(&permission).contains(reason), "{permission:?}");
    }
    // While the directory is away, nobody says how many groups a service principal is in, whatever it is called.
    let away = Fault::always(Operation::GetMemberGroups, FaultEffect::CutBeforeCommit);
    asked.world.emulator.add_fault(away);
    let question = CheckAccessRequest {
        principal: Some(user(robot)),
        cluster: asked.cluster.clone(),
        request: Some(pods()),
        consistency: Some(now()),
        ..CheckAccessRequest::default()
    };
    let refusal = Refusal::from(asked.client.check_access(question).await);
    assert_eq!(refusal.code, Code::Unavailable, "{}", refusal.reason);
}

/// Deny assignments do not stop administrators of the cluster itself, and say nothing of what else is missing elsewhere.
#[tokio::test]
async fn what_a_deny_assignment_takes_away_hides_no_other_way() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    let mut world = asked.world.emulator.world();
    let known = world
        .clusters
        .iter_mut()
        .find(|it| it.name == "aks-production");
    let mut changed = known.expect("it").clone();
    let entra = changed.entra.as_mut().expect("integrated with Entra");
    entra.admin_groups = vec![ENGINEERING];
    asked
        .world
        .emulator
        .put_cluster(changed)
        .expect("it is changed");
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    asked.assign(&format!("{cluster}/namespaces/web"), READER, ALICE);
    asked.assign(&format!("{cluster}/namespaces/shop"), READER, PAYMENTS);
    let web = Scope::parse(&format!("{cluster}/namespaces/web")).expect("a scope");
    let pods = "Microsoft.ContainerService/managedClusters/*";
    let deny = DenyAssignment::for_everyone(web, "not in web", &[pods]);
    asked
        .world
        .emulator
        .put_deny_assignment(deny)
        .expect("it is made");
    let layer = asked.may(ALICE, to("list", "pods", "web")).await;
    let found = reasons(&layer);
    assert!(
        found.contains("DENY_ASSIGNMENT") && found.contains("ADMIN_GROUP_MEMBER"),
        "{found:?}"
    );
    assert!(!found.contains("PERMISSION_NOT_HELD"), "{found:?}");
    let both = Access {
        azure_role: AzureRole::RbacReader.into(),
        namespaces: vec!["web".to_owned(), "shop".to_owned()],
        ..Access::default()
    };
    let layer = asked.holds(ALICE, both).await;
    let expected = [
        "DENY_ASSIGNMENT",
        "PERMISSION_NOT_HELD",
        "GROUP_MEMBERSHIP_MISSING",
    ];
    let found = reasons(&layer);
    assert!(found.is_superset(&BTreeSet::from(expected)), "{found:?}");
}

/// What an answer could do without, and had to, is told with it.
#[tokio::test]
async fn what_an_answer_had_to_do_without_is_told() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    asked.assign(&format!("{cluster}/namespaces/web"), READER, ALICE);
    let emulator = &asked.world.emulator;
    for operation in [Operation::FleetList, Operation::GetMemberGroups] {
        let away = Fault::always(operation, FaultEffect::CutBeforeCommit);
        emulator.add_fault(away);
    }
    // What she holds in person is enough, whatever her groups and a fleet would give besides.
    let layer = asked.may(ALICE, to("list", "pods", "web")).await;
    assert_eq!(layer.decision(), Decision::Allowed, "{layer:?}");
    assert!(reasons(&layer).contains("GROUPS_NOT_READ"), "{layer:?}");
    asked.world.emulator.clear_faults();
    let away = Fault::always(Operation::FleetList, FaultEffect::CutBeforeCommit);
    asked.world.emulator.add_fault(away);
    let layer = asked.may(ALICE, to("list", "pods", "shop")).await;
    assert_eq!(layer.decision(), Decision::Denied, "{layer:?}");
    assert!(reasons(&layer).contains("FLEET_NOT_READ"), "{layer:?}");
    // A role that says nothing about what is in a cluster gives nothing that could be held.
    let general = Access {
        role_definition_id: GENERAL_READER.to_string(),
        ..Access::default()
    };
    let layer = asked.holds(ALICE, general).await;
    assert_eq!(layer.decision(), Decision::Denied);
    assert!(reasons(&layer).contains("ROLE_GIVES_NOTHING"), "{layer:?}");
}
