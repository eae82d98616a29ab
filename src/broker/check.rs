//! `CheckAccess`: may a principal do something on a cluster, however it came by that?
//!
//! Answered from the view, as fresh as the caller needs it. Whatever cannot be read is an error, never an answer (I9).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use thiserror::Error;

use super::clusters::{ClusterError, Clusters, unavailable};
use super::error::store_reason;
use super::fresh_reads::{Demand, Spent};
use super::names::Named;
use super::principals::PrincipalError;
use super::request::RequestedRole;
use super::request::{Question as Asks, RequestedPrincipal};
use super::roles::{RoleError, Roles, role_id};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::cluster::{Finding, Severity};
use crate::domain::evaluate::{self, Answer, Decision, Question, Verdict};
use crate::domain::freshness::{ConsistencyToken, Freshness};
use crate::domain::ids::{ClusterId, InstanceId, PrincipalId};
use crate::domain::reason::Reason;
use crate::domain::role::RoleDefinition;
use crate::domain::snapshot::Snapshot;
use crate::store::StoreError;
use crate::view::{ClusterView, Groups, Loaded, Need, Unread, View, ViewError};

/// Two replicas know each other's clocks only by the store's: to so much.
const CLOCKS_AGREE_TO: Duration = Duration::from_millis(20);

/// What is asked, of a principal that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Who.
    pub principal: Principal,
    /// Where.
    pub cluster: ClusterId,
    /// What.
    pub asks: Asks,
}

/// What `CheckAccess` answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// May the principal fetch the cluster's credentials?
    pub cluster_access: Decision,
    /// May it do what was asked, once connected?
    pub permission: Decision,
    /// When the broker's own clock ends an `Allowed`, if it ever does.
    pub expire_time: Option<Timestamp>,
    /// Why, if that was asked.
    pub why: Option<Answer>,
    /// The groups in between with their names, as far as they were looked up.
    pub names: Named,
    /// What it is true of.
    pub as_of: Timestamp,
    /// For a later check that must know at least as much.
    pub token: ConsistencyToken,
}

impl Checked {
    /// Both layers together.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.cluster_access.min(self.permission)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, Error)]
pub enum CheckError {
    /// The cluster cannot be had.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The role that is asked about cannot be had.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The principal's groups cannot be had.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// What the answer hangs on cannot be had.
    #[error(transparent)]
    View(ViewError),
    /// The consistency token is another broker's: its place in the changes means nothing here.
    #[error(
        "the consistency_token is of the broker with the instance id {given}, and this one has {own}: send one that this \
         broker gave, or ask with fully_consistent"
    )]
    OtherBroker {
        /// Whose token it is.
        given: InstanceId,
        /// Who was asked.
        own: InstanceId,
    },
    /// The caller wants data read that are fresher than the configuration's, and has had so many read.
    #[error(transparent)]
    FreshReadsSpent(#[from] Spent),
}

impl CheckError {
    /// Why nothing is known of a cluster.
    pub(super) fn of(cluster: &ClusterId, error: ViewError) -> Self {
        match error {
            ViewError::Cluster(error) => ClusterError::of(cluster, *error).into(),
            error => Self::View(error),
        }
    }

    /// The stable reason that callers see.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Cluster(error) => error.reason(),
            Self::Role(error) => error.reason(),
            Self::Principal(error) => error.reason(),
            Self::View(
                ViewError::Assignments(error) | ViewError::Roles(error) | ViewError::Cluster(error),
            ) => match error.reason() {
                reason @ Reason::AuthorizationFailed => reason,
                _ => unavailable(error),
            },
            Self::View(ViewError::Store(error)) => store_reason(error),
            Self::View(ViewError::NotFollowing) => Reason::StoreUnavailable,
            Self::View(ViewError::NotReached { .. }) => Reason::NotFreshEnough,
            Self::OtherBroker { .. } => Reason::InvalidRequest,
            Self::FreshReadsSpent(_) => Reason::RateLimited,
        }
    }

    /// What the store says, where it is the store's fault.
    #[must_use]
    pub fn store(&self) -> Option<&StoreError> {
        match self {
            Self::View(ViewError::Store(error)) => Some(error),
            _ => None,
        }
    }
}

/// Answers checks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Check {
    view: View,
    clusters: Clusters,
    roles: Roles,
    staleness: Staleness,
}

/// How old the data may be that an answer rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staleness {
    /// Where the caller says nothing.
    pub usual: Duration,
    /// Whatever the caller says.
    pub longest: Duration,
}

impl Check {
    /// Answers from `view`.
    #[must_use]
    pub const fn new(view: View, clusters: Clusters, roles: Roles, staleness: Staleness) -> Self {
        Self {
            view,
            clusters,
            roles,
            staleness,
        }
    }

