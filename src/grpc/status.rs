//! The one place where what went wrong becomes a gRPC status, with `google.rpc` error details.
//!
//! Every status has an `ErrorInfo`, so that a caller can tell reasons apart without reading prose.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::check::CheckError;
use crate::broker::{BrokerError, RETRY_AFTER};
use crate::caller::AuthenticationError;
use crate::config::Rate;
use crate::domain::reason::Reason;

/// `ErrorInfo.domain` of everything that this service says.
pub(super) const DOMAIN: &str = "aks.access.v1";

/// How many bytes of violations a status tells. Details travel in a trailer, in base64, and some clients
/// take no more than 8 KiB of those.
const MOST_TOLD: usize = 3 * 1024;

/// How many bytes of a violation: a value that is long beyond all measure hides no other field that is wrong.
const LONGEST_VIOLATION: usize = 640;

/// How long a message may be: it travels in a trailer as well.
const LONGEST_MESSAGE: usize = 1024;

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Its path in the request, as in `access.namespaces[2]`.
    pub(super) field: String,
    /// What is wrong with it, and what was expected.
    pub(super) description: String,
}

/// A request that says something impossible: every field that is wrong, at once.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let mut details = ErrorDetails::new();
    let mut told = 0;
    let mut size = 0;
    for violation in violations {
        let description = shortened(&violation.description, LONGEST_VIOLATION);
        size += violation.field.len() + description.len();
        if size > MOST_TOLD {
            break;
        }
        details.add_bad_request_violation(&violation.field, description);
        told += 1;
    }
    let message = match violations {
        [only] => format!("{}: {}", only.field, only.description),
        many => {
            let fields: Vec<&str> = many.iter().map(|v| v.field.as_str()).collect();
            format!("{} fields are wrong: {}", many.len(), fields.join(", "))
        }
    };
    let metadata = match violations.len() - told {
        0 => BTreeMap::new(),
        untold => BTreeMap::from([("violations_not_told".to_owned(), untold.to_string())]),
    };
    Refusal {
        metadata,
        details,
        ..Refusal::new(Reason::InvalidRequest, message)
    }
    .into_status()
}

/// What a use case answered instead of doing it.
pub(super) fn of(error: &BrokerError) -> Status {
    // Only the use case can tell whose token it is, or whether an old time is a replay's; to the caller they
    // are fields like any other.
    let field = match error {
        BrokerError::PageToken(_) => Some("page_token"),
        BrokerError::ExpireTimeIsPast { .. } => Some("expire_time"),
        BrokerError::Check(CheckError::OtherBroker { .. }) => Some("consistency.at_least_as_fresh"),
        _ => None,
    };
    if let Some(field) = field {
        return invalid(&[Violation {
            field: field.to_owned(),
            description: error.to_string(),
        }]);
    }
    if let Some(problem) = error.for_the_operator() {
        let reason = error.reason().as_str();
        tracing::error!(
            problem,
            reason,
            "a call failed for a reason of the broker's own"
        );
    }
    Refusal {
        metadata: error.metadata(),
        retry_after: error.retry_after(),
        subject: error.subject(),
        ..Refusal::new(error.reason(), error.to_string())
    }
    .into_status()
}

/// An RPC of the contract that is not there yet.
pub(super) fn not_implemented(rpc: &str) -> Status {
    Refusal::new(
        Reason::NotImplemented,
        format!("{rpc} is in the contract, and this server does not serve it yet"),
    )
    .into_status()
}

/// Nobody knows who calls.
pub(super) fn unauthenticated(error: &AuthenticationError) -> Status {
    Refusal::new(error.reason(), error.to_string()).into_status()
}

/// More calls are under way than the server takes.
pub(super) fn overloaded(what: &str, limit: usize) -> Status {
    Refusal {
        retry_after: Some(RETRY_AFTER),
        ..Refusal::new(
            Reason::Overloaded,
            format!("{limit} {what} are under way already; try again later"),
        )
    }
    .into_status()
}

/// A caller asks more often than it may.
pub(super) fn rate_limited(what: &str, rate: Rate, wait: Duration) -> Status {
    Refusal {
        retry_after: Some(wait),
        ..Refusal::new(
            Reason::RateLimited,
            format!(
                "more {what} than one caller may ask for: {} at once, and {} more each second",
                rate.capacity, rate.per_second
            ),
        )
    }
    .into_status()
}

