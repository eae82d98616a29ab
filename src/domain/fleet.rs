//! Fleets: clusters on which roles can be assigned together. For a cluster that is a member of one, AKS asks at the
//! fleet as well, by data actions of the fleet's own [azure.md §3].

use std::fmt;

use thiserror::Error;

use super::ids::{ClusterId, SubscriptionId};

/// The ARM id of a fleet, in its canonical form (lower case).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FleetId {
    id: String,
    subscription: SubscriptionId,
}

/// A text that is not the ARM id of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{id:?} is not the ARM id of a fleet: expected /subscriptions/{{guid}}/resourceGroups/{{name}}/providers/\
     Microsoft.ContainerService/fleets/{{name}}"
)]
pub struct InvalidFleetId {
    /// What was given, shortened.
    pub id: String,
}

impl FleetId {
    /// Parses an ARM id in any case.
    ///
    /// # Errors
    /// [`InvalidFleetId`] repeats what was given.
    pub fn parse(id: &str) -> Result<Self, InvalidFleetId> {
        let lower = id.to_ascii_lowercase();
        let segments: Vec<&str> = lower.split('/').collect();
        let subscription = match segments.as_slice() {
            [
                "",
                "subscriptions",
                subscription,
                "resourcegroups",
                group,
                "providers",
                "microsoft.containerservice",
                "fleets",
                name,
            ] if is_segment(group) && is_segment(name) => SubscriptionId::parse(subscription).ok(),
            _ => None,
        };
        match subscription {
            Some(subscription) => Ok(Self {
                id: lower,
                subscription,
            }),
            None => Err(InvalidFleetId {
                id: id.chars().take(300).collect(),
            }),
        }
    }

    /// The canonical id, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.id
    }

    /// The subscription that the fleet is in.
    #[must_use]
    pub const fn subscription(&self) -> SubscriptionId {
        self.subscription
    }
}

/// The id becomes part of a path: nothing in it may end one or lead elsewhere.
fn is_segment(name: &str) -> bool {
    !name.is_empty()
        && !name.ends_with('.')
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "_-.()".contains(c))
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// A fleet, as ARM tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fleet {
    /// Its ARM id.
    pub id: FleetId,
    /// Its name, as Azure spells it.
    pub name: String,
}

/// A managed cluster's membership in a fleet. A cluster is in one fleet at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FleetMember {
    /// The name that the cluster has in the fleet.
    pub name: String,
    /// The cluster, which may be in another subscription than the fleet, or gone.
    pub cluster: ClusterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/RG-1/providers/\
                         Microsoft.ContainerService/fleets/Fleet-1";

    #[test]
    fn a_fleet_is_the_same_in_any_case() {
        let one = FleetId::parse(FLEET).unwrap();
        assert_eq!(FleetId::parse(&FLEET.to_ascii_uppercase()), Ok(one.clone()));
        assert_eq!(one.to_string(), FLEET.to_ascii_lowercase());
    }

    #[test]
    fn nothing_else_is_a_fleets_id() {
        for other in [
            "",
            &FLEET[1..],
            &FLEET.replace("fleets", "managedClusters"),
            &FLEET.replace("11111111-1111", "1111"),
            &FLEET.replace("RG-1", ".."),
            &FLEET.replace("Fleet-1", ""),
            &FLEET.replace("Fleet-1", "a?b"),
            &format!("{FLEET}/members/m"),
        ] {
            assert!(FleetId::parse(other).is_err(), "{other}");
        }
    }
}
