//! Who may ask for what: policies in Cedar, read from files and held against a schema (design §9).
//!
//! Cedar leaves a policy out whose evaluation fails, one that forbids as well. Here such a failure refuses.

mod asks;
mod entities;
mod heads;
mod question;
mod source;

use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cedar_policy::{
    AuthorizationError, Authorizer, Decision as Ruling, Entities, PolicySet, Schema,
};
use quick_cache::sync::Cache;

use super::{Caller, Fingerprint};
use crate::domain::ids::{ClusterId, SubscriptionId};
use asks::Asks;
use entities::{of_caller, of_resource, uid};
use heads::Head;
use source::Source;

pub use question::{AccessAsked, Action, Context, Question, Resource, word_of_role, word_of_type};
pub use source::{DEFAULT, PolicyError, SCHEMA};

/// How often the directory is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// So many decisions about reads are remembered.
const REMEMBERED: usize = 100_000;

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// Whether the caller may.
    pub allowed: bool,
    /// The ids of the policies that decided: those that permit, or those that forbid. Of a refusal for want of a permit
    /// there are none.
    pub policies: Vec<String>,
    /// What could not be evaluated: each names its policy. Where there is any, the answer is no.
    pub errors: Vec<String>,
}

impl Decision {
    /// Takes the policies of another one in as well.
    pub fn add(&mut self, other: &Self) {
        let new = other
            .policies
            .iter()
            .filter(|id| !self.policies.contains(id));
        let new: Vec<String> = new.cloned().collect();
        self.policies.extend(new);
    }

    /// No, because something cannot be told.
    #[must_use]
    pub fn failed(error: String) -> Self {
        Self {
            errors: vec![error],
            ..Self::default()
        }
    }
}

/// The policies that count now. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    directory: Option<PathBuf>,
    current: ArcSwap<Rules>,
}

/// What was found in the directory before.
#[derive(Default)]
struct Looked {
    /// What is written at this moment is half of what it will be: it counts once it has been read twice.
    before: Option<Source>,
    /// What is wrong with it is not worked out again.
    refused: Option<(Source, String)>,
}

/// One set of policies, whole.
pub struct Rules {
    source: Source,
    schema: Schema,
    policies: PolicySet,
    warnings: Vec<String>,
    asks: Asks,
    authorizer: Authorizer,
    remembered: Cache<Read, Arc<Decision>>,
    heads: Cache<Head, bool>,
    hasher: RandomState,
}

/// A question about something that is read, with all that its answer hangs on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Read {
    caller: Fingerprint,
    action: Action,
    to_self: bool,
    requested_by_self: bool,
    cluster: Option<ClusterId>,
    /// Of what is known of the cluster.
    known: u64,
}

impl Policies {
    /// Those of a directory, or those that the broker brings along.
    ///
    /// # Errors
    /// [`PolicyError`] says what is wrong, and where.
    pub fn load(directory: Option<&Path>) -> Result<Self, PolicyError> {
        let source = match directory {
            Some(directory) => Source::read(directory)?,
            None => Source::shipped(),
        };
        let rules = Rules::told(source)?;
        Ok(Self(Arc::new(Inner {
            directory: directory.map(Path::to_owned),
            current: ArcSwap::from_pointee(rules),
        })))
    }

    /// The set that counts now.
    #[must_use]
    pub fn current(&self) -> Arc<Rules> {
        self.0.current.load_full()
    }

