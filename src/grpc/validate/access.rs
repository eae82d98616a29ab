//! `Access`: one role, on the whole cluster or on some namespaces.

use std::collections::BTreeSet;

use crate::broker::request::{RequestedAccess, RequestedRole};
use crate::domain::access::MAX_NAMESPACES;
use crate::domain::ids::{Namespace, RoleDefinitionId};
use crate::domain::role::BuiltInRole;
use crate::grpc::proto;

use super::Violations;

pub(super) fn required(
    access: Option<&proto::Access>,
    wrong: &mut Violations,
) -> Option<RequestedAccess> {
    let Some(access) = access else {
        wrong.add("access", "required");
        return None;
    };
    let role = role(access, wrong);
    let namespaces = namespaces("access.namespaces", &access.namespaces, wrong);
    if role.is_some_and(is_cluster_user) && !access.namespaces.is_empty() {
        wrong.add(
            "access.namespaces",
            "the Cluster User role is for the whole cluster: it knows no namespaces",
        );
    }
    Some(RequestedAccess {
        role: role?,
        namespaces: namespaces?,
    })
}

fn is_cluster_user(role: RequestedRole) -> bool {
    let user = BuiltInRole::ClusterUser;
    role == RequestedRole::BuiltIn(user) || role == RequestedRole::Definition(user.id())
}

fn role(access: &proto::Access, wrong: &mut Violations) -> Option<RequestedRole> {
    let built_in = access.azure_role != 0;
    let definition = !access.role_definition_id.is_empty();
    let kubernetes = access.kubernetes_role.is_some();
    wrong.not_there_yet(&[("access.kubernetes_role", kubernetes)]);
    match [built_in, definition, kubernetes]
        .iter()
        .filter(|set| **set)
        .count()
    {
        0 => {
            wrong.add(
                "access",
                "no role: set exactly one of azure_role, role_definition_id and kubernetes_role",
            );
            None
        }
        1 if built_in => {
            azure_role("access.azure_role", access.azure_role, wrong).map(RequestedRole::BuiltIn)
        }
        1 if definition => wrong
            .take(
                "access.role_definition_id",
                RoleDefinitionId::parse_any(&access.role_definition_id),
            )
            .map(RequestedRole::Definition),
        1 => None,
        _ => {
            wrong.add(
                "access",
                "several roles: set exactly one of azure_role, role_definition_id and kubernetes_role",
            );
            None
        }
    }
}

pub(super) fn azure_role(field: &str, value: i32, wrong: &mut Violations) -> Option<BuiltInRole> {
    use proto::AzureRole;
    match AzureRole::try_from(value) {
        Ok(AzureRole::ClusterUser) => Some(BuiltInRole::ClusterUser),
        Ok(AzureRole::RbacReader) => Some(BuiltInRole::RbacReader),
        Ok(AzureRole::RbacWriter) => Some(BuiltInRole::RbacWriter),
        Ok(AzureRole::RbacAdmin) => Some(BuiltInRole::RbacAdmin),
        Ok(AzureRole::RbacClusterAdmin) => Some(BuiltInRole::RbacClusterAdmin),
        // Zero is "not set", and was counted as such.
        Ok(AzureRole::Unspecified) | Err(_) => {
            wrong.add(field, format!("{value} is no AzureRole"));
            None
        }
    }
}

pub(super) fn namespaces(
    field: &str,
    names: &[String],
    wrong: &mut Violations,
) -> Option<BTreeSet<Namespace>> {
    if names.len() > MAX_NAMESPACES {
        // One word on all of them: what is wrong with the four-thousandth helps nobody.
        wrong.add(
            field,
            format!("{} namespaces; at most {MAX_NAMESPACES}", names.len()),
        );
        return None;
    }
    let mut parsed = BTreeSet::new();
    let mut well_formed = true;
    for (index, name) in names.iter().enumerate() {
        let field = format_args!("{field}[{index}]");
        match Namespace::parse(name) {
            Ok(namespace) if parsed.insert(namespace.clone()) => {}
            Ok(namespace) => {
                wrong.add(field, format!("{namespace} is named twice"));
                well_formed = false;
            }
            Err(error) => {
                wrong.add(field, error.to_string());
                well_formed = false;
            }
        }
    }
    well_formed.then_some(parsed)
}
