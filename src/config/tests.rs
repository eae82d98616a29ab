//! The configuration as a file: what is refused, what is told, and that the page of settings is true.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

mod all_at_once;

use super::{
    Cloud, Config, ConfigError, Credential, DeveloperToolsCredential, ManagedIdentityCredential,
    WorkloadIdentityCredential,
};

/// The least that a configuration has to say.
const LEAST: &str = "
authentication: {audiences: [55555555-5555-4555-8555-555555555555]}
azure:
  tenant_id: 33333333-3333-4333-8333-333333333333
  subscriptions: [11111111-1111-4111-8111-111111111111]
  credential:
    workload_identity:
      client_id: 44444444-4444-4444-8444-444444444444
      token_file: /var/run/secrets/azure/tokens/azure-identity-token
";

fn written(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("broker.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let dir = TempDir::new().unwrap();
    Config::load(Some(&written(&dir, text)))
}

/// Everything that is wrong with a configuration, as it is printed.
fn wrong(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn what_is_not_set_has_the_designs_defaults() {
    let config = load(LEAST).unwrap();
    assert_eq!(config.azure.call_timeout.as_secs(), 20);
    assert_eq!(config.reconciler.lease.as_secs(), 60);
    assert_eq!(config.reconciler.settle_time.as_secs(), 300);
    assert_eq!(config.reconciler.lag.as_secs(), 600);
    assert!(!config.server.allow_plaintext);
    assert_eq!(config.authentication.clock_skew.as_secs(), 60);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = wrong(
        "
server: {listen: nowhere, max_deadline: 30 parsecs}
redis: {url: 'http://127.0.0.1', nmae: prod}
azure: {tenant_id: ours}
reconciler: {workers: 0}
lgo: {format: json}
",
    );
    for part in [
        "server.listen: ",
        "server.max_deadline: invalid value string \"30 parsecs\", expected a duration, as in 250ms",
        "redis.url: ",
        "azure.tenant_id: ",
        "azure.subscriptions: required",
        "azure.credential: required",
        "reconciler.workers: ",
        "lgo: unknown section",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("azure.tenant_id: required"), "{text}");
}

#[test]
fn an_unknown_key_is_named_with_those_that_there_are() {
    let text = wrong(&format!("{LEAST}\nredis: {{nmae: prod}}\n"));
    assert!(text.contains("redis.nmae: unknown key"), "{text}");
    assert!(text.contains("password_file"), "{text}");
    let text = wrong(&format!(
        "{LEAST}\nreconciler: {{lane: {{writes: {{burst: 1}}}}}}\n"
    ));
    assert!(
        text.contains("reconciler.lane.writes.burst: unknown key"),
        "{text}"
    );
}

#[test]
fn keys_that_do_not_fit_together_are_all_told() {
    let text = wrong(&format!(
        "{LEAST}  call_timeout: 2m\n  connect_timeout: 3m\n  endpoints: {{arm: 'http://arm.test'}}
reconciler: {{settle_time: 10s, lag: 0s, backoff_initial: 10m, retention: 1h}}
log: {{filter: 'info=loud=er'}}
"
    ));
    for part in [
        "azure.endpoints.arm: ",
        "azure.connect_timeout: 3m",
        "azure.call_timeout: 2m is more than half of reconciler.lease, 1m",
        "reconciler.settle_time: 10s is less than 1m",
        "reconciler.settle_time: 10s is less than azure.call_timeout, 2m",
        "reconciler.lag: 0s is less than 1m",
        "reconciler.backoff_initial: 10m",
        "reconciler.retention: 1h is too short",
        "log.filter: ",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn what_would_overflow_later_is_refused_now() {
    let keys = [
        "server.max_deadline",
        "server.drain",
        "azure.call_timeout",
        "azure.connect_timeout",
        "reconciler.lease",
        "reconciler.settle_time",
        "reconciler.lag",
        "reconciler.backoff_initial",
        "reconciler.backoff_max",
        "reconciler.grant_give_up",
        "reconciler.poll",
        "reconciler.retention",
        "reconciler.cluster_cache",
    ];
    let section = |name: &str, separator: &str| {
        let keys = keys.iter().filter_map(|key| key.strip_prefix(name));
        keys.map(|key| format!("{}: 2000y", &key[1..]))
            .collect::<Vec<_>>()
            .join(separator)
    };
    let text = wrong(&format!(
        "{LEAST}  {}\nserver: {{{}}}\nreconciler: {{workers: 2305843009213693952, {}}}\n",
        section("azure", "\n  "),
        section("server", ", "),
        section("reconciler", ", "),
    ));
    for key in keys {
        let part = format!("{key}: 2000years is too long; at most 3660 days");
        assert!(text.contains(&part), "{part:?} is not in\n{text}");
    }
    assert!(text.contains("reconciler.workers: "), "{text}");
}

#[test]
fn against_the_emulator_times_may_be_short() {
    let short = "reconciler: {allow_short_times: true, settle_time: 1s, lag: 1s}";
    assert!(load(&format!("{LEAST}\n{short}\n")).is_ok());
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    for (key, line) in [
        ("redis.password", "redis: {password: hunter2}"),
        ("redis.password", "redis: {password: 1234567}"),
        (
            "redis.url",
            "redis: {url: 'redis://broker:hunter2@127.0.0.1'}",
        ),
        (
            "redis.url",
            "redis: {url: 'http://broker:hunter2@127.0.0.1'}",
        ),
    ] {
        let text = wrong(&format!("{LEAST}\n{line}\n"));
        assert!(text.contains(key), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("1234567"),
            "{text}"
        );
    }
}

#[test]
fn a_secret_at_a_wrong_place_is_not_repeated_either() {
    let credential = LEAST.split("  credential:").next().unwrap();
    for (key, text) in [
        (
            "azure.credential.client_secret: ",
            format!("{credential}  credential: {{client_secret: hunter2}}\n"),
        ),
        (
            "azure.credential: ",
            format!("{credential}  credential: hunter2\n"),
        ),
        ("redis: ", format!("{LEAST}\nredis: hunter2\n")),
        (
            "azure.endpoints.arm: ",
            format!("{LEAST}  endpoints: {{arm: 'https://broker:hunter2@arm.test'}}\n"),
        ),
        (
            "azure.endpoints.graph: ",
            format!("{LEAST}  endpoints: {{graph: 'https://hunter2@graph.test'}}\n"),
        ),
        (
            "YAML",
            format!("{LEAST}\nredis: {{password: hunter2\nlog: {{}}\n"),
        ),
        ("YAML", format!("{LEAST}\nredis:\n  password: hunter2: x\n")),
        ("YAML", "hunter2".to_owned()),
    ] {
        let text = wrong(&text);
        assert!(text.contains(key), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_secret_comes_from_its_file_and_is_never_printed() {
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    let config = Config::load(Some(&written(
        &dir,
        &format!("{LEAST}\nredis: {{password_file: {}}}\n", secret.display()),
    )))
    .unwrap();
    let password = config.redis.password().unwrap().unwrap();
    assert_eq!(password.expose(), "hunter2");
    assert!(!format!("{password:?} {config:?}").contains("hunter2"));
}

/// The least, with this as its credential.
fn least_as(credential: &str) -> String {
    let before = LEAST.split("  credential:").next().unwrap();
    format!("{before}  credential: {credential}\n")
}

#[test]
fn the_broker_is_one_and_says_who() {
    let id = "44444444-4444-4444-8444-444444444444";
    let managed = |client_id| Credential::ManagedIdentity(ManagedIdentityCredential { client_id });
    for (text, credential) in [
        ("{managed_identity: {}}", managed(None)),
        (
            "{managed_identity: {client_id: 44444444-4444-4444-8444-444444444444}}",
            managed(Some(id.parse().unwrap())),
        ),
        (
            "{developer_tools: {}}",
            Credential::DeveloperTools(DeveloperToolsCredential {}),
        ),
        (
            "{workload_identity: {client_id: 44444444-4444-4444-8444-444444444444, token_file: /t}}",
            Credential::WorkloadIdentity(WorkloadIdentityCredential {
                client_id: id.parse().unwrap(),
                token_file: "/t".into(),
            }),
        ),
    ] {
        let config = load(&least_as(text)).unwrap();
        assert_eq!(config.azure.credential, credential);
    }
}

#[test]
fn a_credential_that_is_none_or_two_or_another_is_told() {
    for (credential, told) in [
        (
            "{managed_identity: {}, developer_tools: {}}",
            "managed_identity and developer_tools are both set",
        ),
        (
            "{client_secret: {client_id: 44444444-4444-4444-8444-444444444444}, managed_identity: {}}",
            "client_secret and managed_identity are both set",
        ),
        ("{}", "azure.credential: empty: set client_secret, "),
        ("{managed_identity: }", "is written with {} behind it"),
        (
            "{certificate: {}}",
            "azure.credential.certificate: unknown key",
        ),
        (
            "{developer_tools: {tool: az}}",
            "azure.credential.developer_tools.tool: unknown key",
        ),
        (
            "{managed_identity: {client_id: ours}}",
            "azure.credential.managed_identity.client_id: ",
        ),
        (
            "{client_secret: {}}",
            "azure.credential.client_secret.client_id: required, and not set\n",
        ),
    ] {
        let text = wrong(&least_as(credential)) + "\n";
        assert!(text.contains(told), "{told:?} is not in\n{text}");
    }
}

#[test]
fn a_cloud_brings_its_endpoints_and_each_can_be_another() {
    for cloud in Cloud::ALL {
        let config = load(&format!(
            "{LEAST}  cloud: {cloud}\n  endpoints: {{graph: 'https://graph.test:8443'}}\n"
        ))
        .unwrap();
        assert_eq!(config.azure.cloud, cloud);
        let endpoints = config.azure.endpoints;
        assert_eq!(endpoints.arm.as_str(), format!("{}/", cloud.origins().arm));
        assert_eq!(
            endpoints.entra.as_str(),
            format!("{}/", cloud.origins().entra)
        );
        assert_eq!(endpoints.graph.as_str(), "https://graph.test:8443/");
    }
    assert_eq!(load(LEAST).unwrap().azure.cloud, Cloud::Public);
    let text = wrong(&format!("{LEAST}  cloud: germany\n"));
    assert!(
        text.contains("azure.cloud: ") && text.contains("usgovernment"),
        "{text}"
    );
}

#[test]
fn an_endpoint_of_another_cloud_or_service_is_told() {
    let text = wrong(&format!(
        "{LEAST}  cloud: usgovernment
  endpoints:
    arm: https://management.azure.com
    entra: https://login.chinacloudapi.cn
    graph: https://login.microsoftonline.us
"
    ));
    for part in [
        "azure.endpoints.arm: https://management.azure.com/ is in the cloud public, and azure.cloud is usgovernment",
        "azure.endpoints.entra: https://login.chinacloudapi.cn/ is in the cloud china",
        "azure.endpoints.graph: https://login.microsoftonline.us/ is where azure.endpoints.entra belongs",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn the_page_of_settings_has_every_key_with_its_default() {
    let page = include_str!("../../docs/configuration.md");
    let mut keys = BTreeMap::new();
    let dir = TempDir::new().unwrap();
    let secret = LEAST.replace("workload_identity", "client_secret").replace(
        "token_file: /var/run/secrets/azure/tokens/azure-identity-token",
        &format!("client_secret_file: {}", written(&dir, "s").display()),
    );
    let file = written(&dir, "s").display().to_string();
    let with_tls =
        format!("{LEAST}\nserver: {{tls: {{certificate_file: {file}, key_file: {file}}}}}\n");
    for text in [
        LEAST.to_owned(),
        secret,
        with_tls,
        least_as("{managed_identity: {}}"),
        least_as("{developer_tools: {}}"),
    ] {
        let config = serde_json::to_value(load(&text).unwrap()).unwrap();
        flatten("", &config, &mut keys);
    }
    let rows: BTreeMap<String, String> = page.lines().filter_map(row).collect();
    for (key, default) in &keys {
        let told = rows
            .get(key)
            .unwrap_or_else(|| panic!("{key} is not on the page"));
        // Set in what is the least: either this or client certificates are needed.
        let is_set = told == "required" || key == "authentication.audiences";
        assert!(
            is_set || told == default,
            "{key}: {told} on the page, {default} in the code"
        );
    }
    for key in rows.keys() {
        assert!(
            keys.contains_key(key),
            "{key} is on the page and nowhere else"
        );
    }
}

/// Key and default of a row of a table of settings.
fn row(line: &str) -> Option<(String, String)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let key = cells.next()?.strip_suffix('`')?;
    let default = cells.next()?.trim_matches('`');
    Some((key.to_owned(), default.to_owned()))
}

fn flatten(path: &str, value: &serde_json::Value, keys: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(fields) if fields.is_empty() => {
            keys.insert(path.to_owned(), "{}".to_owned());
        }
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&below, value, keys);
            }
        }
        serde_json::Value::Null => {
            keys.insert(path.to_owned(), "none".to_owned());
        }
        serde_json::Value::String(text) => {
            keys.insert(path.to_owned(), text.clone());
        }
        other => {
            keys.insert(path.to_owned(), other.to_string());
        }
    }
}
