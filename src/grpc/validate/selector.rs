//! `GrantSelector`: which grants are meant. A part that is there but says nothing is wrong: it never means
//! "any", because whoever revokes by it would end more than was meant.

use crate::broker::request::{RequestedRole, RequestedSelector};
use crate::domain::ids::{ClusterId, RoleDefinitionId};
use crate::domain::naming::ExternalKey;
use crate::grpc::proto;

use super::{Violations, access, filter, naming, principal};

/// The longest name of a caller.
const LONGEST_CALLER: usize = 256;

/// A selector that has to say something.
pub(super) fn to_revoke(
    field: &str,
    selector: &proto::GrantSelector,
    wrong: &mut Violations,
) -> Option<RequestedSelector> {
    let read = read(field, selector, wrong)?;
    if read == RequestedSelector::default() {
        wrong.add(
            field,
            "is empty, and would mean every grant: set at least one of its fields",
        );
        return None;
    }
    Some(read)
}

/// A selector; one that is not there means every grant, one that is there has to say something.
pub(super) fn to_list(
    field: &str,
    selector: Option<&proto::GrantSelector>,
    wrong: &mut Violations,
) -> Option<RequestedSelector> {
    match selector {
        Some(selector) => to_revoke(field, selector, wrong),
        None => Some(RequestedSelector::default()),
    }
}

fn read(
    field: &str,
    selector: &proto::GrantSelector,
    wrong: &mut Violations,
) -> Option<RequestedSelector> {
    let at = |name: &str| format!("{field}.{name}");
    let principal = principal::optional(&at("principal"), selector.principal.as_ref(), wrong);
    let cluster = filter::parsed(
        at("cluster"),
        selector.cluster.as_deref(),
        ClusterId::parse,
        wrong,
    );
    let role = role(field, selector, wrong);
    let namespaces = access::namespaces(&at("namespaces"), &selector.namespaces, wrong);
    let labels = naming::labels(&at("labels"), &selector.labels, wrong);
    let requested_by = filter::parsed(
        at("requested_by"),
        selector.requested_by.as_deref(),
        caller,
        wrong,
    );
    let external_key = filter::parsed(
        at("external_key"),
        selector.external_key.as_deref(),
        ExternalKey::parse,
        wrong,
    );
    Some(RequestedSelector {
        principal: principal?,
        cluster: cluster?,
        role: role?,
        namespaces: namespaces?,
        labels: labels?,
        requested_by: requested_by?,
        external_key: external_key?,
    })
}

/// A caller's name, which can be any text.
fn caller(name: &str) -> Result<String, String> {
    let length = name.chars().count();
    if length > LONGEST_CALLER {
        return Err(format!(
            "{length} characters long; at most {LONGEST_CALLER}"
        ));
    }
    Ok(name.to_owned())
}

/// The outer `Option` is whether it is well-formed, the inner whether there is one.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
fn role(
    field: &str,
    selector: &proto::GrantSelector,
    wrong: &mut Violations,
) -> Option<Option<RequestedRole>> {
    let at = |name: &str| format!("{field}.{name}");
    let kubernetes = selector.kubernetes_role.is_some();
    wrong.not_there_yet(&[(&at("kubernetes_role"), kubernetes)]);
    let built_in = selector
        .azure_role
        .map(|role| access::azure_role(&at("azure_role"), role, wrong));
    let definition = selector.role_definition_id.as_deref().map(|id| {
        let field = at("role_definition_id");
        filter::parsed(field, Some(id), RoleDefinitionId::parse_any, wrong).flatten()
    });
    match (built_in, definition, kubernetes) {
        (None, None, false) => Some(None),
        (Some(role), None, false) => role.map(|role| Some(RequestedRole::BuiltIn(role))),
        (None, Some(id), false) => id.map(|id| Some(RequestedRole::Definition(id))),
        (None, None, true) => None,
        _ => {
            wrong.add(
                field,
                "several roles: set at most one of azure_role, role_definition_id and kubernetes_role",
            );
            None
        }
    }
}
