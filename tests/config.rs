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
const FILE: &str = "
azure:
  tenant_id: 33333333-3333-4333-8333-333333333333
  credential: {client_secret: {client_id: 44444444-4444-4444-8444-444444444444}}
";

fn broker(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("broker.yaml");
    fs::write(&file, FILE).unwrap();
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
        noted.contains("serve does not start") && noted.contains("allow_unauthenticated_callers"),
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

#[test]
fn serve_does_not_start_before_the_operator_has_accepted_that_callers_are_unauthenticated() {
    let served = broker(&["serve"], &[SUBSCRIPTIONS, (SECRET, "s")]);
    assert!(!served.status.success());
    let told = text(&served.stderr);
    assert!(
        told.contains("not authenticated yet")
            && told.contains("server.allow_unauthenticated_callers"),
        "{told}"
    );
}
