//! A request to a cluster's API server → the data actions that Azure RBAC must allow for it.
//!
//! As AKS's own authorisation webhook maps it [kubeguard/guard authz/providers/azure/rbac,
//! checkaccessreqhelper.go]: whoever asks here is to hear what the cluster would answer.

mod operations;

use std::hash::{Hash, Hasher};

use thiserror::Error;

use super::ids::Namespace;
use operations::{OPERATIONS, Resource};

/// What every data action of a cluster begins with.
pub(super) const PREFIX: &str = "Microsoft.ContainerService/managedClusters";

/// A request to an API server, as in Kubernetes' `SubjectAccessReview`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KubernetesRequest {
    /// For objects, such as the pods of a namespace.
    Resource(ResourceRequest),
    /// For a path that is no object's, such as `/healthz`.
    Path {
        /// The path, with its first `/`.
        path: String,
        /// The verb: an HTTP method's, in lower case.
        verb: String,
    },
}

/// A request for objects. `*` as verb, group or resource asks for all of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ResourceRequest {
    /// Kubernetes' verb, such as `list`.
    pub verb: String,
    /// The API group; empty: the core group.
    pub api_group: String,
    /// The resource, in the plural, such as `pods`.
    pub resource: String,
    /// What of the resource, such as `log`; empty: the resource itself.
    pub subresource: String,
    /// Where; `None`: in the whole cluster.
    pub namespace: Option<Namespace>,
}

/// Which of the webhook's newer features the cluster has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Features {
    /// Custom resources are asked for by data actions of their own, and conditions can name them.
    pub custom_resources: bool,
    /// Conditions can name subresources.
    pub subresources: bool,
}

/// What Azure RBAC has to allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Demand {
    /// Nothing: everybody may, without a check.
    Nothing,
    /// All of these; never empty.
    All(Vec<DataAction>),
}

/// A data action, with what a condition can ask about the request.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DataAction {
    /// The data action, such as `Microsoft.ContainerService/managedClusters/pods/read`.
    pub id: String,
    /// `…/managedClusters/resources:subresource`
    pub subresource: Option<String>,
    /// `…/managedClusters/customResources:group` and `…:kind`, which is the resource's name.
    pub custom_resource: Option<(String, String)>,
}

/// A request that the webhook answers with an error, and so lets nobody through.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NoDemand {
    /// Custom resources are read, written and deleted, and nothing else.
    #[error(
        "Azure RBAC knows no way to {verb} custom resources such as {resource}.{api_group}: nobody is let through"
    )]
    CustomResourceVerb {
        /// The verb.
        verb: String,
        /// The group.
        api_group: String,
        /// The resource.
        resource: String,
    },
    /// Nothing that Azure RBAC knows is meant by the `*`.
    #[error(
        "Azure RBAC knows no operation {verb} {resource:?} in API group {api_group:?}: nobody is let through"
    )]
    NothingMatches {
        /// The verb.
        verb: String,
        /// The group.
        api_group: String,
        /// The resource.
        resource: String,
    },
}

impl KubernetesRequest {
    /// What Azure RBAC has to allow for the request to be let through.
    ///
    /// # Errors
    /// [`NoDemand`] where the webhook has no answer but an error.
    pub fn demand(&self, features: Features) -> Result<Demand, NoDemand> {
        match self {
            Self::Path { path, verb } if verb == "get" && is_discovery(path) => Ok(Demand::Nothing),
            Self::Path { path, verb } => {
                let segments = path.split('/').filter(|segment| !segment.is_empty());
                let word = if verb == "*" { Some("*") } else { word(verb) };
                let action = [PREFIX].into_iter().chain(segments).chain(word);
                let action = action.collect::<Vec<_>>().join("/");
                Ok(Demand::All(vec![DataAction::named(action)]))
            }
            Self::Resource(request) => request.demand(features).map(Demand::All),
        }
    }

    /// Whether the other needs the same of Azure RBAC, each in its own namespace.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Resource(one), Self::Resource(other)) => {
                one.namespace.is_some() == other.namespace.is_some()
                    && (&one.verb, &one.api_group) == (&other.verb, &other.api_group)
                    && one.resource == other.resource
                    && one.subresource_that_matters() == other.subresource_that_matters()
            }
            (Self::Path { .. }, Self::Path { .. }) => self == other,
            _ => false,
        }
    }

    /// Hashes what [`asks_the_same`](Self::asks_the_same) compares.
    pub fn hash_what_is_asked(&self, hasher: &mut impl Hasher) {
        match self {
            Self::Resource(request) => {
                request.verb.hash(hasher);
                request.api_group.hash(hasher);
                request.resource.hash(hasher);
                request.subresource_that_matters().hash(hasher);
                request.namespace.is_some().hash(hasher);
            }
            Self::Path { .. } => self.hash(hasher),
        }
    }

    /// Where it is asked for; `None`: in the whole cluster.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Resource(request) => request.namespace.as_ref(),
            Self::Path { .. } => None,
        }
    }
}

/// What tells a client which APIs there are is open to everybody who is known.
fn is_discovery(path: &str) -> bool {
    ["/api", "/openapi", "/version", "/healthz"]
        .iter()
        .any(|open| path.starts_with(open))
}

