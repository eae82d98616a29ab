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
    /// The heads of the policies that permit something, with the conditions that look at nothing but the caller: whoever
    /// fits none of them is surely refused.
    pub(super) permits: PolicySet,
    /// The heads of the policies whose conditions are about the cluster.
    pub(super) of_clusters: PolicySet,
    /// Of the policies that may permit something with what is not the caller's own: the heads, with the conditions that
    /// look at nothing but the caller.
    pub(super) beyond_own: PolicySet,
    /// The same on any cluster.
    pub(super) beyond_own_anywhere: PolicySet,
    /// The heads of the policies whose conditions are about what a role can do.
    pub(super) of_power: PolicySet,
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
            if looks.at_attribute("power") {
                let head = head_of(policy, &written).map_err(|error| told(&error))?;
                asks.of_power.add(head).map_err(|error| told(&error))?;
            }
            if policy.effect() == Effect::Permit {
                let head = head_for_caller(policy, &written, &clauses_of(&written), false);
                let head = head.map_err(|error| told(&error))?;
                asks.permits.add(head).map_err(|error| told(&error))?;
                asks.add_beyond_own(policy, &written)
                    .map_err(|error| told(&error))?;
            }
            asks.take_literals(policy, &literals, &looks.tags);
            asks.looks.add(looks);
        }
        Ok(asks)
    }

    /// Leaves out what decides by the context or the cluster: the policy can only permit less than what is kept of it.
    fn add_beyond_own(&mut self, policy: &Policy, written: &Value) -> Result<(), String> {
        let clauses = clauses_of(written);
        if clauses.iter().any(Clause::wants_own) {
            return Ok(());
        }
        for (set, is_anywhere) in [
            (&mut self.beyond_own, false),
            (&mut self.beyond_own_anywhere, true),
        ] {
            let head = head_for_caller(policy, written, &clauses, is_anywhere)?;
            set.add(head).map_err(|error| error.to_string())?;
        }
        Ok(())
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
        self.looks.at_attribute(name)
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

/// A policy's head with the conditions that look at nothing but the caller.
fn head_for_caller(
    policy: &Policy,
    written: &Value,
    clauses: &[Clause<'_>],
    is_anywhere: bool,
) -> Result<Policy, String> {
    let about_caller = clauses.iter().filter(|clause| clause.is_about_caller());
    let conditions: Vec<Value> = about_caller.map(Clause::to_json).collect();
    let mut head = written.clone();
    head["conditions"] = json!(conditions);
    if is_anywhere {
        head["resource"] = json!({"op": "All"});
    }
    let head = Policy::from_json(Some(policy.id().clone()), head);
    head.map_err(|error| error.to_string())
}

/// A condition that has to hold, or must not, for a policy to count.
struct Clause<'a> {
    kind: &'a str,
    body: &'a Value,
}

/// All of a policy's conditions. `a && b` in a `when` is two.
fn clauses_of(written: &Value) -> Vec<Clause<'_>> {
    let conditions = written.get("conditions").and_then(Value::as_array);
    let mut open: Vec<Clause<'_>> = Vec::new();
    for condition in conditions.into_iter().flatten() {
        if let (Some(kind), Some(body)) = (condition["kind"].as_str(), condition.get("body")) {
            open.push(Clause { kind, body });
        }
    }
    let mut clauses = Vec::new();
    while let Some(clause) = open.pop() {
        match clause.body.get("&&").filter(|_| clause.kind == "when") {
            Some(both) => open.extend(["left", "right"].map(|side| Clause {
                kind: clause.kind,
                body: &both[side],
            })),
            None => clauses.push(clause),
        }
    }
    clauses
}

impl Clause<'_> {
    /// Whether it holds only where something is about the caller, or was asked for by the caller.
    fn wants_own(&self) -> bool {
        self.kind == "when" && means_own(self.body)
    }

    fn is_about_caller(&self) -> bool {
        !names_variable(self.body, &["context", "resource", "action"])
    }

    fn to_json(&self) -> Value {
        json!({"kind": self.kind, "body": self.body})
    }
}

fn means_own(condition: &Value) -> bool {
    if let Some(either) = condition.get("||") {
        return means_own(&either["left"]) && means_own(&either["right"]);
    }
    ["to_self", "requested_by_self"].iter().any(|attribute| {
        *condition == json!({".": {"left": {"Var": "context"}, "attr": attribute}})
    })
}

fn names_variable(written: &Value, names: &[&str]) -> bool {
    match written {
        Value::Object(node) => {
            let variable = node.get("Var").and_then(Value::as_str);
            variable.is_some_and(|it| names.contains(&it))
                || node.values().any(|it| names_variable(it, names))
        }
        Value::Array(values) => values.iter().any(|it| names_variable(it, names)),
        _ => false,
    }
}

impl Looks {
    fn at_attribute(&self, name: &str) -> bool {
        self.at_all || self.attributes.contains(name)
    }

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
