//! Worlds, questions, and an oracle that asks of every action one by one.

use proptest::prelude::*;
use uuid::Uuid;

use super::combine::wanted_by;
use super::*;
use crate::domain::assignments::{Assignments, Listed};
use crate::domain::cluster::{Cluster, tests::healthy};
use crate::domain::ids::{AssignmentName, ClusterId, RoleDefinitionId};
use crate::domain::kubernetes_request::Features;
use crate::domain::role::Permissions;
use crate::domain::snapshot::{OwnChanges, Parts};

const CLUSTER: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/rg/providers/\
                       microsoft.containerservice/managedclusters/prod";
const ME: PrincipalId = PrincipalId::new(Uuid::from_u128(7));

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::parse(CLUSTER).unwrap(),
        name: "prod".to_owned(),
        ..healthy()
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn role(actions: &[&str], data_actions: &[&str], not_data_actions: &[&str]) -> RoleDefinition {
    RoleDefinition {
        id: RoleDefinitionId::new(Uuid::from_u128(1)),
        name: "A role".to_owned(),
        custom: true,
        permissions: vec![Permissions {
            actions: texts(actions),
            data_actions: texts(data_actions),
            not_data_actions: texts(not_data_actions),
            ..Permissions::default()
        }],
    }
}

/// What somebody holds, with what its role gives.
#[derive(Clone)]
struct Has {
    scope: String,
    role: RoleDefinition,
    condition: Option<&'static str>,
    ours: Option<Expiry>,
}

/// Of this nobody can say whether it holds.
const UNKNOWN: Option<&str> = Some("@Resource[Microsoft.Storage/x:name] StringEquals 'x'");

fn held(scope: &str, role: RoleDefinition) -> Has {
    Has {
        scope: scope.to_ascii_lowercase(),
        role,
        condition: None,
        ours: None,
    }
}

/// A snapshot in which each assignment has a role of its own: what its role gives is what counts, not its name.
fn snapshot(cluster: &Cluster, held: &[Has]) -> Snapshot {
    let id = |at: usize| Uuid::from_u128(1_000 + at as u128);
    let rows = held.iter().enumerate().map(|(at, has)| Listed {
        name: AssignmentName::new(id(at)),
        scope: has.scope.clone(),
        role: RoleDefinitionId::new(id(at)),
        holder: ME,
        holder_kind: Some(PrincipalType::User),
        condition: has.condition.map(ToOwned::to_owned),
        ours: has.ours,
    });
    let roles = held.iter().enumerate().map(|(at, has)| {
        let id = RoleDefinitionId::new(id(at));
        let role = RoleDefinition {
            id,
            ..has.role.clone()
        };
        (id, Some(Arc::new(role)))
    });
    Snapshot::new(&Parts {
        cluster: Arc::new(cluster.clone()),
        assignments: Arc::new(Assignments::new(rows)),
        denies: Arc::from([]),
        fleet: None,
        fleet_not_read: false,
        own: OwnChanges::default(),
        roles: roles.collect(),
        judgements: Judgements::new(Features {
            custom_resources: true,
            subresources: true,
        }),
    })
}

fn user_role() -> RoleDefinition {
    RoleDefinition {
        id: BuiltInRole::ClusterUser.id(),
        ..role(
            &[
                CLUSTER_ACCESS,
                "Microsoft.ContainerService/managedClusters/read",
            ],
            &[],
            &[],
        )
    }
}

fn ask(cluster: &Cluster, role: &RoleDefinition, namespaces: &[&str], held: &[Has]) -> Answer {
    let namespaces = namespaces
        .iter()
        .map(|name| Namespace::parse(name).unwrap())
        .collect();
    let snapshot = snapshot(cluster, held);
    let question = Question {
        principal: &Principal::unnamed(ME, PrincipalType::User),
        groups: &[],
        asks: Asks::Access {
            role: &Arc::new(role.clone()),
            namespaces: &namespaces,
        },
    };
    let answer = snapshot.explain(&question);
    let verdict = snapshot.decide(&question);
    assert_eq!(verdict.decision(), answer.decision, "why and what differ");
    assert_eq!(verdict.expire_time, answer.expire_time);
    answer
}

fn reasons(layer: &Layer) -> Vec<&'static str> {
    layer
        .findings
        .iter()
        .map(|finding| finding.reason)
        .collect()
}

