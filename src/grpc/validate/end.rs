//! When a grant ends: `ttl`, `expire_time` or `permanent`, exactly one.

use jiff::{SignedDuration, Timestamp};

use crate::broker::request::RequestedEnd;
use crate::domain::grant::{MAX_TTL, MIN_TTL};
use crate::grpc::proto;

use super::{Violations, time};

pub(super) fn of_grant(
    request: &proto::GrantRequest,
    now: Timestamp,
    wrong: &mut Violations,
) -> Option<RequestedEnd> {
    // Each is looked at even where there are several, so that the caller hears of all at once.
    let ttl = request.ttl.map(|given| ttl(given, wrong));
    let at = request
        .expire_time
        .map(|given| expire_time(given, now, wrong));
    let permanent = request.permanent.then_some(Some(RequestedEnd::Permanent));
    exactly_one(
        &[ttl, at, permanent],
        "ttl, expire_time and permanent",
        wrong,
    )
}

pub(super) fn of_extension(
    request: &proto::ExtendGrantRequest,
    now: Timestamp,
    wrong: &mut Violations,
) -> Option<RequestedEnd> {
    let ttl = request.ttl.map(|given| ttl(given, wrong));
    let at = request
        .expire_time
        .map(|given| expire_time(given, now, wrong));
    exactly_one(&[ttl, at], "ttl and expire_time", wrong)
}

/// Of each way, the outer `Option` is whether it is used, the inner whether it is well-formed.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
fn exactly_one(
    ways: &[Option<Option<RequestedEnd>>],
    names: &str,
    wrong: &mut Violations,
) -> Option<RequestedEnd> {
    let given: Vec<_> = ways.iter().copied().flatten().collect();
    match given.as_slice() {
        [one] => *one,
        several => {
            let problem = if several.is_empty() {
                "no end is given"
            } else {
                "several ends are given"
            };
            wrong.add("ttl", format!("{problem}: set exactly one of {names}"));
            None
        }
    }
}

fn ttl(given: prost_types::Duration, wrong: &mut Violations) -> Option<RequestedEnd> {
    match time::duration(given) {
        Some(ttl) if (MIN_TTL..=MAX_TTL).contains(&ttl) => Some(RequestedEnd::Ttl(ttl)),
        Some(ttl) => {
            wrong.add(
                "ttl",
                format!("{}s is not within 1 second and 366 days", ttl.as_secs_f64()),
            );
            None
        }
        None => {
            wrong.add(
                "ttl",
                format!(
                    "{} seconds and {} nanoseconds are no time to live; expected 1 second to 366 days",
                    given.seconds, given.nanos
                ),
            );
            None
        }
    }
}

fn expire_time(
    given: prost_types::Timestamp,
    now: Timestamp,
    wrong: &mut Violations,
) -> Option<RequestedEnd> {
    let Some(time) = time::point(given) else {
        wrong.add(
            "expire_time",
            format!(
                "{} seconds and {} nanoseconds since 1970 are no point in time",
                given.seconds, given.nanos
            ),
        );
        return None;
    };
    let latest = SignedDuration::try_from(MAX_TTL)
        .ok()
        .and_then(|longest| now.checked_add(longest).ok());
    if time <= now {
        // A replay that comes late is still the same request (I3): the use case decides.
        wrong.add_unless_replayed("expire_time", format!("{time} is in the past: it is {now}"));
    }
    if latest.is_some_and(|latest| time > latest) {
        wrong.add(
            "expire_time",
            format!("{time} is more than 366 days from now, {now}"),
        );
        None
    } else {
        Some(RequestedEnd::At(time))
    }
}
