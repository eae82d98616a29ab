//! The policies that the broker brings along, others that operators may write, and what cannot be evaluated.

mod power;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tempfile::tempdir;
use uuid::Uuid;

use super::*;
use crate::domain::access::PrincipalType;
use crate::domain::cluster::Cluster;
use crate::domain::cluster::tests::healthy;
use crate::domain::ids::{Namespace, PrincipalId, RoleDefinitionId};
use crate::domain::role::BuiltInRole;

fn application(roles: &[&str]) -> Caller {
    let id = |n| Uuid::from_u128(n);
    let roles = roles.iter().map(ToString::to_string).collect();
    Caller::application(id(1), id(2), id(3)).with(roles, [].into(), false)
}

fn in_group(group: Uuid, has_more_groups: bool) -> Caller {
    application(&[]).with([].into(), [group].into(), has_more_groups)
}

fn of(policies: &str) -> Rules {
    Rules::new(Source::of("test.cedar", policies)).unwrap()
}

fn wrong(policies: &str) -> String {
    let error = Rules::new(Source::of("test.cedar", policies)).err();
    error.expect("policies that are not taken").to_string()
}

fn decide(rules: &Rules, caller: &Caller, action: Action, access: &AccessAsked) -> Decision {
    let cluster = healthy();
    let question = Question {
        action,
        resource: Resource::Cluster {
            id: &cluster.id,
            known: Some(&cluster),
        },
        context: Context::Access(access),
    };
    (*rules.decide(caller, &question)).clone()
}

fn reads(rules: &Rules, caller: &Caller, action: Action, cluster: &Cluster) -> bool {
    let context = match action {
        Action::CheckAccess | Action::ListAccess => Context::Asked { to_self: false },
        Action::GetCluster | Action::ListClusters | Action::ListAuditEvents => Context::Nothing,
        _ => Context::Owned {
            to_self: false,
            requested_by_self: false,
        },
    };
    let resource = Resource::Cluster {
        id: &cluster.id,
        known: rules.look_at_clusters().then_some(cluster),
    };
    let question = Question {
        action,
        resource,
        context,
    };
    rules.decide(caller, &question).allowed
}

fn reader() -> AccessAsked {
    AccessAsked {
        principal: Some(PrincipalId::new(Uuid::from_u128(9))),
        principal_type: Some(PrincipalType::User),
        role: Some(BuiltInRole::RbacReader.id()),
        duration_seconds: Some(60),
        requested_by_self: true,
        ..AccessAsked::default()
    }
}

#[test]
fn app_roles_allow_what_their_names_say_and_nothing_else() {
    let rules = Rules::new(Source::shipped()).unwrap();
    assert_eq!(rules.warnings(), [""; 0]);
    let writes = [Action::Grant, Action::ExtendGrant, Action::Revoke];
    let grants = [
        Action::GetGrant,
        Action::ListGrants,
        Action::GetJob,
        Action::WatchJob,
        Action::ListJobs,
        Action::ListJobTargets,
    ];
    let clusters = [Action::GetCluster, Action::ListClusters];
    let access = [Action::CheckAccess, Action::ListAccess];
    let audit = [Action::ListAuditEvents];
    let all = [&writes[..], &grants, &clusters, &access, &audit].concat();
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>(),
        Action::ALL.iter().collect()
    );
    let expected: [(&str, Vec<Action>); 6] = [
        ("Access.Grant", [&writes[..2], &grants, &clusters].concat()),
        ("Access.Revoke", [&writes[2..], &grants, &clusters].concat()),
        (
            "Access.Offboard",
            [&writes[2..], &grants, &clusters].concat(),
        ),
        ("Access.Check", [&clusters[..], &access].concat()),
        (
            "Access.Audit",
            [&grants[..], &clusters, &access, &audit].concat(),
        ),
        ("Access.Else", Vec::new()),
    ];
    for (role, allowed) in expected {
        let caller = application(&[role]);
        for action in Action::ALL {
            let may = if writes.contains(action) {
                decide(&rules, &caller, *action, &reader()).allowed
            } else {
                reads(&rules, &caller, *action, &healthy())
            };
            assert_eq!(may, allowed.contains(action), "{role} {action:?}");
        }
    }
}

