//! Whether a Redis can keep what the broker accepts (I1): asked at every connection, because after a
//! failover another server answers.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use crate::config::DurabilityException;

/// The oldest server with script flags.
const OLDEST: (u32, u32) = (7, 0);

/// # Errors
/// [`StoreError::NotDurable`] names each setting that is wrong, and its remedy, all at once.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    exceptions: &[DurabilityException],
) -> Result<(), StoreError> {
    let info: String = redis::cmd("INFO")
        .arg("everything")
        .query_async(connection)
        .await
        .map_err(StoreError::from_redis)?;
    let info = parse_info(&info);
    if info.get("loading").is_some_and(|loading| *loading == "1") {
        return Err(StoreError::Unavailable(redis::RedisError::from((
            redis::ErrorKind::Io,
            "Redis is still loading its data",
        ))));
    }
    let managed = exceptions.contains(&DurabilityException::Managed);
    let settings: Result<HashMap<String, String>, redis::RedisError> = redis::cmd("CONFIG")
        .arg("GET")
        .arg(&[
            "appendonly",
            "appendfsync",
            "no-appendfsync-on-rewrite",
            "maxmemory-policy",
        ])
        .query_async(connection)
        .await;
    let mut problems = server_problems(&info);
    match settings {
        Ok(settings) => problems.extend(setting_problems(&settings, exceptions)),
        Err(error) if error.is_io_error() || error.is_timeout() => return Err(StoreError::from_redis(error)),
        Err(_) if managed => {}
        Err(error) => problems.push(format!(
            "it hides its settings ({error}); if its operator promises that it keeps an append-only file and never \
             evicts, say so with redis.allow_weaker_durability: [managed]"
        )),
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(StoreError::NotDurable { problems })
    }
}

fn parse_info(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect()
}

fn server_problems(info: &HashMap<&str, &str>) -> Vec<String> {
    let mut problems = Vec::new();
    let role = info.get("role").copied().unwrap_or_default();
    if role != "master" {
        problems.push(format!(
            "its role is {role:?}, not master: connect to the master"
        ));
    }
    let version = info.get("redis_version").copied().unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let version_number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version_number < OLDEST {
        problems.push(format!(
            "its version is {version:?}: 7.0 or newer is needed, for script flags"
        ));
    }
    problems
}

fn setting_problems(
    settings: &HashMap<String, String>,
    exceptions: &[DurabilityException],
) -> Vec<String> {
    let setting = |name: &str| settings.get(name).map_or("", String::as_str);
    let mut problems = Vec::new();
    if setting("appendonly") != "yes" {
        problems.push(format!(
            "appendonly is {:?}: without an append-only file a restart forgets; CONFIG SET appendonly yes",
            setting("appendonly")
        ));
    }
    let every_second = exceptions.contains(&DurabilityException::Everysec);
    match setting("appendfsync") {
        "always" => {}
        "everysec" if every_second => {}
        other => problems.push(format!(
            "appendfsync is {other:?}: a power cut forgets what was accepted last; CONFIG SET appendfsync always{}",
            if other == "everysec" {
                ", or accept it with redis.allow_weaker_durability: [everysec]"
            } else {
                ""
            }
        )),
    }
    if setting("no-appendfsync-on-rewrite") != "no" {
        problems.push(format!(
            "no-appendfsync-on-rewrite is {:?}: while the file is rewritten nothing would be synced; \
             CONFIG SET no-appendfsync-on-rewrite no",
            setting("no-appendfsync-on-rewrite")
        ));
    }
    if setting("maxmemory-policy") != "noeviction" {
        problems.push(format!(
            "maxmemory-policy is {:?}: grants would be evicted; CONFIG SET maxmemory-policy noeviction",
            setting("maxmemory-policy")
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let good = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory-policy", "noeviction"),
        ];
        good.iter()
            .chain(pairs)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn i1_each_setting_that_can_lose_a_grant_is_named_with_its_remedy() {
        assert!(setting_problems(&settings(&[]), &[]).is_empty());
        for (name, value, exceptions) in [
            ("appendonly", "no", &[][..]),
            ("appendfsync", "no", &[DurabilityException::Everysec][..]),
            ("appendfsync", "everysec", &[][..]),
            ("no-appendfsync-on-rewrite", "yes", &[][..]),
            (
                "maxmemory-policy",
                "allkeys-lru",
                &[DurabilityException::Managed][..],
            ),
        ] {
            let problems = setting_problems(&settings(&[(name, value)]), exceptions);
            assert_eq!(problems.len(), 1, "{name} {value}");
            assert!(
                problems[0].contains(name) && problems[0].contains("CONFIG SET"),
                "{problems:?}"
            );
        }
        let every_second = settings(&[("appendfsync", "everysec")]);
        assert!(setting_problems(&every_second, &[DurabilityException::Everysec]).is_empty());
    }

    #[test]
    fn i1_a_replica_and_an_old_server_are_refused() {
        let old = parse_info("redis_version:6.2.1\r\nrole:slave\r\n");
        assert_eq!(server_problems(&old).len(), 2);
        assert!(server_problems(&parse_info("redis_version:7.0.15\r\nrole:master\r\n")).is_empty());
    }
}
