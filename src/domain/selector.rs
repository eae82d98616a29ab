//! Which grants are meant: the same in a list and in a revocation, so that the one shows what the other
//! would end.

use std::collections::BTreeSet;

use super::grant::Grant;
use super::ids::{ClusterId, Namespace, PrincipalId, RoleDefinitionId};
use super::naming::{ExternalKey, Labels};

/// A conjunction: a grant is meant if every part that is there matches. One without any part means every
/// grant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GrantSelector {
    /// Grants to this principal itself.
    pub principal: Option<PrincipalId>,
    /// Grants on this cluster.
    pub cluster: Option<ClusterId>,
    /// Grants of this role.
    pub role: Option<RoleDefinitionId>,
    /// Grants that are limited to namespaces, all of which are among these; empty: any grant.
    pub namespaces: BTreeSet<Namespace>,
    /// Grants that carry all of these labels.
    pub labels: Labels,
    /// Grants that this caller asked for.
    pub requested_by: Option<String>,
    /// The grant that the caller of this name gave this name of its own.
    pub external_key: Option<(String, ExternalKey)>,
}

impl GrantSelector {
    /// Whether `grant` is meant, whatever its state.
    #[must_use]
    pub fn matches(&self, grant: &Grant) -> bool {
        let Self {
            principal,
            cluster,
            role,
            namespaces,
            labels,
            requested_by,
            external_key,
        } = self;
        principal.is_none_or(|principal| principal == grant.target.principal)
            && cluster
                .as_ref()
                .is_none_or(|cluster| *cluster == grant.target.cluster)
            && role.is_none_or(|role| role == grant.access.role.id())
            && is_within(&grant.access.namespaces, namespaces)
            && labels
                .iter()
                .all(|(key, value)| grant.labels.get(key) == Some(value))
            && requested_by
                .as_ref()
                .is_none_or(|caller| *caller == grant.requested_by)
            && external_key.as_ref().is_none_or(|(caller, key)| {
                *caller == grant.requested_by && grant.external_key.as_ref() == Some(key)
            })
    }
}

/// A grant of no namespaces is of the whole cluster, and so reaches beyond any that are named.
fn is_within(granted: &BTreeSet<Namespace>, named: &BTreeSet<Namespace>) -> bool {
    named.is_empty() || (!granted.is_empty() && granted.is_subset(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_of_the_whole_cluster_is_within_no_namespaces() {
        let names = |names: &[&str]| -> BTreeSet<Namespace> {
            names
                .iter()
                .map(|name| Namespace::parse(name).unwrap())
                .collect()
        };
        for (granted, named, expected) in [
            (&[][..], &[][..], true),
            (&["a"], &[], true),
            (&[], &["a"], false),
            (&["a"], &["a"], true),
            (&["a"], &["a", "b"], true),
            (&["a", "b"], &["a"], false),
            (&["c"], &["a", "b"], false),
        ] {
            assert_eq!(
                is_within(&names(granted), &names(named)),
                expected,
                "{granted:?} {named:?}"
            );
        }
    }
}
