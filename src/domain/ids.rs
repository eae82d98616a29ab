//! The names of things, each a type of its own that can only exist well-formed.
//!
//! Whoever holds a [`ClusterId`] never checks it again, and nobody can hand over a grant's id where a
//! job's is due. ARM ids compare without regard to case, so each has one canonical form: lower case.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

/// A GUID that is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{value:?} is not a GUID: expected 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct InvalidGuid {
    /// What was given instead.
    pub value: String,
}

fn parse_guid(value: &str) -> Result<Uuid, InvalidGuid> {
    // Uuid::try_parse also takes braces, URNs and undashed digits; Azure's APIs take none of them.
    if value.len() == 36
        && let Ok(guid) = Uuid::try_parse(value)
    {
        return Ok(guid);
    }
    Err(InvalidGuid {
        value: value.chars().take(80).collect(),
    })
}

macro_rules! guid_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a GUID that is known to be of this kind.
            #[must_use]
            pub const fn new(guid: Uuid) -> Self {
                Self(guid)
            }

            /// Parses the 36-character form, in any case.
            ///
            /// # Errors
            /// [`InvalidGuid`] repeats what was given.
            pub fn parse(value: &str) -> Result<Self, InvalidGuid> {
                parse_guid(value).map(Self)
            }

            /// The bare GUID.
            #[must_use]
            pub const fn guid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidGuid;
            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::parse(value)
            }
        }
    )*};
}

guid_ids! {
    /// The Entra object id of a user, group or service principal.
    PrincipalId;
    /// The id by which an application signs in (its client id), the same in every tenant. Its service
    /// principal in a tenant has an object id of its own.
    ApplicationId;
    /// An Azure subscription.
    SubscriptionId;
    /// The GUID of an Azure role definition. Role definitions compare by GUID alone: the path before
    /// it differs with the scope at which one asks [rest-api-specs#11103].
    RoleDefinitionId;
    /// The name of a role assignment: a GUID that is unique in the tenant.
    AssignmentName;
    /// A grant of this broker's, a UUIDv7.
    GrantId;
    /// A job of this broker's, a UUIDv7.
    JobId;
    /// The caller's idempotency key of a request.
    RequestId;
    /// What tells this broker's effects from another broker's: made once, kept in Redis, written in
    /// the description of everything it makes.
    InstanceId;
    /// What a worker brings to claim a target, compared for equality only.
    LeaseToken;
}

impl RoleDefinitionId {
    /// Parses a bare GUID, or a full resource id that ends in
    /// `/providers/Microsoft.Authorization/roleDefinitions/{guid}`.
    ///
    /// # Errors
    /// [`InvalidRoleDefinitionId`] repeats what was given.
    pub fn parse_any(value: &str) -> Result<Self, InvalidRoleDefinitionId> {
        let invalid = || InvalidRoleDefinitionId {
            value: value.chars().take(300).collect(),
        };
        let guid = if value.starts_with('/') {
            let lower = value.to_ascii_lowercase();
            let (before, guid) = lower
                .rsplit_once("/providers/microsoft.authorization/roledefinitions/")
                .ok_or_else(invalid)?;
            let at_subscription = before.strip_prefix("/subscriptions/").is_some_and(|rest| {
                SubscriptionId::parse(rest.split('/').next().unwrap_or("")).is_ok()
            });
            if !(before.is_empty() || at_subscription) {
                return Err(invalid());
            }
            guid.to_owned()
        } else {
            value.to_owned()
        };
        Self::parse(&guid).map_err(|_| invalid())
    }
}

/// A role definition id that is neither a GUID nor a full resource id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{value:?} is not a role definition: expected its GUID, or \
     /subscriptions/{{guid}}/providers/Microsoft.Authorization/roleDefinitions/{{guid}}"
)]
pub struct InvalidRoleDefinitionId {
    /// What was given instead.
    pub value: String,
}

/// The ARM id of an AKS managed cluster, in its canonical form (lower case).
///
/// ARM ids compare without regard to case; Azure answers with whatever case it likes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClusterId {
    id: Arc<str>,
    subscription: SubscriptionId,
}

/// Why a text is not the ARM id of a managed cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{id:?} is not the ARM id of a managed cluster: {problem}; expected {CLUSTER_FORM}")]
pub struct InvalidClusterId {
    /// What was given, shortened.
    pub id: String,
    /// Which segment is wrong, and what was expected there.
    pub problem: String,
}

const CLUSTER_FORM: &str = "/subscriptions/{guid}/resourceGroups/{name}/providers/\
                            Microsoft.ContainerService/managedClusters/{name}";

