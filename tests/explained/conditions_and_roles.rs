//! What a role gives, and on which conditions.

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{Access, AzureRole, Decision};
use azure_emulator::{CustomRole, Fault, FaultEffect, Operation, Permissions, Scope};
use uuid::Uuid;

use super::support::ask::user;
use super::{ALICE, Asked, CAROL, CLUSTER_ADMIN, CLUSTER_USER, READER, reasons, to};

#[tokio::test]
async fn conditions_on_custom_resources_are_evaluated_and_others_are_not() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    let attribute = "@Request[Microsoft.ContainerService/managedClusters/customResources";
    let condition = format!(
        "((!(ActionMatches{{'Microsoft.ContainerService/managedClusters/customresources/read'}})) OR \
         ({attribute}:group] StringEqualsIgnoreCase 'kyverno.io' AND {attribute}:kind] StringEqualsIgnoreCase \
         'policies'))"
    );
    asked
        .world
        .somebody_else_gives(&cluster, CLUSTER_ADMIN, ALICE, Some(&condition));
    for (resource, expected) in [
        ("policies.kyverno.io", Decision::Allowed),
        ("reports.kyverno.io", Decision::Denied),
        ("policies.example.com", Decision::Denied),
        ("pods", Decision::Allowed),
    ] {
        let layer = asked.may(ALICE, to("get", resource, "web")).await;
        assert_eq!(layer.decision(), expected, "{resource}: {layer:?}");
    }
    let unknown = Some("@Resource[Microsoft.Storage/x:name] StringEquals 'x'");
    asked.world.somebody_else_gives(
        &format!("{cluster}/namespaces/shop"),
        READER,
        CAROL,
        unknown,
    );
    asked.assign(&cluster, CLUSTER_USER, CAROL);
    let answer = asked.ask(user(CAROL), to("get", "pods", "shop")).await;
    assert_eq!(answer.decision(), Decision::Conditional);
    let permission = answer.permission.expect("a layer");
    assert_eq!(
        reasons(&permission),
        BTreeSet::from(["CONDITION_NOT_EVALUATED"])
    );
    assert_eq!(permission.paths.len(), 1);
    // Of the two that an answer rests on, the one with the condition is named.
    let other = format!("{cluster}/namespaces/other");
    asked.assign(&other, READER, CAROL);
    let both = Access {
        azure_role: AzureRole::RbacReader.into(),
        namespaces: vec!["shop".to_owned(), "other".to_owned()],
        ..Access::default()
    };
    let permission = asked.holds(CAROL, both).await;
    assert_eq!(permission.decision(), Decision::Conditional);
    let mut paths = permission.paths.iter();
    let conditional = paths.find(|path| path.scope.ends_with("/shop"));
    let conditional = conditional.expect("it rests on both");
    let told = &permission.findings[0].message;
    assert!(told.contains(&conditional.resource_id), "{told}");
    assert!(!told.contains("/namespaces/other/"), "{told}");
}

/// No list of the subscription shows a role that can be assigned in one of its resource groups alone.
#[tokio::test]
async fn a_role_of_one_resource_group_counts() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    let group = cluster.split("/providers").next().expect("a group");
    let role = CustomRole {
        id: Uuid::from_u128(98),
        name: "Pod readers".to_owned(),
        description: String::new(),
        assignable_scopes: vec![Scope::parse(group).expect("a scope")],
        permissions: vec![Permissions {
            data_actions: vec!["Microsoft.ContainerService/managedClusters/pods/read".to_owned()],
            ..Permissions::default()
        }],
    };
    let id = role.id;
    asked.world.emulator.add_custom_role(role).expect("a role");
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    asked.assign(group, id, ALICE);
    let layer = asked.may(ALICE, to("list", "pods", "web")).await;
    assert_eq!(layer.decision(), Decision::Allowed, "{layer:?}");
    assert_eq!(layer.paths[0].role, "Pod readers");
    let layer = asked.may(ALICE, to("delete", "pods", "web")).await;
    assert_eq!(layer.decision(), Decision::Denied, "{layer:?}");
    // While that role cannot be read nobody knows what it gives.
    let fault = FaultEffect::Status {
        status: 403,
        code: "AuthorizationFailed".to_owned(),
        message: "no".to_owned(),
        retry_after: None,
    };
    let fault = Fault::always(Operation::RoleDefinitionRead, fault);
    asked.world.emulator.add_fault(fault);
    let layer = asked.may(ALICE, to("list", "pods", "web")).await;
    assert_eq!(layer.decision(), Decision::Denied, "{layer:?}");
    assert!(reasons(&layer).contains("ROLE_NOT_READ"), "{layer:?}");
}