    /// The same for a moment: whoever keeps it for longer holds up nobody, and pays for it.
    #[must_use]
    pub fn now(&self) -> impl Deref<Target = Arc<Rules>> + '_ {
        self.0.current.load()
    }

    /// Takes what changes in the directory, for good: a mounted `ConfigMap`'s change too, which swaps a link.
    pub async fn follow(self) {
        let Some(directory) = self.0.directory.clone() else {
            // Those that the broker brings along never change.
            return std::future::pending().await;
        };
        let mut told = None;
        let mut looked = Looked::default();
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let (policies, from) = (self.clone(), directory.clone());
            // Reading and checking policies takes its time.
            let look = move || {
                let problem = policies.look(&from, &mut looked);
                (problem, looked)
            };
            let problem;
            (problem, looked) = match tokio::task::spawn_blocking(look).await {
                Ok(found) => found,
                Err(error) => (Some(error.to_string()), Looked::default()),
            };
            // Once for each thing that is wrong: an operator is to see it, and other things too.
            if let Some(error) = problem.as_ref().filter(|_| problem != told) {
                tracing::error!(
                    ?directory, %error,
                    "policy.directory has changed and cannot be used: the policies that were read before still count"
                );
            }
            told = problem;
        }
    }

    /// Looks at the directory, and says what is wrong with it.
    fn look(&self, directory: &Path, looked: &mut Looked) -> Option<String> {
        let source = match Source::read(directory) {
            Ok(source) => source,
            Err(error) => return Some(error.to_string()),
        };
        if source == self.current().source {
            return None;
        }
        if let Some((refused, problem)) = &looked.refused
            && *refused == source
        {
            return Some(problem.clone());
        }
        if looked.before.as_ref() != Some(&source) {
            looked.before = Some(source);
            return None;
        }
        let problem = self.take(source.clone()).err()?.to_string();
        looked.refused = Some((source, problem.clone()));
        Some(problem)
    }

    fn take(&self, source: Source) -> Result<(), PolicyError> {
        let rules = Rules::told(source)?;
        let count = rules.ids().len();
        self.0.current.store(Arc::new(rules));
        tracing::info!(
            count,
            "policy.directory has changed: its policies count from now on"
        );
        Ok(())
    }
}

impl Rules {
    /// The same, with what is hardly meant in the log.
    fn told(source: Source) -> Result<Self, PolicyError> {
        let rules = Self::new(source)?;
        for warning in rules.warnings() {
            tracing::warn!(warning, "policy");
        }
        Ok(rules)
    }