const PODS: &str = "Microsoft.ContainerService/managedClusters/pods/read";
const ALL: &str = "microsoft.containerservice/managedClusters/*";

#[test]
fn both_questions_have_to_be_answered() {
    let pods = role(&[], &[PODS], &[]);
    let user = held(CLUSTER, user_role());
    let reader = held(CLUSTER, pods.clone());
    let both = ask(&cluster(), &pods, &[], &[user.clone(), reader.clone()]);
    assert_eq!(both.decision, Decision::Allowed);
    assert_eq!(both.cluster_access.paths.len(), 1);
    assert_eq!(both.permission.paths.len(), 1);

    let only_permission = ask(&cluster(), &pods, &[], &[reader]);
    assert_eq!(only_permission.decision, Decision::Denied);
    assert_eq!(only_permission.permission.decision, Decision::Allowed);
    assert_eq!(
        reasons(&only_permission.cluster_access),
        ["NO_CLUSTER_USER_ROLE"]
    );

    let only_access = ask(&cluster(), &pods, &[], &[user]);
    assert_eq!(only_access.decision, Decision::Denied);
    assert_eq!(
        reasons(&only_access.permission),
        ["PERMISSION_NOT_HELD", "KUBERNETES_BINDINGS_NOT_READ"]
    );
}

#[test]
fn scopes_reach_down_and_never_up_or_sideways() {
    let pods = role(&[], &[PODS], &[]);
    let in_team_a = format!("{CLUSTER}/namespaces/team-a");
    let cases = [
        ("/", true, true),
        (
            "/providers/Microsoft.Management/managementGroups/root",
            true,
            true,
        ),
        (
            "/subscriptions/11111111-1111-4111-8111-111111111111",
            true,
            true,
        ),
        (
            "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/RG",
            true,
            true,
        ),
        (
            "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/r",
            false,
            false,
        ),
        (CLUSTER, true, true),
        (&CLUSTER[..CLUSTER.len() - 1], false, false),
        (&in_team_a, true, false),
        (&format!("{CLUSTER}/namespaces/team"), false, false),
        (&format!("{CLUSTER}/namespaces/team-b"), false, false),
        ("", false, false),
    ];
    for (scope, in_namespace, in_cluster) in cases {
        let held = [held(CLUSTER, user_role()), held(scope, pods.clone())];
        let allowed = |namespaces: &[&str]| {
            ask(&cluster(), &pods, namespaces, &held).decision == Decision::Allowed
        };
        assert_eq!(allowed(&["team-a"]), in_namespace, "{scope}");
        assert_eq!(allowed(&[]), in_cluster, "{scope}");
        assert!(!allowed(&["team-a", "other"]) || in_cluster, "{scope}");
    }
    // A namespace gives no cluster's credentials, whatever the role holds.
    let at_namespace = [held(&in_team_a, role(&["*"], &[ALL], &[]))];
    let answer = ask(&cluster(), &pods, &["team-a"], &at_namespace);
    assert_eq!(answer.cluster_access.decision, Decision::Denied);
    assert_eq!(answer.permission.decision, Decision::Allowed);
}

#[test]
fn permissions_count_and_names_do_not() {
    let admin = role(
        &[CLUSTER_ACCESS],
        &[ALL],
        &["Microsoft.ContainerService/managedClusters/namespaces/write"],
    );
    let cluster_admin = role(&[CLUSTER_ACCESS], &[ALL], &[]);
    let namespaces = role(
        &[],
        &["microsoft.containerservice/managedclusters/namespaces/*"],
        &[],
    );
    let decision = |wanted: &RoleDefinition, roles: &[&RoleDefinition]| {
        let held: Vec<Has> = roles
            .iter()
            .map(|role| held(CLUSTER, (*role).clone()))
            .collect();
        ask(&cluster(), wanted, &[], &held).decision
    };
    assert_eq!(decision(&admin, &[&cluster_admin]), Decision::Allowed);
    assert_eq!(decision(&admin, &[&admin]), Decision::Allowed);
    assert_eq!(decision(&cluster_admin, &[&admin]), Decision::Denied);
    // What one role takes out, another may give.
    assert_eq!(
        decision(&cluster_admin, &[&admin, &namespaces]),
        Decision::Allowed
    );
    // Control-plane actions permit nothing inside a cluster.
    let owner = role(&["*"], &[], &[]);
    assert_eq!(decision(&user_role(), &[&owner]), Decision::Allowed);
    assert_eq!(decision(&admin, &[&owner]), Decision::Denied);
    assert_eq!(
        decision(&role(&[], &[], &[]), &[&cluster_admin]),
        Decision::Denied
    );
}