/// A call took longer than its caller, or the server, lets it.
pub(super) fn deadline_exceeded(whose: &str, limit: Duration) -> Status {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!(
            "not done within {limit:?}, {whose}; what was asked for may have been accepted: ask again with \
             the same request_id"
        ),
    )
    .into_status()
}

/// The server ends, and with it a stream that would go on.
pub(super) fn shutting_down() -> Status {
    Refusal::new(
        Reason::ShuttingDown,
        "this server is shutting down; call again".to_owned(),
    )
    .into_status()
}

/// Health is asked about a name that it does not know.
pub(super) fn unknown_service(name: &str) -> Status {
    Status::not_found(format!("there is no service {name:?} here"))
}

/// The message of a call was not complete in time.
pub(super) fn message_late(limit: Duration) -> Status {
    deadline_exceeded(
        "the longest that the message of a call may take to be complete",
        limit,
    )
}

/// A message is larger than its RPC takes, in bytes.
pub(super) fn too_large(largest: usize) -> Status {
    unreadable(&format!(
        "the message is larger than {largest} bytes, the most that is taken"
    ))
}

/// A message that nobody decodes.
pub(super) fn unreadable(problem: &str) -> Status {
    Refusal::new(Reason::InvalidRequest, problem.to_owned()).into_status()
}

/// Gives details to a status that has none: tonic's own answers to what it cannot read.
pub(super) fn dressed(bare: &Status) -> Option<Status> {
    let reason = match bare.code() {
        // All that tonic calls internal before a use case has begun is a message that it cannot decode.
        Code::Internal => Reason::InvalidRequest,
        Code::Unimplemented => Reason::NotImplemented,
        _ => return None,
    };
    let message = match bare.message() {
        "" => "there is no such RPC: server reflection lists those that there are",
        known => known,
    };
    Some(Refusal::new(reason, message.to_owned()).into_status())
}

/// What becomes a status.
struct Refusal {
    reason: Reason,
    message: String,
    metadata: BTreeMap<String, String>,
    retry_after: Option<Duration>,
    /// What a violated precondition is about, as in `PreconditionFailure`.
    subject: String,
    /// Details that are there already.
    details: ErrorDetails,
}

impl Refusal {
    fn new(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            metadata: BTreeMap::new(),
            retry_after: None,
            subject: String::new(),
            details: ErrorDetails::new(),
        }
    }

    fn into_status(self) -> Status {
        let code = Code::from_i32(self.reason.code());
        let message = shortened(&self.message, LONGEST_MESSAGE);
        let mut details = self.details;
        let metadata: HashMap<_, _> = self.metadata.into_iter().collect();
        details.set_error_info(self.reason.as_str(), DOMAIN, metadata);
        if code == Code::FailedPrecondition {
            details.add_precondition_failure_violation(
                self.reason.as_str(),
                self.subject,
                message.clone(),
            );
        }
        let retry_after = match self.retry_after {
            None if code == Code::Unavailable => Some(RETRY_AFTER),
            known => known,
        };
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        let mut headers = MetadataMap::new();
        if let Some(pushback) = pushback(self.reason, retry_after) {
            headers.insert(PUSHBACK, pushback);
        }
        Status::with_error_details_and_metadata(code, message, details, headers)
    }
}

/// What a client's own retry policy obeys: it does not read error details [gRFC A6].
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// When a client may try again by itself, in milliseconds; -1: not by itself. `None`: nothing is said.
fn pushback(reason: Reason, retry_after: Option<Duration>) -> Option<MetadataValue<Ascii>> {
    let lasts = matches!(
        reason,
        Reason::StoreFull | Reason::RoleAssignmentLimitExceeded
    );
    let is_exhausted = Code::from_i32(reason.code()) == Code::ResourceExhausted;
    let millis = match retry_after {
        _ if lasts => -1,
        // Clients read a 32-bit number. Rounded up: a little early would be refused once more.
        Some(wait) => i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
        None if is_exhausted => -1,
        None => return None,
    };
    Some(MetadataValue::from(millis))
}

