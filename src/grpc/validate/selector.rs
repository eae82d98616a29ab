//! `GrantSelector`: which grants are meant. A part that is there but says nothing is wrong: it never means
//! "any", because whoever revokes by it would end more than was meant.

use crate::broker::request::{RequestedRole, RequestedSelector};
use crate::domain::ids::{ClusterId, RoleDefinitionId};
use crate::domain::naming::ExternalKey;
use crate::grpc::proto;

use super::{Violations, access, naming, optional, principal};

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
    let cluster = optional(at("cluster"), &selector.cluster, ClusterId::parse, wrong);
    let role = role(field, selector, wrong);
    let namespaces = access::namespaces(&at("namespaces"), &selector.namespaces, wrong);
    let labels = naming::labels(&at("labels"), &selector.labels, wrong);
    let length = selector.requested_by.chars().count();
    if length > LONGEST_CALLER {
        let expected = format!("{length} characters long; at most {LONGEST_CALLER}");
        wrong.add(at("requested_by"), expected);
    }
    let external_key = optional(
        at("external_key"),
        &selector.external_key,
        ExternalKey::parse,
        wrong,
    );
    Some(RequestedSelector {
        principal: principal?,
        cluster: cluster?,
        role: role?,
        namespaces: namespaces?,
        labels: labels?,
        requested_by: Some(selector.requested_by.clone()).filter(|caller| !caller.is_empty()),
        external_key: external_key?,
    })
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
    let built_in = (selector.azure_role != 0)
        .then(|| access::azure_role(&at("azure_role"), selector.azure_role, wrong));
    let definition = (!selector.role_definition_id.is_empty()).then(|| {
        let id = RoleDefinitionId::parse_any(&selector.role_definition_id);
        wrong.take(at("role_definition_id"), id)
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
