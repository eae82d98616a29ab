//! The configuration as an operator meets it: the real command, a real file, real environment variables.

#![allow(clippy::unwrap_used)] // clippy lets tests unwrap, but not the functions that they share

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

const SECRET: &str = "AKS_ACCESS_BROKER__AZURE__CREDENTIAL__CLIENT_SECRET__CLIENT_SECRET";
const SUBSCRIPTIONS: (&str, &str) = (
    "AKS_ACCESS_BROKER__AZURE__SUBSCRIPTIONS",
    "[11111111-1111-4111-8111-111111111111, 22222222-2222-4222-8222-222222222222]",
);
const AUDIENCES: (&str, &str) = (
    "AKS_ACCESS_BROKER__AUTHENTICATION__AUDIENCES",
    "[44444444-4444-4444-8444-444444444444]",
);
const FILE: &str = "
authentication: {audiences: [44444444-4444-4444-8444-444444444444]}
azure:
  tenant_id: 33333333-3333-4333-8333-333333333333
  credential: {client_secret: {client_id: 44444444-4444-4444-8444-444444444444}}
";

fn broker(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    broker_with(FILE, arguments, variables)
}

fn broker_with(config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("broker.yaml");
    fs::write(&file, config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_aks-access-broker"))
        .args(arguments)
        .arg("--config")
        .arg(&file)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_environment_goes_over_the_file_and_secrets_are_not_printed() {
    // A secret of digits stays a text, its zeros with it.
    let checked = broker(
        &["config", "check"],
        &[
            SUBSCRIPTIONS,
            (SECRET, "0012"),
            ("AKS_ACCESS_BROKER__RECONCILER__LEASE", "90s"),
            // Kubernetes sets its like in every pod beside a service of that name: not ours.
            ("AKS_ACCESS_BROKER_PORT", "tcp://10.0.0.1:50051"),
        ],
    );
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let printed = text(&checked.stdout);
    for part in [
        "lease: 1m 30s",
        "- 22222222-2222-4222-8222-222222222222",
        "client_secret: (redacted)",
    ] {
        assert!(printed.contains(part), "{part:?} is not in\n{printed}");
    }
    assert!(!printed.contains("0012"), "{printed}");
    let noted = text(&checked.stderr);
    assert!(
        noted.contains("serve does not start") && noted.contains("server.allow_plaintext"),
        "{noted}"
    );
}

#[test]
fn an_unknown_variable_is_refused_by_its_name() {
    let checked = broker(
        &["config", "check"],
        &[
            SUBSCRIPTIONS,
            (SECRET, "s"),
            ("AKS_ACCESS_BROKER__SERVER__LISTN", "[::]:1"),
            ("AKS_ACCESS_BROKER__SEVER__LISTEN", "[::]:1"),
        ],
    );
    assert!(!checked.status.success());
    let told = text(&checked.stderr);
    assert!(
        told.contains("server.listn: unknown key")
            && told.contains("AKS_ACCESS_BROKER__SERVER__LISTN"),
        "{told}"
    );
    assert!(told.contains("sever: unknown section"), "{told}");
}

/// What is wrong in the environment hides nothing of the file, and no value of a URL's is printed.
#[test]
fn everything_that_is_wrong_in_file_and_environment_is_told_at_once() {
    let config = format!("{FILE}server: {{max_connections: 0}}\nview: {{max_principals: 1}}\n");
    let checked = broker_with(
        &config,
        &["config", "check"],
        &[
            SUBSCRIPTIONS,
            (SECRET, "s"),
            ("AKS_ACCESS_BROKER__SERVER__DRAIN", "long"),
            ("AKS_ACCESS_BROKER__SERVER____LISTEN", "[::]:1"),
            ("AKS_ACCESS_BROKER__RECONCILER__WORKRES", "3"),
            (
                "AKS_ACCESS_BROKER__REDIS__URL",
                "redis://:hunter2@127.0.0.1",
            ),
            (
                "AKS_ACCESS_BROKER__AZURE__ENDPOINTS",
                "https://broker:hunter2@proxy.test",
            ),
        ],
    );
    assert!(!checked.status.success());
    let told = text(&checked.stderr);
    for part in [
        "server.drain: ",
        "SERVER____LISTEN: unknown key",
        "server.max_connections: 0 is not within",
        "server.tls: serve does not start with this",
        "view.max_principals: 1 is too few",
        "reconciler.workres: unknown key",
        "(from the environment: AKS_ACCESS_BROKER__RECONCILER__WORKRES)",
        "redis.url: a URL with a password in it",
        "azure.endpoints: ",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn serve_does_not_start_in_plain_text_before_the_operator_has_accepted_that() {
    let served = broker(&["serve"], &[SUBSCRIPTIONS, (SECRET, "s")]);
    assert!(!served.status.success());
    let told = text(&served.stderr);
    assert!(
        told.contains("in plain text") && told.contains("server.allow_plaintext"),
        "{told}"
    );
}

/// What AKS's webhook puts into the environment of a pod.
const INJECTED: [(&str, &str); 4] = [
    ("AZURE_CLIENT_ID", "44444444-4444-4444-8444-444444444444"),
    ("AZURE_TENANT_ID", "33333333-3333-4333-8333-333333333333"),
    (
        "AZURE_FEDERATED_TOKEN_FILE",
        "/var/run/secrets/azure/tokens/azure-identity-token",
    ),
    ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
];

fn checked(config: &str, variables: &[(&str, &str)]) -> Output {
    broker_with(
        config,
        &["config", "check"],
        &[variables, &[SUBSCRIPTIONS, AUDIENCES]].concat(),
    )
}

#[test]
fn in_a_pod_with_workload_identity_the_webhook_s_variables_are_the_defaults() {
    let whole = checked(
        "azure: {cloud: usgovernment, credential: {workload_identity: {}}}",
        &INJECTED,
    );
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    for part in [
        "tenant_id: 33333333-3333-4333-8333-333333333333",
        "client_id: 44444444-4444-4444-8444-444444444444",
        "token_file: /var/run/secrets/azure/tokens/azure-identity-token",
        "entra: https://login.microsoftonline.us/",
        "arm: https://management.usgovcloudapi.net/",
    ] {
        let printed = text(&whole.stdout);
        assert!(printed.contains(part), "{part:?} is not in\n{printed}");
    }

    // What is set goes before them.
    let set = checked(
        "azure:
  tenant_id: 55555555-5555-4555-8555-555555555555
  credential: {workload_identity: {client_id: 66666666-6666-4666-8666-666666666666}}
  endpoints: {entra: 'https://entra.test'}",
        &INJECTED,
    );
    assert!(set.status.success(), "{}", text(&set.stderr));
    for part in ["55555555-", "client_id: 66666666-", "https://entra.test/"] {
        let printed = text(&set.stdout);
        assert!(printed.contains(part), "{part:?} is not in\n{printed}");
    }
}

#[test]
fn what_neither_the_configuration_nor_the_webhook_gives_is_told_by_both_names() {
    let nothing = checked("azure: {credential: {workload_identity: {}}}", &[]);
    let told = text(&nothing.stderr);
    for part in [
        "azure.tenant_id: required, and not set, nor is AZURE_TENANT_ID in the environment",
        "workload_identity.client_id: required, and not set, nor is AZURE_CLIENT_ID in",
        "workload_identity.token_file: required, and not set, nor is AZURE_FEDERATED_TOKEN_FILE in",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    assert!(!nothing.status.success());

    // Another credential does not look there.
    let another = checked("azure: {credential: {managed_identity: {}}}", &INJECTED);
    assert!(!another.status.success());
    let told = text(&another.stderr);
    assert!(
        told.contains("azure.tenant_id: required, and not set\n"),
        "{told}"
    );
}

#[test]
fn a_webhook_of_another_cloud_is_told_with_the_variable_that_said_so() {
    let mixed = checked("azure: {credential: {workload_identity: {}}}", &INJECTED);
    assert!(!mixed.status.success());
    let told = text(&mixed.stderr);
    assert!(
        told.contains(
            "azure.endpoints.entra: https://login.microsoftonline.us/ is in the cloud usgovernment"
        ) && told.contains("(from the environment: AZURE_AUTHORITY_HOST)"),
        "{told}"
    );
}
