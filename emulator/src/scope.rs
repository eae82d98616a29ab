//! Where something is in Azure's tree: management groups, subscriptions, resource groups, resources.
//!
//! ARM ids compare without regard to case and are answered in whatever case they were first written
//! [azure.md §1], so a scope keeps both: the text it was given and the key it compares by.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The ARM id of a place at which roles can be assigned.
///
/// Two scopes are equal when they differ in nothing but case.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    text: String,
    key: String,
    level: Level,
}

/// How deep in the tree a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Root,
    ManagementGroup,
    Subscription,
    ResourceGroup,
    Resource,
}

/// The text is no ARM scope.
#[derive(Debug, Error)]
#[error("'{0}' is not the id of a management group, subscription, resource group or resource")]
pub struct InvalidScope(String);

const CLUSTER_TYPE: &str = "microsoft.containerservice/managedclusters";
const FLEET_TYPE: &str = "microsoft.containerservice/fleets";

impl Scope {
    /// Reads an ARM id.
    ///
    /// # Errors
    /// [`InvalidScope`] when a segment is missing or has the wrong word.
    pub fn parse(id: &str) -> Result<Self, InvalidScope> {
        let text = id.trim_end_matches('/');
        let text = if text.is_empty() { "/" } else { text };
        let key = text.to_ascii_lowercase();
        let level = level_of(&key).ok_or_else(|| InvalidScope(id.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            key,
            level,
        })
    }

    /// A cluster's id, `resourcegroups` in lower case. Whoever takes names from outside parses it once more.
    pub(crate) fn of_cluster(subscription: Uuid, resource_group: &str, name: &str) -> Self {
        let text = format!(
            "/subscriptions/{subscription}/resourcegroups/{resource_group}/providers/Microsoft.ContainerService/managedClusters/{name}"
        );
        Self {
            key: text.to_ascii_lowercase(),
            text,
            level: Level::Resource,
        }
    }

    /// A fleet's id. Whoever takes names from outside parses it once more.
    pub(crate) fn of_fleet(subscription: Uuid, resource_group: &str, name: &str) -> Self {
        let text = format!(
            "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.ContainerService/fleets/{name}"
        );
        Self {
            key: text.to_ascii_lowercase(),
            text,
            level: Level::Resource,
        }
    }

    /// The id as it was first written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id in lower case, which is what it compares by.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The ARM id of a deny assignment here.
    pub(crate) fn deny_assignment_id(&self, name: Uuid) -> String {
        let here = self.text.trim_end_matches('/');
        format!("{here}/providers/Microsoft.Authorization/denyAssignments/{name}")
    }

