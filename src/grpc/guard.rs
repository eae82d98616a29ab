//! Stands before the service: who calls, how many calls may be under way, and how long each may take.
//!
//! tonic has layers for both, whose answers carry no error details (its timeout answers `CANCELLED`), and
//! which would count health checks as load.

use std::convert::Infallible;
use std::future::ready;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Body as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::answer::{Counted, Holds};
use super::connections::{COMPLETE_WITHIN, Origin};
use super::intake;
use super::limits::{Allowance, Kind, Limits, Most, Taker, What};
use super::rpcs::{self, Rpc};
use super::status;
use crate::caller::{Authenticator, Caller, ClientCertificate};
use crate::config;

/// What the service is guarded by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How much may be under way at once.
    pub(super) most: Most,
    /// How much of that, and how often, is one caller's.
    pub(super) per_caller: config::Limits,
    /// How long a call may take where its caller sets no shorter deadline. A stream has been answered,
    /// as far as this goes, once it begins.
    pub(super) longest: Duration,
    /// The largest message of any RPC.
    pub(super) message_bytes: usize,
}

/// A service and its guard.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    guard: Arc<Guard>,
}

/// What all clones of a guarded service share.
struct Guard {
    authenticator: Authenticator,
    bounds: Bounds,
    limits: Arc<Limits>,
    authenticating: Semaphore,
}

/// Of so many callers at once it is found out who they are.
const MOST_AUTHENTICATING: usize = 256;

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, authenticator: Authenticator, bounds: Bounds) -> Self {
        Self {
            inner,
            guard: Arc::new(Guard {
                authenticator,
                bounds,
                limits: Arc::new(Limits::new(bounds.per_caller, bounds.most)),
                authenticating: Semaphore::new(MOST_AUTHENTICATING),
            }),
        }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

/// An answer to come.
pub(super) type Answer = Pin<Box<dyn Future<Output = Answered> + Send>>;

type Answered = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let deadline = Deadline::of(request.headers());
        // The one that was polled ready is the one to call; its clone waits for the next.
        let next = self.clone();
        let guarded = mem::replace(self, next);
        let headers = authorization(request.headers());
        let known = guarded
            .guard
            .authenticator
            .known(headers, certificate(&request));
        match known {
            Some(Ok(caller)) => guarded.taken(caller, deadline, request),
            Some(Err(error)) => Box::pin(ready(Ok(status::unauthenticated(&error).into_http()))),
            None => Box::pin(guarded.asked_who_it_is(deadline, request)),
        }
    }
}

impl<S> Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    /// Calls the service for a caller that is known, if there is room.
    fn taken(self, caller: Arc<Caller>, deadline: Deadline, request: Request<Body>) -> Answer {
        let rpc = rpcs::of_path(request.uri().path());
        let kind = rpc.map_or(Kind::Read, |rpc| rpc.kind);
        let taker = match self.guard.limits.admit(kind, &caller) {
            Ok(taker) => taker,
            Err(refused) => return Box::pin(ready(Ok(refused.into_http()))),
        };
        let origin = request.extensions().get::<Arc<Origin>>().cloned();
        // A stranger's connection makes room for others, however often it has called.
        if let Some(origin) = origin.as_ref().filter(|_| !caller.is_stranger()) {
            origin.has_called();
        }
        Box::pin(async move {
            let allowance = Arc::clone(&taker.allowance);
            let answer = self.answered(&taker, rpc, caller, deadline, request).await;
            let answer = answer.unwrap_or_else(|refused| Ok(refused.into_http()));
            if answer.as_ref().is_ok_and(is_refusal) {
                allowance.is_refused();
            }
            answer.map(|response| counted(with_details(response), taker, origin))
        })
    }

    /// Waits for the message, takes a place, and calls the service.
    async fn answered(
        mut self,
        taker: &Taker,
        rpc: Option<&Rpc>,
        caller: Arc<Caller>,
        deadline: Deadline,
        request: Request<Body>,
    ) -> Result<Answered, Status> {
        let bounds = self.guard.bounds;
        let whole = Patience::of_call(bounds.longest);
        let (mut parts, body) = request.into_parts();
        // It has said who calls.
        parts.headers.remove(AUTHORIZATION);
        let headers = parts.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        let mut held = taker.take(What::Bytes, headers.sum())?;
        let body = match rpc {
            // Whatever it says, there is nobody to read it.
            None => Body::empty(),
            Some(rpc) => {
                let arriving = taker.take(What::Arriving, 1)?;
                let message = intake::message(body, rpc, bounds.message_bytes, &mut held);
                let message = in_time(parts.extensions.get(), message);
                let message = within(deadline, whole, message).await??;
                drop(arriving);
                Body::new(Full::new(message))
            }
        };
        let _place = taker.take(What::Calls, 1)?;
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(Call {
            caller,
            deadline,
            allowance: Arc::clone(&taker.allowance),
        });
        within(deadline, whole, self.inner.call(request)).await
    }

    /// Finds out who calls. While it does, which can take as long as Entra does, it takes no room from those who are
    /// known.
    async fn asked_who_it_is(self, deadline: Deadline, request: Request<Body>) -> Answered {
        let Ok(permit) = self.guard.authenticating.try_acquire() else {
            let what = "callers whose tokens have to be checked";
            return Ok(status::overloaded(what, MOST_AUTHENTICATING).into_http());
        };
        let headers = authorization(request.headers());
        let authenticator = &self.guard.authenticator;
        let found = authenticator.authenticate(headers, certificate(&request));
        let patience = Patience::of_call(self.guard.bounds.longest);
        let found = within(deadline, patience, found).await;
        drop(permit);
        match found {
            Ok(Ok(caller)) => self.taken(caller, deadline, request).await,
            Ok(Err(error)) => Ok(status::unauthenticated(&error).into_http()),
            Err(late) => Ok(late.into_http()),
        }
    }
}