impl ClusterId {
    /// Parses an ARM id in any case.
    ///
    /// # Errors
    /// [`InvalidClusterId`] says which segment is wrong, and what was expected there.
    pub fn parse(id: &str) -> Result<Self, InvalidClusterId> {
        Self::try_parse(id).map_err(|problem| InvalidClusterId {
            id: id.chars().take(300).collect(),
            problem,
        })
    }

    fn try_parse(id: &str) -> Result<Self, String> {
        let lower = id.to_ascii_lowercase();
        let rest = lower
            .strip_prefix('/')
            .ok_or("it does not begin with '/'")?;
        let segments: Vec<&str> = rest.split('/').collect();
        let fixed = [
            (0, "subscriptions"),
            (2, "resourcegroups"),
            (4, "providers"),
            (5, "microsoft.containerservice"),
            (6, "managedclusters"),
        ];
        for (index, expected) in fixed {
            match segments.get(index) {
                Some(found) if *found == expected => {}
                Some(found) => {
                    return Err(format!(
                        "segment {} is {:?}, not {expected:?}",
                        index + 1,
                        beginning(found)
                    ));
                }
                None => return Err(format!("it ends before segment {} ({expected})", index + 1)),
            }
        }
        let [_, subscription, _, group, _, _, _, name] = segments.as_slice() else {
            return Err(format!("it has {} segments, not 8", segments.len()));
        };
        let subscription = SubscriptionId::parse(subscription).map_err(|e| e.to_string())?;
        if !is_resource_group_name(group) {
            return Err(format!(
                "{:?} cannot be the name of a resource group",
                beginning(group)
            ));
        }
        if !is_cluster_name(name) {
            return Err(format!(
                "{:?} cannot be the name of a cluster",
                beginning(name)
            ));
        }
        Ok(Self {
            id: lower.into(),
            subscription,
        })
    }

    /// The canonical id, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.id
    }

    /// The subscription that the cluster is in, and by which ARM throttles.
    #[must_use]
    pub const fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    /// The ARM id, in lower case, of the resource group that the cluster is in.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        let end = self.id.match_indices('/').nth(4);
        end.map_or(&self.id, |(end, _)| &self.id[..end])
    }

    /// The cluster's own name, the last segment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

impl FromStr for ClusterId {
    type Err = InvalidClusterId;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Self::parse(value)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// As much of a segment as it takes to know it again: none that is longer has its place anywhere.
fn beginning(segment: &str) -> String {
    segment.chars().take(90).collect()
}

/// Azure's rule for resource groups: 1 to 90 letters, digits and `_-.()`, not ending in a full stop.
fn is_resource_group_name(name: &str) -> bool {
    (1..=90).contains(&name.chars().count())
        && !name.ends_with('.')
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "_-.()".contains(c))
}

/// Azure's rule for managed clusters: 1 to 63 letters, digits, `-` and `_`, alphanumeric at both ends.
fn is_cluster_name(name: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=63).contains(&name.len())
        && alphanumeric(name.chars().next())
        && alphanumeric(name.chars().last())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// The name of a Kubernetes namespace: an RFC 1123 label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Namespace(Arc<str>);

/// A text that cannot name a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{value:?} is not a namespace: expected 1 to 63 lower-case letters, digits and '-', \
     beginning and ending with a letter or digit (RFC 1123)"
)]
pub struct InvalidNamespace {
    /// What was given instead.
    pub value: String,
}

impl Namespace {
    /// # Errors
    /// [`InvalidNamespace`] repeats what was given.
    pub fn parse(value: &str) -> Result<Self, InvalidNamespace> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let well_formed = (1..=63).contains(&value.len())
            && value.chars().all(|c| label(c) || c == '-')
            && value.starts_with(label)
            && value.ends_with(label);
        if well_formed {
            Ok(Self(value.into()))
        } else {
            Err(InvalidNamespace {
                value: value.chars().take(80).collect(),
            })
        }
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the broker assigns roles: at a cluster, or at one of its namespaces. Never above.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// The whole cluster.
    Cluster(ClusterId),
    /// One namespace of it; it need not exist.
    Namespace(ClusterId, Namespace),
}

