//! What every request meets first: is it gRPC at all, and whose is it? The broker's calls go to its guard; health and
//! reflection, which ask nobody who they are, have bounds of their own here.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Body as _;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use super::answer::{Counted, Holds};
use super::connections::{BESIDE, COMPLETE_WITHIN, Origin};
use super::guard::Answer;
use super::server::Readiness;
use super::status;

/// The largest message that health and reflection take, in bytes: a name.
pub(super) const LARGEST_NAME: usize = 4 * 1024;
/// How many calls of health may be under way at once, watches included.
const HEALTH: usize = 1024;
/// How many streams of reflection may be open at once. An answer takes about 100 KB, and each waits for its reader.
const REFLECTION: usize = 64;

/// The broker's service, and what stands beside it: health and reflection.
///
/// Most calls are for the broker, and a look at the path tells: the others go through tonic's router.
#[derive(Clone)]
pub(super) struct Front<S> {
    broker: S,
    beside: Routes,
    ready: watch::Receiver<Readiness>,
    health: Arc<Semaphore>,
    reflection: Arc<Semaphore>,
}

impl<S> Front<S> {
    pub(super) fn new(broker: S, beside: Routes, ready: watch::Receiver<Readiness>) -> Self {
        Self {
            broker,
            beside: beside.prepare(),
            ready,
            health: Arc::new(Semaphore::new(HEALTH)),
            reflection: Arc::new(Semaphore::new(REFLECTION)),
        }
    }

    /// Asks health or reflection, if there is room.
    fn ask_beside(&mut self, mut request: Request<Body>) -> Answer {
        let is_health = request.uri().path().starts_with(HEALTH_PATH);
        let (room, most, what) = if is_health {
            (&self.health, HEALTH, "calls of health")
        } else {
            (&self.reflection, REFLECTION, "streams of reflection")
        };
        let Ok(place) = Arc::clone(room).try_acquire_owned() else {
            return refused(status::overloaded(what, most));
        };
        let connection = request.extensions().get::<Arc<Origin>>().cloned();
        let Some(own) = connection
            .as_ref()
            .map_or(Some(None), |origin| origin.ask_beside().map(Some))
        else {
            let what = format!("{what} of this connection");
            return refused(status::overloaded(&what, BESIDE));
        };
        let why = is_health.then(|| why_not_ready(&self.ready)).flatten();
        keep_what_is_read(request.headers_mut());
        let answer = self.beside.call(request);
        Box::pin(async move {
            let Ok(answer) = timeout(COMPLETE_WITHIN, answer).await else {
                return Ok(status::message_late(COMPLETE_WITHIN).into_http());
            };
            let mut answer = answer?;
            answer.headers_mut().extend(why);
            let places = Holds::Places(Arc::new((place, own)));
            Ok(answer.map(|body| {
                if body.is_end_stream() {
                    return body;
                }
                Body::new(Counted::new(body, places, connection))
            }))
        })
    }
}

/// Lets go of headers that nobody reads: a stranger's may be long, and wait with its call.
fn keep_what_is_read(headers: &mut HeaderMap) {
    let read = |name: &HeaderName| *name == CONTENT_TYPE || name.as_str().starts_with("grpc-");
    let kept = headers
        .iter()
        .filter(|(name, value)| read(name) && value.len() < LARGEST_NAME);
    *headers = kept
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
}

fn refused(status: tonic::Status) -> Answer {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

impl<S> Service<Request<Body>> for Front<S>
where
    S: NamedService
        + Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        self.broker.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        if let Some(answer) = no_grpc(&request) {
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let path = request.uri().path().strip_prefix('/');
        let method = path.and_then(|path| path.strip_prefix(S::NAME));
        if method.is_some_and(|method| method.starts_with('/')) {
            self.broker.call(request)
        } else {
            self.ask_beside(request)
        }
    }
}

/// What is answered to a request that is no gRPC call: by HTTP's own means, because its client speaks nothing else.
fn no_grpc(request: &Request<Body>) -> Option<Response<Body>> {
    let mut answer = Response::new(Body::empty());
    if request.method() != Method::POST {
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let post = HeaderValue::from_static("POST");
        answer.headers_mut().insert(ALLOW, post);
        return Some(answer);
    }
    let content_type = request.headers().get(CONTENT_TYPE);
    if content_type.is_some_and(|is| is_grpc(is.as_bytes())) {
        return None;
    }
    *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(answer)
}

/// Whether it is `application/grpc`, with protobuf messages, whatever parameters follow.
fn is_grpc(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next();
    let kind = kind.unwrap_or_default().trim_ascii();
    [&b"application/grpc"[..], b"application/grpc+proto"]
        .iter()
        .any(|grpc| kind.eq_ignore_ascii_case(grpc))
}

const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// The response header with the reason, because the message of health has no field for one.
const WHY_NOT_READY: HeaderName = HeaderName::from_static("not-serving-because");

/// The header of a health answer, while there is a reason.
fn why_not_ready(ready: &watch::Receiver<Readiness>) -> Option<(HeaderName, HeaderValue)> {
    match &*ready.borrow() {
        Readiness::NotReady(why) => {
            let why = HeaderValue::from_str(why).ok()?;
            Some((WHY_NOT_READY, why))
        }
        Readiness::Starting | Readiness::Ready => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(method: &Method, content_type: Option<&str>) -> Option<StatusCode> {
        let mut request = Request::builder().method(method);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let answer = no_grpc(&request.body(Body::empty()).unwrap());
        answer.map(|answer| answer.status())
    }

    #[test]
    fn only_posts_of_grpc_are_calls() {
        let no_type = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        for (content_type, expected) in [
            (Some("application/grpc"), None),
            (Some("application/grpc+proto"), None),
            (Some("Application/gRPC; charset=utf-8"), None),
            (Some("application/grpc+json"), no_type),
            (Some("application/grpc-web"), no_type),
            (Some("application/json"), no_type),
            (Some(""), no_type),
            (None, no_type),
        ] {
            assert_eq!(status_of(&Method::POST, content_type), expected);
        }
        let no_method = Some(StatusCode::METHOD_NOT_ALLOWED);
        for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::DELETE] {
            assert_eq!(status_of(&method, Some("application/grpc")), no_method);
        }
    }
}
