//! Requests as callers send them → requests that can be carried out.
//!
//! A request is read to its end: everything that is wrong with it is told at once. A field whose feature
//! is not there yet is refused, never ignored: a caller who sets it relies on it.

mod access;
mod audit;
mod check;
mod end;
mod filter;
mod lists;
mod naming;
mod page;
mod principal;
mod selector;
mod time;

use std::fmt::Display;

use jiff::Timestamp;

use crate::broker::MOST_REVOKED;
use crate::broker::request::{ExtendRequest, GrantRequest, RequestedGrants, RevokeRequest};
use crate::domain::ids::{ClusterId, GrantId, JobId, RequestId};
use crate::domain::naming::OnBehalfOf;

use super::proto;
use super::status::Violation;

pub(super) use audit::audit_events;
pub(super) use check::{batch, check, check_of_batch, list_access};
pub(super) use lists::{grants, job_targets, jobs};
pub(super) use page::clusters;

/// The most characters of a justification.
const LONGEST_JUSTIFICATION: usize = 1024;

/// What is wrong with a request, so far.
#[derive(Debug, Default)]
struct Violations {
    told: Vec<Violation>,
    /// What only a new request may not say: it is told beside others, and does not by itself refuse a
    /// request that may be a replay.
    of_new_requests: Vec<Violation>,
}

impl Violations {
    /// Notes what is wrong with a field. Its name is written only then: most requests have nothing wrong with them.
    fn add(&mut self, field: impl Display, description: impl Into<String>) {
        self.told.push(Violation {
            field: field.to_string(),
            description: description.into(),
        });
    }

    /// Notes what is wrong with a field unless the request turns out to be a replay.
    fn add_unless_replayed(&mut self, field: &str, description: String) {
        self.of_new_requests.push(Violation {
            field: field.to_owned(),
            description,
        });
    }

    /// Takes a value, or notes why there is none.
    fn take<T>(&mut self, field: impl Display, value: Result<T, impl Display>) -> Option<T> {
        value
            .map_err(|error| self.add(field, error.to_string()))
            .ok()
    }

    /// Notes each of these fields that is set: what they ask for is not there yet.
    fn not_there_yet(&mut self, fields: &[(&str, bool)]) {
        for (field, is_set) in fields {
            if *is_set {
                self.add(*field, "in the contract, and not served yet: leave it out");
            }
        }
    }

    /// The request, if nothing is wrong with it. `None` with nothing wrong cannot be: whoever has no value
    /// has noted why.
    fn finish<T>(self, request: Option<T>) -> Result<T, Vec<Violation>> {
        match request {
            Some(request) if self.told.is_empty() => Ok(request),
            _ => Err([self.told, self.of_new_requests].concat()),
        }
    }
}