    /// Whether data that are as fresh as the configuration wants them may be too old.
    pub(super) fn is_stricter_than_usual(&self, need: Need) -> bool {
        let usual = need.now.checked_sub(self.staleness.usual);
        usual.is_some_and(|usual| need.not_before > usual)
    }

    /// Data as old as any answer may rest on.
    pub(super) fn oldest(&self) -> Need {
        Need::within(self.staleness.longest)
    }

    /// How fresh the data must be. Waits until the broker's own changes that a token names are heard of here.
    ///
    /// # Errors
    /// [`CheckError::View`] where they are not in good time.
    pub async fn need(&self, freshness: Freshness) -> Result<Need, CheckError> {
        match freshness {
            Freshness::Configured => Ok(Need::within(self.staleness.usual)),
            Freshness::AtMost(age) => Ok(Need::within(age.min(self.staleness.longest))),
            Freshness::Now => Ok(Need::within(Duration::ZERO)),
            Freshness::AtLeast(token) => {
                let own = self.view.instance().await.map_err(CheckError::View)?;
                if token.broker != own {
                    let given = token.broker;
                    return Err(CheckError::OtherBroker { given, own });
                }
                let reached = Box::pin(self.view.reach(token.position)).await;
                reached.map_err(CheckError::View)?;
                let need = Need::within(self.staleness.usual);
                let Some(as_of) = token.as_of else {
                    return Ok(need);
                };
                let age = self.as_of(need.now)?.duration_since(as_of);
                // One of the future is as good as now.
                let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
                let known = need.now.checked_sub(age.saturating_add(CLOCKS_AGREE_TO));
                Ok(Need {
                    not_before: known.map_or(need.not_before, |known| known.max(need.not_before)),
                    ..need
                })
            }
        }
    }

    /// Answers; with `explain`, says why.
    ///
    /// # Errors
    /// [`CheckError`] wherever something that the answer hangs on cannot be read.
    pub async fn check_access(
        &self,
        asked: &Asked,
        demand: impl Into<Demand>,
        explain: bool,
    ) -> Result<Checked, CheckError> {
        let demand = demand.into();
        let (view, groups) = tokio::join!(
            self.of_cluster(&asked.cluster, &demand),
            self.groups_of(&asked.principal, &demand)
        );
        let view = view?;
        let role;
        let asks = match &asked.asks {
            Asks::Request(request) => evaluate::Asks::Request(request),
            Asks::Access(access) => {
                role = self.role(&view.value, asked, access.role).await?;
                evaluate::Asks::Access {
                    role: &role,
                    namespaces: &access.namespaces,
                }
            }
        };
        let snapshot = &view.value.snapshot;
        let mut principal = Cow::Borrowed(&asked.principal);
        if groups
            .as_ref()
            .is_ok_and(|it| it.value.is_service_principal)
        {
            principal.to_mut().kind = PrincipalType::ServicePrincipal;
        }
        let question = Question {
            principal: &principal,
            groups: groups.as_ref().map_or(&[], |groups| &groups.value.ids),
            asks,
        };
        let mut answer = Answered::of(snapshot, &question, explain);
        let read = match &groups {
            Ok(groups) => {
                if !groups.value.is_known {
                    let is_new = may_be_new(snapshot, asked.principal.id);
                    if !is_new {
                        answer.deny();
                    }
                    answer.add(&not_in_directory(&asked.principal, is_new));
                }
                view.begun.min(groups.begun)
            }
            // Whoever may ask again is told so, and gets no answer for want of groups.
            Err(error @ CheckError::FreshReadsSpent(_)) => return Err(error.clone()),
            // Groups only give more, unless a deny assignment names one, or a service principal has too many.
            Err(_) if is_sure_without_groups(&answer, asked, snapshot) => {
                answer.add(&groups_not_read(&asked.principal));
                view.begun
            }
            Err(error) => return Err(error.clone()),
        };
        let as_of = self.as_of(read)?;
        // All changes that may be in the answer, and perhaps some that are not: a later check knows no less.
        let position = self.view.position();
        let broker = self.view.instance().await.map_err(CheckError::View)?;
        let Answered { verdict, why } = answer;
        Ok(Checked {
            cluster_access: verdict.cluster_access,
            permission: verdict.permission,
            expire_time: verdict.expire_time,
            why,
            names: Named::new(),
            as_of,
            token: ConsistencyToken {
                broker,
                position,
                as_of: Some(as_of),
            },
        })
    }

    /// A moment of this process's, for callers.
    pub(super) fn as_of(&self, moment: Instant) -> Result<Timestamp, CheckError> {
        self.view.time_of(moment).map_err(CheckError::View)
    }

