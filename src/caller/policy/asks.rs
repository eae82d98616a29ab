//! What a set of policies asks of a question: what no policy looks at need not be looked up.
//!
//! A group's members are a question to the directory, and a cluster's tags one to Azure: a revocation does not wait for
//! either unless a policy hangs on it.

use std::collections::BTreeSet;

use cedar_policy::{Effect, EntityUid, Policy, PolicySet};
use serde_json::Value;

use super::question::NAMESPACE;

/// What the policies of one set look at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Asks {
    /// Names of attributes, of whatever.
    attributes: BTreeSet<String>,
    /// Whether a condition, and not only a policy's head, is about the cluster.
    pub(super) of_clusters: bool,
    /// The policies that forbid something to a group.
    pub(super) forbid_by_group: Vec<String>,
    /// The resource groups and clusters that policies name, by their ids in lower case.
    pub(super) places: BTreeSet<String>,
}

impl Asks {
    /// `Err` names a policy that could not be looked through.
    pub(super) fn of(policies: &PolicySet) -> Result<Self, String> {
        let mut asks = Self::default();
        for policy in policies.policies() {
            let written = policy.to_json();
            let written = written.map_err(|error| format!("policy {}: {error}", policy.id()))?;
            if let Some(conditions) = written.get("conditions") {
                asks.look(conditions);
            }
            let literals = policy.entity_literals();
            if policy.effect() == Effect::Forbid && literals.iter().any(is_group) {
                asks.forbid_by_group.push(id_of(policy));
            }
            let places = literals.iter().filter(|it| is_place(it));
            asks.places
                .extend(places.map(|it| it.id().unescaped().to_lowercase()));
        }
        Ok(asks)
    }

    /// Whether any policy looks at an attribute of this name.
    pub(super) fn for_attribute(&self, name: &str) -> bool {
        self.attributes.contains(name)
    }

    /// In Cedar's JSON a variable is `{"Var": …}`, and a look at an attribute has its name as `attr`.
    fn look(&mut self, written: &Value) {
        match written {
            Value::Object(node) => {
                if node.get("Var").and_then(Value::as_str) == Some("resource") {
                    self.of_clusters = true;
                }
                match node.get("attr") {
                    Some(Value::String(name)) => {
                        self.attributes.insert(name.clone());
                    }
                    Some(Value::Array(path)) => {
                        let names = path.iter().filter_map(Value::as_str);
                        self.attributes.extend(names.map(str::to_owned));
                    }
                    _ => {}
                }
                node.values().for_each(|value| self.look(value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            _ => {}
        }
    }
}

fn is_group(literal: &EntityUid) -> bool {
    is_of(literal, &["Group"])
}

fn is_place(literal: &EntityUid) -> bool {
    is_of(literal, &["ResourceGroup", "Cluster"])
}

fn is_of(literal: &EntityUid, types: &[&str]) -> bool {
    let name = literal.type_name();
    name.namespace() == NAMESPACE && types.contains(&name.basename())
}

fn id_of(policy: &Policy) -> String {
    policy.id().to_string()
}