/// Of the connection that the call came by.
fn certificate(request: &Request<Body>) -> Option<&ClientCertificate> {
    let origin = request.extensions().get::<Arc<Origin>>()?;
    origin.certificate()
}

fn authorization(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let all = headers.get_all(AUTHORIZATION);
    all.into_iter().map(http::HeaderValue::as_bytes)
}

/// What is known of a call before its message is read.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) caller: Arc<Caller>,
    pub(super) deadline: Deadline,
    pub(super) allowance: Arc<Allowance>,
}

/// How long the server waits for a call, and since when.
#[derive(Clone, Copy)]
struct Patience {
    start: Instant,
    longest: Duration,
}

impl Patience {
    fn of_call(longest: Duration) -> Self {
        Self {
            start: Instant::now(),
            longest,
        }
    }
}

/// Waits for a message for as long as one may take.
async fn in_time<T>(
    origin: Option<&Arc<Origin>>,
    message: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = async {
        match origin {
            Some(origin) => origin.late().await,
            None => tokio::time::sleep(COMPLETE_WITHIN).await,
        }
    };
    tokio::select! {
        biased;
        message = message => message,
        () = late => Err(status::message_late(COMPLETE_WITHIN)),
    }
}

/// Waits until the caller's deadline or the server's, whichever is earlier.
async fn within<T>(
    deadline: Deadline,
    patience: Patience,
    work: impl Future<Output = T>,
) -> Result<T, Status> {
    let own_end = patience.start + patience.longest;
    let (until, whose, limit) = match deadline.0 {
        Some(own) if own.at < own_end => (own.at, "the caller's own deadline", own.limit),
        _ => (
            own_end,
            "the longest that a call may take here",
            patience.longest,
        ),
    };
    let done = timeout_at(until, work).await;
    done.map_err(|_| status::deadline_exceeded(whose, limit))
}

/// Whether a call was refused by what its caller may do, or sees.
fn is_refusal(response: &Response<Body>) -> bool {
    let status = response.headers().get("grpc-status");
    status.is_some_and(|status| {
        let code = Code::from_bytes(status.as_bytes());
        matches!(code, Code::PermissionDenied | Code::NotFound)
    })
}

/// A refusal that tonic made itself has no details: gives it some. Its other headers stay, because they say something to
/// clients: which compressions the server takes, for one.
fn with_details(response: Response<Body>) -> Response<Body> {
    let bare = Status::from_header_map(response.headers())
        .filter(|status| status.code() != Code::Ok && status.details().is_empty());
    let Some(dressed) = bare.and_then(|bare| status::dressed(&bare)) else {
        return response;
    };
    let mut dressed = dressed.into_http();
    for (name, value) in response.headers() {
        if !dressed.headers().contains_key(name) {
            dressed.headers_mut().append(name, value.clone());
        }
    }
    dressed
}

/// Counts the bytes of an answer that has any.
fn counted(response: Response<Body>, taker: Taker, origin: Option<Arc<Origin>>) -> Response<Body> {
    if response.body().is_end_stream() {
        return response;
    }
    let holds = Holds::Bytes(taker);
    response.map(|body| Body::new(Counted::new(body, holds, origin)))
}

/// When the caller stops waiting, if it said so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<OwnDeadline>);

