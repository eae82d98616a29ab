//! The walk: one call after the other, each answer held against the model.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use aks_access_broker::grpc::proto::{
    GetGrantRequest, GetJobRequest, GetJobResponse, ListJobTargetsRequest, WatchJobRequest,
    WatchJobResponse,
};
use azure_emulator::Settings;
use tonic::{Response, Status};

use crate::company::Company;
use crate::draw::{Call, Draw};
use crate::faults;
use crate::grant::{Reason, UNKNOWN_GRANT};
use crate::model::{Model, Told, Verdict, Window, at_fault, refused, served};
use crate::pages::UNKNOWN_JOB;
use crate::support::broker::{BrokerProcess, Client};
use crate::support::refusal::Refusal;
use crate::support::{Timing, World};

/// No call takes so long, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A walk on its way.
pub(crate) struct Walk {
    seed: u64,
    pub(crate) world: World,
    _broker: BrokerProcess,
    client: Client,
    pub(crate) model: Model,
    pub(crate) draw: Draw,
    /// How many calls were made.
    pub(crate) calls: usize,
    /// The token of the next page, after a list.
    pub(crate) next_page: String,
    /// The last few, the newest last.
    recent: VecDeque<(usize, Call, String)>,
}

/// An answer, and whether it agrees.
struct Outcome {
    /// What is counted: OK, or the reason of a refusal.
    kind: String,
    verdict: Verdict,
    /// The answer, where it does not agree.
    answer: String,
}

fn outcome<T: Debug>(told: &Told<T>, verdict: Verdict) -> Outcome {
    Outcome {
        kind: told
            .as_ref()
            .map_or_else(|refusal| refusal.reason.clone(), |_| "OK".to_owned()),
        answer: verdict
            .as_ref()
            .map_or_else(|_| format!("{told:#?}"), |()| String::new()),
        verdict,
    }
}

async fn asked<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> (Told<T>, Window) {
    let from = SystemTime::now();
    let told = tokio::time::timeout(PATIENCE, call)
        .await
        .expect("an answer in good time");
    let told = told
        .map(Response::into_inner)
        .map_err(|status| Refusal::of(&status));
    (told, Window::new(from, SystemTime::now()))
}

impl Walk {
    pub(crate) async fn begin(seed: u64) -> Self {
        let world = World::start_with(Settings::immediate(), seed).await;
        let company = Company::settle_in(&world);
        let timing = Timing {
            writes: (100_000, 10_000),
            deletes: (100_000, 10_000),
            ..Timing::default()
        };
        let broker = world.broker(&timing).await;
        Self {
            seed,
            client: broker.client(),
            _broker: broker,
            world,
            model: Model::new(company),
            draw: Draw::new(seed),
            calls: 0,
            next_page: String::new(),
            recent: VecDeque::new(),
        }
    }

    /// Where the walk is, for whoever has to go there again.
    pub(crate) fn whereabouts(&self) -> String {
        format!("WALK_SEED={}, call {}", self.seed, self.calls)
    }

    /// One call further.
    pub(crate) async fn on(&mut self) {
        let call = self.draw.call(&self.model);
        self.make(call).await;
    }

    /// Makes a call.
    ///
    /// # Panics
    /// Where its answer does not agree with the model.
    pub(crate) async fn make(&mut self, call: Call) -> bool {
        self.calls += 1;
        let outcome = self.outcome_of(&call).await;
        let summary = (self.calls, call.clone(), outcome.kind.clone());
        self.recent.push_back(summary);
        if self.recent.len() > 12 {
            self.recent.pop_front();
        }
        if let Err(expected) = outcome.verdict {
            let recent = self.recent.iter();
            let recent = recent.map(|(number, call, kind)| format!("{number} {call:?} → {kind}"));
            let recent: Vec<String> = recent.collect();
            panic!(
                "{}: {call:#?}\nwas answered {}\nthe model expects {expected}\nmost recently: {recent:#?}",
                self.whereabouts(),
                outcome.answer
            );
        }
        self.model.note(format!("{} {}", call.rpc(), outcome.kind));
        let is_accepted = outcome.kind == "OK";
        if is_accepted && has_request_id(&call) {
            self.draw.accepted.push(call);
        }
        if let Some(job_id) = self.model.job_of_unknown_targets() {
            let asked = ListJobTargetsRequest {
                job_id: job_id.clone(),
                page_size: 1_000,
                ..ListJobTargetsRequest::default()
            };
            Box::pin(self.make(Call::ListJobTargets(asked))).await;
        }
        is_accepted
    }

