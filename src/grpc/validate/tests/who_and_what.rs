//! Principals and accesses, wherever a request has them.

use super::super::super::proto::{self, AzureRole};
use super::super::grant;
use super::{Case, ID, a_grant, fields, now};
use crate::domain::role::BuiltInRole;

#[test]
fn a_principal_is_an_object_id_and_a_type() {
    const ID_FIELD: &str = "principal.object_id";
    const TYPE: &str = "principal.type";
    let cases: &[Case<proto::PrincipalRef>] = &[
        (
            "none",
            |p| *p = proto::PrincipalRef::default(),
            &[ID_FIELD, TYPE],
        ),
        ("no GUID", |p| p.object_id = "alice".to_owned(), &[ID_FIELD]),
        (
            "a GUID in braces",
            |p| p.object_id = format!("{{{ID}}}"),
            &[ID_FIELD],
        ),
        ("no type", |p| p.r#type = 0, &[TYPE]),
        ("an unknown type", |p| p.r#type = 9, &[TYPE]),
        ("a negative type", |p| p.r#type = -1, &[TYPE]),
        (
            "by name",
            |p| {
                p.object_id.clear();
                p.user_principal_name = "alice@contoso.example".to_owned();
            },
            &["principal.user_principal_name"],
        ),
        (
            "by name as well",
            |p| p.user_principal_name = "alice@contoso.example".to_owned(),
            &["principal.user_principal_name"],
        ),
        (
            "by application",
            |p| p.application_id = ID.to_owned(),
            &["principal.application_id"],
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = a_grant();
        change(request.principal.as_mut().unwrap());
        assert_eq!(fields(grant(&request, now())), *expected, "{name}");
    }
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
