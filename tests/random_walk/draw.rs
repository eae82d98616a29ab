//! Draws the next call: anything that a platform may ask, and some of what it may not.

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{
    Access, CheckAccessRequest, ExtendGrantRequest, GetGrantRequest, GetJobRequest, GrantRequest,
    GrantSelector, ListGrantsRequest, ListJobTargetsRequest, ListJobsRequest, PrincipalRef,
    RevokeRequest, WatchJobRequest,
};
use prost_types::{Duration, Timestamp};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::company::{
    CLUSTER_ADMIN_ROLE, EXTERNAL_KEYS, LABELS, NAMESPACES, NO_ROLE, OWNER, PEOPLE, PRINCIPALS,
    Principal, Role, Takes,
};
use crate::model::{Grant, Model};
use crate::support::ask;

/// One call.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Call {
    Grant(GrantRequest),
    ExtendGrant(ExtendGrantRequest),
    Revoke(RevokeRequest),
    GetGrant(GetGrantRequest),
    GetJob(GetJobRequest),
    WatchJob(WatchJobRequest),
    ListGrants(ListGrantsRequest),
    ListJobs(ListJobsRequest),
    ListJobTargets(ListJobTargetsRequest),
    CheckAccess(CheckAccessRequest),
}

impl Call {
    pub(crate) const fn rpc(&self) -> &'static str {
        match self {
            Self::Grant(_) => "Grant",
            Self::ExtendGrant(_) => "ExtendGrant",
            Self::Revoke(_) => "Revoke",
            Self::GetGrant(_) => "GetGrant",
            Self::GetJob(_) => "GetJob",
            Self::WatchJob(_) => "WatchJob",
            Self::ListGrants(_) => "ListGrants",
            Self::ListJobs(_) => "ListJobs",
            Self::ListJobTargets(_) => "ListJobTargets",
            Self::CheckAccess(_) => "CheckAccess",
        }
    }
}

/// Every end is either so far away that the walk is over before it comes, or made to come where the walk waits
/// for it.
const LONG: std::ops::Range<i64> = 3_600..10_000_000;

