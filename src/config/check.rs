//! What only shows when several keys are looked at together, or when a key's file is opened.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    Audit, Authentication, Azure, Cloud, Config, Credential, Limits, Log, Problem, Reconciler,
    Redis, Server, View,
};

/// No duration is longer. Far beyond it, adding one to a time overflows, and the caches refuse it.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const LONGEST_CLOCK_SKEW: Duration = Duration::from_mins(5);
/// Request records outlive their job by a day; a job that is forgotten earlier would let a repeated
/// request take effect twice (I3).
const SHORTEST_RETENTION: Duration = Duration::from_hours(24);

/// Everything that is wrong, durations first, then in the order of the sections.
///
/// `is_refused`: the configuration is refused already. Then what keeps `serve` from starting is told as well, which
/// is no problem of a configuration that is only looked at.
pub(super) fn problems(config: &Config, is_refused: bool) -> Vec<Problem> {
    let mut found = Vec::new();
    durations(config, &mut found);
    server(&config.server, &mut found);
    limits(&config.limits, &mut found);
    authentication(&config.authentication, &config.server, &mut found);
    audit(&config.audit, &mut found);
    redis(&config.redis, &mut found);
    azure(&config.azure, &mut found);
    reconciler(&config.reconciler, &config.azure, &mut found);
    view(&config.view, &mut found);
    log(&config.log, &mut found);
    let is_refused = is_refused || !found.is_empty();
    if let Some(why) = config.not_served_because().filter(|_| is_refused) {
        found.push(Problem::new("server.tls", why).beside(&["server.allow_plaintext"]));
    }
    found
}

fn durations(config: &Config, found: &mut Vec<Problem>) {
    let Config {
        server,
        audit,
        azure,
        reconciler,
        view,
        ..
    } = config;
    for (key, value) in [
        ("server.max_deadline", server.max_deadline),
        ("server.drain", server.drain),
        (
            "server.max_connection_age",
            server.max_connection_age.unwrap_or_default(),
        ),
        (
            "server.max_connection_age_grace",
            server.max_connection_age_grace,
        ),
        ("azure.call_timeout", azure.call_timeout),
        ("azure.connect_timeout", azure.connect_timeout),
        ("reconciler.lease", reconciler.lease),
        ("reconciler.settle_time", reconciler.settle_time),
        ("reconciler.lag", reconciler.lag),
        ("reconciler.backoff_initial", reconciler.backoff_initial),
        ("reconciler.backoff_max", reconciler.backoff_max),
        ("reconciler.grant_give_up", reconciler.grant_give_up),
        ("reconciler.poll", reconciler.poll),
        ("reconciler.retention", reconciler.retention),
        ("reconciler.cluster_cache", reconciler.cluster_cache),
        ("audit.retention", audit.retention),
        ("view.max_staleness", view.max_staleness),
        ("view.longest_staleness", view.longest_staleness),
        ("view.renew_after", view.renew_after),
    ] {
        if value > LONGEST {
            let message = format!(
                "{} is too long; at most {} days",
                human(value),
                LONGEST.as_secs() / 86_400
            );
            found.push(Problem::new(key, message));
        }
    }
}

/// Whoever asks what was done yesterday has to find it.
const SHORTEST_AUDIT: Duration = Duration::from_hours(24);

fn audit(audit: &Audit, found: &mut Vec<Problem>) {
    at_least("audit.retention", audit.retention, SHORTEST_AUDIT, found);
    if !(1_000..=1_000_000_000).contains(&audit.max_events) {
        let message = format!("{}: expected 1000 to 1000000000", audit.max_events);
        found.push(Problem::new("audit.max_events", message));
    }
    if audit.refusals_per_minute == 0 {
        let message = "0: expected at least 1".to_owned();
        found.push(Problem::new("audit.refusals_per_minute", message));
    }
    if !(1..=50).contains(&audit.refusals_percent) {
        let message = format!("{}: expected 1 to 50", audit.refusals_percent);
        found.push(Problem::new("audit.refusals_percent", message));
    }
}