#[derive(Clone, Copy, Debug)]
struct OwnDeadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// Reads `grpc-timeout`; one that is malformed sets none.
    fn of(headers: &HeaderMap) -> Self {
        let limit = headers
            .get("grpc-timeout")
            .and_then(|value| parse_timeout(value.to_str().ok()?));
        Self(limit.and_then(|limit| {
            // A little early: tonic reads the header as well, and would answer CANCELLED at that moment.
            let early = limit.saturating_sub((limit / 10).min(Duration::from_millis(5)));
            let at = Instant::now().checked_add(early)?;
            Some(OwnDeadline { at, limit })
        }))
    }

    /// Comes back, with what to answer, when the caller has stopped waiting; never, if it waits for ever.
    pub(super) async fn passed(self) -> Status {
        match self.0 {
            Some(own) => {
                tokio::time::sleep_until(own.at).await;
                status::deadline_exceeded("the caller's own deadline", own.limit)
            }
            None => std::future::pending().await,
        }
    }
}

/// gRPC's `TimeoutValue TimeoutUnit`: at most eight digits and one letter.
fn parse_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().next_back()?;
    let digits = value.strip_suffix(unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u32 = digits.parse().ok()?;
    let one = match unit {
        'H' => Duration::from_hours(1),
        'M' => Duration::from_mins(1),
        'S' => Duration::from_secs(1),
        'm' => Duration::from_millis(1),
        'u' => Duration::from_micros(1),
        'n' => Duration::from_nanos(1),
        _ => return None,
    };
    Some(one * amount)
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;
    use tower::service_fn;
    use uuid::Uuid;

    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            most: Most {
                calls: 1,
                bytes: 4096,
            },
            per_caller: config::Limits::default(),
            longest: Duration::from_mins(1),
            message_bytes: 4096,
        }
    }

    fn guarded<S>(service: S, bounds: Bounds) -> Guarded<S> {
        let somebody = Caller::application(Uuid::nil(), Uuid::nil(), Uuid::nil());
        let authenticator = Authenticator::Unasked(Arc::new(somebody));
        Guarded::new(service, authenticator, bounds)
    }

    fn call(timeout: Option<&str>) -> Request<Body> {
        let mut request = Request::builder();
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        request.body(Body::empty()).unwrap()
    }

    fn reason(response: &Response<Body>) -> (Code, String) {
        let status = Status::from_header_map(response.headers()).unwrap();
        let details = status.get_error_details();
        (status.code(), details.error_info().unwrap().reason.clone())
    }

    /// Never answers.
    async fn silent(_: Request<Body>) -> Answered {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_call_ends_with_its_callers_deadline() {
        let mut guarded = guarded(service_fn(silent), bounds());
        let response = guarded.call(call(Some("20m"))).await.unwrap();
        let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned());
        assert_eq!(reason(&response), expected);
    }

    #[tokio::test]
    async fn a_call_ends_with_the_servers_deadline_where_the_caller_waits_longer() {
        let bounds = Bounds {
            longest: Duration::from_millis(20),
            ..bounds()
        };
        let mut guarded = guarded(service_fn(silent), bounds);
        for timeout in [None, Some("1H"), Some("99999999H"), Some("soon")] {
            let response = guarded.call(call(timeout)).await.unwrap();
            assert_eq!(reason(&response).0, Code::DeadlineExceeded, "{timeout:?}");
        }
    }

    #[tokio::test]
    async fn one_call_too_many_is_refused_at_once_and_the_next_is_taken_when_there_is_room() {
        let mut guarded = guarded(service_fn(silent), bounds());
        // It takes its place once its message is complete.
        let mut first = guarded.call(call(None));
        assert!(futures::poll!(&mut first).is_pending());
        let response = guarded.call(call(None)).await.unwrap();
        let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned());
        assert_eq!(reason(&response), expected);
        drop(first);
        let response = guarded.call(call(Some("10m"))).await.unwrap();
        assert_eq!(reason(&response).0, Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_refusal_of_tonics_own_gets_details() {
        let answer = |_| async { Ok(Status::internal("failed to decode").into_http()) };
        let mut guarded = guarded(service_fn(answer), bounds());
        let response = guarded.call(call(None)).await.unwrap();
        let expected = (Code::InvalidArgument, "INVALID_REQUEST".to_owned());
        assert_eq!(reason(&response), expected);
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("20m", Some(Duration::from_millis(20))),
            ("5S", Some(Duration::from_secs(5))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("+1S", None),
            ("123456789S", None),
            ("5 S", None),
            ("5s", None),
            ("5ß", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }
}
