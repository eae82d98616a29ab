//! Where the walk waits: for ends that come by themselves, and for a world that is at rest, in which everything is
//! exactly what the model says.

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    CheckAccessRequest, GetGrantRequest, ListGrantsRequest, ListJobTargetsRequest, ListJobsRequest,
    WatchJobRequest, grant, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use rand::RngExt;

use crate::company::{NAMESPACES, PRINCIPALS, Role, Takes};
use crate::draw::Call;
use crate::model::{End, Fate, scope};
use crate::support::{Assignment, ask};
use crate::walk::{PATIENCE, Walk};

const UNDER_WAY: [job::State; 3] = [
    job::State::Queued,
    job::State::Running,
    job::State::Retrying,
];

const EVERY_STATE: [grant::State; 7] = [
    grant::State::Scheduled,
    grant::State::Pending,
    grant::State::Active,
    grant::State::Revoking,
    grant::State::Revoked,
    grant::State::Expired,
    grant::State::Failed,
];

impl Walk {
    /// Some grants that end at once. A few of them are extended, in time or not: the answer tells. Of the others
    /// the end is waited for.
    pub(crate) async fn past_some_expiries(&mut self) {
        for _ in 0..6 {
            let mut asked = self.draw.grant(&self.model);
            (asked.permanent, asked.expire_time) = (false, None);
            asked.ttl = Some(Duration::from_millis(1_200).try_into().expect("a ttl"));
            asked.external_key.clear();
            asked.validate_only = false;
            self.make(Call::Grant(asked)).await;
        }
        let due = self.due();
        for id in &due[..due.len() / 3] {
            let mut asked = self.draw.extension(&self.model);
            asked.grant_id.clone_from(id);
            asked.validate_only = false;
            self.make(Call::ExtendGrant(asked)).await;
        }
        for grant_id in self.due() {
            while self.model.grants[&grant_id].fate == Fate::Due {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let asked = GetGrantRequest {
                    grant_id: grant_id.clone(),
                };
                self.make(Call::GetGrant(asked)).await;
            }
            let latest = self.model.grants[&grant_id].jobs.first().cloned();
            let asked = WatchJobRequest {
                job_id: latest.expect("a job"),
            };
            self.make(Call::WatchJob(asked)).await;
        }
    }

    fn due(&self) -> Vec<String> {
        let due = self
            .model
            .grants
            .values()
            .filter(|grant| grant.fate == Fate::Due);
        due.map(|grant| grant.id.clone()).collect()
    }

    /// Waits until nothing is left to do: then every job is over.
    pub(crate) async fn come_to_rest(&mut self) {
        let at_rest = self.world.at_rest_but_for_expiries();
        let at_rest = tokio::time::timeout(PATIENCE, at_rest).await;
        at_rest.expect("a world that comes to rest");
        self.model.settle();
        self.make(Call::ListJobs(ListJobsRequest {
            states: UNDER_WAY.map(i32::from).to_vec(),
            ..ListJobsRequest::default()
        }))
        .await;
        let mut asked = ListJobsRequest {
            page_size: 100,
            ..ListJobsRequest::default()
        };
        while !self.model.under_way.is_empty() {
            self.make(Call::ListJobs(asked.clone())).await;
            asked.page_token.clone_from(&self.next_page);
        }
    }

    /// At rest, looks at what has changed since the last time; at the end, at everything that there ever was.
    pub(crate) async fn look_round(&mut self, at_everything: bool) {
        self.come_to_rest().await;
        self.jobs_have_done_what_they_were_for().await;
        self.grants_are_as_wished().await;
        if at_everything {
            self.lists_are_whole().await;
        }
        self.azure_holds_what_is_wished();
        self.checks_are_exact(at_everything).await;
    }

    /// The latest jobs of many targets, each to its last target.
    async fn jobs_have_done_what_they_were_for(&mut self) {
        let mut several = Vec::new();
        for (id, job) in self.model.jobs.iter().rev() {
            if job.targets.len() > 1 && several.len() < 20 {
                several.push(id.clone());
            }
        }
        for job_id in several {
            self.make(Call::ListJobTargets(ListJobTargetsRequest {
                job_id,
                ..ListJobTargetsRequest::default()
            }))
            .await;
        }
    }

    async fn grants_are_as_wished(&mut self) {
        let changed = std::mem::take(&mut self.model.changed);
        let live = self.model.live().map(|grant| grant.id.clone());
        let looked_at: BTreeSet<String> = changed.into_iter().chain(live).collect();
        for grant_id in looked_at {
            self.make(Call::GetGrant(GetGrantRequest { grant_id }))
                .await;
        }
    }

