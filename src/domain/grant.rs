//! Grants: the wishes that the broker makes Azure agree with.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::access::{Access, Principal, RoleAtScope};
use super::ids::{GrantId, JobId, RoleDefinitionId, TargetId};
use super::job::Failure;
use super::naming::{ExternalKey, Labels, OnBehalfOf};
use super::role::BuiltInRole;

/// The shortest time to live of a grant.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest time to live of a grant: 366 days.
pub const MAX_TTL: Duration = Duration::from_hours(366 * 24);

/// When a grant ends by itself. Ordered by which ends later: "never" is the latest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expiry {
    /// At this time.
    At(Timestamp),
    /// Never: until it is revoked.
    Never,
}

impl Expiry {
    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self, now: Timestamp) -> bool {
        self <= Self::At(now)
    }

    /// The time, if there is one.
    #[must_use]
    pub const fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(time),
            Self::Never => None,
        }
    }
}

/// Where a grant stands. It never comes back from `Revoking`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GrantState {
    /// Accepted, not yet on the cluster.
    Pending,
    /// On the cluster.
    Active,
    /// No longer wanted, not yet known to be gone; how it will have ended when it is.
    Revoking(Ending),
    /// Gone, and how it ended.
    Ended(Ending),
}

/// How a grant ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ending {
    /// Somebody revoked it, or its cluster is gone.
    Revoked,
    /// Its time was up.
    Expired,
    /// It could not be applied, and what had been applied was taken back.
    Failed,
}

/// A grant's state, as lists are narrowed by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Accepted, not yet on the cluster.
    Pending,
    /// On the cluster.
    Active,
    /// Going, however it will have ended.
    Revoking,
    /// Gone, and how it ended.
    Ended(Ending),
}

impl Phase {
    /// The phases of live grants.
    pub const LIVE: [Self; 2] = [Self::Pending, Self::Active];
}

impl From<GrantState> for Phase {
    fn from(state: GrantState) -> Self {
        match state {
            GrantState::Pending => Self::Pending,
            GrantState::Active => Self::Active,
            GrantState::Revoking(_) => Self::Revoking,
            GrantState::Ended(ending) => Self::Ended(ending),
        }
    }
}

impl GrantState {
    /// Live grants are those that call for effects.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Active)
    }
}

/// One grant, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Its id, a UUIDv7.
    pub id: GrantId,
    /// Who gets access to which cluster.
    pub target: TargetId,
    /// Who gets it, as resolved when it was accepted.
    pub principal: Principal,
    /// What it gives.
    pub access: Access,
    /// Where it stands.
    pub state: GrantState,
    /// When it was accepted, by Redis's clock.
    pub create_time: Timestamp,
    /// When it ends by itself.
    pub expiry: Expiry,
    /// When it last changed.
    pub update_time: Timestamp,
    /// When it ended; present exactly in `Ended`.
    pub end_time: Option<Timestamp>,
    /// Whether it ever was `Active`: one that never was leaves its job superseded, not succeeded.
    pub was_active: bool,
    /// Who asked for it.
    pub requested_by: String,
    /// Who ended it; empty while nobody has.
    pub ended_by: String,
    /// Why it was asked for, in the caller's words. Never logged above debug.
    pub justification: String,
    /// The caller's labels.
    pub labels: Labels,
    /// The caller's own name for it.
    pub external_key: Option<ExternalKey>,
    /// For whom the caller acted, as the caller said.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// The latest job that changes it.
    pub job: JobId,
    /// What went wrong last.
    pub last_error: Option<Failure>,
}

impl Grant {
    /// Every role assignment that the grant calls for while it is live.
    #[must_use]
    pub fn calls_for(&self) -> BTreeSet<RoleAtScope> {
        self.access.calls_for(&self.target.cluster)
    }
}

/// The display name of the role of one of the grants' effects: a custom one is one of theirs, there is no other.
#[must_use]
pub fn role_name(role: RoleDefinitionId, grants: &[Grant]) -> String {
    if let Some(built_in) = BuiltInRole::from_id(role) {
        return built_in.display_name().to_owned();
    }
    let own = grants.iter().map(|grant| &grant.access.role);
    let of_a_grant = own.into_iter().find(|own| own.id() == role);
    of_a_grant.map_or_else(|| role.to_string(), |own| own.display_name().to_owned())
}
