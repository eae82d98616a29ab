//! `policy`: policies before they count, and what they say of one request.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;

use crate::caller::Caller;
use crate::caller::policy::{
    AccessAsked, Action, Context, DEFAULT, Policies, Question, Resource, SCHEMA,
};
use crate::domain::access::PrincipalType;
use crate::domain::cluster::Cluster;
use crate::domain::ids::{ClusterId, Namespace, PrincipalId, RoleDefinitionId};
use crate::domain::naming::{LabelKey, LabelValue, OnBehalfOf};
use crate::domain::power::Power;
use crate::domain::role::{BuiltInRole, Permissions};

use super::AnyError;

/// `policy …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with a directory of policies, or list them.
    Check {
        /// Where the files `*.cedar` are.
        directory: PathBuf,
    },
    /// Say what policies decide about one request, and which of them. Ends with status 1 where they refuse it.
    Explain(Explain),
    /// Print the policies that count where `policy.directory` is not set: something to begin with.
    Default,
    /// Print what policies may speak of, in Cedar's schema language.
    Schema,
}

/// `policy explain`
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The policies' directory; those that the broker brings along if there is none.
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// The request, as YAML; `-`: from standard input. docs/policies.md has one.
    request: PathBuf,
}

#[derive(Debug, Error)]
enum PolicyCommandError {
    #[error("{path:?}: {problem}")]
    Request { path: PathBuf, problem: String },
    #[error("the request is refused")]
    Refused,
}

impl Command {
    pub(super) fn run(self) -> Result<(), AnyError> {
        match self {
            Self::Check { directory } => check(&directory),
            Self::Explain(explain) => explain.run(),
            Self::Default => print(DEFAULT),
            Self::Schema => print(SCHEMA),
        }
    }
}

fn print(text: &str) -> Result<(), AnyError> {
    // Its own error, not a panic: the reader may have gone (`policy default | head`).
    Ok(stdout().write_all(text.as_bytes())?)
}

fn check(directory: &Path) -> Result<(), AnyError> {
    let rules = Policies::load(Some(directory))?.current();
    let warnings = rules.warnings().iter();
    let warnings = warnings.map(|warning| format!("warning: {warning}\n"));
    let ids = rules.ids();
    let listed = ids.iter().map(|(id, effect)| format!("{effect} {id}\n"));
    print(&warnings.chain(listed).collect::<String>())
}

impl Explain {
    fn run(self) -> Result<(), AnyError> {
        let rules = Policies::load(self.policies.as_deref())?.current();
        let text = if self.request == Path::new("-") {
            let mut text = String::new();
            stdin().read_to_string(&mut text)?;
            text
        } else {
            fs::read_to_string(&self.request).map_err(|error| self.wrong(&error))?
        };
        let request: Request = serde_saphyr::from_str(&text).map_err(|error| self.wrong(&error))?;
        let asked = request.read().map_err(|problem| self.wrong(&problem))?;
        let decision = rules.decide(&asked.caller, &asked.question());
        let verdict = if decision.allowed {
            "ALLOWED"
        } else {
            "REFUSED"
        };
        let mut told = vec![verdict.to_owned()];
        told.extend(asked.power());
        if decision.policies.is_empty() && decision.errors.is_empty() {
            told.push("no policy permits it".to_owned());
        }
        let errors = decision.errors.iter();
        told.extend(errors.map(|error| format!("cannot be evaluated, which refuses: {error}")));
        let texts = decision.policies.iter().filter_map(|id| rules.text(id));
        told.extend(texts.map(|text| format!("\n{text}")));
        told.push(String::new());
        print(&told.join("\n"))?;
        if decision.allowed {
            Ok(())
        } else {
            Err(Box::new(PolicyCommandError::Refused))
        }
    }

    fn wrong(&self, problem: &dyn std::fmt::Display) -> PolicyCommandError {
        PolicyCommandError::Request {
            path: self.request.clone(),
            problem: problem.to_string(),
        }
    }
}

