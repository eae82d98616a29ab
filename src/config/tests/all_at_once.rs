//! No problem hides another one, and none prints a secret.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{LEAST, flatten, load, wrong};

/// Asserts that a text holds each part, and nothing of the others.
fn assert_told(text: &str, told: &[&str], untold: &[&str]) {
    for part in told {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for part in untold {
        assert!(!text.contains(part), "{part:?} is in\n{text}");
    }
}

#[test]
fn a_wrong_type_hides_neither_a_wrong_value_nor_an_unknown_key() {
    let text = wrong(&format!(
        "{LEAST}  connect_timeout: 3m
  endpoints: {{arm: [], entra: 'https://login.chinacloudapi.cn'}}
server: {{listen: [], max_connections: 0, listn: x}}
reconciler: {{lease: [], retention: 1h, lane: {{writes: {{burst: 1}}}}}}
view: {{max_staleness: [], max_principals: 1}}
log: {{filter: 'info=loud=er', format: []}}
"
    ));
    assert_told(
        &text,
        &[
            "azure.endpoints.arm: ",
            "azure.endpoints.entra: https://login.chinacloudapi.cn/ is in the cloud china",
            "azure.connect_timeout: 3m",
            "server.listen: ",
            "server.max_connections: 0 is not within",
            "server.listn: unknown key",
            "server.tls: serve does not start with this",
            "reconciler.lease: ",
            "reconciler.retention: 1h is too short",
            "reconciler.lane.writes.burst: unknown key",
            "view.max_staleness: ",
            "view.max_principals: 1 is too few",
            "log.filter: ",
            "log.format: ",
        ],
        &["required"],
    );
}

#[test]
fn what_is_missing_hides_nothing_either() {
    let text = wrong(
        "
azure:
  credential: {client_secret: {}}
  endpoints: {arm: nowhere}
  subscriptions: [11111111-1111-4111-8111-111111111111, ours, 11111111-1111-4111-8111-111111111111, theirs]
server: {tls: {key_file: /nowhere/key}, drain: long}
limits: {grants: {capacity: 0}, in_flight_per_caller: 0}
authentication: {tenants: [ours, 33333333-3333-4333-8333-333333333333, 3]}
redis: {allow_weaker_durability: [never], nmae: prod}
",
    );
    assert_told(
        &text,
        &[
            "azure.credential.client_secret.client_id: required",
            "azure.credential.client_secret.client_secret_file: there is no secret",
            "azure.endpoints.arm: not a URL",
            "azure.subscriptions[1]: ",
            "azure.subscriptions[2]: 11111111-1111-4111-8111-111111111111 is listed twice",
            "azure.subscriptions[3]: ",
            "azure.tenant_id: required",
            "server.tls.certificate_file: required",
            "server.tls.key_file: /nowhere/key cannot be read",
            "server.drain: ",
            "limits.grants.capacity: ",
            "limits.grants.per_second: required",
            "limits.in_flight_per_caller: 0 is not within",
            "authentication.tenants[0]: ",
            "authentication.tenants[2]: ",
            "authentication.audiences: empty",
            "redis.allow_weaker_durability[0]: ",
            "redis.nmae: unknown key",
        ],
        &["azure.endpoints.entra", "azure.endpoints.graph", "[1]: 3"],
    );
}

/// What cannot be read is compared with nothing: its default would be told as wrong although nobody set it.
#[test]
fn what_cannot_be_read_is_not_compared_with_what_can() {
    let text = wrong(&format!(
        "{LEAST}  call_timeout: 40s\n  cloud: germany\n  endpoints: {{arm: 'https://management.usgovcloudapi.net'}}
reconciler: {{lease: long, backoff_max: long, backoff_initial: 10m}}
view: {{max_staleness: long, renew_after: 5m, longest_staleness: 30s}}
"
    ));
    assert_told(
        &text,
        &[
            "azure.cloud: ",
            "reconciler.lease: ",
            "reconciler.backoff_max: ",
            "view.max_staleness: ",
        ],
        &[
            "azure.call_timeout",
            "azure.endpoints",
            "reconciler.backoff_initial",
            "view.renew_after",
            "view.longest_staleness",
        ],
    );
}

#[test]
fn a_section_that_is_none_hides_no_other() {
    let text = wrong("azure: ours\nserver: here\nredis: {name: P}\nview: {max_principals: 1}");
    assert_told(
        &text,
        &[
            "azure: ",
            "server: ",
            "redis.name: ",
            "view.max_principals: ",
        ],
        &["azure.tenant_id"],
    );
}

/// Every key but those of the credential, of which there are several kinds.
fn keys() -> Vec<String> {
    let mut keys = BTreeMap::new();
    let config = serde_json::to_value(load(LEAST).unwrap()).unwrap();
    flatten("", &config, &mut keys);
    let is_plain = |key: &String| !key.starts_with("azure.credential");
    keys.into_keys().filter(is_plain).collect()
}

/// Sets a key below others.
fn set(config: &mut Value, key: &str, value: Value) {
    let mut place = config;
    for part in key.split('.') {
        place = &mut place[part];
    }
    *place = value;
}

proptest! {
    #[test]
    fn whatever_two_keys_are_wrong_both_are_told_and_the_rest_too(
        one in select(keys()),
        other in select(keys()),
    ) {
        let mut config = json!({"audit": {"max_events": 1}, "policy": {"dir": "."}, "polcy": {}});
        set(&mut config, &one, json!([{"wrong": 1}]));
        set(&mut config, &other, json!([{"wrong": 1}]));
        let text = wrong(&config.to_string());
        let told = |key: &str| {
            let key = key.to_owned();
            text.contains(&format!("- {key}: ")) || text.contains(&format!("- {key}[0]: "))
        };
        for key in [one.as_str(), &other, "policy.dir", "polcy", "audit.max_events"] {
            prop_assert!(told(key), "{key} is not in\n{text}");
        }
        prop_assert!(told("azure.tenant_id"), "{text}");
    }

    #[test]
    fn no_key_repeats_the_secret_of_a_url(
        key in select(keys()),
        url in select(vec![
            "redis://:hunter2@127.0.0.1:6379",
            "rediss://broker:hun/ter2@127.0.0.1",
            "https://broker:hunter2@management.azure.com",
            "https://hunter2@management.azure.com",
            "https://management.azure.com/?sig=hunter2",
            "http://broker:hunter2@proxy:8080",
        ]),
        is_in_a_list in any::<bool>(),
        is_a_part in any::<bool>(),
    ) {
        let mut value = if is_in_a_list { json!([url]) } else { json!(url) };
        if is_a_part {
            value = json!({"url": value});
        }
        let mut config = json!({});
        set(&mut config, &key, value.clone());
        // And where a whole part belongs.
        let part = key.split('.').next().unwrap();
        let whole = json!({part: value});
        for config in [config, whole] {
            let error = super::load(&config.to_string()).unwrap_err();
            let text = format!("{error} {error:?}");
            // Keys that take any text do not tell it: nothing is wrong with them.
            for secret in ["hunter2", "ter2", "hun/"] {
                prop_assert!(!text.contains(secret), "{text}");
            }
        }
    }
}

#[test]
fn what_is_accepted_and_holds_a_url_is_printed_without_its_secret() {
    let config = load(&format!(
        "{LEAST}\nredis: {{url: 'redis://broker@127.0.0.1'}}
audit: {{file: 'https://broker:hunter2@log.test/x'}}
"
    ))
    .unwrap();
    let yaml = config.to_yaml().unwrap();
    assert_told(&yaml, &["redis://broker@127.0.0.1"], &["hunter2"]);
    for url in [
        "redis://127.0.0.1?password=hunter2",
        "redis://127.0.0.1/0#hunter2",
        "broker:hunter2@127.0.0.1",
        "hunter2:broker@127.0.0.1",
        "redis:hunter2@127.0.0.1",
    ] {
        let text = wrong(&format!("{LEAST}\nredis: {{url: '{url}'}}\n"));
        assert_told(&text, &["redis.url: "], &["hunter2"]);
        let text = wrong(&format!("{LEAST}  endpoints: {{graph: '{url}'}}\n"));
        assert_told(&text, &["azure.endpoints.graph: "], &["hunter2"]);
    }
}