/// Callers without a role share a sixteenth: room for one request of any kind but a large batch.
const LEAST_BYTES_IN_FLIGHT: usize = 8 * 1024 * 1024;

fn server(server: &Server, found: &mut Vec<Problem>) {
    if server.max_message_bytes < 64 * 1024 {
        found.push(Problem::new(
            "server.max_message_bytes",
            format!(
                "{} is too small for a request of the size that the contract allows; at least 65536",
                server.max_message_bytes
            ),
        ));
    }
    if server.max_bytes_in_flight < LEAST_BYTES_IN_FLIGHT {
        found.push(Problem::new(
            "server.max_bytes_in_flight",
            format!(
                "{} leaves callers without a role too little for one request; at least {LEAST_BYTES_IN_FLIGHT}",
                server.max_bytes_in_flight
            ),
        ));
    }
    if let Some(share) = server.max_connections_per_address {
        permits("server.max_connections_per_address", share, found);
    }
    if let Some(age) = server.max_connection_age {
        at_least("server.max_connection_age", age, MINUTE, found);
    }
    for (key, limit) in [
        ("server.max_connections", server.max_connections),
        ("server.max_in_flight", server.max_in_flight),
        ("server.max_streams", server.max_streams),
    ] {
        permits(key, limit, found);
    }
    at_least("server.max_deadline", server.max_deadline, SECOND, found);
    if let Some(tls) = &server.tls {
        readable("server.tls.certificate_file", &tls.certificate_file, found);
        readable("server.tls.key_file", &tls.key_file, found);
        if let Some(file) = &tls.client_ca_file {
            readable("server.tls.client_ca_file", file, found);
        }
    }
}

/// How many calls to Azure a check takes that rests on nothing older: six for the subscription, one for the cluster and
/// one for the principal's groups.
const ONE_FRESH_CHECK: u32 = 8;

/// The most checks of one batch.
const MOST_CHECKS: u32 = 1_000;

fn limits(limits: &Limits, found: &mut Vec<Problem>) {
    for (key, limit) in [
        ("limits.in_flight_per_caller", limits.in_flight_per_caller),
        ("limits.streams_per_caller", limits.streams_per_caller),
    ] {
        permits(key, limit, found);
    }
    let capacity = limits.checks.capacity.get();
    if capacity < MOST_CHECKS {
        let message = format!("{capacity} is less than the {MOST_CHECKS} checks of one batch");
        found.push(Problem::new("limits.checks.capacity", message));
    }
    for (key, budget) in [
        ("per_caller", limits.fresh_reads.per_caller),
        ("per_subscription", limits.fresh_reads.per_subscription),
    ] {
        let capacity = budget.capacity.get();
        if capacity < ONE_FRESH_CHECK {
            let key = format!("limits.fresh_reads.{key}.capacity");
            let message =
                format!("{capacity} is less than the {ONE_FRESH_CHECK} calls that one check takes");
            found.push(Problem::new(key, message));
        }
    }
}

fn authentication(authentication: &Authentication, server: &Server, found: &mut Vec<Problem>) {
    let key = "authentication.audiences";
    let takes_certificates = server
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca_file.is_some());
    if authentication.audiences.is_empty() && !takes_certificates {
        found.push(Problem::new(
            key,
            "empty: nobody could call; list the client id of the broker's application registration, or take client \
             certificates by server.tls.client_ca_file",
        )
        .beside(&["server.tls.client_ca_file"]));
    }
    for (index, audience) in authentication.audiences.iter().enumerate() {
        if audience.trim().is_empty() {
            let key = format!("{key}[{index}]");
            found.push(Problem::new(key, "empty: tokens are for somebody"));
        }
    }
    if authentication.clock_skew > LONGEST_CLOCK_SKEW {
        found.push(Problem::new(
            "authentication.clock_skew",
            format!(
                "{} is too long: tokens would be taken for so long after they have expired; at most {}",
                human(authentication.clock_skew),
                human(LONGEST_CLOCK_SKEW)
            ),
        ));
    }
}

