//! What policies are asked: an action, what it is about, and what is known of it, in the words of
//! `policies/access.cedarschema`.

use std::collections::BTreeSet;

use cedar_policy::RestrictedExpression;

use crate::domain::access::PrincipalType;
use crate::domain::cluster::Cluster;
use crate::domain::free_text::says_something;
use crate::domain::ids::{ClusterId, Namespace, PrincipalId, RoleDefinitionId};
use crate::domain::naming::{Labels, OnBehalfOf};
use crate::domain::power::Power;
use crate::domain::role::BuiltInRole;

/// The prefix of every type's name.
pub(super) const NAMESPACE: &str = "AksAccess";

macro_rules! actions {
    ($($action:ident),* $(,)?) => {
        /// What somebody wants to do: an RPC, by its own name.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Action {
            $(#[doc = concat!("The RPC `", stringify!($action), "`.")] $action,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$action),*];

            /// The RPC's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$action => stringify!($action),)*
                }
            }

            /// The RPC's full name, as the audit trail has it.
            #[must_use]
            pub const fn rpc(self) -> &'static str {
                match self {
                    $(Self::$action => concat!("aks.access.v1.AccessBrokerService/", stringify!($action)),)*
                }
            }
        }
    };
}

actions! {
    Grant, ExtendGrant, Revoke, GetGrant, ListGrants, GetJob, WatchJob, ListJobs, ListJobTargets, GetCluster,
    ListClusters, CheckAccess, ListAccess, ListAuditEvents,
}

impl Action {
    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|action| action.name() == name)
    }
}

/// What policies are asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// What the caller wants to do.
    pub action: Action,
    /// What with.
    pub resource: Resource<'a>,
    /// What is known of it besides.
    pub context: Context<'a>,
}

/// What something is done with.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A cluster.
    Cluster {
        /// Which.
        id: &'a ClusterId,
        /// As Azure describes it; `None` where it does not, or where no policy wants to know.
        known: Option<&'a Cluster>,
    },
    /// No cluster at all.
    Broker,
}

/// What is known besides; each action has one kind.
#[derive(Clone, Debug)]
pub enum Context<'a> {
    /// Nothing: clusters and the audit trail.
    Nothing,
    /// Of a grant or a job that is read.
    Owned {
        /// It is about the caller alone.
        to_self: bool,
        /// The caller asked for it.
        requested_by_self: bool,
    },
    /// Of a question about access.
    Asked {
        /// It is about the caller.
        to_self: bool,
    },
    /// Of a grant that is made, extended or revoked.
    Access(&'a AccessAsked),
}

/// A grant, as it would be or as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, under the names that policies have for them"
)]
pub struct AccessAsked {
    /// The principal; `None` where there is none of that name.
    pub principal: Option<PrincipalId>,
    /// What kind of principal that is.
    pub principal_type: Option<PrincipalType>,
    /// The role; `None` where there is none of that name.
    pub role: Option<RoleDefinitionId>,
    /// How much a custom role can do; `None` where nobody can say, which counts as everything. What a built-in role can
    /// do is known.
    pub power: Option<Power>,
    /// Empty: the whole cluster.
    pub namespaces: BTreeSet<Namespace>,
    /// From when the grant was made to when it ends, in whole seconds, rounded up; `None`: it is permanent.
    pub duration_seconds: Option<i64>,
    /// The principal is the caller.
    pub to_self: bool,
    /// The principal is a group that the caller is in.
    pub to_own_group: bool,
    /// The principal is the one on whose behalf the caller asks, or a group that this one is in.
    pub to_beneficiary: bool,
    /// The caller asked for the grant.
    pub requested_by_self: bool,
    /// For whom the caller acts, as it says.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// Why, in the caller's words.
    pub justification: String,
    /// The grant's labels.
    pub labels: Labels,
}

/// The contract's word for a type of principal.
#[must_use]
pub const fn word_of_type(kind: PrincipalType) -> &'static str {
    match kind {
        PrincipalType::User => "USER",
        PrincipalType::Group => "GROUP",
        PrincipalType::ServicePrincipal => "SERVICE_PRINCIPAL",
    }
}

/// The contract's word for a role; empty for a custom one.
#[must_use]
pub fn word_of_role(role: RoleDefinitionId) -> &'static str {
    match BuiltInRole::from_id(role) {
        Some(BuiltInRole::ClusterUser) => "CLUSTER_USER",
        Some(BuiltInRole::RbacReader) => "RBAC_READER",
        Some(BuiltInRole::RbacWriter) => "RBAC_WRITER",
        Some(BuiltInRole::RbacAdmin) => "RBAC_ADMIN",
        Some(BuiltInRole::RbacClusterAdmin) => "RBAC_CLUSTER_ADMIN",
        None => "",
    }
}