    async fn outcome_of(&mut self, call: &Call) -> Outcome {
        let (client, model) = (&mut self.client, &mut self.model);
        match call {
            Call::Grant(request) => {
                let (told, when) = asked(client.grant(request.clone())).await;
                outcome(&told, model.grant(request, &told, when))
            }
            Call::ExtendGrant(request) => {
                let (told, when) = asked(client.extend_grant(request.clone())).await;
                outcome(&told, model.extension(request, &told, when))
            }
            Call::Revoke(request) => {
                let (told, when) = asked(client.revoke(request.clone())).await;
                outcome(&told, model.revocation(request, &told, when))
            }
            Call::GetGrant(request) => {
                let (told, when) = asked(client.get_grant(request.clone())).await;
                let told = told.map(|answer| answer.grant.unwrap_or_default());
                let verdict = got_grant(model, request, &told, when);
                outcome(&told, verdict)
            }
            Call::GetJob(request) => {
                let (told, when) = asked(client.get_job(request.clone())).await;
                outcome(&told, got_job(model, request, &told, when))
            }
            Call::WatchJob(request) => {
                let (told, when) = asked(watched(client, request.clone())).await;
                outcome(&told, followed(model, request, &told, when))
            }
            Call::ListGrants(request) => {
                let (told, when) = asked(client.list_grants(request.clone())).await;
                self.next_page = told
                    .as_ref()
                    .map_or_else(|_| String::new(), |page| page.next_page_token.clone());
                outcome(&told, model.list_grants(request, &told, when))
            }
            Call::ListJobs(request) => {
                let (told, when) = asked(client.list_jobs(request.clone())).await;
                self.next_page = told
                    .as_ref()
                    .map_or_else(|_| String::new(), |page| page.next_page_token.clone());
                outcome(&told, model.list_jobs(request, &told, when))
            }
            Call::ListJobTargets(request) => {
                let (told, _) = asked(client.list_job_targets(request.clone())).await;
                outcome(&told, model.list_targets(request, &told))
            }
            Call::CheckAccess(request) => {
                let (told, when) = asked(client.check_access(request.clone())).await;
                outcome(&told, model.check(request, &told, when))
            }
        }
    }
}

impl Walk {
    /// A walk that hardly got anywhere proves nothing: each RPC was served, and each reason was met.
    ///
    /// # Panics
    /// Where something was not.
    pub(crate) fn came_across_everything(&self) {
        for met in [
            "Grant OK",
            "Grant INVALID_REQUEST",
            "Grant CLUSTER_NOT_FOUND",
            "Grant ENTRA_INTEGRATION_REQUIRED",
            "Grant AZURE_RBAC_DISABLED",
            "Grant ROLE_NOT_FOUND",
            "Grant ROLE_NOT_ALLOWED",
            "Grant REQUEST_ID_REUSED",
            "Grant EXTERNAL_KEY_IN_USE",
            "ExtendGrant OK",
            "ExtendGrant INVALID_REQUEST",
            "ExtendGrant GRANT_NOT_FOUND",
            "ExtendGrant GRANT_ENDED",
            "ExtendGrant REQUEST_ID_REUSED",
            "Revoke OK",
            "Revoke waits for what is going",
            "Revoke INVALID_REQUEST",
            "Revoke GRANT_NOT_FOUND",
            "Revoke TOO_MANY_MATCHES",
            "Revoke REQUEST_ID_REUSED",
            "GetGrant OK",
            "GetGrant INVALID_REQUEST",
            "GetGrant GRANT_NOT_FOUND",
            "GetJob OK",
            "GetJob INVALID_REQUEST",
            "GetJob JOB_NOT_FOUND",
            "WatchJob OK",
            "ListGrants OK",
            "ListGrants INVALID_REQUEST",
            "ListJobs OK",
            "ListJobs INVALID_REQUEST",
            "ListJobTargets OK",
            "ListJobTargets INVALID_REQUEST",
            "ListJobTargets JOB_NOT_FOUND",
            "CheckAccess OK",
            "CheckAccess INVALID_REQUEST",
            "CheckAccess CLUSTER_NOT_FOUND",
            "CheckAccess ROLE_NOT_FOUND",
            "grant STATE_PENDING",
            "grant STATE_ACTIVE",
            "grant STATE_REVOKING",
            "grant STATE_REVOKED",
            "grant STATE_EXPIRED",
            "job STATE_QUEUED",
            "job STATE_RUNNING",
            "job STATE_SUCCEEDED",
            "job STATE_SUPERSEDED",
        ] {
            assert!(
                self.model.tally.contains_key(met),
                "{}: never {met}",
                self.whereabouts()
            );
        }
    }
}