#[test]
fn a_condition_makes_the_answer_conditional_unless_another_path_suffices() {
    let admin = role(&[CLUSTER_ACCESS], &[ALL], &[]);
    let conditional = Has {
        condition: UNKNOWN,
        ..held(CLUSTER, admin.clone())
    };
    let answer = ask(&cluster(), &admin, &[], std::slice::from_ref(&conditional));
    assert_eq!(answer.decision, Decision::Conditional);
    assert_eq!(reasons(&answer.permission), ["CONDITION_NOT_EVALUATED"]);
    let mut in_definition = admin.clone();
    in_definition.permissions[0].conditional = true;
    let answer = ask(&cluster(), &admin, &[], &[held(CLUSTER, in_definition)]);
    assert_eq!(answer.decision, Decision::Conditional);
    let answer = ask(
        &cluster(),
        &admin,
        &[],
        &[conditional, held("/", admin.clone())],
    );
    assert_eq!(answer.decision, Decision::Allowed);
    assert_eq!(answer.permission.paths.len(), 1);
    assert!(answer.permission.paths[0].inherited);
}

#[test]
fn i9_a_cluster_that_does_not_ask_azure_rbac_or_entra_permits_nothing() {
    let admin = role(&[CLUSTER_ACCESS], &[ALL], &[]);
    let held = [held(CLUSTER, admin.clone())];
    let without_azure_rbac = Cluster {
        azure_rbac: false,
        ..cluster()
    };
    let answer = ask(&without_azure_rbac, &admin, &[], &held);
    assert_eq!(answer.decision, Decision::Denied);
    assert_eq!(answer.cluster_access.decision, Decision::Allowed);
    assert_eq!(
        reasons(&answer.permission),
        ["AZURE_RBAC_DISABLED", "KUBERNETES_BINDINGS_NOT_READ"]
    );
    let without_entra = Cluster {
        entra_integration: false,
        ..cluster()
    };
    let answer = ask(&without_entra, &user_role(), &[], &held);
    assert_eq!(answer.decision, Decision::Denied);
    assert_eq!(
        reasons(&answer.cluster_access),
        ["ENTRA_INTEGRATION_REQUIRED"]
    );
}

#[test]
fn an_answer_ends_when_the_last_path_of_its_own_does() {
    let admin = role(&[CLUSTER_ACCESS], &[ALL], &[]);
    let until = |seconds: i64| Has {
        ours: Some(Expiry::At(Timestamp::from_second(seconds).unwrap())),
        ..held(CLUSTER, admin.clone())
    };
    let end = |held: &[Has]| {
        let end = ask(&cluster(), &admin, &[], held).expire_time;
        end.map(Timestamp::as_second)
    };
    assert_eq!(end(&[until(100), until(200)]), Some(200));
    assert_eq!(end(&[until(100), held(CLUSTER, admin.clone())]), None);
    let user_until_50 = Has {
        role: user_role(),
        ..until(50)
    };
    let permission_until_80 = Has {
        role: role(&[], &[ALL], &[]),
        ..until(80)
    };
    assert_eq!(end(&[user_until_50, permission_until_80]), Some(50));
    assert_eq!(end(&[]), None);
}

/// However many hold the same that is not enough, a question about it costs next to nothing.
#[test]
fn many_roles_that_take_out_the_same_are_not_tried_in_every_order() {
    let admin = |n: usize| {
        let own = format!("Microsoft.ContainerService/managedClusters/of{n}/read");
        role(
            &[CLUSTER_ACCESS],
            &[ALL, &own],
            &["Microsoft.ContainerService/managedClusters/namespaces/write"],
        )
    };
    let wanted = role(
        &[],
        &["Microsoft.ContainerService/managedClusters/namespaces/write"],
        &[],
    );
    let held: Vec<Has> = (0..200).map(|n| held(CLUSTER, admin(n))).collect();
    let answer = ask(&cluster(), &wanted, &[], &held);
    assert_eq!(answer.permission.decision, Decision::Denied);
}

/// As it is defined, one character at a time.
fn matches(pattern: &[u8], action: &[u8]) -> bool {
    match pattern.split_first() {
        None => action.is_empty(),
        Some((b'*', rest)) => (0..=action.len()).any(|taken| matches(rest, &action[taken..])),
        Some((c, rest)) => action
            .split_first()
            .is_some_and(|(d, behind)| c.eq_ignore_ascii_case(d) && matches(rest, behind)),
    }
}

