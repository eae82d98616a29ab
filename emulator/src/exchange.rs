//! One call, from its first byte to its end: noted, delayed, held, cut, carried out.
//!
//! A call is carried out on a task of its own. Azure does not stop because a client has hung up, and that
//! is exactly what brokers get wrong: so here, too, a commit may come when nobody waits for it any more.

use std::future::pending;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Response, StatusCode};

use crate::core::{Core, operation};
use crate::faults::FaultEffect;
use crate::history::{Call, Service};
use crate::message::{Answer, Request};
use crate::pending::Undecided;
use crate::server::Cut;
use crate::{arm, entra, graph};

/// The largest request body: ARM's own limit is 4 MB [azure-docs limits.md].
const LARGEST_BODY: usize = 4 * 1024 * 1024;

/// How a call ends for its caller.
enum End {
    Answered(Box<Answer>),
    Cut,
    /// Nothing comes, for as long as the caller waits.
    Hanging,
}

/// A call that is open in the history until it is answered or dropped.
struct OpenCall {
    core: Arc<Core>,
    sequence: u64,
    status: Option<u16>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.core
            .history
            .close(self.sequence, self.status, self.core.clock.now());
    }
}

/// Serves one call of an Azure client.
pub(crate) async fn exchange(
    core: Arc<Core>,
    service: Service,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let mut request = read_head(&core, service, head);
    request.sequence = core.note_call(describe(&request));
    // Dropped, and so closed, also when hyper drops us because the client has hung up.
    let mut open = OpenCall {
        core: Arc::clone(&core),
        sequence: request.sequence,
        status: None,
    };
    request.body = collect(body).await?;
    let stop = core.stop.clone();
    let task = core.tasks.spawn({
        let core = Arc::clone(&core);
        async move { stop.run_until_cancelled(carry_out(core, request)).await }
    });
    match task.await {
        Ok(Some(End::Answered(answer))) => {
            open.status = Some(answer.status.as_u16());
            Ok((*answer).into())
        }
        Ok(Some(End::Hanging)) => pending().await,
        Ok(Some(End::Cut) | None) | Err(_) => Err(Cut),
    }
}

/// A whole body, unless it is too large or its sender gives up.
pub(crate) async fn collect(body: Incoming) -> Result<Bytes, Cut> {
    let body = Limited::new(body, LARGEST_BODY)
        .collect()
        .await
        .map_err(|_| Cut)?;
    Ok(body.to_bytes())
}

fn read_head(core: &Core, service: Service, head: hyper::http::request::Parts) -> Request {
    let path = head.uri.path().to_owned();
    let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let authorization = head
        .headers
        .get(hyper::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    Request {
        service,
        operation: operation(service, &head.method, &path),
        query: query.into_owned().collect(),
        target: head
            .uri
            .path_and_query()
            .map_or_else(|| path.clone(), ToString::to_string),
        path,
        token: core.signer.check(authorization),
        method: head.method,
        headers: head.headers,
        body: Bytes::new(),
        sequence: 0,
        received: core.clock.now(),
    }
}

fn describe(request: &Request) -> Call {
    let client_request_id = request
        .header("x-ms-client-request-id")
        .or_else(|| request.header("client-request-id"));
    Call {
        sequence: 0,
        service: request.service,
        method: request.method.to_string(),
        operation: request.operation,
        path: request.target.clone(),
        principal: request.caller(),
        client_request_id: client_request_id.map(str::to_owned),
        received: request.received,
        closed: None,
        status: None,
    }
}

/// What the faults of one call come to.
#[derive(Default)]
struct Trouble {
    latency: std::time::Duration,
    status: Option<Answer>,
    holds: Vec<String>,
    holds_after_commit: Vec<String>,
    cut_before_commit: bool,
    cut_after_commit: bool,
    /// The longest ago that an assignment was written which the replica has not seen.
    lagging_no_content: Option<std::time::Duration>,
    late: Option<(std::time::Duration, bool)>,
}

async fn carry_out(core: Arc<Core>, request: Request) -> End {
    let undecided = core.pending.begin();
    let trouble = Trouble::of(
        &request,
        core.faults.strike(request.operation, &request.target),
    );
    if let Some((delay, hang)) = trouble.late {
        commit_late(&core, request, delay, undecided);
        tokio::time::sleep(trouble.latency).await;
        return if hang { End::Hanging } else { End::Cut };
    }
    if !trouble.latency.is_zero() {
        tokio::time::sleep(trouble.latency).await;
    }
    for name in &trouble.holds {
        core.faults.hold(name).await;
    }
    if trouble.cut_before_commit {
        return End::Cut;
    }
    let answer = match trouble.status {
        Some(answer) => answer,
        None if trouble
            .lagging_no_content
            .is_some_and(|within| arm::was_written_within(&core, &request, within)) =>
        {
            arm::no_content(&request)
        }
        None => core.handle(&request),
    };
    drop(undecided);
    for name in &trouble.holds_after_commit {
        core.faults.hold(name).await;
    }
    if trouble.cut_after_commit {
        return End::Cut;
    }
    End::Answered(Box::new(answer))
}

/// Carries the call out when its time has come, for nobody.
fn commit_late(
    core: &Arc<Core>,
    request: Request,
    delay: std::time::Duration,
    undecided: Undecided,
) {
    let stop = core.stop.clone();
    let waited = core
        .clock
        .now()
        .elapsed
        .saturating_sub(request.received.elapsed);
    let left = delay.saturating_sub(waited);
    core.tasks.spawn({
        let core = Arc::clone(core);
        async move {
            if stop
                .run_until_cancelled(tokio::time::sleep(left))
                .await
                .is_some()
            {
                core.handle(&request);
            }
            drop(undecided);
        }
    });
}

impl Trouble {
    fn of(request: &Request, effects: Vec<FaultEffect>) -> Self {
        let mut trouble = Self::default();
        for effect in effects {
            match effect {
                FaultEffect::Latency { delay } => {
                    trouble.latency = trouble.latency.saturating_add(delay);
                }
                FaultEffect::Status {
                    status,
                    code,
                    message,
                    retry_after,
                } => {
                    let answer = error_of(request, status, &code, &message, retry_after.as_deref());
                    trouble.status.get_or_insert(answer);
                }
                FaultEffect::CutBeforeCommit => trouble.cut_before_commit = true,
                FaultEffect::CutAfterCommit => trouble.cut_after_commit = true,
                FaultEffect::CommitLate { delay, hang } => trouble.late = Some((delay, hang)),
                FaultEffect::LaggingNoContent { within } => {
                    trouble.lagging_no_content = Some(within.unwrap_or(std::time::Duration::MAX));
                }
                FaultEffect::Hold { name } => trouble.holds.push(name),
                FaultEffect::HoldAfterCommit { name } => trouble.holds_after_commit.push(name),
            }
        }
        trouble
    }
}

fn error_of(
    request: &Request,
    status: u16,
    code: &str,
    message: &str,
    retry_after: Option<&str>,
) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match request.service {
        Service::Arm => arm::fault(request, status, code, message),
        Service::Graph => graph::fault(request, status, code, message),
        Service::Entra => entra::fault(status, code, message),
    };
    if let Some(seconds) = retry_after {
        answer.set("retry-after", seconds);
    }
    answer
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(answer: Answer) -> Self {
        let mut response = Self::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        response
    }
}
