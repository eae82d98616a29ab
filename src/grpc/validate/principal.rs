//! `PrincipalRef`: by object id, by user principal name or by application id.

use std::fmt::Display;

use crate::broker::request::RequestedPrincipal;
use crate::domain::access::PrincipalType;
use crate::domain::ids::{ApplicationId, PrincipalId};
use crate::domain::user_principal_name::UserPrincipalName;
use crate::grpc::proto;

use super::Violations;

const EXACTLY_ONE: &str = "set exactly one of object_id, user_principal_name and application_id";

/// The principal in `field`, which has to be there.
pub(super) fn required(
    field: &str,
    principal: Option<&proto::PrincipalRef>,
    wrong: &mut Violations,
) -> Option<RequestedPrincipal> {
    let Some(principal) = principal else {
        wrong.add(field, "required");
        return None;
    };
    named(field, principal, wrong)
}

/// The principal in `field`, if there is one. The outer `Option` is whether it is well-formed.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn optional(
    field: &str,
    principal: Option<&proto::PrincipalRef>,
    wrong: &mut Violations,
) -> Option<Option<RequestedPrincipal>> {
    match principal {
        Some(principal) => named(field, principal, wrong).map(Some),
        None => Some(None),
    }
}

/// The principal that `field` names. One that names nobody is wrong: it never means everybody.
pub(super) fn named(
    field: &str,
    principal: &proto::PrincipalRef,
    wrong: &mut Violations,
) -> Option<RequestedPrincipal> {
    let proto::PrincipalRef {
        object_id,
        user_principal_name,
        application_id,
        r#type,
    } = principal;
    let type_field = format_args!("{field}.type");
    let kind = principal_type(*r#type, type_field, wrong);
    let given = [object_id, user_principal_name, application_id].map(|way| !way.is_empty());
    match given {
        [true, false, false] => {
            let id = PrincipalId::parse(object_id);
            let id = wrong.take(format_args!("{field}.object_id"), id);
            Some(RequestedPrincipal::ObjectId(id?, kind?))
        }
        [false, true, false] => {
            if !matches!(kind, None | Some(None | Some(PrincipalType::User))) {
                wrong.add(
                    type_field,
                    "a user_principal_name is a user's: leave it out",
                );
            }
            let name = UserPrincipalName::parse(user_principal_name);
            wrong
                .take(format_args!("{field}.user_principal_name"), name)
                .map(RequestedPrincipal::UserPrincipalName)
        }
        [false, false, true] => {
            if !matches!(
                kind,
                None | Some(None | Some(PrincipalType::ServicePrincipal))
            ) {
                wrong.add(
                    type_field,
                    "an application_id is a service principal's: leave it out",
                );
            }
            let id = ApplicationId::parse(application_id);
            wrong
                .take(format_args!("{field}.application_id"), id)
                .map(RequestedPrincipal::ApplicationId)
        }
        [false, false, false] => {
            wrong.add(field, format!("names nobody: {EXACTLY_ONE}"));
            None
        }
        _ => {
            wrong.add(field, format!("is named in several ways: {EXACTLY_ONE}"));
            None
        }
    }
}

/// The outer `Option` is whether it is a type, the inner whether it is said.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
fn principal_type(
    value: i32,
    field: impl Display,
    wrong: &mut Violations,
) -> Option<Option<PrincipalType>> {
    match proto::PrincipalType::try_from(value) {
        Ok(proto::PrincipalType::User) => Some(Some(PrincipalType::User)),
        Ok(proto::PrincipalType::Group) => Some(Some(PrincipalType::Group)),
        Ok(proto::PrincipalType::ServicePrincipal) => Some(Some(PrincipalType::ServicePrincipal)),
        Ok(proto::PrincipalType::Unspecified) => Some(None),
        Err(_) => {
            wrong.add(field, format!("{value} is no PrincipalType"));
            None
        }
    }
}