/// How a data action says a verb; `None`: not at all, and it ends with the resource.
fn word(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "get" | "list" | "watch" => "read",
        "create" | "update" | "patch" => "write",
        "delete" | "deletecollection" => "delete",
        "bind" => "bind/action",
        "escalate" => "escalate/action",
        "use" => "use/action",
        "impersonate" => "impersonate/action",
        _ => return None,
    })
}

/// The subresources that conditions can name.
const NAMED_SUBRESOURCES: [(&str, &str); 9] = [
    ("pods", "logs"),
    ("pods", "exec"),
    ("pods", "portforward"),
    ("pods", "proxy"),
    ("pods", "ephemeralcontainers"),
    ("pods", "attach"),
    ("deployments", "scale"),
    ("statefulsets", "scale"),
    ("replicasets", "scale"),
];

impl ResourceRequest {
    /// The subresource, where it makes a difference to Azure RBAC; empty where every one is the same to it.
    fn subresource_that_matters(&self) -> &str {
        let asked = (self.resource.as_str(), self.subresource.as_str());
        if NAMED_SUBRESOURCES.contains(&asked) {
            &self.subresource
        } else {
            ""
        }
    }

    fn demand(&self, features: Features) -> Result<Vec<DataAction>, NoDemand> {
        if features.custom_resources && self.is_custom() {
            return self.of_custom_resources();
        }
        let mut actions =
            if [&self.verb, &self.api_group, &self.resource].contains(&&"*".to_owned()) {
                self.of_every_operation()?
            } else {
                vec![self.of_one()]
            };
        if features.subresources {
            let asked = (self.resource.as_str(), self.subresource.as_str());
            let named = NAMED_SUBRESOURCES
                .contains(&asked)
                .then(|| self.subresource.clone());
            for action in &mut actions {
                action.subresource.clone_from(&named);
            }
        }
        Ok(actions)
    }

    /// What is in no group that Azure knows, or is not one of the group's resources, is taken for a custom
    /// resource. The core group has none.
    fn is_custom(&self) -> bool {
        let group = self.api_group.as_str();
        if group.is_empty() || group == "*" {
            return false;
        }
        let mut known = OPERATIONS.iter().filter(|known| known.group == group);
        if self.resource.is_empty() || self.resource == "*" {
            known.next().is_none()
        } else {
            !known.any(|known| known.name == self.resource)
        }
    }

    fn of_custom_resources(&self) -> Result<Vec<DataAction>, NoDemand> {
        let words = match (self.verb.as_str(), word(&self.verb)) {
            ("*", _) => vec!["read", "write", "delete"],
            (_, Some(word @ ("read" | "write" | "delete"))) => vec![word],
            _ => {
                return Err(NoDemand::CustomResourceVerb {
                    verb: self.verb.clone(),
                    api_group: self.api_group.clone(),
                    resource: self.resource.clone(),
                });
            }
        };
        let action = |word| DataAction {
            custom_resource: Some((self.api_group.clone(), self.resource.clone())),
            ..DataAction::plain(&format!("customresources/{word}"))
        };
        Ok(words.into_iter().map(action).collect())
    }

    fn of_one(&self) -> DataAction {
        let resource = match self.api_group.as_str() {
            "" => self.resource.clone(),
            group => format!("{group}/{}", self.resource),
        };
        if self.resource == "pods" && self.subresource == "exec" {
            return DataAction::plain(&format!("{resource}/exec/action"));
        }
        match word(&self.verb) {
            Some(word) => DataAction::plain(&format!("{resource}/{word}")),
            None => DataAction::plain(&resource),
        }
    }

    /// A `*` stands for every operation that Azure knows; in a namespace, for those of namespaced resources,
    /// unless the resource is named.
    fn of_every_operation(&self) -> Result<Vec<DataAction>, NoDemand> {
        let is_meant = |known: &&Resource| {
            let group = self.api_group == "*" || known.group == self.api_group;
            let resource = match self.resource.as_str() {
                "*" => self.namespace.is_none() || known.is_namespaced(),
                name => known.name == name,
            };
            group && resource
        };
        let words = OPERATIONS
            .iter()
            .filter(is_meant)
            .flat_map(|known| known.words.iter().map(move |word| (known, *word)));
        let asked = word(&self.verb);
        let actions: Vec<DataAction> = words
            .filter(|(_, word)| self.verb == "*" || asked == Some(word))
            .map(|(known, word)| DataAction::plain(&known.action(word)))
            .collect();
        if actions.is_empty() {
            return Err(NoDemand::NothingMatches {
                verb: self.verb.clone(),
                api_group: self.api_group.clone(),
                resource: self.resource.clone(),
            });
        }
        Ok(actions)
    }
}

impl DataAction {
    /// An action, or a pattern of some, of which conditions learn nothing but the name.
    #[must_use]
    pub const fn named(id: String) -> Self {
        Self {
            id,
            subresource: None,
            custom_resource: None,
        }
    }

    fn plain(action: &str) -> Self {
        Self::named(format!("{PREFIX}/{action}"))
    }
}

#[cfg(test)]
mod tests;