    async fn lists_are_whole(&mut self) {
        let mut grants = ListGrantsRequest {
            states: EVERY_STATE.map(i32::from).to_vec(),
            page_size: 1_000,
            ..ListGrantsRequest::default()
        };
        let mut jobs = ListJobsRequest {
            page_size: 1_000,
            ..ListJobsRequest::default()
        };
        loop {
            self.make(Call::ListGrants(grants.clone())).await;
            grants.page_token.clone_from(&self.next_page);
            if grants.page_token.is_empty() {
                break;
            }
        }
        loop {
            self.make(Call::ListJobs(jobs.clone())).await;
            jobs.page_token.clone_from(&self.next_page);
            if jobs.page_token.is_empty() {
                break;
            }
        }
    }

    /// The union of what the live grants call for, each with their latest end, less what others hold there
    /// already; and what grants are said to rest on is there.
    fn azure_holds_what_is_wished(&self) {
        let mut expected = BTreeSet::new();
        for grant in self.model.live() {
            let target = grant.target();
            for place in grant.calls_for() {
                if self.model.is_foreign(&target, &place) {
                    continue;
                }
                let end = self.model.wished_until(&target, &place);
                let held = Assignment {
                    scope: scope(&grant.cluster, place.1.as_deref()),
                    role: place.0.id(),
                    principal: grant.principal.id,
                };
                expected.insert((held, written(end.expect("a live grant calls for it"))));
            }
        }
        let truth = self.world.described();
        let missing: Vec<_> = expected.difference(&truth).collect();
        let left: Vec<_> = truth.difference(&expected).collect();
        assert!(
            missing.is_empty() && left.is_empty(),
            "{}: Azure lacks {missing:#?}, and holds {left:#?} too much",
            self.whereabouts()
        );
        let all = self.world.emulator.role_assignments().into_iter();
        let all: BTreeSet<String> = all.map(|found| found.id().to_lowercase()).collect();
        for grant in self.model.live() {
            let (told, _) = grant.told.as_ref().expect("it was looked at");
            for effect in &told.effects {
                assert!(
                    all.contains(&effect.resource_id.to_lowercase()),
                    "{}: Azure has no {} of {told:#?}",
                    self.whereabouts(),
                    effect.resource_id
                );
            }
        }
    }

    /// Slow calls let requests overtake the work of those before them.
    pub(crate) fn azure_takes_its_time(&self, slow: bool) {
        self.world.emulator.clear_faults();
        if slow {
            for operation in [
                Operation::RoleAssignmentWrite,
                Operation::RoleAssignmentDelete,
            ] {
                let delay = Duration::from_millis(30);
                let latency = FaultEffect::Latency { delay };
                self.world
                    .emulator
                    .add_fault(Fault::always(operation, latency));
            }
        }
    }

    /// Everybody, everywhere; at the end about every role, else about one at each place.
    async fn checks_are_exact(&mut self, about_everything: bool) {
        let clusters = self.model.company.clusters.iter();
        let there = clusters.filter(|cluster| !matches!(cluster.takes, Takes::Nothing(..)));
        let there: Vec<String> = there.map(|cluster| cluster.id.clone()).collect();
        let places = NAMESPACES.map(Some).into_iter().chain([None]);
        let everybody = there
            .iter()
            .flat_map(|cluster| PRINCIPALS.map(|one| (cluster, one)));
        for (cluster, principal) in everybody {
            for namespace in places.clone() {
                let roles = match namespace {
                    Some(_) => &Role::ALL[1..],
                    None => &Role::ALL[..],
                };
                let one = self.draw.random.random_range(0..roles.len());
                let roles = if about_everything {
                    roles
                } else {
                    &roles[one..=one]
                };
                for role in roles {
                    let namespaces = namespace.map(str::to_owned).into_iter().collect();
                    let asked = CheckAccessRequest {
                        principal: Some(ask::principal(principal.id, principal.kind)),
                        cluster: cluster.clone(),
                        access: Some(role.access(&namespaces)),
                        consistency: Some(ask::now()),
                        explain: self.draw.chance(30),
                        ..CheckAccessRequest::default()
                    };
                    self.make(Call::CheckAccess(asked)).await;
                }
            }
        }
    }
}

/// As a description writes an end.
fn written(end: End) -> String {
    match end {
        End::Never => "never".to_owned(),
        End::At(time) => jiff::Timestamp::from_nanosecond(time)
            .expect("a time")
            .to_string(),
    }
}
