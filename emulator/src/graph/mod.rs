//! Microsoft Graph, as far as a broker asks who somebody is and what groups they are in.

mod directory_objects;
mod error;
mod route;

use hyper::{Method, StatusCode};
use uuid::Uuid;

use crate::core::Core;
use crate::message::{Answer, Request};
use crate::operation::Operation;
use error::GraphError;

/// What a call to Graph asks for.
pub(crate) fn operation(method: &Method, path: &str) -> Operation {
    route::parse(path).map_or(Operation::Unknown, |target| target.operation(method))
}

pub(crate) fn handle(core: &Core, request: &Request) -> Answer {
    let answer = answer(core, request).unwrap_or_else(|error| error.answer(request));
    with_headers(answer, request)
}

/// The error that a fault wants, as Graph would write it.
pub(crate) fn fault(request: &Request, status: StatusCode, code: &str, message: &str) -> Answer {
    with_headers(
        GraphError::new(status, code, message.to_owned()).answer(request),
        request,
    )
}

fn answer(core: &Core, request: &Request) -> Result<Answer, GraphError> {
    let claims = error::authenticate(core, request)?;
    let target = route::parse(&request.path).filter(|_| request.operation != Operation::Unknown);
    let target = target.ok_or_else(|| GraphError::no_such_address(&request.path))?;
    if core.settings().authorization_enforced {
        error::authorize(request.operation, claims)?;
    }
    directory_objects::answer(core, request, &target)
}

/// The recorded headers [graph.txt].
fn with_headers(mut answer: Answer, request: &Request) -> Answer {
    if !answer.body.is_empty() {
        let content_type = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";
        answer.set("content-type", content_type);
    }
    for (name, value) in [
        ("odata-version", "4.0"),
        ("cache-control", "no-cache"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-ms-resource-unit", "1"),
    ] {
        answer.set(name, value);
    }
    answer.set("request-id", &Uuid::new_v4().to_string());
    let client_request_id = request.header("client-request-id").map(str::to_owned);
    answer.set(
        "client-request-id",
        &client_request_id.unwrap_or_else(|| Uuid::new_v4().to_string()),
    );
    answer
}