    /// The ARM id of a role assignment here.
    pub(crate) fn role_assignment_id(&self, name: &str) -> String {
        let here = self.text.trim_end_matches('/');
        format!("{here}/providers/Microsoft.Authorization/roleAssignments/{name}")
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// The segment after `subscriptions`, in lower case.
    pub(crate) fn subscription(&self) -> Option<&str> {
        self.segment_after("subscriptions", 1)
    }

    /// The resource group's name, in lower case.
    pub(crate) fn resource_group(&self) -> Option<&str> {
        self.segment_after("resourcegroups", 3)
    }

    /// The management group's id, in lower case, if this is one.
    pub(crate) fn management_group(&self) -> Option<&str> {
        (self.level == Level::ManagementGroup)
            .then(|| self.key.rsplit('/').next())
            .flatten()
    }

    /// The key of the managed cluster that this is, or that it lies in.
    pub(crate) fn cluster_key(&self) -> Option<&str> {
        self.key_of_resource(CLUSTER_TYPE)
    }

    /// The key of the fleet that this is, or that it lies in.
    pub(crate) fn fleet_key(&self) -> Option<&str> {
        self.key_of_resource(FLEET_TYPE)
    }

    fn key_of_resource(&self, of_type: &str) -> Option<&str> {
        let mut segments = self.key.split('/').skip(6);
        let (namespace, kind) = (segments.next()?, segments.next()?);
        if self.level != Level::Resource || format!("{namespace}/{kind}") != of_type {
            return None;
        }
        let end = self
            .key
            .match_indices('/')
            .nth(8)
            .map_or(self.key.len(), |(at, _)| at);
        Some(&self.key[..end])
    }

    /// The type and name of a resource as ARM writes them in errors, in the case they were sent in.
    pub(crate) fn resource_type_and_name(&self) -> Option<(String, String)> {
        let segments: Vec<&str> = self.text.split('/').skip(6).collect();
        let (namespace, pairs) = segments.split_first()?;
        let kinds: Vec<&str> = pairs.iter().step_by(2).copied().collect();
        let names: Vec<&str> = pairs.iter().skip(1).step_by(2).copied().collect();
        Some((format!("{namespace}/{}", kinds.join("/")), names.join("/")))
    }

    /// The keys of this scope and of what it lies in, innermost first, as far as the id itself tells:
    /// which management groups a subscription is in only the world knows.
    pub(crate) fn keys_upwards(&self) -> Vec<&str> {
        let mut keys = vec![self.key.as_str()];
        let mut rest = self.key.as_str();
        if self.level == Level::Resource {
            let group_end = self
                .key
                .match_indices('/')
                .nth(4)
                .map_or(self.key.len(), |(at, _)| at);
            let type_end = self
                .key
                .match_indices('/')
                .nth(6)
                .map_or(self.key.len(), |(at, _)| at);
            while let Some((above, _)) = rest
                .rsplit_once('/')
                .and_then(|(kind, _)| kind.rsplit_once('/'))
            {
                if above.len() <= type_end {
                    break;
                }
                keys.push(above);
                rest = above;
            }
            keys.push(&self.key[..group_end]);
        }
        if matches!(self.level, Level::Resource | Level::ResourceGroup) {
            let end = self
                .key
                .match_indices('/')
                .nth(2)
                .map_or(self.key.len(), |(at, _)| at);
            keys.push(&self.key[..end]);
        }
        keys
    }

    /// Does this scope lie strictly below the one with `key`, as far as the ids themselves tell?
    pub(crate) fn is_below(&self, key: &str) -> bool {
        self.key
            .strip_prefix(key)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    fn segment_after(&self, word: &str, position: usize) -> Option<&str> {
        let mut segments = self.key.split('/').skip(position);
        (segments.next() == Some(word))
            .then(|| segments.next())
            .flatten()
    }
}

fn level_of(key: &str) -> Option<Level> {
    if key == "/" {
        return Some(Level::Root);
    }
    let segments: Vec<&str> = key.strip_prefix('/')?.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    match segments.as_slice() {
        ["providers", "microsoft.management", "managementgroups", _] => {
            Some(Level::ManagementGroup)
        }
        ["subscriptions", _] => Some(Level::Subscription),
        ["subscriptions", _, "resourcegroups", _] => Some(Level::ResourceGroup),
        [
            "subscriptions",
            _,
            "resourcegroups",
            _,
            "providers",
            _,
            pairs @ ..,
        ] if !pairs.is_empty() && pairs.len() % 2 == 0 => Some(Level::Resource),
        _ => None,
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Scope {}

impl Hash for Scope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialEq<str> for Scope {
    fn eq(&self, other: &str) -> bool {
        self.key.eq_ignore_ascii_case(other)
    }
}

impl PartialEq<&str> for Scope {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidScope;

    fn try_from(id: String) -> Result<Self, InvalidScope> {
        Self::parse(&id)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.text
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, Scope};

    const NAMESPACE: &str = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.ContainerService/managedClusters/C/namespaces/n";

    #[test]
    fn a_namespace_lies_in_its_cluster_group_and_subscription() {
        let scope = Scope::parse(NAMESPACE).expect("a scope");
        assert_eq!(
            scope.keys_upwards(),
            [
                "/subscriptions/s/resourcegroups/rg/providers/microsoft.containerservice/managedclusters/c/namespaces/n",
                "/subscriptions/s/resourcegroups/rg/providers/microsoft.containerservice/managedclusters/c",
                "/subscriptions/s/resourcegroups/rg",
                "/subscriptions/s",
            ]
        );
        assert_eq!(scope.cluster_key(), Some(scope.keys_upwards()[1]));
        assert_eq!(scope.subscription(), Some("s"));
        assert_eq!(scope.resource_group(), Some("rg"));
        assert!(scope.is_below("/subscriptions/s"));
        assert!(!scope.is_below("/subscriptions"[..].trim_end_matches('s')));
    }

    #[test]
    fn the_levels_are_told_apart_and_other_paths_are_refused() {
        for (id, level) in [
            ("/", Some(Level::Root)),
            ("", Some(Level::Root)),
            (
                "/providers/Microsoft.Management/managementGroups/contoso",
                Some(Level::ManagementGroup),
            ),
            ("/subscriptions/s", Some(Level::Subscription)),
            (
                "/subscriptions/s/resourceGroups/rg",
                Some(Level::ResourceGroup),
            ),
            (NAMESPACE, Some(Level::Resource)),
            ("/subscriptions", None),
            (
                "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters",
                None,
            ),
            ("subscriptions/s", None),
            ("/subscriptions//resourceGroups/rg", None),
        ] {
            assert_eq!(
                Scope::parse(id).ok().map(|scope| scope.level()),
                level,
                "{id}"
            );
        }
    }
}