#[test]
fn what_no_role_allows_names_the_policy_that_forbids() {
    let rules = Rules::new(Source::shipped()).unwrap();
    let caller = application(&["Access.Grant"]);
    let granted = |access: &AccessAsked| decide(&rules, &caller, Action::Grant, access);
    assert_eq!(granted(&reader()).policies, ["grant"]);
    let refused = [
        (
            "never-to-oneself",
            AccessAsked {
                to_self: true,
                ..reader()
            },
        ),
        (
            "never-to-oneself",
            AccessAsked {
                to_own_group: true,
                ..reader()
            },
        ),
        (
            "never-to-the-beneficiary",
            AccessAsked {
                to_beneficiary: true,
                ..reader()
            },
        ),
    ];
    for (policy, access) in refused {
        let decision = granted(&access);
        assert!(!decision.allowed && decision.errors.is_empty());
        assert_eq!(decision.policies, [policy]);
    }
}

#[test]
fn a_whole_cluster_is_administered_for_eight_hours_at_most_and_for_a_reason() {
    let rules = Rules::new(Source::shipped()).unwrap();
    let caller = application(&["Access.Grant"]);
    let hours = |hours: i64| Some(hours * 3600);
    let admin = |duration_seconds, justification: &str, namespaces: &[&str]| AccessAsked {
        role: Some(BuiltInRole::RbacClusterAdmin.id()),
        duration_seconds,
        justification: justification.to_owned(),
        namespaces: namespaces
            .iter()
            .map(|name| Namespace::parse(name).unwrap())
            .collect(),
        ..reader()
    };
    for (access, may) in [
        (admin(hours(8), "INC-4711", &[]), true),
        (admin(hours(8).map(|it| it + 1), "INC-4711", &[]), false),
        (admin(None, "INC-4711", &[]), false),
        (admin(hours(1), "", &[]), false),
        (admin(hours(1), " \t", &[]), false),
        // Nobody can read these.
        (admin(hours(1), "\u{200b}\u{2060}\u{feff}", &[]), false),
        (admin(hours(1), "\u{3164}\u{115f}\u{ffa0}", &[]), false),
        (admin(hours(1), " \u{200e}\u{202e}\u{2067} ", &[]), false),
        (admin(hours(1), "\u{2800}-\u{301}", &[]), false),
        (admin(hours(1), "\u{200b}緊急", &[]), true),
        // Everything in a namespace is bounded as well.
        (admin(hours(8), "INC-4711", &["shop"]), true),
        (admin(None, "", &["shop"]), false),
    ] {
        for action in [Action::Grant, Action::ExtendGrant] {
            let decision = decide(&rules, &caller, action, &access);
            assert_eq!(decision.allowed, may, "{access:?}");
        }
    }
}

#[test]
fn ones_own_may_be_seen_checked_and_given_up_without_a_role() {
    let rules = Rules::new(Source::shipped()).unwrap();
    let nobody = application(&[]);
    let own = AccessAsked {
        to_self: true,
        ..reader()
    };
    assert!(decide(&rules, &nobody, Action::Revoke, &own).allowed);
    assert!(!decide(&rules, &nobody, Action::Revoke, &reader()).allowed);
    // Others are in the group as well.
    let group = AccessAsked {
        to_own_group: true,
        ..reader()
    };
    assert!(!decide(&rules, &nobody, Action::Revoke, &group).allowed);
    let cluster = healthy();
    let about = |to_self| Question {
        action: Action::CheckAccess,
        resource: Resource::Cluster {
            id: &cluster.id,
            known: None,
        },
        context: Context::Asked { to_self },
    };
    assert!(rules.decide(&nobody, &about(true)).allowed);
    assert!(!rules.decide(&nobody, &about(false)).allowed);
}