    /// What is known of a cluster.
    pub(super) async fn of_cluster(
        &self,
        cluster: &ClusterId,
        demand: &Demand,
    ) -> Result<Arc<Loaded<ClusterView>>, CheckError> {
        self.clusters.must_be_managed(cluster)?;
        let may_read = || demand.pay_for_cluster(cluster.subscription());
        let view = self.view.of_cluster(cluster, demand.need, may_read).await;
        view.map_err(|unread| match unread {
            Unread::NotPermitted(spent) => spent.into(),
            Unread::Failed(error) => CheckError::of(cluster, error),
        })
    }

    /// The groups of a principal.
    pub(super) async fn groups_of(
        &self,
        principal: &Principal,
        demand: &Demand,
    ) -> Result<Arc<Loaded<Groups>>, CheckError> {
        let (id, kind) = (principal.id, principal.kind);
        let may_read = || demand.pay_for_groups();
        let groups = self.view.groups_of(id, kind, demand.need, may_read).await;
        let asked = || RequestedPrincipal::ObjectId(id, Some(kind));
        groups.map_err(|unread| match unread {
            Unread::NotPermitted(spent) => spent.into(),
            Unread::Failed(error) => PrincipalError::of(&asked(), error).into(),
        })
    }

    async fn role(
        &self,
        view: &ClusterView,
        asked: &Asked,
        role: RequestedRole,
    ) -> Result<Arc<RoleDefinition>, CheckError> {
        let id = role_id(role);
        match view.role(id) {
            Some(known) => Ok(Arc::clone(known)),
            // Of a role that Azure's list does not show, Azure may know all the same.
            None => Ok(Box::pin(self.roles.get(asked.cluster.subscription(), id)).await?),
        }
    }
}

/// An answer, with its reasons where they are asked for.
struct Answered {
    verdict: Verdict,
    why: Option<Answer>,
}

impl Answered {
    fn of(snapshot: &Snapshot, question: &Question<'_>, explain: bool) -> Self {
        if !explain {
            return Self {
                verdict: snapshot.decide(question),
                why: None,
            };
        }
        let why = snapshot.explain(question);
        Self {
            verdict: Verdict {
                cluster_access: why.cluster_access.decision,
                permission: why.permission.decision,
                expire_time: why.expire_time,
            },
            why: Some(why),
        }
    }

    /// Nobody whom the directory does not know signs in, whatever is assigned to it.
    fn deny(&mut self) {
        self.verdict = Verdict {
            cluster_access: Decision::Denied,
            permission: Decision::Denied,
            expire_time: None,
        };
        if let Some(why) = &mut self.why {
            why.decision = Decision::Denied;
            why.expire_time = None;
            for layer in [&mut why.cluster_access, &mut why.permission] {
                layer.decision = Decision::Denied;
                layer.paths.clear();
            }
        }
    }

    fn add(&mut self, finding: &Finding) {
        if let Some(why) = &mut self.why {
            for layer in [&mut why.cluster_access, &mut why.permission] {
                layer.findings.push(finding.clone());
            }
        }
    }
}

fn is_sure_without_groups(answer: &Answered, asked: &Asked, snapshot: &Snapshot) -> bool {
    answer.verdict.decision() == Decision::Allowed
        && asked.principal.kind != PrincipalType::ServicePrincipal
        && !snapshot.is_service_principal(asked.principal.id)
        && !snapshot.may_deny_by_group()
}

/// Whether somebody whom the directory does not know may only be so new that it does not know it yet: then what we have
/// assigned to it counts. What a deny assignment might take away by a group that nobody knows of, does not.
pub(super) fn may_be_new(snapshot: &Snapshot, principal: PrincipalId) -> bool {
    snapshot.was_given_lately(principal) && !snapshot.may_deny_by_group()
}

fn groups_not_read(principal: &Principal) -> Finding {
    Finding {
        severity: Severity::Info,
        reason: "GROUPS_NOT_READ",
        message: format!(
            "the groups of {} cannot be read; what it holds in person is enough",
            principal.id
        ),
        remediation: "Let the broker's application read groups in Microsoft Graph".to_owned(),
    }
}

fn not_in_directory(principal: &Principal, may_be_new: bool) -> Finding {
    let consequence = if may_be_new {
        "what was granted to it a moment ago counts, and groups that it may be in do not"
    } else {
        "nobody signs in as it, whatever is assigned to it"
    };
    Finding {
        severity: Severity::Warning,
        reason: "PRINCIPAL_NOT_IN_DIRECTORY",
        message: format!(
            "the directory knows no {} (yet): {consequence}",
            principal.id
        ),
        remediation: "Check the object id; of a principal that was deleted, remove the assignments"
            .to_owned(),
    }
}
