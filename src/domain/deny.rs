//! Deny assignments: what somebody may not do, whatever roles they have [azure.md §1].

use std::collections::BTreeSet;

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
    /// Whether somebody is among them, in person or in one of these groups.
    fn contain(&self, principal: PrincipalId, groups: &[PrincipalId]) -> bool {
        self.everyone
            || self.ids.contains(&principal)
            || (!self.ids.is_empty() && groups.iter().any(|group| self.ids.contains(group)))
    }
}

impl DenyAssignment {
    /// Whether it binds somebody who is in these groups, where it binds at all. What it keeps them from, and on which
    /// condition, is in the rest of it.
    ///
    /// Whoever is excluded by a group stays bound: no source says that an excluded group stands for its members.
    #[must_use]
    pub fn binds(&self, principal: PrincipalId, groups: &[PrincipalId]) -> bool {
        self.effect == Effect::Enforced
            && self.principals.contain(principal, groups)
            && !self.excluded.contain(principal, &[])
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

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
    fn it_binds_whoever_is_named_or_in_a_group_that_is_unless_excluded_in_person() {
        // Somebody with the object id 1, in group 2.
        for (principals, excluded, binds) in [
            (everyone(), of(&[]), true),
            (of(&[1]), of(&[]), true),
            (of(&[2]), of(&[]), true),
            (of(&[3]), of(&[]), false),
            (of(&[]), of(&[]), false),
            (everyone(), of(&[1]), false),
            (everyone(), of(&[2]), true),
            (everyone(), of(&[3]), true),
            (of(&[1]), everyone(), false),
        ] {
            let told = format!("{principals:?} without {excluded:?}");
            let deny = DenyAssignment {
                principals,
                excluded,
                ..deny()
            };
            assert_eq!(deny.binds(id(1), &[id(2)]), binds, "{told}");
        }
    }

    #[test]
    fn what_is_only_audited_binds_nobody() {
        let deny = DenyAssignment {
            effect: Effect::Audit,
            ..deny()
        };
        assert!(!deny.binds(id(1), &[]));
    }
}