#[test]
fn what_cannot_be_evaluated_refuses_and_names_its_policy() {
    let rules = of(r#"
        @id("all") permit (principal, action, resource);
        @id("long") forbid (principal, action == AksAccess::Action::"Grant", resource)
            when { context has duration_seconds && context.duration_seconds * 4611686018427387904 < 0 };
    "#);
    let decision = decide(&rules, &application(&[]), Action::Grant, &reader());
    assert!(!decision.allowed);
    let [error] = decision.errors.as_slice() else {
        panic!("{decision:?}");
    };
    assert!(error.starts_with("policy long: "), "{error}");
    let permanent = AccessAsked {
        duration_seconds: None,
        ..reader()
    };
    assert!(decide(&rules, &application(&[]), Action::Grant, &permanent).allowed);
}

#[test]
fn a_forbid_for_a_group_refuses_whoever_may_be_in_it() {
    let (group, other) = (Uuid::from_u128(5), Uuid::from_u128(6));
    let rules = of(&format!(
        r#"permit (principal, action, resource);
        @id("not-they") forbid (principal in AksAccess::Group::"{group}", action, resource);"#
    ));
    let may = |caller: &Caller| decide(&rules, caller, Action::Grant, &reader());
    assert!(!may(&in_group(group, false)).allowed);
    assert!(may(&in_group(other, false)).allowed);
    let decision = may(&in_group(other, true));
    assert!(!decision.allowed);
    assert!(decision.errors[0].contains("not-they"), "{decision:?}");
    // So does a group in a condition: who is not in it may be let through.
    let rules = of(&format!(
        r#"@id("no-contractors") permit (principal, action, resource)
            unless {{ principal in AksAccess::Group::"{group}" }};"#
    ));
    let may = |caller: &Caller| decide(&rules, caller, Action::Grant, &reader()).allowed;
    assert!(may(&in_group(other, false)));
    assert!(!may(&in_group(group, false)) && !may(&in_group(other, true)));
    // A permit for a group gives nothing to whoever may not be in it.
    let rules = of(&format!(
        r#"permit (principal in AksAccess::Group::"{group}", action, resource);"#
    ));
    let decision = decide(&rules, &in_group(other, true), Action::Grant, &reader());
    assert!(!decision.allowed && decision.errors.is_empty());
}

#[test]
fn clusters_are_told_apart_by_where_they_are_and_by_what_they_are_like() {
    let tagged = |value: &str| Cluster {
        tags: BTreeMap::from([("Environment".to_owned(), value.to_owned())]),
        ..healthy()
    };
    let rules = of(
        r#"permit (principal, action, resource is AksAccess::Cluster)
        when { resource.hasTag("environment") && resource.getTag("environment") == "dev" };"#,
    );
    assert!(rules.look_at_clusters());
    let caller = application(&[]);
    assert!(reads(&rules, &caller, Action::GetCluster, &tagged("dev")));
    // The same cluster, as it is later: what was remembered of it does not count.
    assert!(!reads(
        &rules,
        &caller,
        Action::GetCluster,
        &tagged("production")
    ));
    let cluster = healthy();
    let place = cluster.id.resource_group();
    let rules = of(&format!(
        r#"permit (principal, action, resource in AksAccess::ResourceGroup::"{place}");"#
    ));
    assert!(!rules.look_at_clusters());
    assert!(reads(&rules, &caller, Action::GetCluster, &healthy()));
    let elsewhere = ClusterId::parse(&cluster.id.as_str().replace("/rg/", "/rg2/")).unwrap();
    let elsewhere = Cluster {
        id: elsewhere,
        ..healthy()
    };
    assert!(!reads(&rules, &caller, Action::GetCluster, &elsewhere));
    let samples = rules.samples_of(cluster.id.subscription());
    let seen = samples.iter().filter(|id| id.resource_group() == place);
    assert_eq!((seen.count(), samples.len()), (1, 2));
}

#[test]
fn what_no_policy_looks_at_need_not_be_looked_up() {
    let rules = Rules::new(Source::shipped()).unwrap();
    assert!(rules.look_at_own_groups() && rules.look_at_beneficiaries());
    assert!(!rules.look_at_clusters());
    assert!(rules.look_at_self() && !rules.look_at_principal_types());
    let rules = of("permit (principal, action, resource);");
    assert!(!rules.look_at_own_groups() && !rules.look_at_beneficiaries() && !rules.look_at_self());
    let rules = of(
        r#"permit (principal, action == AksAccess::Action::"GetGrant", resource)
        when { context == { to_self: true, requested_by_self: true } };"#,
    );
    assert!(rules.look_at_self());
    for condition in [
        "resource is AksAccess::Cluster && resource.known",
        r#"resource in AksAccess::Subscription::"s""#,
        "resource is AksAccess::Broker",
    ] {
        let rules = of(&format!(
            r#"permit (principal, action == AksAccess::Action::"GetGrant", resource) when {{ {condition} }};"#
        ));
        assert!(rules.look_at_clusters(), "{condition}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let mistakes = [
        ("permit (principal, action, resource)\n", "test.cedar:"),
        (
            "\n\n  permit (principal, action, resource) when { context.nonsense };",
            "test.cedar:3:",
        ),
        (
            r#"permit (principal, action == AksAccess::Action::"Destroy", resource);"#,
            "Destroy",
        ),
        (
            "permit (principal == ?principal, action, resource);",
            "test.cedar: it has a template",
        ),
        (
            r#"@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);"#,
            r#"@id("a")"#,
        ),
    ];
    for (text, expected) in mistakes {
        let error = wrong(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_can_never_match_is_refused() {
    for (policy, word) in [
        (
            r#"forbid (principal, action, resource in AksAccess::ResourceGroup::"/subscriptions/x/resourceGroups/RG");"#,
            "resourceGroups/RG",
        ),
        (
            r#"permit (principal in AksAccess::Group::"20000000-0000-4000-8000-00000000000A", action, resource);"#,
            "00000000000A",
        ),
        (
            r#"forbid (principal, action, resource is AksAccess::Cluster)
                when { resource.hasTag("Environment") && resource.getTag("Environment") == "production" };"#,
            "Environment",
        ),
    ] {
        let error = wrong(policy);
        assert!(
            error.contains("lower case") && error.contains(word),
            "{error}"
        );
    }
}

#[test]
fn heads_say_who_surely_may_not_and_whose_answers_hang_on_clusters() {
    let cluster = healthy();
    let (id, place) = (&cluster.id, cluster.id.resource_group());
    let rules = Rules::new(Source::shipped()).unwrap();
    let might = |role: &str, action| rules.might(&application(&[role]), action, id);
    assert!(might("Access.Grant", Action::Grant) && !might("Access.Check", Action::Grant));
    // Perhaps it is its own.
    assert!(might("Access.Check", Action::Revoke));
    let rules = of(&format!(
        r#"permit (principal, action, resource in AksAccess::ResourceGroup::"{place}");
        permit (principal in AksAccess::AppRole::"Tagged", action == AksAccess::Action::"GetCluster", resource)
            when {{ resource.hasTag("a") }};"#
    ));
    let want = |role: &str, action| rules.want_cluster(&application(&[role]), action, id);
    assert!(want("Tagged", Action::GetCluster));
    assert!(!want("Tagged", Action::ListClusters) && !want("Else", Action::GetCluster));
}

#[test]
fn policies_without_a_name_are_called_by_their_place() {
    let one = "permit (principal, action, resource);\n";
    let rules = of(&one.repeat(12));
    let expected = (1..=12).map(|n| format!("test.cedar#{n}"));
    let ids = rules.ids().into_iter().map(|(id, _)| id);
    assert_eq!(ids.collect::<BTreeSet<_>>(), expected.collect());
}

#[test]
fn a_directory_is_read_like_a_mounted_config_map() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    assert!(matches!(
        Source::read(dir.path()),
        Err(PolicyError::Empty(_))
    ));
    fs::create_dir(path("..one")).unwrap();
    fs::write(
        path("..one").join("a.cedar"),
        "permit (principal, action, resource);",
    )
    .unwrap();
    std::os::unix::fs::symlink("..one", path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.cedar", path("a.cedar")).unwrap();
    fs::write(path("README.md"), "no policy").unwrap();
    fs::write(path(".a.cedar.swp"), "no policy").unwrap();
    let read = Source::read(dir.path()).unwrap();
    assert_eq!(
        read,
        Source::of("a.cedar", "permit (principal, action, resource);")
    );
    fs::write(path("b.cedar"), [0xff, 0xfe]).unwrap();
    let error = Source::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("b.cedar"), "{error}");
    let big = fs::File::create(path("b.cedar")).unwrap();
    big.set_len(5 * 1024 * 1024).unwrap();
    assert!(matches!(
        Source::read(dir.path()),
        Err(PolicyError::TooLong(_))
    ));
}

#[test]
fn a_custom_role_has_no_word_of_the_contracts() {
    assert_eq!(word_of_role(RoleDefinitionId::new(Uuid::from_u128(1))), "");
    assert_eq!(word_of_role(BuiltInRole::ClusterUser.id()), "CLUSTER_USER");
}
