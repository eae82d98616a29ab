//! Where something that was assigned counts, of the places at which AKS asks [azure.md §3].

use crate::domain::fleet::FleetId;
use crate::domain::ids::ClusterId;

/// A place at which AKS asks Azure whether somebody may do something in a cluster. With a namespace it asks at the
/// last four, in this order, without one at the first two; any yes is a yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The cluster.
    Cluster,
    /// The fleet that the cluster is a member of.
    Fleet,
    /// The namespace, below the cluster.
    Namespace,
    /// The managed namespace of its name, below the cluster.
    ManagedNamespace,
    /// The namespace, below the fleet.
    FleetNamespace,
    /// The managed namespace of its name, below the fleet.
    FleetManagedNamespace,
}

impl Place {
    /// Where AKS asks about the whole cluster.
    pub const OF_CLUSTER: [Self; 2] = [Self::Cluster, Self::Fleet];
    /// Where AKS asks about a namespace.
    pub const OF_NAMESPACE: [Self; 4] = [
        Self::Namespace,
        Self::ManagedNamespace,
        Self::FleetNamespace,
        Self::FleetManagedNamespace,
    ];

    /// Whether it belongs to a fleet, where data actions are the fleet's own.
    #[must_use]
    pub const fn is_of_fleet(self) -> bool {
        matches!(
            self,
            Self::Fleet | Self::FleetNamespace | Self::FleetManagedNamespace
        )
    }

    /// The bits of what counts here, whatever the namespace.
    const fn whole(self) -> u8 {
        match self {
            Self::Cluster => CLUSTER | CLUSTER_ALONE,
            Self::Fleet => FLEET | FLEET_ALONE,
            Self::Namespace | Self::ManagedNamespace => CLUSTER,
            Self::FleetNamespace | Self::FleetManagedNamespace => FLEET,
        }
    }

    /// The bit of what counts here if it is of the namespace asked about.
    const fn own(self) -> u8 {
        match self {
            Self::Cluster | Self::Fleet => 0,
            Self::Namespace => NAMESPACE,
            Self::ManagedNamespace => MANAGED_NAMESPACE,
            Self::FleetNamespace => FLEET_NAMESPACE,
            Self::FleetManagedNamespace => FLEET_MANAGED_NAMESPACE,
        }
    }
}

const CLUSTER: u8 = 1;
const FLEET: u8 = 1 << 1;
const CLUSTER_ALONE: u8 = 1 << 2;
const FLEET_ALONE: u8 = 1 << 3;
const NAMESPACE: u8 = 1 << 4;
const MANAGED_NAMESPACE: u8 = 1 << 5;
const FLEET_NAMESPACE: u8 = 1 << 6;
const FLEET_MANAGED_NAMESPACE: u8 = 1 << 7;

/// Where something counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::domain) struct Reach {
    bits: u8,
    namespace: u32,
}

/// The number of a namespace that nothing is assigned in.
pub(in crate::domain) const NO_NAMESPACE: u32 = u32::MAX;

impl Reach {
    /// As it was taken apart.
    pub(in crate::domain) const fn of(bits: u8, namespace: u32) -> Self {
        Self { bits, namespace }
    }

    /// At which kinds of places it counts.
    pub(in crate::domain) const fn bits(self) -> u8 {
        self.bits
    }

    /// In which namespace alone it counts, if in one.
    pub(in crate::domain) const fn namespace(self) -> u32 {
        self.namespace
    }

    /// Whether it counts at a place; `namespace` is the number of the one asked about.
    pub(in crate::domain) const fn covers(self, place: Place, namespace: u32) -> bool {
        self.bits & place.whole() != 0
            || (self.bits & place.own() != 0 && self.namespace == namespace)
    }

    /// Whether it counts nowhere.
    pub(in crate::domain) const fn is_nowhere(self) -> bool {
        self.bits == 0
    }

    /// Whether it counts in one namespace and nowhere else.
    pub(in crate::domain) const fn is_of_one_namespace(self) -> bool {
        self.bits & (CLUSTER | FLEET | CLUSTER_ALONE | FLEET_ALONE) == 0
    }

    /// The same where it counts at its own scope only, and not below: what comes from above counts nowhere.
    pub(in crate::domain) fn alone(self, scope: &str, of: &Around<'_>) -> Self {
        let mut bits = self.bits & !(CLUSTER | FLEET);
        if of.cluster.is_some_and(|cluster| cluster.as_str() == scope) {
            bits |= CLUSTER_ALONE;
        }
        if of.fleet.is_some_and(|fleet| fleet.as_str() == scope) {
            bits |= FLEET_ALONE;
        }
        Self { bits, ..self }
    }
}

/// What a list was made around: the cluster if it is the list of its subscription, the fleet if it is the list of the
/// fleet's, both if they are in the same one.
#[derive(Clone, Copy, Debug)]
pub(in crate::domain) struct Around<'a> {
    pub(in crate::domain) cluster: Option<&'a ClusterId>,
    pub(in crate::domain) fleet: Option<&'a FleetId>,
}

impl Around<'_> {
    /// Where something at `scope`, in lower case, counts. `number` gives each namespace its number.
    pub(in crate::domain) fn reach(
        &self,
        scope: &str,
        mut number: impl FnMut(&str) -> u32,
    ) -> Reach {
        let mut reach = Reach {
            bits: 0,
            namespace: NO_NAMESPACE,
        };
        let outer = [
            (
                self.cluster.map(ClusterId::as_str),
                CLUSTER,
                NAMESPACE,
                MANAGED_NAMESPACE,
            ),
            (
                self.fleet.map(FleetId::as_str),
                FLEET,
                FLEET_NAMESPACE,
                FLEET_MANAGED_NAMESPACE,
            ),
        ];
        for (outer, whole, namespace, managed) in outer {
            let Some(outer) = outer else { continue };
            if holds_at(scope, outer) {
                reach.bits |= whole;
                continue;
            }
            let Some(below) = scope.strip_prefix(outer) else {
                continue;
            };
            let child = [
                ("/namespaces/", namespace),
                ("/managednamespaces/", managed),
            ]
            .into_iter()
            .find_map(|(kind, bit)| Some((below.strip_prefix(kind)?, bit)));
            if let Some((name, bit)) = child
                && !name.is_empty()
                && !name.contains('/')
            {
                reach.bits |= bit;
                reach.namespace = number(name);
            }
        }
        reach
    }
}

/// Whether what is assigned at `assigned` holds at `scope`, both in lower case. Of a management group nobody but ARM
/// knows what is in it: it must have been in a list around `scope`.
#[must_use]
pub fn holds_at(assigned: &str, scope: &str) -> bool {
    if !assigned.starts_with('/') {
        return false;
    }
    let above = assigned.trim_end_matches('/');
    if let Some(group) = above.strip_prefix("/providers/microsoft.management/managementgroups/") {
        return !group.contains('/');
    }
    scope
        .strip_prefix(above)
        .is_some_and(|below| below.is_empty() || below.starts_with('/'))
}