/// At most so many bytes of a text, with a mark where it was cut.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut shorter: String = text
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= most - '…'.len_utf8())
        .map(|(_, c)| c)
        .collect();
    shorter.push('…');
    shorter
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn violation(field: &str) -> Violation {
        Violation {
            field: field.to_owned(),
            description: "is wrong".to_owned(),
        }
    }

    /// As a client reads it, off the wire.
    fn received(status: Status) -> (Status, ErrorDetails) {
        let response = status.into_http::<tonic::body::Body>();
        let status = Status::from_header_map(response.headers()).unwrap();
        let details = status.get_error_details();
        (status, details)
    }

    #[test]
    fn every_violation_reaches_the_caller() {
        let (status, details) = received(invalid(&[violation("cluster"), violation("ttl")]));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "2 fields are wrong: cluster, ttl");
        let fields: Vec<String> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .map(|v| v.field.clone())
            .collect();
        assert_eq!(fields, ["cluster", "ttl"]);
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_REQUEST", DOMAIN)
        );
    }

    #[test]
    fn a_request_that_is_wrong_throughout_still_fits_in_a_trailer() {
        let many: Vec<Violation> = (0..5000)
            .map(|n| violation(&format!("access.namespaces[{n}]")))
            .collect();
        let response = invalid(&many).into_http::<tonic::body::Body>();
        let size: usize = response
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        assert!(size < 8 * 1024, "{size} bytes");
        let details = Status::from_header_map(response.headers())
            .unwrap()
            .get_error_details();
        let untold = &details.error_info().unwrap().metadata["violations_not_told"];
        let told = details.bad_request().unwrap().field_violations.len();
        assert_eq!(untold.parse::<usize>().unwrap() + told, 5000);
    }

    #[test]
    fn a_value_beyond_all_measure_hides_no_other_violation() {
        let long = Violation {
            description: "x".repeat(60_000),
            ..violation("cluster")
        };
        let (_, details) = received(invalid(&[long, violation("ttl")]));
        let told = &details.bad_request().unwrap().field_violations;
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].description.len(), LONGEST_VIOLATION);
        assert!(details.error_info().unwrap().metadata.is_empty());
    }

    #[test]
    fn whoever_is_refused_for_now_is_told_when_to_come_back() {
        for (status, code) in [
            (overloaded("calls", 1), Code::ResourceExhausted),
            (shutting_down(), Code::Unavailable),
        ] {
            let (status, details) = received(status);
            assert_eq!(status.code(), code);
            let retry = details.retry_info().unwrap();
            assert_eq!(retry.retry_delay, Some(RETRY_AFTER));
        }
    }

    #[test]
    fn a_clients_retry_policy_is_told_what_retry_info_tells() {
        let rate = Rate {
            per_second: NonZeroU32::MIN,
            capacity: NonZeroU32::MIN,
        };
        let wait = Duration::from_micros(1_234_001);
        let full = Refusal {
            retry_after: Some(RETRY_AFTER),
            ..Refusal::new(Reason::StoreFull, "full".to_owned())
        };
        let at_its_limit = Refusal::new(Reason::RoleAssignmentLimitExceeded, "4000".to_owned());
        let for_ever = Duration::MAX;
        for (status, expected) in [
            (overloaded("calls", 1), Some("1000")),
            (shutting_down(), Some("1000")),
            (rate_limited("grants", rate, wait), Some("1235")),
            (rate_limited("grants", rate, for_ever), Some("2147483647")),
            (full.into_status(), Some("-1")),
            (at_its_limit.into_status(), Some("-1")),
            (invalid(&[violation("ttl")]), None),
            (not_implemented("Offboard"), None),
        ] {
            let (status, details) = received(status);
            let pushback = status.metadata().get(PUSHBACK);
            let pushback = pushback.map(|value| value.to_str().unwrap());
            assert_eq!(pushback, expected, "{status:?}");
            if details.retry_info().is_some() {
                assert!(pushback.is_some(), "{status:?}");
            }
        }
    }

    #[test]
    fn what_is_not_served_yet_says_so() {
        let (status, details) = received(not_implemented("Offboard"));
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("Offboard"));
        assert_eq!(details.error_info().unwrap().reason, "NOT_IMPLEMENTED");
    }

    #[test]
    fn a_bare_status_of_the_servers_gets_details() {
        let bare = Status::internal("failed to decode");
        let (status, details) = received(dressed(&bare).unwrap());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(details.error_info().is_some());
        assert!(dressed(&Status::cancelled("")).is_none());
        let (status, _) = received(dressed(&Status::unimplemented("")).unwrap());
        assert!(status.message().contains("no such RPC"), "{status}");
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("ääää", 7), "ää…");
    }
}
