//! Entra's errors: an OAuth code, and a description that begins with the number people search for.
//!
//! The numbers are Entra's; the wording round them is from general knowledge, no recording was at hand.

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::message::Answer;

/// An error of the token endpoint.
#[derive(Debug)]
pub(crate) struct EntraError {
    status: StatusCode,
    error: String,
    /// The AADSTS number.
    number: u32,
    text: String,
}

impl EntraError {
    fn new(status: StatusCode, error: &str, number: u32, text: String) -> Self {
        Self {
            status,
            error: error.to_owned(),
            number,
            text,
        }
    }

    fn bad_request(error: &str, number: u32, text: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, number, text)
    }

    fn invalid_client(number: u32, text: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", number, text)
    }

    pub(super) fn fault(status: StatusCode, code: &str, message: &str) -> Self {
        Self::new(status, code, 90_033, message.to_owned())
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request",
            90_040,
            "There is nothing at this address.".to_owned(),
        )
    }

    pub(super) fn no_such_tenant(tenant: &str) -> Self {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into \
             the correct cloud."
        );
        Self::bad_request("invalid_request", 90_002, text)
    }

    pub(super) fn missing_parameter(name: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        Self::bad_request("invalid_request", 900_144, text)
    }

    pub(super) fn unsupported_grant(grant: &str) -> Self {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        Self::bad_request("unsupported_grant_type", 70_003, text)
    }

    pub(super) fn no_such_application(app: &str, tenant: Uuid) -> Self {
        let text = format!(
            "Application with identifier '{app}' was not found in the directory '{tenant}'. This can happen if the \
             application has not been installed by the administrator of the tenant."
        );
        Self::bad_request("unauthorized_client", 700_016, text)
    }

    pub(super) fn disabled_application(app: Uuid) -> Self {
        let text = format!("Application '{app}' is disabled.");
        Self::bad_request("unauthorized_client", 7_000_112, text)
    }

    pub(super) fn invalid_secret(app: Uuid) -> Self {
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
             not the client secret ID, for a secret added to app '{app}'."
        );
        Self::invalid_client(7_000_215, text)
    }

    pub(super) fn no_credential() -> Self {
        let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
        Self::invalid_client(7_000_218, text.to_owned())
    }

    pub(super) fn invalid_scope(scope: &str) -> Self {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with \
             /.default suffixed to the resource identifier (application ID URI)."
        );
        Self::bad_request("invalid_scope", 1_002_012, text)
    }

    pub(super) fn no_such_resource(resource: &str, tenant: Uuid) -> Self {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}."
        );
        Self::bad_request("invalid_resource", 500_011, text)
    }

    pub(super) fn unsupported_assertion_type() -> Self {
        let text = "The value of 'client_assertion_type' must be \
                    'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'.";
        Self::bad_request("invalid_request", 50_027, text.to_owned())
    }

    pub(super) fn malformed_assertion() -> Self {
        Self::bad_request(
            "invalid_request",
            50_027,
            "JWT token is invalid or malformed.".to_owned(),
        )
    }

    pub(super) fn no_federated_identity(number: u32, what: &str, presented: &str) -> Self {
        let text = format!(
            "No matching federated identity record found for presented assertion {what} '{presented}'."
        );
        Self::invalid_client(number, text)
    }

    pub(super) fn bad_signature() -> Self {
        let text = "Assertion failed signature validation. Reason - The key was not found or does not fit.";
        Self::invalid_client(50_013, text.to_owned())
    }

    pub(super) fn expired_assertion() -> Self {
        let text = "Client assertion is not within its valid time range.";
        Self::invalid_client(700_024, text.to_owned())
    }

    pub(super) fn signing(text: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            90_033,
            text.to_owned(),
        )
    }

    pub(super) fn answer(&self) -> Answer {
        let (trace, correlation) = (Uuid::new_v4(), Uuid::new_v4());
        let time = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}",
            self.number, self.text
        );
        let body = json!({
            "error": self.error,
            "error_description": description,
            "error_codes": [self.number],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.number),
        });
        Answer::json(self.status, &body)
    }
}
