//! What a role can do, in policies' words.

use super::*;
use crate::domain::power::Power;

/// By what a role can do, whatever it is called: for a reason and a short time, or not at all.
#[test]
fn what_comes_to_administering_a_cluster_is_bounded_by_its_power() {
    use BuiltInRole::{ClusterUser, RbacAdmin, RbacClusterAdmin, RbacReader, RbacWriter};
    let rules = Rules::new(Source::shipped()).unwrap();
    let caller = application(&["Access.Grant"]);
    let built_in = |role: BuiltInRole| AccessAsked {
        role: Some(role.id()),
        ..reader()
    };
    let custom = |power: Option<Power>| AccessAsked {
        role: Some(RoleDefinitionId::new(Uuid::from_u128(7))),
        power,
        ..reader()
    };
    let writes = Power {
        writes: true,
        ..Power::NONE
    };
    let grants_roles = Power {
        grants_roles: true,
        ..writes
    };
    let all_but_grants_roles = Power {
        grants_roles: false,
        everything: false,
        ..Power::EVERYTHING
    };
    let (whole, shop, system): (&[&str], &[&str], &[&str]) =
        (&[], &["shop"], &["kube-system", "shop"]);
    for (access, bounded_on) in [
        (built_in(ClusterUser), vec![]),
        (built_in(RbacReader), vec![]),
        (built_in(RbacWriter), vec![system]),
        (built_in(RbacAdmin), vec![whole, system]),
        (built_in(RbacClusterAdmin), vec![whole, shop, system]),
        (custom(Some(Power::NONE)), vec![]),
        (custom(Some(writes)), vec![system]),
        (custom(Some(grants_roles)), vec![whole, system]),
        (custom(Some(all_but_grants_roles)), vec![system]),
        (custom(Some(Power::EVERYTHING)), vec![whole, shop, system]),
        // It could not be read.
        (custom(None), vec![whole, shop, system]),
    ] {
        for namespaces in [whole, shop, system] {
            let on = |duration_seconds, justification: &str| AccessAsked {
                namespaces: namespaces
                    .iter()
                    .map(|name| Namespace::parse(name).unwrap())
                    .collect(),
                duration_seconds,
                justification: justification.to_owned(),
                ..access.clone()
            };
            let is_bounded = bounded_on.contains(&namespaces);
            for action in [Action::Grant, Action::ExtendGrant] {
                let may = |access: &AccessAsked| decide(&rules, &caller, action, access).allowed;
                assert!(may(&on(Some(28_800), "INC-4711")), "{access:?}");
                for loose in [on(None, "INC-4711"), on(Some(60), "")] {
                    assert_eq!(may(&loose), !is_bounded, "{loose:?}");
                }
            }
            // To take it away needs no reason.
            let revokes = application(&["Access.Revoke"]);
            let gone = decide(&rules, &revokes, Action::Revoke, &on(None, ""));
            assert!(gone.allowed, "{access:?}");
        }
    }
}

#[test]
fn what_a_role_can_do_is_asked_where_a_policy_wants_to_know() {
    let cluster = healthy();
    let rules = Rules::new(Source::shipped()).unwrap();
    let caller = application(&["Access.Grant", "Access.Revoke"]);
    let wants = |rules: &Rules, action| rules.want_power(&caller, action, &cluster.id);
    assert!(wants(&rules, Action::Grant) && wants(&rules, Action::ExtendGrant));
    // So that no revocation waits for a role's definition.
    assert!(!wants(&rules, Action::Revoke));
    let rules = of(
        r#"permit (principal, action == AksAccess::Action::"Revoke", resource)
        unless { context.power.secrets };"#,
    );
    assert!(wants(&rules, Action::Revoke) && !wants(&rules, Action::Grant));
    let secrets = AccessAsked {
        role: Some(BuiltInRole::RbacWriter.id()),
        ..reader()
    };
    assert!(decide(&rules, &caller, Action::Revoke, &reader()).allowed);
    assert!(!decide(&rules, &caller, Action::Revoke, &secrets).allowed);
}
