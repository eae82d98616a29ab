//! What a refusal says, as a client reads it off the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// A status and its `google.rpc` error details.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The status's code.
    pub code: Code,
    /// Its words.
    pub message: String,
    /// `ErrorInfo.reason`
    pub reason: String,
    /// `ErrorInfo.metadata`
    pub metadata: BTreeMap<String, String>,
    /// `BadRequest`: each field that is wrong, in the order in which they are told.
    pub fields: Vec<String>,
    /// `PreconditionFailure`: the type of each violation.
    pub preconditions: Vec<String>,
    /// `RetryInfo`
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads a status.
    ///
    /// # Panics
    /// Where it has no `ErrorInfo` of this service's: each status has one. Where a client's retry policy is not told what
    /// `RetryInfo` tells.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("a status without ErrorInfo: {status:?}"));
        assert_eq!(info.domain, "aks.access.v1", "{status:?}");
        let fields = details
            .bad_request()
            .map(|bad| bad.field_violations.as_slice())
            .unwrap_or_default();
        for violation in fields {
            assert!(
                !violation.description.is_empty(),
                "{}: not a word of why",
                violation.field
            );
        }
        let preconditions = details
            .precondition_failure()
            .map(|failure| failure.violations.as_slice())
            .unwrap_or_default();
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        let pushback: Option<i64> = pushback.map(|value| value.to_str().unwrap().parse().unwrap());
        let is_exhausted = status.code() == Code::ResourceExhausted;
        match (retry_after, pushback) {
            (_, Some(-1)) => assert!(is_exhausted, "{status:?}"),
            (Some(wait), Some(millis)) => {
                let wait = i64::try_from(wait.as_millis()).unwrap();
                assert!((wait..=wait + 1).contains(&millis), "{status:?}");
            }
            (None, None) => assert!(!is_exhausted, "{status:?}"),
            other => panic!("{other:?}: {status:?}"),
        }
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.reason.clone(),
            metadata: info.metadata.clone().into_iter().collect(),
            fields: fields.iter().map(|wrong| wrong.field.clone()).collect(),
            preconditions: preconditions.iter().map(|it| it.r#type.clone()).collect(),
            retry_after,
        }
    }

    /// Reads the status that a call was answered with.
    ///
    /// # Panics
    /// Where it was answered with success.
    pub fn from<T>(answer: Result<Response<T>, Status>) -> Self {
        Self::of(&answer.map(drop).expect_err("this has to be refused"))
    }

    /// A request that cannot be carried out as it is: these of its fields are wrong, and no others.
    ///
    /// # Panics
    /// Where that is not what it says.
    pub fn names(&self, fields: &[&str]) {
        assert_eq!(
            self.kind(),
            (Code::InvalidArgument, "INVALID_REQUEST"),
            "{self:?}"
        );
        assert_eq!(self.fields, fields, "{self:?}");
    }

    /// What callers tell refusals apart by.
    pub fn kind(&self) -> (Code, &str) {
        (self.code, &self.reason)
    }
}
