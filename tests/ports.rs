//! A port that is taken is named, with what set it: nobody has to guess which of seven it is.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

const CONFIG: &str = "
server: {allow_plaintext: true, listen: '127.0.0.1:0'}
authentication: {audiences: [44444444-4444-4444-8444-444444444444]}
azure:
  tenant_id: 33333333-3333-4333-8333-333333333333
  subscriptions: [11111111-1111-4111-8111-111111111111]
  credential: {managed_identity: {}}
";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_aks-access-broker"))
}

/// Runs a command that has to end because of a port, and asserts that it names what set it, and the port.
fn assert_named(mut command: Command, by: &str, port: u16) {
    let ended = command.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success(), "{by}: {told}");
    for part in [by, &port.to_string(), "in use"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[test]
fn the_broker_names_the_setting_and_the_port() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("broker.yaml");
    fs::write(&config, CONFIG).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (key, variable) in [
        ("server.listen", "AKS_ACCESS_BROKER__SERVER__LISTEN"),
        ("metrics.listen", "AKS_ACCESS_BROKER__METRICS__LISTEN"),
    ] {
        let mut command = program();
        command.arg("serve").arg("--config").arg(&config);
        command.env(variable, address.to_string());
        assert_named(command, key, address.port());
    }
}

#[test]
fn the_emulator_and_dev_name_the_port_and_dev_the_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let of_the_emulator = ["--arm-port", "--graph-port", "--entra-port", "--admin-port"];
    for option in of_the_emulator {
        let mut command = program();
        command.args(["emulator", option, &port.to_string()]);
        assert_named(command, "127.0.0.1", port);
    }
    for option in ["--grpc-port", "--redis-port"]
        .into_iter()
        .chain(of_the_emulator)
    {
        let mut command = program();
        command.args(["dev", option, &port.to_string()]);
        assert_named(command, option, port);
    }
    // Taken by another option.
    drop(taken);
    let mut command = program();
    let port_text = port.to_string();
    command.args(["dev", "--redis-port", &port_text, "--arm-port", &port_text]);
    assert_named(command, "--arm-port", port);
}
