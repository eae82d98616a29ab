//! `CheckAccess` about requests to the API server, and why: through groups, by fleets and managed namespaces, in spite
//! of deny assignments; and for a denial the finding that helps.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "explained/conditions_and_roles.rs"]
mod conditions_and_roles;
#[path = "explained/refused.rs"]
mod refused;
mod support;

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{
    Access, AccessPath, CheckAccessRequest, CheckAccessResponse, Decision, KubernetesRequest,
    Layer, PrincipalRef, PrincipalType,
};
use azure_emulator::{CustomRole, DenyAssignment, DenyEffect, Permissions, Scope};
use support::ask::{now, principal, user};
use support::broker::{BrokerProcess, Client};
use support::{Timing, World};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CAROL: Uuid = uuid!("10000000-0000-4000-8000-000000000003");
const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
const PLATFORM: Uuid = uuid!("20000000-0000-4000-8000-000000000002");
const ON_CALL: Uuid = uuid!("20000000-0000-4000-8000-000000000003");
const PAYMENTS: Uuid = uuid!("20000000-0000-4000-8000-000000000004");

const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");
const WRITER: Uuid = uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb");
const CLUSTER_ADMIN: Uuid = uuid!("b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b");
const OWNER: Uuid = uuid!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635");

struct Asked {
    world: World,
    _broker: BrokerProcess,
    client: Client,
    cluster: String,
}

impl Asked {
    async fn start() -> Self {
        let world = World::start().await;
        let broker = world.broker(&Timing::default()).await;
        Self {
            client: broker.client(),
            _broker: broker,
            cluster: world.cluster("aks-production"),
            world,
        }
    }

    fn assign(&self, scope: &str, role: Uuid, principal: Uuid) {
        self.world.somebody_else_gives(scope, role, principal, None);
    }

    async fn ask(
        &mut self,
        principal: PrincipalRef,
        request: KubernetesRequest,
    ) -> CheckAccessResponse {
        self.explained(CheckAccessRequest {
            principal: Some(principal),
            request: Some(request),
            ..CheckAccessRequest::default()
        })
        .await
    }

    /// An answer about the cluster with its reasons, as Azure is now.
    async fn explained(&mut self, question: CheckAccessRequest) -> CheckAccessResponse {
        let asked = CheckAccessRequest {
            cluster: self.cluster.clone(),
            consistency: Some(now()),
            explain: true,
            ..question
        };
        self.client
            .check_access(asked)
            .await
            .expect("an answer")
            .into_inner()
    }

    /// The permission layer of what somebody holds.
    async fn holds(&mut self, who: Uuid, access: Access) -> Layer {
        let question = CheckAccessRequest {
            principal: Some(user(who)),
            access: Some(access),
            ..CheckAccessRequest::default()
        };
        let answer = self.explained(question).await;
        answer.permission.expect("a layer")
    }

    /// The permission layer of somebody's request.
    async fn may(&mut self, who: Uuid, request: KubernetesRequest) -> Layer {
        self.ask(user(who), request)
            .await
            .permission
            .expect("a layer")
    }
}

/// `verb resource`, with `resource` as kubectl takes it: `pods`, `deployments.apps`, `pods/exec`.
fn to(verb: &str, resource: &str, namespace: &str) -> KubernetesRequest {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, api_group) = resource.split_once('.').unwrap_or((resource, ""));
    KubernetesRequest {
        verb: verb.to_owned(),
        api_group: api_group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        ..KubernetesRequest::default()
    }
}

fn reasons(layer: &Layer) -> BTreeSet<&str> {
    layer
        .findings
        .iter()
        .map(|finding| finding.reason.as_str())
        .collect()
}

fn via(path: &AccessPath) -> Vec<Uuid> {
    let groups = path.via.iter();
    groups
        .map(|group| group.object_id.parse().expect("an id"))
        .collect()
}