/// A `GrantRequest`, read at `now`.
///
/// # Errors
/// Every field that is wrong.
pub(super) fn grant(
    request: &proto::GrantRequest,
    now: Timestamp,
) -> Result<GrantRequest, Vec<Violation>> {
    let mut wrong = Violations::default();
    let request_id = optional(
        "request_id",
        &request.request_id,
        RequestId::parse,
        &mut wrong,
    );
    let principal = principal::required("principal", request.principal.as_ref(), &mut wrong);
    let cluster = cluster(&request.cluster, &mut wrong);
    let access = access::required(request.access.as_ref(), &mut wrong);
    let end = end::of_grant(request, now, &mut wrong);
    let justification = justification(&request.justification, &mut wrong);
    let labels = naming::labels("labels", &request.labels, &mut wrong);
    let external_key = naming::new_external_key(&request.external_key, &mut wrong);
    let on_behalf_of = naming::beneficiary(&request.on_behalf_of, &mut wrong);
    wrong.not_there_yet(&[("start_time", request.start_time.is_some())]);
    let whole = || {
        Some(GrantRequest {
            request_id: request_id?,
            principal: principal?,
            cluster: cluster?,
            access: access?,
            end: end?,
            justification: justification?,
            labels: labels?,
            external_key: external_key?,
            on_behalf_of: on_behalf_of?,
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

/// An `ExtendGrantRequest`, read at `now`.
///
/// # Errors
/// Every field that is wrong.
pub(super) fn extend(
    request: &proto::ExtendGrantRequest,
    now: Timestamp,
) -> Result<ExtendRequest, Vec<Violation>> {
    let mut wrong = Violations::default();
    let request_id = optional(
        "request_id",
        &request.request_id,
        RequestId::parse,
        &mut wrong,
    );
    let grant = parsed("grant_id", &request.grant_id, GrantId::parse, &mut wrong);
    let end = end::of_extension(request, now, &mut wrong);
    let justification = justification(&request.justification, &mut wrong);
    let on_behalf_of = naming::beneficiary(&request.on_behalf_of, &mut wrong);
    let whole = || {
        Some(ExtendRequest {
            request_id: request_id?,
            grant: grant?,
            end: end?,
            justification: justification?,
            on_behalf_of: on_behalf_of?,
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

/// A `RevokeRequest`.
///
/// # Errors
/// Every field that is wrong.
pub(super) fn revoke(request: &proto::RevokeRequest) -> Result<RevokeRequest, Vec<Violation>> {
    let mut wrong = Violations::default();
    let request_id = optional(
        "request_id",
        &request.request_id,
        RequestId::parse,
        &mut wrong,
    );
    let grants = revoked_grants(request, &mut wrong);
    let justification = justification(&request.justification, &mut wrong);
    let on_behalf_of = optional(
        "on_behalf_of",
        &request.on_behalf_of,
        OnBehalfOf::parse,
        &mut wrong,
    );
    wrong.not_there_yet(&[("include_unmanaged", request.include_unmanaged)]);
    let whole = || {
        Some(RevokeRequest {
            request_id: request_id?,
            grants: grants?,
            justification: justification?,
            on_behalf_of: on_behalf_of?,
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

fn revoked_grants(
    request: &proto::RevokeRequest,
    wrong: &mut Violations,
) -> Option<RequestedGrants> {
    const EXACTLY_ONE: &str = "set exactly one of grant_id and selector";
    let one = (!request.grant_id.is_empty())
        .then(|| wrong.take("grant_id", GrantId::parse(&request.grant_id)));
    let matching = request
        .selector
        .as_ref()
        .map(|selector| selector::to_revoke("selector", selector, wrong));
    let most = max_grants(request.max_grants, matching.is_some(), wrong);
    match (one, matching) {
        (Some(one), None) => one.map(RequestedGrants::One),
        (None, Some(matching)) => Some(RequestedGrants::Matching {
            selector: matching?,
            most: most?,
        }),
        (None, None) => {
            wrong.add("grant_id", format!("no grant is named: {EXACTLY_ONE}"));
            None
        }
        (Some(_), Some(_)) => {
            wrong.add(
                "selector",
                format!("a grant is named as well: {EXACTLY_ONE}"),
            );
            None
        }
    }
}

/// Where nothing else is asked for, a selector ends at most so many grants.
const DEFAULT_MOST_REVOKED: usize = 100;

fn max_grants(asked: i32, selects: bool, wrong: &mut Violations) -> Option<usize> {
    let most = usize::try_from(asked)
        .ok()
        .filter(|most| *most <= MOST_REVOKED);
    match most {
        Some(0) => Some(DEFAULT_MOST_REVOKED),
        Some(_) if !selects => {
            wrong.add("max_grants", "goes with a selector: leave it out");
            None
        }
        Some(most) => Some(most),
        None => {
            let expected = format!(
                "{asked} is not within 1 and {MOST_REVOKED}; 0 stands for {DEFAULT_MOST_REVOKED}"
            );
            wrong.add("max_grants", expected);
            None
        }
    }
}

/// The id in a `GetJobRequest` or a `WatchJobRequest`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn job_id(id: &str) -> Result<JobId, Vec<Violation>> {
    let mut wrong = Violations::default();
    let id = parsed("job_id", id, JobId::parse, &mut wrong);
    wrong.finish(id)
}

/// The id in a `GetGrantRequest`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn grant_id(id: &str) -> Result<GrantId, Vec<Violation>> {
    let mut wrong = Violations::default();
    let id = parsed("grant_id", id, GrantId::parse, &mut wrong);
    wrong.finish(id)
}

/// The id in a `GetClusterRequest`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn cluster_id(id: &str) -> Result<ClusterId, Vec<Violation>> {
    let mut wrong = Violations::default();
    let id = cluster(id, &mut wrong);
    wrong.finish(id)
}

fn cluster(id: &str, wrong: &mut Violations) -> Option<ClusterId> {
    parsed("cluster", id, ClusterId::parse, wrong)
}

/// A field that has to be there and to parse.
fn parsed<T, E: Display>(
    field: impl Display,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    wrong: &mut Violations,
) -> Option<T> {
    if text.is_empty() {
        wrong.add(field, "required");
        return None;
    }
    wrong.take(field, parse(text))
}

/// A field that may be left out. The outer `Option` is whether it is well-formed, the inner whether there is one.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
fn optional<T, E: Display>(
    field: impl Display,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    wrong: &mut Violations,
) -> Option<Option<T>> {
    if text.is_empty() {
        return Some(None);
    }
    wrong.take(field, parse(text)).map(Some)
}

fn justification(text: &str, wrong: &mut Violations) -> Option<String> {
    let length = text.chars().count();
    if length > LONGEST_JUSTIFICATION {
        wrong.add(
            "justification",
            format!("{length} characters long; at most {LONGEST_JUSTIFICATION}"),
        );
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
