//! ARM's errors, in Azure's own words.
//!
//! Texts without another source are from `errors.txt`, the collection of recorded bodies; those marked
//! *from general knowledge* were not in it.

use hyper::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::message::Answer;
use crate::scope::Scope;
use crate::settings::RoleAssignmentExistsWording;
use crate::state::RoleAssignment;
use crate::world::{DenyAssignment, Lock, PrincipalType};

/// An error of ARM or of a resource provider behind it.
#[derive(Debug)]
pub(super) struct ArmError {
    status: StatusCode,
    code: String,
    message: String,
    headers: Vec<(&'static str, String)>,
}

/// A GUID without dashes, as these messages write most of them.
fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

impl ArmError {
    pub(super) fn new(status: StatusCode, code: &str, message: String) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message,
            headers: Vec::new(),
        }
    }

    fn bad_request(code: &str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn not_found(code: &str, message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    fn conflict(code: &str, message: String) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 401. Wording from general knowledge, as is all of `WWW-Authenticate` but its `authorization_uri`.
    pub(super) fn unauthenticated(tenant: Uuid, entra: &str, code: &str, message: &str) -> Self {
        let challenge = format!(
            "Bearer authorization_uri=\"{entra}/{tenant}\", error=\"invalid_token\", error_description=\"{message}\""
        );
        Self::new(StatusCode::UNAUTHORIZED, code, message.to_owned())
            .with("www-authenticate", challenge)
    }

    pub(super) fn unauthorized(client: &str, caller: Uuid, action: &str, scope: &str) -> Self {
        let message = format!(
            "The client '{client}' with object id '{caller}' does not have authorization to perform action \
             '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh \
             your credentials."
        );
        Self::new(StatusCode::FORBIDDEN, "AuthorizationFailed", message)
    }

    /// From general knowledge.
    pub(super) fn denied(
        client: &str,
        caller: Uuid,
        action: &str,
        scope: &str,
        by: &DenyAssignment,
    ) -> Self {
        let message = format!(
            "The client '{client}' with object id '{caller}' has permission to perform action '{action}' on scope \
             '{scope}'; however, the access is denied because of the deny assignment with name '{}' and Id '{}' at \
             scope '{}'.",
            by.display_name,
            by.name_or_derived().simple(),
            by.scope
        );
        let code = "DenyAssignmentAuthorizationFailed";
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// From general knowledge.
    pub(super) fn no_such_address(path: &str) -> Self {
        Self::not_found(
            "InvalidResourceType",
            format!("The resource type could not be found for the path '{path}'."),
        )
    }

    /// From general knowledge.
    pub(super) fn method_not_allowed(method: &Method) -> Self {
        let message = format!("The requested resource does not support http method '{method}'.");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "HttpMethodNotSupported",
            message,
        )
    }

    /// From general knowledge.
    pub(super) fn missing_api_version() -> Self {
        let message =
            "The api-version query parameter (?api-version=) is required for all requests.";
        Self::bad_request("MissingApiVersionParameter", message.to_owned())
    }

    /// From general knowledge.
    pub(super) fn invalid_api_version(version: &str, supported: &str) -> Self {
        let message = format!(
            "The api-version '{version}' is invalid. The supported versions are '{supported}'."
        );
        Self::bad_request("InvalidApiVersionParameter", message)
    }

    pub(super) fn subscription_throttled(
        subscription: &str,
        operation: &str,
        seconds: u64,
    ) -> Self {
        let message = format!(
            "Number of requests for subscription '{subscription}' and operation '{operation}' exceeded the backend \
             storage limit. Please try again after '{seconds}' seconds."
        );
        Self::throttled("SubscriptionRequestsThrottled", message, seconds)
    }

    /// The code is listed for ARM [azure.md §1]; the wording follows the subscription's.
    pub(super) fn tenant_throttled(tenant: Uuid, operation: &str, seconds: u64) -> Self {
        let message = format!(
            "Number of requests for tenant '{tenant}' and operation '{operation}' exceeded the backend storage limit. \
             Please try again after '{seconds}' seconds."
        );
        Self::throttled("TooManyRequests", message, seconds)
    }

    /// The AKS resource provider's own; the code is recorded, the wording is not.
    pub(super) fn provider_throttled(seconds: u64) -> Self {
        let message =
            format!("The request is throttled. Please try again after '{seconds}' seconds.");
        Self::throttled("Throttled", message, seconds)
    }

    fn throttled(code: &str, message: String, seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message)
            .with("retry-after", seconds.to_string())
    }

    /// From general knowledge.
    pub(super) fn no_such_management_group(scope: &Scope) -> Self {
        let id = scope.as_str().rsplit('/').next().unwrap_or_default();
        Self::not_found(
            "NotFound",
            format!("The management group '{id}' could not be found."),
        )
    }

    /// From general knowledge.
    pub(super) fn no_such_subscription(scope: &Scope) -> Self {
        let id = scope.as_str().split('/').nth(2).unwrap_or_default();
        Self::not_found(
            "SubscriptionNotFound",
            format!("The subscription '{id}' could not be found."),
        )
    }

    /// From general knowledge.
    pub(super) fn no_such_resource_group(scope: &Scope) -> Self {
        let name = scope.as_str().split('/').nth(4).unwrap_or_default();
        Self::not_found(
            "ResourceGroupNotFound",
            format!("Resource group '{name}' could not be found."),
        )
    }

    /// From general knowledge.
    pub(super) fn no_such_resource(scope: &Scope) -> Self {
        let (kind, name) = scope.resource_type_and_name().unwrap_or_default();
        let group = scope.as_str().split('/').nth(4).unwrap_or_default();
        let message = format!(
            "The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go \
             to https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::not_found("ResourceNotFound", message)
    }

    pub(super) fn bad_format() -> Self {
        Self::bad_request(
            "BadRequestFormat",
            "The request was incorrectly formatted.".to_owned(),
        )
    }

    /// From general knowledge.
    pub(super) fn invalid_role_assignment_id(name: &str) -> Self {
        let message = format!(
            "The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID."
        );
        Self::bad_request("InvalidRoleAssignmentId", message)
    }

    pub(super) fn invalid_role_definition_id(id: &str) -> Self {
        Self::bad_request(
            "InvalidRoleDefinitionId",
            format!("The role definition ID '{id}' is not valid."),
        )
    }

    /// From general knowledge; the code is listed in azure.md §1.
    pub(super) fn invalid_principal_id(id: &str) -> Self {
        Self::bad_request(
            "InvalidPrincipalId",
            format!("The Principal ID '{id}' is not valid. Principal ID must be a GUID."),
        )
    }

    /// Code and wording from general knowledge; the limit is recorded [azure.md §1].
    pub(super) fn description_too_long() -> Self {
        let message =
            "The description of the role assignment exceeds the maximum length of 2048 characters.";
        Self::bad_request("BadRequestFormat", message.to_owned())
    }

    /// 400 on a PUT of an assignment, 404 on a GET of the definition.
    pub(super) fn no_such_role_definition(status: StatusCode, id: &str) -> Self {
        let id = id.replace('-', "");
        let message = format!("The specified role definition with ID '{id}' does not exist.");
        Self::new(status, "RoleDefinitionDoesNotExist", message)
    }

    pub(super) fn no_such_principal(principal: Uuid, tenant: Uuid) -> Self {
        let message = format!(
            "Principal {} does not exist in the directory {tenant}. Check that you have the correct principal ID. If \
             you are creating this principal and then immediately assigning a role, this error might be related to a \
             replication delay. In this case, set the role assignment principalType property to a value, such as \
             ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype",
            hex(principal)
        );
        Self::bad_request("PrincipalNotFound", message)
    }

    /// The spelling mistake and the space before the comma are Azure's.
    pub(super) fn unmatched_principal_type(
        principal: Uuid,
        is: PrincipalType,
        specified: PrincipalType,
    ) -> Self {
        let message = format!(
            "The PrincipalId '{}' has type '{is}' , which is different from specified PrinciaplType '{specified}'.",
            hex(principal)
        );
        Self::bad_request("UnmatchedPrincipalType", message)
    }

    pub(super) fn hash_conflict() -> Self {
        let message =
            "A hash conflict was encountered for the role Assignment ID. Please use a new Guid.";
        Self::bad_request(
            "HashConflictOnDifferentRoleAssignmentIds",
            message.to_owned(),
        )
    }

    pub(super) fn update_not_permitted() -> Self {
        let message =
            "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.";
        Self::bad_request("RoleAssignmentUpdateNotPermitted", message.to_owned())
    }

    pub(super) fn role_assignment_exists(
        wording: RoleAssignmentExistsWording,
        existing: Uuid,
    ) -> Self {
        let ending = match wording {
            RoleAssignmentExistsWording::Plain => String::new(),
            RoleAssignmentExistsWording::Conflicting => {
                format!(
                    " The ID of the conflicting role assignment is {}.",
                    hex(existing)
                )
            }
            RoleAssignmentExistsWording::Existing => {
                format!(
                    " The ID of the existing role assignment is {}.",
                    hex(existing)
                )
            }
        };
        Self::conflict(
            "RoleAssignmentExists",
            format!("The role assignment already exists.{ending}"),
        )
    }

    pub(super) fn limit_exceeded() -> Self {
        Self::bad_request(
            "RoleAssignmentLimitExceeded",
            "No more role assignments can be created".to_owned(),
        )
    }

    /// The delete wording is recorded; the write wording follows it.
    pub(super) fn locked(id: &str, verb: &str, locks: &[&Lock]) -> Self {
        let scopes: Vec<&str> = locks.iter().map(|lock| lock.scope.as_str()).collect();
        let message = format!(
            "The scope '{id}' cannot perform {verb} operation because following scope(s) are locked: '{}'. Please \
             remove the lock and try again.",
            scopes.join(",")
        );
        Self::conflict("ScopeLocked", message)
    }

    pub(super) fn no_such_role_assignment(name: &str) -> Self {
        Self::not_found(
            "RoleAssignmentNotFound",
            format!("The role assignment '{name}' is not found."),
        )
    }

    /// From general knowledge; that such combinations are refused is in azure.md §1.
    pub(super) fn unsupported_filter(filter: &str) -> Self {
        let message = format!(
            "The filter '{filter}' is not supported. Supported filters are either 'atScope()' or \
             'principalId eq '{{value}}' or assignedTo('{{value}}')'."
        );
        Self::bad_request("UnsupportedQuery", message)
    }

    /// `assignedTo` takes a user or service principal, never a group [azure.md §1]; the answer is from
    /// general knowledge.
    pub(super) fn principal_type_not_supported(principal: Uuid) -> Self {
        let message = format!(
            "The principal '{}' has type 'Group', which is not supported.",
            hex(principal)
        );
        Self::bad_request("PrincipalTypeNotSupported", message)
    }

    /// The state directory cannot be written: Azure's storage has its bad days, too [azure.md §1].
    pub(super) fn storage(error: &std::io::Error) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "StorageException",
            error.to_string(),
        )
    }

    pub(super) fn answer(&self) -> Answer {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut answer = Answer::json(self.status, &body);
        for (name, value) in &self.headers {
            answer.set(name, value);
        }
        answer
    }

    /// Words for what `existing` and a wish disagree on; nothing if only what may change differs.
    pub(super) fn check_update(
        existing: &RoleAssignment,
        wanted: &RoleAssignment,
    ) -> Result<(), Self> {
        let same = existing.scope == wanted.scope
            && existing.role == wanted.role
            && existing.principal == wanted.principal;
        same.then_some(()).ok_or_else(Self::update_not_permitted)
    }
}
