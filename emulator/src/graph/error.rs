//! Graph's errors, and who may ask for what.

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::core::Core;
use crate::entra::{BadToken, Claims, is_for_graph};
use crate::message::{Answer, Request};
use crate::operation::Operation;

/// An error of Microsoft Graph.
#[derive(Debug)]
pub(super) struct GraphError {
    status: StatusCode,
    code: String,
    message: String,
}

impl GraphError {
    pub(super) fn new(status: StatusCode, code: &str, message: String) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message,
        }
    }

    /// [errors.txt, Graph 404]
    pub(super) fn not_found(id: &str) -> Self {
        let message = format!(
            "Resource '{id}' does not exist or one of its queried reference-property objects are not present."
        );
        Self::new(StatusCode::NOT_FOUND, "Request_ResourceNotFound", message)
    }

    /// From general knowledge.
    pub(super) fn no_such_address(path: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            format!("Resource not found for the segment in '{path}'."),
        )
    }

    /// From general knowledge.
    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "Request_BadRequest",
            message.to_owned(),
        )
    }

    /// From general knowledge.
    pub(super) fn bad_page_size(size: &str, largest: usize) -> Self {
        Self::bad_request(&format!(
            "Invalid page size specified: '{size}'. Must be between 1 and {largest} inclusive."
        ))
    }

    /// The code is recorded, the wording is not.
    pub(super) fn too_many_groups() -> Self {
        let message = "The result size exceeds the limit of this operation.";
        Self::new(
            StatusCode::BAD_REQUEST,
            "Directory_ResultSizeLimitExceeded",
            message.to_owned(),
        )
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        let date = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let id = Uuid::new_v4();
        // 429 has a shape of its own [graph-docs throttling.md].
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let body = json!({"error": {
                "code": self.code,
                "innerError": {
                    "code": "429", "date": date, "message": "Please retry after", "request-id": id, "status": "429",
                },
                "message": self.message,
            }});
            return Answer::json(self.status, &body);
        }
        let client_request_id = request
            .header("client-request-id")
            .map_or_else(|| id.to_string(), str::to_owned);
        let body = json!({"error": {
            "code": self.code,
            "message": self.message,
            "innerError": {"date": date, "request-id": id, "client-request-id": client_request_id},
        }});
        Answer::json(self.status, &body)
    }
}

/// Whose token it is, if Graph takes it. Wording from general knowledge.
pub(super) fn authenticate<'a>(
    core: &Core,
    request: &'a Request,
) -> Result<&'a Claims, GraphError> {
    let message = match &request.token {
        Ok(claims) if !is_for_graph(core.settings().cloud, &claims.aud) => {
            "Access token validation failure. Invalid audience."
        }
        Ok(claims) if claims.tid != core.tenant => {
            "Access token validation failure. Invalid tenant."
        }
        Ok(claims) => return Ok(claims),
        Err(BadToken::Missing) => "Access token is empty.",
        Err(BadToken::Invalid) => "Access token validation failure. Invalid signature.",
        Err(BadToken::Expired(_)) => "Lifetime validation failed, the token is expired.",
    };
    Err(GraphError::new(
        StatusCode::UNAUTHORIZED,
        "InvalidAuthenticationToken",
        message.to_owned(),
    ))
}

/// May the caller ask this? Application permissions from general knowledge of Graph's reference; any one
/// of those listed will do.
pub(super) fn authorize(operation: Operation, claims: &Claims) -> Result<(), GraphError> {
    let enough = permissions(operation);
    let may = enough.iter().any(|one| has(claims, one));
    may.then_some(()).ok_or_else(|| {
        let message = "Insufficient privileges to complete the operation.";
        GraphError::new(
            StatusCode::FORBIDDEN,
            "Authorization_RequestDenied",
            message.to_owned(),
        )
    })
}

fn permissions(operation: Operation) -> &'static [&'static str] {
    match operation {
        Operation::UserRead | Operation::UserList => &["User.Read.All"],
        Operation::GroupRead => &["GroupMember.Read.All", "Group.Read.All"],
        Operation::ServicePrincipalRead => &["Application.Read.All"],
        Operation::GetMemberGroups | Operation::TransitiveMemberOf => {
            &["GroupMember.Read.All", "Group.Read.All"]
        }
        _ => &[
            "User.Read.All",
            "GroupMember.Read.All",
            "Application.Read.All",
        ],
    }
}

/// May the caller read objects of this type, such as `user`? Where many are asked for at once, of those that
/// it may not read only type and id are shown [graph-docs permissions-overview, inaccessible member objects].
pub(super) fn may_read(kind: &str, claims: &Claims) -> bool {
    let enough: &[&str] = match kind {
        "user" => permissions(Operation::UserRead),
        "group" => permissions(Operation::GroupRead),
        "servicePrincipal" => permissions(Operation::ServicePrincipalRead),
        _ => &["Device.Read.All"],
    };
    enough.iter().any(|one| has(claims, one))
}

/// `Directory.Read.All` is all of them.
fn has(claims: &Claims, permission: &str) -> bool {
    let mut roles = claims.roles.iter();
    roles.any(|role| role == permission || role == "Directory.Read.All")
}
