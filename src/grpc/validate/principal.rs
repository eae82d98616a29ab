//! `PrincipalRef`: for now by object id and type, which need no look-up in the directory.

use crate::domain::access::PrincipalType;
use crate::domain::ids::PrincipalId;
use crate::grpc::proto;

use super::{Violations, parsed};

pub(super) fn required(
    principal: Option<&proto::PrincipalRef>,
    wrong: &mut Violations,
) -> Option<(PrincipalId, PrincipalType)> {
    let Some(principal) = principal else {
        wrong.add("principal", "required");
        return None;
    };
    let by_name = !principal.user_principal_name.is_empty();
    let by_application = !principal.application_id.is_empty();
    wrong.not_there_yet(&[
        ("principal.user_principal_name", by_name),
        ("principal.application_id", by_application),
    ]);
    let id = if principal.object_id.is_empty() && (by_name || by_application) {
        None
    } else {
        parsed(
            "principal.object_id",
            &principal.object_id,
            PrincipalId::parse,
            wrong,
        )
    };
    let kind = principal_type(principal.r#type, wrong);
    Some((id?, kind?))
}

fn principal_type(value: i32, wrong: &mut Violations) -> Option<PrincipalType> {
    match proto::PrincipalType::try_from(value) {
        Ok(proto::PrincipalType::User) => Some(PrincipalType::User),
        Ok(proto::PrincipalType::Group) => Some(PrincipalType::Group),
        Ok(proto::PrincipalType::ServicePrincipal) => Some(PrincipalType::ServicePrincipal),
        Ok(proto::PrincipalType::Unspecified) => {
            wrong.add(
                "principal.type",
                "required for now: looking the type up in the directory is in the contract, and not served yet",
            );
            None
        }
        Err(_) => {
            wrong.add("principal.type", format!("{value} is no PrincipalType"));
            None
        }
    }
}