fn gives(role: &RoleDefinition, action: &str) -> bool {
    let any = |patterns: &[String]| {
        patterns
            .iter()
            .any(|pattern| matches(pattern.as_bytes(), action.as_bytes()))
    };
    role.permissions
        .iter()
        .any(|block| any(&block.data_actions) && !any(&block.not_data_actions))
}

/// Every text of up to four characters out of `a`, `/` and `z`, which no pattern names.
fn universe() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..4 {
        let to = all.len();
        for index in from..to {
            for c in ['a', '/', 'z'] {
                all.push(format!("{}{c}", all[index]));
            }
        }
        from = to;
    }
    all
}

fn any_role(pattern: &'static str) -> impl Strategy<Value = RoleDefinition> {
    let patterns = || proptest::collection::vec(pattern, 0..3);
    proptest::collection::vec((patterns(), patterns()), 1..3).prop_map(|blocks| RoleDefinition {
        permissions: blocks
            .into_iter()
            .map(|(data_actions, not_data_actions)| Permissions {
                actions: texts(&[CLUSTER_ACCESS]),
                data_actions,
                not_data_actions,
                ..Permissions::default()
            })
            .collect(),
        ..role(&[], &[], &[])
    })
}

fn any_world(
    pattern: &'static str,
) -> impl Strategy<Value = Vec<(RoleDefinition, bool, &'static str)>> {
    let scope = prop_oneof![
        Just("/"),
        Just(CLUSTER),
        Just("/subscriptions/22222222-2222-4222-8222-222222222222"),
    ];
    proptest::collection::vec((any_role(pattern), any::<bool>(), scope), 0..5)
}

/// What each action says, asked one by one.
fn oracle(wanted: &RoleDefinition, world: &[(RoleDefinition, bool, &'static str)]) -> Decision {
    let held = |action: &str, conditional: bool| {
        world.iter().any(|(role, is_conditional, scope)| {
            !scope.contains("2222") && (conditional || !is_conditional) && gives(role, action)
        })
    };
    let wanted: Vec<String> = universe()
        .into_iter()
        .filter(|action| gives(wanted, action))
        .collect();
    let access = |conditional: bool| {
        world.iter().any(|(_, is_conditional, scope)| {
            !scope.contains("2222") && (conditional || !is_conditional)
        })
    };
    if access(false) && wanted.iter().all(|action| held(action, false)) {
        Decision::Allowed
    } else if access(true) && wanted.iter().all(|action| held(action, true)) {
        Decision::Conditional
    } else {
        Decision::Denied
    }
}

fn answer(wanted: &RoleDefinition, world: &[(RoleDefinition, bool, &'static str)]) -> Decision {
    let held: Vec<Has> = world
        .iter()
        .map(|(role, conditional, scope)| Has {
            condition: UNKNOWN.filter(|_| *conditional),
            ..held(scope, role.clone())
        })
        .collect();
    ask(&cluster(), wanted, &[], &held).decision
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is asked of whatever world, nothing is allowed that one action would contradict.
    #[test]
    fn i9_an_answer_is_never_more_generous_than_the_oracle(
        wanted in any_role("[a/*]{1,3}"),
        world in any_world("[a/*]{1,3}"),
    ) {
        prop_assert!(answer(&wanted, &world) <= oracle(&wanted, &world));
    }

    /// Where what is asked for is spelled out, the answer is the oracle's, not only as careful.
    #[test]
    fn an_answer_about_single_actions_is_the_oracles(
        wanted in any_role("[a/]{1,3}"),
        world in any_world("[a/*]{1,3}"),
    ) {
        prop_assume!(universe().iter().any(|action| gives(&wanted, action)));
        prop_assert_eq!(answer(&wanted, &world), oracle(&wanted, &world));
    }

    /// Holding the very role that is asked about is always enough.
    #[test]
    fn whoever_holds_a_role_holds_what_it_gives(
        wanted in any_role("[a/*]{1,3}"),
        mut world in any_world("[a/*]{1,3}"),
    ) {
        prop_assume!(!wanted_by(&wanted).is_empty());
        world.push((wanted.clone(), false, CLUSTER));
        prop_assert_eq!(answer(&wanted, &world), Decision::Allowed);
    }
}
