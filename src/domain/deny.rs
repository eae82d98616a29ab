//! Deny assignments: what somebody may not do, whatever roles they have [azure.md §1].

use std::collections::BTreeSet;

use super::evaluate::holds_at;
use super::ids::PrincipalId;
use super::role::Permissions;

/// A deny assignment, as ARM tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DenyAssignment {
    /// Its ARM id.
    pub resource_id: String,
    /// What people call it.
    pub display_name: String,
    /// Where it was made, in lower case. ARM must have said that it concerns the cluster or the namespaces asked
    /// about: of a management group, nobody else knows.
    pub scope: String,
    /// Whether it binds at its scope only, and not below.
    pub at_its_scope_only: bool,
    /// Whether it denies at all.
    pub effect: Effect,
    /// What it denies: what a block gives in a role definition, it takes away here.
    pub permissions: Vec<Permissions>,
    /// Whom it binds.
    pub principals: Principals,
    /// Whom of those it does not bind after all.
    pub excluded: Principals,
    /// Whether all of it hangs on a condition.
    pub conditional: bool,
}

/// What a deny assignment does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// It denies.
    Enforced,
    /// It only makes Azure write down what it would deny: `audit` must not deny.
    Audit,
}

/// Principals, of whom groups stand for their members.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Principals {
    /// Everybody, whoever else is named.
    pub everyone: bool,
    /// Object ids.
    pub ids: BTreeSet<PrincipalId>,
}

impl Principals {
    /// Whether somebody is among them who has these object ids: their own and their groups'.
    #[must_use]
    pub fn contain(&self, identities: &BTreeSet<PrincipalId>) -> bool {
        self.everyone || !self.ids.is_disjoint(identities)
    }
}

impl DenyAssignment {
    /// Whether it may keep somebody from something at `scope`, in lower case: it is enforced, binds there, and binds
    /// whoever has these object ids, their own and their groups'. What it keeps them from, and on which condition, is
    /// in the rest of it.
    #[must_use]
    pub fn binds(&self, identities: &BTreeSet<PrincipalId>, scope: &str) -> bool {
        self.effect == Effect::Enforced
            && self.is_at(scope)
            && self.principals.contain(identities)
            && !self.excluded.contain(identities)
    }

    fn is_at(&self, scope: &str) -> bool {
        if self.at_its_scope_only {
            return self.scope == scope;
        }
        holds_at(&self.scope, scope)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CLUSTER: &str =
        "/subscriptions/s/resourcegroups/rg/providers/microsoft.containerservice/managedclusters/c";

    fn id(n: u128) -> PrincipalId {
        PrincipalId::new(Uuid::from_u128(n))
    }

    fn of(ids: &[u128]) -> Principals {
        Principals {
            everyone: false,
            ids: ids.iter().copied().map(id).collect(),
        }
    }

    fn everyone() -> Principals {
        Principals {
            everyone: true,
            ids: BTreeSet::new(),
        }
    }

    fn deny() -> DenyAssignment {
        DenyAssignment {
            resource_id: String::new(),
            display_name: String::new(),
            scope: "/subscriptions/s".to_owned(),
            at_its_scope_only: false,
            effect: Effect::Enforced,
            permissions: Vec::new(),
            principals: everyone(),
            excluded: Principals::default(),
            conditional: false,
        }
    }

    #[test]
    fn it_binds_whoever_is_named_or_in_a_group_that_is_and_is_not_excluded() {
        // Somebody with the object id 1, in group 2.
        let identities = BTreeSet::from([id(1), id(2)]);
        for (principals, excluded, binds) in [
            (everyone(), of(&[]), true),
            (of(&[1]), of(&[]), true),
            (of(&[2]), of(&[]), true),
            (of(&[3]), of(&[]), false),
            (of(&[]), of(&[]), false),
            (everyone(), of(&[1]), false),
            (everyone(), of(&[2]), false),
            (everyone(), of(&[3]), true),
            (of(&[1]), everyone(), false),
        ] {
            let told = format!("{principals:?} without {excluded:?}");
            let deny = DenyAssignment {
                principals,
                excluded,
                ..deny()
            };
            assert_eq!(deny.binds(&identities, CLUSTER), binds, "{told}");
        }
    }

    #[test]
    fn it_binds_at_its_scope_and_below_unless_it_says_otherwise() {
        let namespace = format!("{CLUSTER}/namespaces/web");
        let group = "/providers/microsoft.management/managementgroups/contoso";
        for (scope, everywhere, alone) in [
            (CLUSTER, true, true),
            ("/subscriptions/s", true, false),
            ("/subscriptions/other", false, false),
            (&namespace, false, false),
            (group, true, false),
            ("/", true, false),
        ] {
            for (at_its_scope_only, binds) in [(false, everywhere), (true, alone)] {
                let deny = DenyAssignment {
                    scope: scope.to_owned(),
                    at_its_scope_only,
                    ..deny()
                };
                assert_eq!(
                    deny.binds(&BTreeSet::new(), CLUSTER),
                    binds,
                    "{scope}, alone: {at_its_scope_only}"
                );
            }
        }
    }

    #[test]
    fn what_is_only_audited_binds_nobody() {
        let deny = DenyAssignment {
            effect: Effect::Audit,
            ..deny()
        };
        assert!(!deny.binds(&BTreeSet::from([id(1)]), CLUSTER));
    }
}
