//! Groups in groups: which of them lead from somebody to one group.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::PrincipalId;

/// One chain of groups that leads to `last`, the innermost first, `last` at the end. `above` has all groups of somebody,
/// each with the groups that it is in itself, through others too.
///
/// The directory tells who is in what, not by which ways; a group that no other one between leads to is the next.
#[must_use]
pub fn chain(
    above: &BTreeMap<PrincipalId, BTreeSet<PrincipalId>>,
    last: PrincipalId,
) -> Vec<PrincipalId> {
    let mut between: BTreeSet<PrincipalId> = above
        .iter()
        .filter(|(group, above)| **group != last && above.contains(&last))
        .map(|(group, _)| *group)
        .collect();
    let mut chain = Vec::new();
    while !between.is_empty() {
        let leads_to = |group: &PrincipalId, other: &PrincipalId| {
            above.get(group).is_some_and(|above| above.contains(other))
        };
        let is_next = |group: &&PrincipalId| {
            !between
                .iter()
                .any(|other| other != *group && leads_to(other, group))
        };
        // Groups that are in each other have no first; any of them will do.
        let Some(next) = between
            .iter()
            .find(is_next)
            .or_else(|| between.first())
            .copied()
        else {
            break;
        };
        chain.push(next);
        between.retain(|group| *group != next && leads_to(&next, group));
    }
    chain.push(last);
    chain
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> PrincipalId {
        PrincipalId::new(Uuid::from_u128(n))
    }

    fn groups(of: &[(u128, &[u128])]) -> BTreeMap<PrincipalId, BTreeSet<PrincipalId>> {
        of.iter()
            .map(|(group, above)| (id(*group), above.iter().copied().map(id).collect()))
            .collect()
    }

    #[test]
    fn a_chain_leads_from_the_innermost_group_to_the_one_that_is_meant() {
        let nested = groups(&[(1, &[2, 3]), (2, &[3]), (3, &[]), (9, &[])]);
        assert_eq!(chain(&nested, id(3)), [id(1), id(2), id(3)]);
        assert_eq!(chain(&nested, id(2)), [id(1), id(2)]);
        assert_eq!(chain(&nested, id(9)), [id(9)]);
        assert_eq!(chain(&nested, id(7)), [id(7)], "one that is not known");
    }

    #[test]
    fn of_two_ways_one_is_told_and_a_circle_ends() {
        let diamond = groups(&[(1, &[3]), (2, &[3]), (3, &[])]);
        assert_eq!(chain(&diamond, id(3)), [id(1), id(3)]);
        let circle = groups(&[(1, &[1, 2, 3]), (2, &[1, 2, 3]), (3, &[])]);
        assert_eq!(chain(&circle, id(3)).last(), Some(&id(3)));
    }
}