fn redis(redis: &Redis, found: &mut Vec<Problem>) {
    if redis.password_file.is_some() && redis.password.is_some() {
        found.push(
            Problem::new(
                "redis.password_file",
                "the password is given twice, by file and by the environment: keep one",
            )
            .beside(&["redis.password"]),
        );
    }
    if let Err(error) = redis.password() {
        found.push(Problem::new("redis.password_file", error.to_string()));
    }
}

fn azure(azure: &Azure, found: &mut Vec<Problem>) {
    if azure.subscriptions.is_empty() {
        found.push(Problem::new(
            "azure.subscriptions",
            "empty: the broker would manage no cluster; list at least one subscription",
        ));
    }
    for (index, subscription) in azure.subscriptions.iter().enumerate() {
        if azure.subscriptions[..index].contains(subscription) {
            found.push(Problem::new(
                format!("azure.subscriptions[{index}]"),
                format!("{subscription} is listed twice"),
            ));
        }
    }
    credential(&azure.credential, found);
    let endpoints = &azure.endpoints;
    for (name, url) in [
        ("arm", &endpoints.arm),
        ("entra", &endpoints.entra),
        ("graph", &endpoints.graph),
    ] {
        endpoint(name, url.url(), azure.cloud, found);
    }
    if let Some(file) = &azure.ca_file {
        readable("azure.ca_file", file, found);
    }
    if azure.connect_timeout.is_zero() || azure.connect_timeout >= azure.call_timeout {
        found.push(
            Problem::new(
                "azure.connect_timeout",
                format!(
                    "{} has to be more than nothing and less than azure.call_timeout, {}",
                    human(azure.connect_timeout),
                    human(azure.call_timeout)
                ),
            )
            .beside(&["azure.call_timeout"]),
        );
    }
}

fn credential(credential: &Credential, found: &mut Vec<Problem>) {
    match credential {
        Credential::ClientSecret(credential) => {
            let key = "azure.credential.client_secret.client_secret_file";
            if credential.client_secret_file.is_some() && credential.client_secret.is_some() {
                found.push(Problem::new(
                    key,
                    "the secret is given twice, by file and by the environment: keep one",
                ));
            }
            if let Err(error) = credential.secret() {
                found.push(Problem::new(key, error.to_string()));
            }
        }
        // Not opened, nor asked, here: the configuration may be checked where there is no such token, or
        // identity, or tool. `serve` does.
        Credential::WorkloadIdentity(_)
        | Credential::ManagedIdentity(_)
        | Credential::DeveloperTools(_) => {}
    }
}

fn endpoint(name: &str, url: &Url, cloud: Cloud, found: &mut Vec<Problem>) {
    let key = format!("azure.endpoints.{name}");
    // One cloud's tokens are worth nothing in another, and are nothing to send there.
    let message = match Cloud::of(url) {
        Some((_, service)) if service != name => {
            format!("{url} is where azure.endpoints.{service} belongs")
        }
        Some((other, _)) if other != cloud => format!(
            "{url} is in the cloud {other}, and azure.cloud is {cloud}: set azure.cloud to {other}, or this key to \
             an address in {cloud}"
        ),
        _ => return,
    };
    found.push(Problem::new(key, message).beside(&["azure.cloud"]));
}

fn reconciler(reconciler: &Reconciler, azure: &Azure, found: &mut Vec<Problem>) {
    permits("reconciler.workers", reconciler.workers.get(), found);
    if azure.call_timeout.saturating_mul(2) > reconciler.lease {
        found.push(Problem::new(
            "azure.call_timeout",
            format!(
                "{} is more than half of reconciler.lease, {}: a call starts only if it ends within what is left of \
                 the lease",
                human(azure.call_timeout),
                human(reconciler.lease)
            ),
        )
        .beside(&["reconciler.lease"]));
    }
    settling(reconciler, azure, found);
    if reconciler.backoff_initial.is_zero() || reconciler.backoff_initial > reconciler.backoff_max {
        found.push(
            Problem::new(
                "reconciler.backoff_initial",
                format!(
                    "{} has to be more than nothing and at most reconciler.backoff_max, {}",
                    human(reconciler.backoff_initial),
                    human(reconciler.backoff_max)
                ),
            )
            .beside(&["reconciler.backoff_max"]),
        );
    }
    at_least(
        "reconciler.grant_give_up",
        reconciler.grant_give_up,
        SECOND,
        found,
    );
    at_least(
        "reconciler.poll",
        reconciler.poll,
        Duration::from_millis(10),
        found,
    );
    at_least(
        "reconciler.retention",
        reconciler.retention,
        SHORTEST_RETENTION,
        found,
    );
}