    fn new(source: Source) -> Result<Self, PolicyError> {
        let wrong = |error: String| PolicyError::Wrong(vec![error]);
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA)
            .map_err(|error| wrong(format!("access.cedarschema: {error}")))?;
        let (policies, warnings) = source.parse(&schema)?;
        let asks = Asks::of(&policies).map_err(wrong)?;
        if !asks.misspelt.is_empty() {
            let misspelt = asks.misspelt.iter();
            let told = misspelt.map(|(id, problem)| format!("policy {id}: {problem}"));
            return Err(PolicyError::Wrong(told.collect()));
        }
        Ok(Self {
            asks,
            source,
            schema,
            policies,
            warnings,
            authorizer: Authorizer::new(),
            remembered: Cache::new(REMEMBERED),
            heads: Cache::new(REMEMBERED),
            hasher: RandomState::new(),
        })
    }

    /// The policies' ids, with what each does: `permit` or `forbid`.
    #[must_use]
    pub fn ids(&self) -> Vec<(String, String)> {
        let all = self.policies.policies();
        let mut ids: Vec<_> = all
            .map(|policy| (policy.id().to_string(), policy.effect().to_string()))
            .collect();
        ids.sort();
        ids
    }

    /// A policy as it is written.
    #[must_use]
    pub fn text(&self, id: &str) -> Option<String> {
        let mut all = self.policies.policies();
        let policy = all.find(|policy| policy.id().to_string() == id)?;
        Some(policy.to_string())
    }

    /// What is not wrong, and hardly meant.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether some answer may hang on what Azure says of a cluster.
    #[must_use]
    pub fn look_at_clusters(&self) -> bool {
        !self.asks.of_clusters.is_empty()
    }

    /// Whether an answer may hang on what kind of principal somebody is.
    #[must_use]
    pub fn look_at_principal_types(&self) -> bool {
        self.asks.for_attribute("principal_type")
    }

    /// Whether an answer may hang on whether somebody is the caller.
    #[must_use]
    pub fn look_at_self(&self) -> bool {
        self.asks.for_attribute("to_self")
    }

    /// Whether an answer may hang on the groups that a caller is in by the directory.
    #[must_use]
    pub fn look_at_own_groups(&self) -> bool {
        self.asks.for_attribute("to_own_group")
    }

    /// Whether an answer may hang on who it is on whose behalf somebody asks.
    #[must_use]
    pub fn look_at_beneficiaries(&self) -> bool {
        self.asks.for_attribute("to_beneficiary")
    }

    /// Clusters that stand for all of a subscription that policies tell apart by where they are. Whoever may see none
    /// of them may see nothing there, unless a policy goes by what a cluster is like.
    #[must_use]
    pub fn samples_of(&self, subscription: SubscriptionId) -> Vec<ClusterId> {
        let within = format!("/subscriptions/{subscription}/");
        let provider = "/providers/microsoft.containerservice/managedclusters/";
        let named = self.asks.places.iter().filter(|it| it.starts_with(&within));
        let samples = named.map(|place| {
            if place.contains(provider) {
                place.clone()
            } else {
                format!("{place}{provider}any")
            }
        });
        let anywhere = format!("{within}resourcegroups/any-{subscription}{provider}any");
        let samples = samples.chain([anywhere]);
        samples
            .filter_map(|id| ClusterId::parse(&id).ok())
            .collect()
    }

    /// Whether a caller may. Answers about reads are remembered.
    #[must_use]
    pub fn decide(&self, caller: &Caller, question: &Question<'_>) -> Arc<Decision> {
        let Some(read) = self.read(caller, question) else {
            return Arc::new(self.judge(caller, question));
        };
        if let Some(decision) = self.remembered.get(&read) {
            return decision;
        }
        let decision = Arc::new(self.judge(caller, question));
        self.remembered.insert(read, Arc::clone(&decision));
        decision
    }

    fn read(&self, caller: &Caller, question: &Question<'_>) -> Option<Read> {
        let (to_self, requested_by_self) = match question.context {
            Context::Nothing => (false, false),
            Context::Asked { to_self } => (to_self, false),
            Context::Owned {
                to_self,
                requested_by_self,
            } => (to_self, requested_by_self),
            Context::Access(_) => return None,
        };
        let (cluster, known) = match question.resource {
            Resource::Broker => (None, 0),
            Resource::Cluster { id, known } => {
                let facts =
                    known.map(|it| (&it.location, it.private_cluster, it.azure_rbac, &it.tags));
                let known = facts.map_or(0, |facts| self.hasher.hash_one(facts) | 1);
                (Some(id.clone()), known)
            }
        };
        Some(Read {
            caller: caller.fingerprint(),
            action: question.action,
            to_self,
            requested_by_self,
            cluster,
            known,
        })
    }

    fn judge(&self, caller: &Caller, question: &Question<'_>) -> Decision {
        // Its token does not say whether it is in the group that is named.
        if caller.has_more_groups && !self.asks.by_group.is_empty() {
            return Decision::failed(format!(
                "the caller is in more groups than a token has room for, and these policies hang on groups: {}",
                self.asks.by_group.join(", ")
            ));
        }
        self.answer(caller, question).unwrap_or_else(|problem| {
            Decision::failed(format!("the question could not be put: {problem}"))
        })
    }

    /// What Cedar is asked. Without a context, whose form is then not looked at, only policies' heads can be.
    fn request(
        &self,
        caller: &Caller,
        action: Action,
        resource: Resource<'_>,
        context: Option<&Context<'_>>,
    ) -> Result<(cedar_policy::Request, Entities), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let (principal, mut entities) = of_caller(caller)?;
        let resource = of_resource(resource, &mut entities)?;
        let entities =
            Entities::from_entities(entities, Some(&self.schema)).map_err(|e| told(&e))?;
        let action = uid("Action", action.name())?;
        let schema = context.map(|_| &self.schema);
        let pairs = context.map(Context::pairs).unwrap_or_default();
        let context = cedar_policy::Context::from_pairs(pairs).map_err(|e| told(&e))?;
        let request = cedar_policy::Request::new(principal, action, resource, context, schema);
        Ok((request.map_err(|e| told(&e))?, entities))
    }

    fn answer(&self, caller: &Caller, question: &Question<'_>) -> Result<Decision, String> {
        let Question {
            action,
            resource,
            context,
        } = question;
        let (request, entities) = self.request(caller, *action, *resource, Some(context))?;
        let response = self
            .authorizer
            .is_authorized(&request, &self.policies, &entities);
        let diagnostics = response.diagnostics();
        let mut policies: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        policies.sort();
        let mut errors: Vec<String> = diagnostics.errors().map(of_failure).collect();
        errors.sort();
        Ok(Decision {
            allowed: response.decision() == Ruling::Allow && errors.is_empty(),
            policies,
            errors,
        })
    }
}

fn of_failure(error: &AuthorizationError) -> String {
    match error {
        AuthorizationError::PolicyEvaluationError(error) => {
            format!("policy {}: {}", error.policy_id(), error.inner())
        }
    }
}

#[cfg(test)]
mod tests;