#[tokio::test]
async fn what_the_api_server_is_asked_decides_not_the_name_of_a_role() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    asked.assign(&format!("{cluster}/namespaces/web"), WRITER, ALICE);
    for (verb, resource, namespace, allowed) in [
        ("list", "pods", "web", true),
        ("create", "deployments.apps", "web", true),
        ("get", "secrets", "web", true),
        ("create", "pods/exec", "web", true),
        ("get", "pods/log", "web", true),
        ("create", "roles.rbac.authorization.k8s.io", "web", false),
        ("bind", "roles.rbac.authorization.k8s.io", "web", false),
        ("list", "pods", "shop", false),
        ("list", "pods", "", false),
        ("get", "nodes", "", false),
        ("*", "*", "web", false),
        ("get", "namespaces", "web", true),
        ("get", "namespaces", "", false),
    ] {
        let answer = asked.ask(user(ALICE), to(verb, resource, namespace)).await;
        let expected = if allowed {
            Decision::Allowed
        } else {
            Decision::Denied
        };
        assert_eq!(
            answer.decision(),
            expected,
            "{verb} {resource} in {namespace:?}: {answer:?}"
        );
    }
    let open = KubernetesRequest {
        verb: "get".to_owned(),
        path: "/openapi/v3".to_owned(),
        ..KubernetesRequest::default()
    };
    let answer = asked.ask(user(ALICE), open).await;
    assert_eq!(answer.decision(), Decision::Allowed);
    let permission = answer.permission.expect("a layer");
    assert_eq!(reasons(&permission), BTreeSet::from(["OPEN_TO_EVERYBODY"]));
}

#[tokio::test]
async fn every_group_between_is_named_the_principals_own_first() {
    let mut asked = Asked::start().await;
    let subscription = asked
        .cluster
        .split("/resourceGroups")
        .next()
        .expect("it")
        .to_owned();
    asked.assign(&subscription, CLUSTER_ADMIN, ENGINEERING);
    let mut layer = asked.may(CAROL, to("list", "pods", "web")).await;
    // An answer does not wait long for names, and a busy machine may have to.
    for _ in 0..10 {
        let via = layer.paths.iter().flat_map(|path| &path.via);
        if via.into_iter().all(|group| !group.display_name.is_empty()) {
            break;
        }
        layer = asked.may(CAROL, to("list", "pods", "web")).await;
    }
    let [path] = layer.paths.as_slice() else {
        panic!("{layer:?}");
    };
    assert_eq!(via(path), [ON_CALL, PLATFORM, ENGINEERING]);
    let names: Vec<&str> = path.via.iter().map(|it| it.display_name.as_str()).collect();
    assert_eq!(names, ["On-call", "Platform", "Engineering"]);
    assert!(path.inherited && !path.managed, "{path:?}");
    assert_eq!(path.role, "Azure Kubernetes Service RBAC Cluster Admin");
    // Of a group itself, too.
    let group = principal(ON_CALL, PrincipalType::Group);
    let answer = asked.ask(group, to("list", "pods", "web")).await;
    let paths = answer.permission.expect("a layer").paths;
    assert_eq!(via(&paths[0]), [PLATFORM, ENGINEERING]);
}