/// Settle time and lag: too short, and a revocation is called done while Azure can still undo it.
fn settling(reconciler: &Reconciler, azure: &Azure, found: &mut Vec<Problem>) {
    let (shortest, unless) = if reconciler.allow_short_times {
        (SECOND, "")
    } else {
        (
            MINUTE,
            " (unless reconciler.allow_short_times, for the emulator, is set)",
        )
    };
    for (key, value) in [
        ("reconciler.settle_time", reconciler.settle_time),
        ("reconciler.lag", reconciler.lag),
    ] {
        if value < shortest {
            let message = format!("{} is less than {}{unless}", human(value), human(shortest));
            found.push(Problem::new(key, message).beside(&["reconciler.allow_short_times"]));
        }
    }
    if reconciler.settle_time < azure.call_timeout && !reconciler.allow_short_times {
        found.push(Problem::new(
            "reconciler.settle_time",
            format!(
                "{} is less than azure.call_timeout, {}: a call can take effect until its timeout, at the least",
                human(reconciler.settle_time),
                human(azure.call_timeout)
            ),
        )
        .beside(&["azure.call_timeout", "reconciler.allow_short_times"]));
    }
}

fn view(view: &View, found: &mut Vec<Problem>) {
    at_least("view.max_staleness", view.max_staleness, SECOND, found);
    if view.renew_after.is_zero() || view.renew_after >= view.max_staleness {
        found.push(
            Problem::new(
                "view.renew_after",
                format!(
                    "{} has to be more than nothing and less than view.max_staleness, {}",
                    human(view.renew_after),
                    human(view.max_staleness)
                ),
            )
            .beside(&["view.max_staleness"]),
        );
    }
    if view.longest_staleness < view.max_staleness {
        found.push(
            Problem::new(
                "view.longest_staleness",
                format!(
                    "{} is less than view.max_staleness, {}",
                    human(view.longest_staleness),
                    human(view.max_staleness)
                ),
            )
            .beside(&["view.max_staleness"]),
        );
    }
    for (key, limit, least) in [
        ("view.max_assignments", view.max_assignments, 500_000),
        ("view.max_principals", view.max_principals, 1_000),
    ] {
        if limit < least {
            let problem =
                format!("{limit} is too few: each question would read Azure; at least {least}");
            found.push(Problem::new(key, problem));
        }
    }
}

fn log(log: &Log, found: &mut Vec<Problem>) {
    if let Err(error) = EnvFilter::try_new(&log.filter) {
        found.push(Problem::new(
            "log.filter",
            format!("{:?} is not a filter: {error}", log.filter),
        ));
    }
}

/// How many of something there may be at once: far beyond the upper bound a semaphore panics.
fn permits(key: &str, number: usize, found: &mut Vec<Problem>) {
    if !(1..=1_000_000).contains(&number) {
        let message = format!("{number} is not within 1 and 1000000");
        found.push(Problem::new(key, message));
    }
}

fn at_least(key: &str, value: Duration, shortest: Duration, found: &mut Vec<Problem>) {
    if value < shortest {
        let message = format!(
            "{} is too short; at least {}",
            human(value),
            human(shortest)
        );
        found.push(Problem::new(key, message));
    }
}

fn readable(key: &str, file: &Path, found: &mut Vec<Problem>) {
    if let Err(error) = fs::File::open(file) {
        let message = format!("{} cannot be read: {error}", file.display());
        found.push(Problem::new(key, message));
    }
}

/// A duration as people write it.
fn human(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(duration).to_string()
}
