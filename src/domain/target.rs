//! A target as a pass loads it: the wishes, what is known of their effects, and who waits.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::access::{PrincipalType, RoleAtScope};
use super::effect::{Effect, PerCall};
use super::grant::{Expiry, Grant, GrantState};
use super::ids::{AssignmentName, GrantId, TargetId};
use super::job::WaitingJob;

/// One principal on one cluster, at one generation of its wishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Which.
    pub id: TargetId,
    /// Counts the changes of its wishes.
    pub generation: u64,
    /// What is known of each effect that was ever intended and is not yet forgotten.
    pub effects: BTreeMap<AssignmentName, Effect>,
    /// Its grants that have not ended.
    pub grants: Vec<Grant>,
    /// The jobs that wait for it.
    pub jobs: Vec<WaitingJob>,
    /// How many workers in a row have claimed it, the present one included, since one last recorded its pass.
    pub attempts: u32,
    /// How many passes in a row have failed at a call of this kind.
    pub failures: PerCall<u32>,
    /// How often in a row the end of a grant was put off because the desired state had changed during the pass.
    pub put_off: BTreeMap<GrantId, u32>,
}

/// What the live grants together call for at one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The latest end of those grants.
    pub expiry: Expiry,
    /// Those grants, oldest first.
    pub grants: Vec<GrantId>,
    /// Whether one of them is not on the cluster yet.
    pub pending: bool,
    /// The principal's type as the most trustworthy of them says it: an active one's has been proven.
    pub principal_type: PrincipalType,
}

impl Target {
    /// The union of the live grants: what should be in Azure, and until when.
    #[must_use]
    pub fn wishes(&self) -> BTreeMap<RoleAtScope, Wish> {
        self.wishes_without(&BTreeSet::new())
    }

    /// The same as if `grants` were not live.
    #[must_use]
    pub fn wishes_without(&self, grants: &BTreeSet<GrantId>) -> BTreeMap<RoleAtScope, Wish> {
        let mut live: Vec<&Grant> = self
            .grants
            .iter()
            .filter(|grant| grant.state.is_live() && !grants.contains(&grant.id))
            .collect();
        live.sort_by_key(|grant| {
            (
                grant.state != GrantState::Active,
                grant.create_time,
                grant.id,
            )
        });
        let mut wishes: BTreeMap<RoleAtScope, Wish> = BTreeMap::new();
        for grant in live {
            let pending = grant.state == GrantState::Pending;
            for at in grant.calls_for() {
                wishes
                    .entry(at)
                    .and_modify(|wish| {
                        wish.expiry = wish.expiry.max(grant.expiry);
                        wish.grants.push(grant.id);
                        wish.pending |= pending;
                    })
                    .or_insert_with(|| Wish {
                        expiry: grant.expiry,
                        grants: vec![grant.id],
                        pending,
                        principal_type: grant.principal.kind,
                    });
            }
        }
        wishes
    }

    /// The effects of one series, by their place in it.
    pub fn series<'a>(&'a self, at: &'a RoleAtScope) -> impl Iterator<Item = &'a Effect> + 'a {
        let mut series: Vec<&Effect> = self
            .effects
            .values()
            .filter(|effect| effect.at == *at)
            .collect();
        series.sort_by_key(|effect| effect.n);
        series.into_iter()
    }

    /// The settle deadlines of its effects, by Redis's clock.
    #[must_use]
    pub fn settle_deadlines(&self) -> BTreeMap<AssignmentName, Timestamp> {
        let effects = self.effects.values();
        let deadlines = effects.filter_map(|effect| Some((effect.name, effect.deadline?)));
        deadlines.collect()
    }
}