/// A request as somebody writes it down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    caller: WrittenCaller,
    action: String,
    cluster: Option<String>,
    #[serde(default)]
    cluster_is: Option<WrittenCluster>,
    #[serde(default)]
    grant: Option<WrittenGrant>,
    #[serde(default)]
    role_is: Option<WrittenRole>,
    #[serde(default)]
    to_self: bool,
    #[serde(default)]
    requested_by_self: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenCaller {
    application_id: Option<Uuid>,
    user: Option<Uuid>,
    certificate: Option<String>,
    object_id: Uuid,
    tenant: Uuid,
    roles: BTreeSet<String>,
    groups: BTreeSet<Uuid>,
    has_more_groups: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenCluster {
    location: String,
    private: bool,
    azure_rbac: bool,
    tags: BTreeMap<String, String>,
}

/// A custom role, by what its definition gives.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRole {
    data_actions: Vec<String>,
    not_data_actions: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenGrant {
    principal_id: Option<Uuid>,
    principal_type: Option<String>,
    azure_role: Option<String>,
    role_definition_id: Option<Uuid>,
    namespaces: BTreeSet<String>,
    duration_seconds: Option<i64>,
    to_self: bool,
    to_own_group: bool,
    to_beneficiary: bool,
    requested_by_self: Option<bool>,
    on_behalf_of: Option<String>,
    justification: String,
    labels: BTreeMap<String, String>,
}

/// A request that makes sense.
struct Asked {
    caller: Caller,
    action: Action,
    id: Option<ClusterId>,
    cluster: Option<Cluster>,
    access: AccessAsked,
    to_self: bool,
    requested_by_self: bool,
}

impl Request {
    fn read(self) -> Result<Asked, String> {
        let action = Action::named(&self.action).ok_or_else(|| {
            let all: Vec<&str> = Action::ALL.iter().map(|action| action.name()).collect();
            format!("action: {:?} is none of {}", self.action, all.join(", "))
        })?;
        let id = self.cluster.as_deref().map(ClusterId::parse).transpose();
        let id = id.map_err(|error| format!("cluster: {error}"))?;
        let cluster = id.clone().zip(self.cluster_is);
        let caller = self.caller.read()?;
        let is_change = matches!(action, Action::Grant | Action::ExtendGrant | Action::Revoke);
        if is_change && (self.to_self || self.requested_by_self) {
            return Err(format!(
                "of a {} these are told by grant: to_self, requested_by_self",
                action.name()
            ));
        }
        let mut access = self.grant.unwrap_or_default().read()?;
        let is_built_in = access.role.and_then(BuiltInRole::from_id).is_some();
        if self.role_is.is_some() && (is_built_in || !is_change) {
            return Err("role_is: only of a custom role that is granted or revoked".to_owned());
        }
        access.power = self.role_is.map(WrittenRole::power);
        // As the broker finds out by itself.
        let principal = access.principal.map(PrincipalId::guid);
        access.to_self |= principal.is_some() && principal == caller.object_id();
        Ok(Asked {
            caller,
            action,
            cluster: cluster.map(|(id, written)| written.read(id)),
            id,
            access,
            to_self: self.to_self,
            requested_by_self: self.requested_by_self,
        })
    }
}

impl WrittenCaller {
    fn read(self) -> Result<Caller, String> {
        let caller = match (self.user, self.application_id, self.certificate) {
            (Some(user), application, None) => {
                Caller::user(self.tenant, user, application.unwrap_or_default())
            }
            (None, Some(application), None) => {
                Caller::application(self.tenant, self.object_id, application)
            }
            (None, None, Some(name)) => Caller::certificate(&name),
            _ => {
                return Err(
                    "caller: expected application_id, or user (an object id), or certificate (a name)"
                        .to_owned(),
                );
            }
        };
        Ok(caller.with(self.roles, self.groups, self.has_more_groups))
    }
}

impl WrittenCluster {
    fn read(self, id: ClusterId) -> Cluster {
        Cluster {
            name: id.name().to_owned(),
            id,
            location: self.location,
            tags: self.tags,
            kubernetes_version: String::new(),
            tenant_id: String::new(),
            entra_integration: true,
            azure_rbac: self.azure_rbac,
            local_accounts_disabled: true,
            private_cluster: self.private,
            power_state: String::new(),
            resource_uid: String::new(),
            admin_group_ids: Vec::new(),
        }
    }
}

impl WrittenRole {
    fn power(self) -> Power {
        Power::from_permissions(&[Permissions {
            data_actions: self.data_actions,
            not_data_actions: self.not_data_actions,
            ..Permissions::default()
        }])
    }
}

impl WrittenGrant {
    fn read(self) -> Result<AccessAsked, String> {
        let told = |name: &'static str| {
            move |error: &dyn std::fmt::Display| format!("grant.{name}: {error}")
        };
        let role = match (self.azure_role, self.role_definition_id) {
            (Some(name), None) => Some(role(&name)?),
            (None, id) => id.map(RoleDefinitionId::new),
            (Some(_), Some(_)) => {
                return Err("grant: azure_role and role_definition_id are one thing".to_owned());
            }
        };
        let namespaces = self.namespaces.iter().map(|name| Namespace::parse(name));
        let labels = self.labels.iter().map(|(key, value)| {
            let key = LabelKey::parse(key).map_err(|e| told("labels")(&e))?;
            let value = LabelValue::parse(value).map_err(|e| told("labels")(&e))?;
            Ok::<_, String>((key, value))
        });
        let whom = self.on_behalf_of.as_deref().map(OnBehalfOf::parse);
        Ok(AccessAsked {
            principal: self.principal_id.map(PrincipalId::new),
            principal_type: self.principal_type.as_deref().map(kind).transpose()?,
            role,
            power: None,
            namespaces: namespaces
                .collect::<Result<_, _>>()
                .map_err(|e| told("namespaces")(&e))?,
            duration_seconds: self.duration_seconds,
            to_self: self.to_self,
            to_own_group: self.to_own_group,
            to_beneficiary: self.to_beneficiary,
            requested_by_self: self.requested_by_self.unwrap_or(true),
            on_behalf_of: whom.transpose().map_err(|e| told("on_behalf_of")(&e))?,
            justification: self.justification,
            labels: labels.collect::<Result<_, _>>()?,
        })
    }
}