fn has_request_id(call: &Call) -> bool {
    match call {
        Call::Grant(asked) => !asked.request_id.is_empty() && !asked.validate_only,
        Call::ExtendGrant(asked) => !asked.request_id.is_empty() && !asked.validate_only,
        Call::Revoke(asked) => !asked.request_id.is_empty() && !asked.validate_only,
        _ => false,
    }
}

/// What is to be said of an id that is none, or of nothing that there is; `None`: it is of something.
fn not_there<T: Debug>(
    told: &Told<T>,
    field: &'static str,
    id: &str,
    is_known: impl Fn(&str) -> bool,
    unknown: Reason,
) -> Option<Verdict> {
    let faults = faults::of_id(field, id);
    if !faults.is_empty() {
        return Some(at_fault(told, &faults));
    }
    (!is_known(&id.to_lowercase())).then(|| refused(told, &[unknown]))
}

fn got_grant(
    model: &mut Model,
    asked: &GetGrantRequest,
    told: &Told<aks_access_broker::grpc::proto::Grant>,
    when: Window,
) -> Verdict {
    let is_known = |id: &str| model.grants.contains_key(id);
    if let Some(verdict) = not_there(told, "grant_id", &asked.grant_id, is_known, UNKNOWN_GRANT) {
        return verdict;
    }
    let grant = served(told)?;
    model.grant_is_told(grant, when)?;
    model.effects_are_told(grant)
}

fn got_job(
    model: &mut Model,
    asked: &GetJobRequest,
    told: &Told<GetJobResponse>,
    when: Window,
) -> Verdict {
    let is_known = |id: &str| model.jobs.contains_key(id);
    if let Some(verdict) = not_there(told, "job_id", &asked.job_id, is_known, UNKNOWN_JOB) {
        return verdict;
    }
    let answer = served(told)?;
    let job = answer.job.as_ref().ok_or("job: present")?;
    model.job_is_told(job, when)?;
    model.first_targets_are_told(&job.job_id, &answer.targets, job.state())
}

/// All that a watch tells, to its end.
async fn watched(
    client: &mut Client,
    request: WatchJobRequest,
) -> Result<Response<Vec<WatchJobResponse>>, Status> {
    let mut stream = client.watch_job(request).await?.into_inner();
    let mut told = Vec::new();
    while let Some(message) = stream.message().await? {
        told.push(message);
    }
    Ok(Response::new(told))
}

/// The job as it is, then what it becomes, and at last that it is over.
fn followed(
    model: &mut Model,
    asked: &WatchJobRequest,
    told: &Told<Vec<WatchJobResponse>>,
    when: Window,
) -> Verdict {
    let is_known = |id: &str| model.jobs.contains_key(id);
    if let Some(verdict) = not_there(told, "job_id", &asked.job_id, is_known, UNKNOWN_JOB) {
        return verdict;
    }
    for (index, message) in served(told)?.iter().enumerate() {
        let job = message.job.as_ref().ok_or("job: present")?;
        model.job_is_told(job, when)?;
        if index == 0 {
            model.first_targets_are_told(&job.job_id, &message.targets, job.state())?;
        }
        for target in &message.targets {
            model.target_is_told(&job.job_id, job.state(), target)?;
        }
    }
    let over = model.jobs[&asked.job_id.to_lowercase()].is_over();
    crate::model::holds(over, || "that a watch ends with its job".to_owned())
}