fn text(value: &(impl ToString + ?Sized)) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_string())
}

fn truth(value: bool) -> RestrictedExpression {
    RestrictedExpression::new_bool(value)
}

pub(super) type Pair = (String, RestrictedExpression);

fn pairs<const N: usize>(pairs: [(&str, RestrictedExpression); N]) -> Vec<Pair> {
    let named = pairs.into_iter();
    named
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

impl Context<'_> {
    /// As Cedar takes it.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Owned {
                to_self,
                requested_by_self,
            } => pairs([
                ("to_self", truth(*to_self)),
                ("requested_by_self", truth(*requested_by_self)),
            ]),
            Self::Asked { to_self } => pairs([("to_self", truth(*to_self))]),
            Self::Access(access) => access.pairs(),
        }
    }
}

impl AccessAsked {
    /// How much the role can do, as policies are told.
    #[must_use]
    pub fn told_power(&self) -> Power {
        let built_in = self.role.and_then(BuiltInRole::from_id);
        let known = built_in.map(BuiltInRole::power).or(self.power);
        known.unwrap_or(Power::EVERYTHING)
    }

    /// Without blanks around it. What no reader can make anything of is no justification: it is empty.
    fn told_justification(&self) -> &str {
        let justification = self.justification.trim();
        if says_something(justification) {
            justification
        } else {
            ""
        }
    }

    fn pairs(&self) -> Vec<Pair> {
        let principal = self.principal.map(|id| id.to_string());
        let role = self.role.map(|id| id.to_string());
        let namespaces = self.namespaces.iter().map(|it| text(it.as_str()));
        // A label has two texts, and no name twice: neither can fail. One that did would make the set smaller, so it
        // is left to the schema to refuse what is no set of records.
        let labels = self.labels.iter().filter_map(|(key, value)| {
            let label = pairs([("key", text(key.as_str())), ("value", text(value.as_str()))]);
            RestrictedExpression::new_record(label).ok()
        });
        let mut all = pairs([
            ("principal_id", text(&principal.unwrap_or_default())),
            (
                "principal_type",
                text(self.principal_type.map_or("", word_of_type)),
            ),
            ("role_definition_id", text(&role.unwrap_or_default())),
            ("azure_role", text(self.role.map_or("", word_of_role))),
            ("cluster_wide", truth(self.namespaces.is_empty())),
            ("namespaces", RestrictedExpression::new_set(namespaces)),
            ("to_self", truth(self.to_self)),
            ("to_own_group", truth(self.to_own_group)),
            ("to_beneficiary", truth(self.to_beneficiary)),
            ("requested_by_self", truth(self.requested_by_self)),
            ("justification", text(self.told_justification())),
            ("labels", RestrictedExpression::new_set(labels)),
        ]);
        let power = self.told_power().named();
        let power = power.map(|(name, has)| (name.to_owned(), truth(has)));
        // No name stands there twice, so it cannot fail. Without it the schema would refuse the question.
        let power = RestrictedExpression::new_record(power).ok();
        all.extend(power.map(|power| ("power".to_owned(), power)));
        if let Some(seconds) = self.duration_seconds {
            let seconds = RestrictedExpression::new_long(seconds);
            all.push(("duration_seconds".to_owned(), seconds));
        }
        if let Some(whom) = &self.on_behalf_of {
            all.push((
                "on_behalf_of".to_owned(),
                text(&whom.as_str().to_lowercase()),
            ));
        }
        all
    }
}

/// A cluster's attributes, and its tags.
pub(super) fn of_cluster(id: &ClusterId, known: Option<&Cluster>) -> (Vec<Pair>, Vec<Pair>) {
    let location = known.map(|it| it.location.to_lowercase());
    let attributes = pairs([
        ("name", text(id.name())),
        ("known", truth(known.is_some())),
        ("location", text(&location.unwrap_or_default())),
        ("private", truth(known.is_some_and(|it| it.private_cluster))),
        ("azure_rbac", truth(known.is_some_and(|it| it.azure_rbac))),
    ]);
    let tags = known.map(|it| &it.tags).into_iter().flatten();
    let tags = tags.map(|(key, value)| (key.to_lowercase(), text(value)));
    (attributes, tags.collect())
}