fn role(name: &str) -> Result<RoleDefinitionId, String> {
    let mut all = BuiltInRole::ALL.into_iter().map(BuiltInRole::id);
    let named = all.find(|role| crate::caller::policy::word_of_role(*role) == name);
    named.ok_or_else(|| {
        format!("grant.azure_role: {name:?} is no AzureRole of the contract's, such as RBAC_READER")
    })
}

fn kind(name: &str) -> Result<PrincipalType, String> {
    let mut all = [
        PrincipalType::User,
        PrincipalType::Group,
        PrincipalType::ServicePrincipal,
    ]
    .into_iter();
    let named = all.find(|kind| crate::caller::policy::word_of_type(*kind) == name);
    named.ok_or_else(|| {
        format!("grant.principal_type: {name:?} is none of USER, GROUP, SERVICE_PRINCIPAL")
    })
}

impl Asked {
    /// What the role of a grant can do, in one line.
    fn power(&self) -> Option<String> {
        let Context::Access(access) = self.question().context else {
            return None;
        };
        let had = access.told_power().named().into_iter();
        let had: Vec<&str> = had.filter(|(_, has)| *has).map(|(name, _)| name).collect();
        let none = || "none".to_owned();
        let words = if had.is_empty() {
            none()
        } else {
            had.join(", ")
        };
        Some(format!("the role's power: {words}"))
    }

    fn question(&self) -> Question<'_> {
        let resource = self.id.as_ref().map(|id| Resource::Cluster {
            id,
            known: self.cluster.as_ref(),
        });
        let (to_self, requested_by_self) = (self.to_self, self.requested_by_self);
        let context = match self.action {
            Action::Grant | Action::ExtendGrant | Action::Revoke => Context::Access(&self.access),
            Action::CheckAccess | Action::ListAccess => Context::Asked { to_self },
            Action::GetCluster | Action::ListClusters | Action::ListAuditEvents => Context::Nothing,
            Action::GetGrant
            | Action::ListGrants
            | Action::GetJob
            | Action::WatchJob
            | Action::ListJobs
            | Action::ListJobTargets => Context::Owned {
                to_self,
                requested_by_self,
            },
        };
        Question {
            action: self.action,
            resource: resource.unwrap_or(Resource::Broker),
            context,
        }
    }
}