impl Scope {
    /// Parses the canonical form that [`Display`](fmt::Display) writes, in any case.
    ///
    /// # Errors
    /// [`InvalidClusterId`] also where what follows the cluster is not `/namespaces/{name}`.
    pub fn parse(scope: &str) -> Result<Self, InvalidClusterId> {
        let lower = scope.to_ascii_lowercase();
        match lower.rsplit_once("/namespaces/") {
            None => Ok(Self::Cluster(ClusterId::parse(scope)?)),
            Some((cluster, namespace)) => {
                let namespace = Namespace::parse(namespace).map_err(|e| InvalidClusterId {
                    id: scope.chars().take(300).collect(),
                    problem: e.to_string(),
                })?;
                Ok(Self::Namespace(ClusterId::parse(cluster)?, namespace))
            }
        }
    }

    /// The cluster at which, or below which, the scope lies.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        match self {
            Self::Cluster(cluster) | Self::Namespace(cluster, _) => cluster,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(cluster) => cluster.fmt(f),
            Self::Namespace(cluster, namespace) => write!(f, "{cluster}/namespaces/{namespace}"),
        }
    }
}

/// The unit of reconciliation, of locking and of ordering: one principal on one cluster.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TargetId {
    /// The cluster.
    pub cluster: ClusterId,
    /// The principal.
    pub principal: PrincipalId,
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.cluster, self.principal)
    }
}

/// A target's id that is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{value:?} is not a target: expected the cluster's ARM id, '|' and the principal's object id"
)]
pub struct InvalidTargetId {
    /// What was given instead.
    pub value: String,
}

impl FromStr for TargetId {
    type Err = InvalidTargetId;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let parts = value.rsplit_once('|').and_then(|(cluster, principal)| {
            Some((
                ClusterId::parse(cluster).ok()?,
                PrincipalId::parse(principal).ok()?,
            ))
        });
        match parts {
            Some((cluster, principal)) => Ok(Self { cluster, principal }),
            None => Err(InvalidTargetId {
                value: value.chars().take(300).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/RG-1/providers/\
                           Microsoft.ContainerService/managedClusters/Prod-1";

    #[test]
    fn a_cluster_is_the_same_in_any_case() {
        let one = ClusterId::parse(CLUSTER).unwrap();
        let other = ClusterId::parse(&CLUSTER.to_ascii_uppercase()).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.name(), "prod-1");
        assert_eq!(one.as_str(), CLUSTER.to_ascii_lowercase());
    }

    #[test]
    fn a_malformed_cluster_says_which_segment_is_wrong() {
        for (id, problem) in [
            ("", "does not begin with '/'"),
            ("/subscriptions", "ends before segment 3"),
            (
                "/subscriptions/x/resourceGroups/rg/providers/Microsoft.Compute/managedClusters/n",
                "segment 6",
            ),
            (&format!("{CLUSTER}/agentPools/p"), "has 10 segments"),
            (&format!("{CLUSTER}-"), "name of a cluster"),
            (&CLUSTER.replace("11111111-1111", "1111"), "not a GUID"),
            (&CLUSTER.replace("RG-1", "rg."), "name of a resource group"),
        ] {
            let error = ClusterId::parse(id).unwrap_err().to_string();
            assert!(error.contains(problem), "{id}: {error}");
        }
    }

    #[test]
    fn role_definitions_parse_as_guid_and_as_full_id() {
        let guid = "4abbcc35-e782-43d8-92c5-2d3f1bd2253f";
        let expected = RoleDefinitionId::parse(guid).unwrap();
        for form in [
            guid.to_owned(),
            guid.to_uppercase(),
            format!("/providers/Microsoft.Authorization/roleDefinitions/{guid}"),
            format!(
                "/subscriptions/11111111-1111-4111-8111-111111111111/providers/Microsoft.Authorization/roleDefinitions/{guid}"
            ),
        ] {
            assert_eq!(RoleDefinitionId::parse_any(&form), Ok(expected), "{form}");
        }
        for form in [
            "",
            "reader",
            "/providers/x",
            "{4abbcc35-e782-43d8-92c5-2d3f1bd2253f}",
            "4abbcc35e78243d892c52d3f1bd2253f",
        ] {
            assert!(RoleDefinitionId::parse_any(form).is_err(), "{form}");
        }
    }

    #[test]
    fn scopes_and_targets_survive_being_written() {
        let cluster = ClusterId::parse(CLUSTER).unwrap();
        let namespace = Scope::Namespace(cluster.clone(), Namespace::parse("team-a").unwrap());
        assert_eq!(Scope::parse(&namespace.to_string()), Ok(namespace));
        assert!(Scope::parse(&format!("{CLUSTER}/namespaces/-a")).is_err());
        let target = TargetId {
            cluster,
            principal: PrincipalId::new(Uuid::from_u128(7)),
        };
        assert_eq!(target.to_string().parse(), Ok(target));
    }
}