#[tokio::test]
async fn a_denial_says_what_is_missing() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    asked.assign(&format!("{cluster}/namespaces/web"), READER, ALICE);
    asked.assign(&cluster, CLUSTER_ADMIN, PAYMENTS);
    let answer = asked.ask(user(ALICE), to("list", "pods", "shop")).await;
    let access = answer.cluster_access.expect("a layer");
    assert_eq!(
        reasons(&access),
        BTreeSet::from(["NO_CLUSTER_USER_ROLE", "GROUP_MEMBERSHIP_MISSING"])
    );
    let permission = answer.permission.expect("a layer");
    let expected = [
        "PERMISSION_NOT_HELD",
        "ROLE_AT_OTHER_NAMESPACE",
        "GROUP_MEMBERSHIP_MISSING",
        "KUBERNETES_BINDINGS_NOT_READ",
    ];
    assert_eq!(reasons(&permission), BTreeSet::from(expected));
    let told: Vec<&str> = permission
        .findings
        .iter()
        .map(|it| it.message.as_str())
        .collect();
    let told = told.join("\n");
    for part in [
        "namespaces/web",
        &PAYMENTS.to_string(),
        "list pods in namespace shop",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    for finding in &permission.findings {
        assert!(!finding.remediation.is_empty(), "{finding:?}");
    }
    // Somebody whom the directory does not know is told so.
    let answer = asked
        .ask(user(Uuid::new_v4()), to("list", "pods", ""))
        .await;
    let permission = answer.permission.expect("a layer");
    assert!(
        reasons(&permission).contains("PRINCIPAL_NOT_IN_DIRECTORY"),
        "{permission:?}"
    );
    // A verb that a custom resource cannot have.
    let layer = asked
        .may(ALICE, to("proxy", "widgets.example.com", "web"))
        .await;
    assert!(reasons(&layer).contains("NO_SUCH_OPERATION"), "{layer:?}");
}

#[tokio::test]
async fn clusters_that_let_nobody_in_by_azure_say_so() {
    let mut asked = Asked::start().await;
    let everywhere = "/providers/Microsoft.Management/managementGroups/contoso";
    asked.assign(everywhere, CLUSTER_ADMIN, ALICE);
    asked.cluster = asked.world.cluster("aks-kubernetes-rbac");
    let answer = asked.ask(user(ALICE), to("list", "pods", "web")).await;
    assert_eq!(answer.decision(), Decision::Denied);
    assert_eq!(
        answer.cluster_access.expect("a layer").decision(),
        Decision::Allowed
    );
    let permission = answer.permission.expect("a layer");
    let expected = ["AZURE_RBAC_DISABLED", "KUBERNETES_BINDINGS_NOT_READ"];
    assert!(
        reasons(&permission).is_superset(&BTreeSet::from(expected)),
        "{permission:?}"
    );
    // It runs no more: whoever may fetch credentials has nothing of it.
    let mut cluster = asked
        .world
        .emulator
        .world()
        .clusters
        .into_iter()
        .find(|it| it.name == "aks-production")
        .expect("it");
    cluster.power_state = "Stopped".to_owned();
    asked
        .world
        .emulator
        .put_cluster(cluster)
        .expect("it is changed");
    asked.cluster = asked.world.cluster("aks-production");
    let answer = asked.ask(user(ALICE), to("list", "pods", "web")).await;
    let access = answer.cluster_access.expect("a layer");
    assert_eq!(
        (access.decision(), reasons(&access)),
        (Decision::Allowed, BTreeSet::from(["CLUSTER_STOPPED"]))
    );
}

#[tokio::test]
async fn i9_an_enforced_deny_assignment_beats_every_role_and_an_audited_one_does_not() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    asked.assign(&cluster, CLUSTER_ADMIN, ALICE);
    asked.assign(&cluster, OWNER, CAROL);
    let pods = "Microsoft.ContainerService/managedClusters/pods/*";
    let here = Scope::parse(&cluster).expect("a scope");
    let above = Scope::parse(cluster.split("/providers").next().expect("it")).expect("a scope");
    let deny =
        |scope: &Scope, name: &str| DenyAssignment::for_everyone(scope.clone(), name, &[pods]);
    let audited = DenyAssignment {
        effect: DenyEffect::Audit,
        ..deny(&here, "only looked at")
    };
    let elsewhere = DenyAssignment {
        do_not_apply_to_child_scopes: true,
        ..deny(&above, "the resource group alone")
    };
    let not_her = DenyAssignment {
        exclude_principals: vec![ALICE],
        ..deny(&here, "everybody else")
    };
    for harmless in [audited, elsewhere, not_her] {
        asked
            .world
            .emulator
            .put_deny_assignment(harmless)
            .expect("it is made");
        let layer = asked.may(ALICE, to("delete", "pods", "web")).await;
        assert_eq!(layer.decision(), Decision::Allowed, "{layer:?}");
    }
    let enforced = DenyAssignment {
        principals: vec![ENGINEERING],
        ..deny(&above, "nobody touches pods")
    };
    asked
        .world
        .emulator
        .put_deny_assignment(enforced)
        .expect("it is made");
    let layer = asked.may(ALICE, to("delete", "pods", "web")).await;
    assert_eq!(layer.decision(), Decision::Denied);
    let finding = layer
        .findings
        .iter()
        .find(|it| it.reason == "DENY_ASSIGNMENT")
        .expect("a finding");
    assert!(
        finding.message.contains("nobody touches pods"),
        "{finding:?}"
    );
    let layer = asked.may(ALICE, to("delete", "services", "web")).await;
    assert_eq!(
        layer.decision(),
        Decision::Allowed,
        "of other things it says nothing"
    );
}

