//! Lists of role assignments and their few filters.

use std::collections::BTreeSet;

use hyper::StatusCode;
use uuid::Uuid;

use super::super::error::ArmError;
use super::super::{Admitted, paging};
use super::body;
use crate::message::Answer;
use crate::scope::{Level, Scope};
use crate::state::{RoleAssignment, State};
use crate::world::PrincipalType;

/// What a list is narrowed to [azure.md §1].
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    /// Only at the scope itself and above; without it also below.
    at_scope: bool,
    whose: Whose,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Whose {
    #[default]
    Anybodys,
    /// Given to exactly this principal.
    PrincipalId(Uuid),
    /// Given to this principal or to a group that it is in.
    AssignedTo(Uuid),
}

pub(in crate::arm) fn list(call: &Admitted<'_>, scope: &Scope) -> Result<Answer, ArmError> {
    let filter = Filter::parse(call.request.parameter("$filter").unwrap_or_default())?;
    let settings = call.core.settings();
    let seen = call.now.elapsed.saturating_sub(settings.list_lag);
    let store = call.core.store();
    let state = &store.state;
    let whose = filter.whose.identities(state)?;
    let upwards: BTreeSet<String> = state.keys_upwards(scope).into_iter().collect();
    let is_listed = |assignment: &&RoleAssignment| {
        let place = upwards.contains(assignment.scope.key())
            || (!filter.at_scope && lies_below(state, &assignment.scope, scope));
        place
            && whose
                .as_ref()
                .is_none_or(|whose| whose.contains(&assignment.principal))
    };
    let found = state.role_assignments_at(seen).filter(is_listed);
    let items = found.map(|it| (it.name.to_string(), move || body(it)));
    let page = paging::page(&call.core.urls.arm, call.request, settings.page_size, items);
    Ok(Answer::json(StatusCode::OK, &page))
}

/// Ids alone tell what lies below a subscription; what lies in a management group only the tree knows.
pub(in crate::arm) fn lies_below(state: &State, inner: &Scope, outer: &Scope) -> bool {
    match outer.level() {
        Level::Root | Level::ManagementGroup => inner != outer && state.contains(outer, inner),
        Level::Subscription | Level::ResourceGroup | Level::Resource => inner.is_below(outer.key()),
    }
}

impl Filter {
    fn parse(text: &str) -> Result<Self, ArmError> {
        let unsupported = || ArmError::unsupported_filter(text);
        let mut filter = Self::default();
        for term in text
            .split(" and ")
            .map(str::trim)
            .filter(|term| !term.is_empty())
        {
            let lower = term.to_ascii_lowercase();
            if lower == "atscope()" && !filter.at_scope {
                filter.at_scope = true;
            } else if let (Whose::Anybodys, Some(whose)) = (&filter.whose, Whose::parse(&lower)) {
                filter.whose = whose;
            } else {
                return Err(unsupported());
            }
        }
        // These two do not combine [azure.md §1].
        if filter.at_scope && matches!(filter.whose, Whose::PrincipalId(_)) {
            return Err(unsupported());
        }
        Ok(filter)
    }
}

impl Whose {
    fn parse(term: &str) -> Option<Self> {
        if let Some(id) = term
            .strip_prefix("assignedto('")
            .and_then(|rest| rest.strip_suffix("')"))
        {
            return Some(Self::AssignedTo(Uuid::try_parse(id).ok()?));
        }
        let (name, value) = term.split_once(" eq ")?;
        let id = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        (name.trim() == "principalid").then_some(Self::PrincipalId(Uuid::try_parse(id).ok()?))
    }

    /// The principals whose assignments count; [`None`] for everybody's.
    fn identities(&self, state: &State) -> Result<Option<BTreeSet<Uuid>>, ArmError> {
        match *self {
            Self::Anybodys => Ok(None),
            Self::PrincipalId(id) => Ok(Some(BTreeSet::from([id]))),
            Self::AssignedTo(id) => {
                let kind = state
                    .principal(id)
                    .map(crate::world::Principal::principal_type);
                if kind == Some(PrincipalType::Group) {
                    return Err(ArmError::principal_type_not_supported(id));
                }
                Ok(Some(state.identities_of(id)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Filter, Whose};

    #[test]
    fn the_filters_of_azure_are_read_and_others_refused() {
        let id = Uuid::from_u128(1);
        for (text, expected) in [
            (String::new(), Some((false, Whose::Anybodys))),
            ("atScope()".to_owned(), Some((true, Whose::Anybodys))),
            (
                format!("principalId eq '{id}'"),
                Some((false, Whose::PrincipalId(id))),
            ),
            (
                format!("assignedTo('{id}')"),
                Some((false, Whose::AssignedTo(id))),
            ),
            (
                format!("atScope() and assignedTo('{id}')"),
                Some((true, Whose::AssignedTo(id))),
            ),
            (format!("atScope() and principalId eq '{id}'"), None),
            (
                format!("assignedTo('{id}') and principalId eq '{id}'"),
                None,
            ),
            ("principalId eq 'x'".to_owned(), None),
            ("roleName eq 'Owner'".to_owned(), None),
        ] {
            let found = Filter::parse(&text)
                .ok()
                .map(|filter| (filter.at_scope, filter.whose));
            assert_eq!(found, expected, "{text}");
        }
    }
}
