//! What a set of policies asks of a question: what no policy looks at need not be looked up.
//!
//! A group's members are a question to the directory, and a cluster's tags one to Azure: a revocation does not wait for
//! either unless a policy hangs on it.

use std::collections::BTreeSet;

use cedar_policy::{Effect, EntityUid, Policy, PolicyId, PolicySet};
use serde_json::{Value, json};

use super::question::NAMESPACE;

/// What the policies of one set look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    /// What conditions look at, of whatever.
    looks: Looks,
    /// The heads of the policies that permit something: whoever fits none of them is surely refused.
    pub(super) permits: PolicySet,
    /// The heads of the policies whose conditions are about the cluster.
    pub(super) of_clusters: PolicySet,
    /// The policies that may let somebody through, or fail to stop somebody, who is in a group that the token has no
    /// room for: those that forbid something to a group, and those with a group in their conditions.
    pub(super) by_group: Vec<String>,
    /// The resource groups and clusters that policies name.
    pub(super) places: BTreeSet<String>,
    /// What can never match, because it is spelled otherwise than it would have to be.
    pub(super) misspelt: Vec<(PolicyId, String)>,
}

/// What a condition looks at.
#[derive(Clone, Debug, Default)]
struct Looks {
    attributes: BTreeSet<String>,
    /// The context as a whole.
    at_all: bool,
    at_resource: bool,
    at_group: bool,
    tags: BTreeSet<String>,
}

impl Asks {
    /// `Err` names a policy that could not be looked through.
    pub(super) fn of(policies: &PolicySet) -> Result<Self, String> {
        let mut asks = Self::default();
        for policy in policies.policies() {
            let told = |error: &dyn std::fmt::Display| format!("policy {}: {error}", policy.id());
            let written = policy.to_json().map_err(|error| told(&error))?;
            let mut looks = Looks::default();
            if let Some(conditions) = written.get("conditions") {
                looks.look(conditions);
            }
            let literals = policy.entity_literals();
            let forbids_to_group = policy.effect() == Effect::Forbid
                && literals.iter().any(|it| is_of(it, &["Group"]));
            if forbids_to_group || looks.at_group {
                asks.by_group.push(policy.id().to_string());
            }
            if looks.at_resource {
                let head = head_of(policy, &written).map_err(|error| told(&error))?;
                asks.of_clusters.add(head).map_err(|error| told(&error))?;
            }
            if policy.effect() == Effect::Permit {
                let head = head_of(policy, &written).map_err(|error| told(&error))?;
                asks.permits.add(head).map_err(|error| told(&error))?;
            }
            asks.take_literals(policy, &literals, &looks.tags);
            asks.looks.add(looks);
        }
        Ok(asks)
    }

    fn take_literals(&mut self, policy: &Policy, literals: &[EntityUid], tags: &BTreeSet<String>) {
        let mut wrong = |problem: String| self.misspelt.push((policy.id().clone(), problem));
        for literal in literals {
            let id = literal.id().unescaped();
            let is_lower = id == id.to_lowercase();
            if is_of(literal, IN_LOWER_CASE) && !is_lower {
                wrong(format!(
                    "{literal} never matches: ids are in lower case here"
                ));
            }
            if is_of(literal, &["ResourceGroup", "Cluster"]) {
                self.places.insert(id.to_owned());
            }
        }
        for tag in tags.iter().filter(|tag| **tag != tag.to_lowercase()) {
            wrong(format!(
                "the tag {tag:?} never matches: the keys of tags are in lower case here"
            ));
        }
    }

    /// Whether any policy looks at an attribute of this name.
    pub(super) fn for_attribute(&self, name: &str) -> bool {
        self.looks.at_all || self.looks.attributes.contains(name)
    }
}

/// Entities whose ids Entra and ARM compare without regard to case, and Cedar with.
const IN_LOWER_CASE: &[&str] = &[
    "Group",
    "Application",
    "User",
    "Subscription",
    "ResourceGroup",
    "Cluster",
];

/// A policy without its conditions, which permits: its head fits, or does not.
fn head_of(policy: &Policy, written: &Value) -> Result<Policy, String> {
    let mut head = written.clone();
    head["conditions"] = json!([]);
    head["effect"] = json!("permit");
    let head = Policy::from_json(Some(policy.id().clone()), head);
    head.map_err(|error| error.to_string())
}

impl Looks {
    /// In Cedar's JSON a variable is `{"Var": …}`, a look at an attribute has its object as `left` and its name as
    /// `attr`, and a look at a tag its key as `right`.
    fn look(&mut self, written: &Value) {
        match written {
            Value::Object(node) => {
                match node.get("Var").and_then(Value::as_str) {
                    Some("resource") => self.at_resource = true,
                    // As the object of a look at an attribute it does not come here.
                    Some("context") => self.at_all = true,
                    _ => {}
                }
                if node.get("type").and_then(Value::as_str) == Some(&format!("{NAMESPACE}::Group"))
                {
                    self.at_group = true;
                }
                for (operator, operands) in node {
                    self.look_at(operator, operands);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            _ => {}
        }
    }

    fn look_at(&mut self, operator: &str, operands: &Value) {
        match operands.get("attr") {
            Some(Value::String(name)) => {
                self.attributes.insert(name.clone());
            }
            Some(Value::Array(path)) => {
                let names = path.iter().filter_map(Value::as_str);
                self.attributes.extend(names.map(str::to_owned));
            }
            _ => {}
        }
        if matches!(operator, "hasTag" | "getTag") {
            let key = operands
                .get("right")
                .and_then(|key| key.get("Value")?.as_str());
            self.tags.extend(key.map(str::to_owned));
        }
        let is_context = operands
            .get("left")
            .is_some_and(|left| *left == json!({"Var": "context"}));
        if !(matches!(operator, "." | "has") && is_context) {
            self.look(operands);
        }
    }

    fn add(&mut self, other: Self) {
        self.attributes.extend(other.attributes);
        self.tags.extend(other.tags);
        self.at_all |= other.at_all;
        self.at_resource |= other.at_resource;
        self.at_group |= other.at_group;
    }
}

fn is_of(literal: &EntityUid, types: &[&str]) -> bool {
    let name = literal.type_name();
    name.namespace() == NAMESPACE && types.contains(&name.basename())
}