/// The dice.
pub(crate) struct Draw {
    pub(crate) random: StdRng,
    /// Requests with an id that were accepted, to be sent again.
    pub(crate) accepted: Vec<Call>,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            accepted: Vec::new(),
        }
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    pub(crate) fn call(&mut self, model: &Model) -> Call {
        if self.chance(8) && !self.accepted.is_empty() {
            return self.again(model);
        }
        let call = match self.random.random_range(0..100) {
            0..26 => Call::Grant(self.grant(model)),
            26..33 => Call::ExtendGrant(self.extension(model)),
            33..44 => Call::Revoke(self.revocation_of_one(model)),
            44..51 => Call::Revoke(self.revocation_of_several(model)),
            51..59 => Call::GetGrant(GetGrantRequest {
                grant_id: self.a_grant(model),
            }),
            59..66 => Call::GetJob(GetJobRequest {
                job_id: self.a_job(model),
            }),
            66..74 => Call::ListGrants(self.list_of_grants(model)),
            74..80 => Call::ListJobs(self.list_of_jobs(model)),
            80..85 => Call::ListJobTargets(self.list_of_targets(model)),
            85..97 => Call::CheckAccess(self.check(model)),
            _ => Call::WatchJob(WatchJobRequest {
                job_id: self.a_job_under_way(model),
            }),
        };
        if self.chance(10) {
            self.spoilt(call, model)
        } else {
            call
        }
    }

    // --- Changes ------------------------------------------------------------------------------------

    pub(crate) fn request_id(&mut self) -> String {
        Uuid::from_u128(self.random.random()).to_string()
    }

    pub(crate) fn grant(&mut self, model: &Model) -> GrantRequest {
        let principal = PRINCIPALS.choose(&mut self.random).expect("a principal");
        let cluster = self.a_cluster(model);
        let takes = model.company.cluster(&cluster).map(|found| found.takes);
        let access = if takes == Some(Takes::ClusterUser) && self.chance(80) {
            Role::ClusterUser.access(&BTreeSet::new())
        } else {
            self.access(&[CLUSTER_ADMIN_ROLE, OWNER, NO_ROLE])
        };
        let mut asked = GrantRequest {
            request_id: self.perhaps_a_request_id(),
            principal: Some(ask::principal(principal.id, principal.kind)),
            cluster,
            access: Some(access),
            justification: self.justification(),
            labels: self.labels(30).into_iter().collect(),
            on_behalf_of: self.perhaps(20, &PEOPLE),
            external_key: self.perhaps(30, &EXTERNAL_KEYS),
            validate_only: self.chance(8),
            ..GrantRequest::default()
        };
        match self.random.random_range(0..10) {
            0..4 => asked.permanent = true,
            4..7 => asked.ttl = Some(self.ttl()),
            _ => asked.expire_time = Some(self.time()),
        }
        // Whoever keeps no ids of ours asks for the same again by its own name for it.
        let named = model.named_by(&asked.external_key);
        if let Some(named) = named.filter(|_| self.chance(60)) {
            asked.principal = Some(ask::principal(named.principal.id, named.principal.kind));
            asked.cluster.clone_from(&named.cluster);
            asked.access = Some(named.role.access(&named.namespaces));
        }
        asked
    }

    pub(crate) fn extension(&mut self, model: &Model) -> ExtendGrantRequest {
        let by_ttl = self.chance(50);
        ExtendGrantRequest {
            request_id: self.perhaps_a_request_id(),
            grant_id: self.a_grant(model),
            ttl: by_ttl.then(|| self.ttl()),
            expire_time: (!by_ttl).then(|| self.time()),
            justification: self.justification(),
            validate_only: self.chance(15),
            on_behalf_of: self.perhaps(20, &PEOPLE),
        }
    }

    fn revocation_of_one(&mut self, model: &Model) -> RevokeRequest {
        RevokeRequest {
            request_id: self.perhaps_a_request_id(),
            grant_id: self.a_grant(model),
            justification: self.justification(),
            validate_only: self.chance(10),
            on_behalf_of: self.perhaps(20, &PEOPLE),
            ..RevokeRequest::default()
        }
    }

    fn revocation_of_several(&mut self, model: &Model) -> RevokeRequest {
        let selector = self.selector(model);
        let meant = i32::try_from(model.meant(&selector).len()).expect("a count");
        let max_grants = match self.random.random_range(0..10) {
            0..4 => 0,
            4..7 => meant.clamp(1, 1000),
            7 => 1000,
            _ => (meant - 1).max(1),
        };
        // A walk on which hardly anything is live comes across little.
        let too_many = meant > 8 && self.chance(75);
        RevokeRequest {
            selector: Some(selector),
            max_grants: if too_many { meant / 2 } else { max_grants },
            grant_id: String::new(),
            ..self.revocation_of_one(model)
        }
    }

    // --- Parts of requests --------------------------------------------------------------------------

    fn perhaps_a_request_id(&mut self) -> String {
        if self.chance(85) {
            self.request_id()
        } else {
            String::new()
        }
    }

    fn perhaps(&mut self, percent: u32, texts: &[&str]) -> String {
        let text = texts.choose(&mut self.random).expect("a text");
        if self.chance(percent) {
            (*text).to_owned()
        } else {
            String::new()
        }
    }

    fn justification(&mut self) -> String {
        self.perhaps(30, &["because", "on call: ärger", "a\nb"])
    }

    fn labels(&mut self, percent: u32) -> Vec<(String, String)> {
        let all = LABELS.into_iter();
        all.filter(|_| self.random.random_ratio(percent, 100))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// To the millisecond, as platforms mostly say it, or finer.
    fn nanos(&mut self) -> i32 {
        match self.random.random_range(0..4) {
            0 => self.random.random_range(0..1_000_000_000),
            1 => self.random.random_range(0..1_000) * 1_000_000,
            _ => 0,
        }
    }

    fn ttl(&mut self) -> Duration {
        Duration {
            seconds: self.random.random_range(LONG),
            nanos: self.nanos(),
        }
    }

    fn time(&mut self) -> Timestamp {
        let now = jiff::Timestamp::now().as_second();
        Timestamp {
            seconds: now + self.random.random_range(LONG),
            nanos: self.nanos(),
        }
    }

    /// Mostly one that takes grants.
    pub(crate) fn a_cluster(&mut self, model: &Model) -> String {
        let clusters = &model.company.clusters;
        let among = if self.chance(92) { 5 } else { clusters.len() };
        let cluster = clusters[..among].choose(&mut self.random);
        cluster.expect("a cluster").id.clone()
    }

    /// An access of one of the walk's roles, or now and then of one that the request is refused for.
    pub(crate) fn access(&mut self, refused: &[&str]) -> Access {
        if self.chance(4) {
            let refused = refused.choose(&mut self.random);
            return Access {
                role_definition_id: (*refused.expect("a role")).to_owned(),
                ..Access::default()
            };
        }
        let role = Role::ALL.choose(&mut self.random).expect("a role");
        let namespaces = match role {
            Role::ClusterUser => BTreeSet::new(),
            _ => self.namespaces(),
        };
        self.spelled(*role, &namespaces)
    }

    /// A built-in role can be named in two ways, and in a third by its full resource id.
    fn spelled(&mut self, role: Role, namespaces: &BTreeSet<String>) -> Access {
        let access = role.access(namespaces);
        let id = role.id();
        let role_definition_id = match self.random.random_range(0..20) {
            0 => id.to_string(),
            1 => format!("/providers/Microsoft.Authorization/roleDefinitions/{id}"),
            _ => return access,
        };
        Access {
            azure_role: 0,
            role_definition_id,
            ..access
        }
    }

    fn namespaces(&mut self) -> BTreeSet<String> {
        let count = self.random.random_range(0..3);
        let names = NAMESPACES.sample(&mut self.random, count);
        names.map(|name| (*name).to_owned()).collect()
    }

    /// Some of what a grant is, so that it is meant, or something of nothing.
    pub(crate) fn selector(&mut self, model: &Model) -> GrantSelector {
        let live = model.live().choose(&mut self.random);
        let Some(one) = live.or_else(|| model.grants.values().choose(&mut self.random)) else {
            return GrantSelector {
                labels: self.labels(100).into_iter().collect(),
                ..GrantSelector::default()
            };
        };
        let mut selector = GrantSelector::default();
        while selector == GrantSelector::default() {
            let fields = self.random.random_range(1..4);
            for _ in 0..fields {
                self.narrow(&mut selector, one, model);
            }
        }
        selector
    }

    fn narrow(&mut self, selector: &mut GrantSelector, one: &Grant, model: &Model) {
        match self.random.random_range(0..15) {
            0..3 => selector.principal = Some(self.spoken_of(one.principal)),
            3..6 => selector.cluster = Some(one.cluster.clone()),
            6 => selector.cluster = Some(self.a_cluster(model)),
            7..9 => {
                let named = self.spelled(one.role, &BTreeSet::new());
                selector.azure_role = Some(named.azure_role).filter(|role| *role != 0);
                selector.role_definition_id = said(named.role_definition_id);
            }
            9 => {
                let others = self.namespaces();
                selector.namespaces = one.namespaces.union(&others).cloned().collect();
            }
            10 => selector.namespaces = self.namespaces().into_iter().collect(),
            11 => {
                let labels = one.labels.clone().into_iter();
                selector.labels = labels.filter(|_| self.random.random_bool(0.7)).collect();
            }
            12 => selector.labels = self.labels(20).into_iter().collect(),
            13 => selector.external_key = said(one.external_key.clone()),
            _ => {
                let caller = model.caller.clone().unwrap_or_default();
                selector.requested_by = said(if self.chance(90) {
                    caller
                } else {
                    "somebody".to_owned()
                });
            }
        }
    }

    /// Where grants and jobs are looked for, an object id is enough.
    pub(crate) fn spoken_of(&mut self, principal: Principal) -> PrincipalRef {
        let typed = ask::principal(principal.id, principal.kind);
        let r#type = if self.chance(50) { typed.r#type } else { 0 };
        PrincipalRef { r#type, ..typed }
    }
}

/// A field of a selector: left out where there is nothing to say.
fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