#[tokio::test]
async fn a_fleet_and_a_managed_namespace_give_access_as_well() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    let (subscription, rest) = cluster.split_once("/resourceGroups/").expect("a group");
    let group = rest.split('/').next().expect("its name");
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    asked.assign(&format!("{cluster}/managedNamespaces/shop"), READER, ALICE);
    for (namespace, expected) in [("shop", Decision::Allowed), ("web", Decision::Denied)] {
        let layer = asked.may(ALICE, to("list", "pods", namespace)).await;
        assert_eq!(layer.decision(), expected, "{namespace}: {layer:?}");
    }

    // The world's own, which the cluster is a member of.
    let fleet = format!(
        "{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/fleets/fleet-production"
    );
    let id = Uuid::from_u128(99);
    asked
        .world
        .emulator
        .add_custom_role(CustomRole {
            id,
            name: "Pod readers of the fleet".to_owned(),
            description: String::new(),
            assignable_scopes: vec![Scope::parse(subscription).expect("a scope")],
            permissions: vec![Permissions {
                data_actions: vec![
                    "Microsoft.ContainerService/fleets/members/pods/read".to_owned(),
                ],
                ..Permissions::default()
            }],
        })
        .expect("a role");
    asked.assign(&format!("{fleet}/namespaces/web"), id, ALICE);
    let layer = asked.may(ALICE, to("list", "pods", "web")).await;
    assert_eq!(layer.decision(), Decision::Allowed, "{layer:?}");
    assert!(
        layer.paths[0].inherited && layer.paths[0].scope.contains("/fleets/fleet-production/"),
        "{layer:?}"
    );
    for (verb, resource, namespace) in [
        ("delete", "pods", "web"),
        ("list", "pods", "other"),
        ("list", "pods", ""),
    ] {
        let layer = asked.may(ALICE, to(verb, resource, namespace)).await;
        assert_eq!(
            layer.decision(),
            Decision::Denied,
            "{verb} {resource} {namespace}: {layer:?}"
        );
    }
}

/// A namespace by its name is in itself, as the API server says; of many it is not known in which.
#[tokio::test]
async fn one_namespace_is_asked_for_where_it_is() {
    let mut asked = Asked::start().await;
    let cluster = asked.cluster.clone();
    asked.assign(&cluster, CLUSTER_USER, ALICE);
    asked.assign(&format!("{cluster}/namespaces/web"), READER, ALICE);
    for (verb, name, expected) in [
        ("get", "web", Decision::Allowed),
        ("get", "shop", Decision::Denied),
        ("list", "web", Decision::Denied),
        ("delete", "web", Decision::Denied),
    ] {
        let request = KubernetesRequest {
            name: name.to_owned(),
            ..to(verb, "namespaces", "")
        };
        let layer = asked.may(ALICE, request).await;
        assert_eq!(layer.decision(), expected, "{verb} {name}: {layer:?}");
    }
}
