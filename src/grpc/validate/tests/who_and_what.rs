//! Principals and accesses, wherever a request has them.

use super::super::super::proto::{self, AzureRole};
use super::super::{Violations, grant, principal};
use super::{Case, ID, a_grant, fields, now};
use crate::domain::role::BuiltInRole;

const NAME: &str = "alice@contoso.example";

fn by_name(name: &str) -> proto::PrincipalRef {
    proto::PrincipalRef {
        user_principal_name: name.to_owned(),
        ..proto::PrincipalRef::default()
    }
}

fn by_application(id: &str) -> proto::PrincipalRef {
    proto::PrincipalRef {
        application_id: id.to_owned(),
        ..proto::PrincipalRef::default()
    }
}

#[test]
fn a_principal_is_named_in_exactly_one_way() {
    const PRINCIPAL: &str = "principal";
    const OBJECT_ID: &str = "principal.object_id";
    const UPN: &str = "principal.user_principal_name";
    const APPLICATION: &str = "principal.application_id";
    const TYPE: &str = "principal.type";
    let cases: &[Case<proto::PrincipalRef>] = &[
        (
            "nobody",
            |p| *p = proto::PrincipalRef::default(),
            &[PRINCIPAL],
        ),
        ("a type alone", |p| p.object_id.clear(), &[PRINCIPAL]),
        (
            "no GUID",
            |p| p.object_id = "alice".to_owned(),
            &[OBJECT_ID],
        ),
        (
            "a GUID in braces",
            |p| p.object_id = format!("{{{ID}}}"),
            &[OBJECT_ID],
        ),
        ("no type", |p| p.r#type = 0, &[]),
        ("an unknown type", |p| p.r#type = 9, &[TYPE]),
        ("a negative type", |p| p.r#type = -1, &[TYPE]),
        ("by name", |p| *p = by_name(NAME), &[]),
        ("by no name", |p| *p = by_name("alice"), &[UPN]),
        ("by application", |p| *p = by_application(ID), &[]),
        (
            "by no application",
            |p| *p = by_application("deploy-bot"),
            &[APPLICATION],
        ),
        (
            "by id and name",
            |p| p.user_principal_name = NAME.to_owned(),
            &[PRINCIPAL],
        ),
        (
            "by id and application",
            |p| p.application_id = ID.to_owned(),
            &[PRINCIPAL],
        ),
        (
            "in all ways, and of an unknown type",
            |p| {
                p.user_principal_name = NAME.to_owned();
                p.application_id = ID.to_owned();
                p.r#type = 9;
            },
            &[TYPE, PRINCIPAL],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_grant();
        change(request.principal.as_mut().unwrap());
        assert_eq!(fields(grant(&request, now())), *expected, "{name}");
    }
}

#[test]
fn a_type_agrees_with_how_a_principal_is_named() {
    use proto::PrincipalType::{Group, ServicePrincipal, Unspecified, User};
    for (way, agrees) in [
        (by_name(NAME), User),
        (by_application(ID), ServicePrincipal),
    ] {
        for said in [Unspecified, User, Group, ServicePrincipal] {
            let mut request = a_grant();
            request.principal = Some(proto::PrincipalRef {
                r#type: said.into(),
                ..way.clone()
            });
            let expected: &[&str] = match said {
                Unspecified => &[],
                said if said == agrees => &[],
                _ => &["principal.type"],
            };
            assert_eq!(fields(grant(&request, now())), expected, "{way:?} {said:?}");
        }
    }
}

/// The same message means the same wherever a request has it, and is told under its own path there.
#[test]
fn a_principal_that_names_nobody_is_wrong_under_any_path() {
    let mut wrong = Violations::default();
    let nobody = proto::PrincipalRef::default();
    assert_eq!(
        principal::named("selector.principal", &nobody, &mut wrong),
        None
    );
    let named = principal::named("selector.principal", &by_name("@"), &mut wrong);
    assert_eq!(
        fields(wrong.finish(named)),
        [
            "selector.principal",
            "selector.principal.user_principal_name"
        ]
    );
}

#[test]
fn an_access_is_one_role_on_well_formed_namespaces() {
    let cases: &[Case<proto::Access>] = &[
        ("no role", |a| a.azure_role = 0, &["access"]),
        (
            "an unknown role",
            |a| a.azure_role = 77,
            &["access.azure_role"],
        ),
        (
            "two roles",
            |a| a.role_definition_id = ID.to_owned(),
            &["access"],
        ),
        (
            "a Kubernetes role",
            |a| {
                a.azure_role = 0;
                a.kubernetes_role = Some(proto::KubernetesRole::default());
            },
            &["access.kubernetes_role"],
        ),
        (
            "a role definition",
            |a| {
                a.azure_role = 0;
                a.role_definition_id = ID.to_owned();
            },
            &[],
        ),
        (
            "no role definition",
            |a| {
                a.azure_role = 0;
                a.role_definition_id = "Reader".to_owned();
            },
            &["access.role_definition_id"],
        ),
        ("the whole cluster", |a| a.namespaces.clear(), &[]),
        (
            "a namespace in capitals",
            |a| a.namespaces.push("Shop".to_owned()),
            &["access.namespaces[2]"],
        ),
        (
            "a namespace twice, and none",
            |a| a.namespaces.extend(["shop".to_owned(), String::new()]),
            &["access.namespaces[2]", "access.namespaces[3]"],
        ),
        (
            "the most namespaces",
            |a| a.namespaces = (0..20).map(|n| format!("n{n}")).collect(),
            &[],
        ),
        (
            "too many namespaces",
            |a| a.namespaces = (0..21).map(|n| format!("n{n}")).collect(),
            &["access.namespaces"],
        ),
        (
            "Cluster User in namespaces",
            |a| a.azure_role = AzureRole::ClusterUser.into(),
            &["access.namespaces"],
        ),
        (
            "Cluster User by id in namespaces",
            |a| {
                a.azure_role = 0;
                a.role_definition_id = BuiltInRole::ClusterUser.id().to_string();
            },
            &["access.namespaces"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_grant();
        change(request.access.as_mut().unwrap());
        assert_eq!(fields(grant(&request, now())), *expected, "{name}");
    }
}
