//! The real `grpcurl` against the real service: what an operator types, and what the README promises.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

#[path = "dev/running.rs"]
mod running;

use running::Dev;

const SERVICE: &str = "aks.access.v1.AccessBrokerService";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tools() -> PathBuf {
    let tools = root().join("tests/tools/bin");
    assert!(
        tools.join("grpcurl").exists(),
        "there is no {}: `make tools` builds it (`make test` does so by itself)",
        tools.join("grpcurl").display()
    );
    tools
}

fn grpcurl(arguments: &[&str]) -> Output {
    let program = tools().join("grpcurl");
    Command::new(program)
        .arg("-plaintext")
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The README's blocks of commands, in their order.
fn blocks() -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let fenced = readme.split("\n```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.strip_prefix('\n'))
        .map(str::to_owned)
        .collect()
}

/// The messages that are printed when the README's lines are pasted into one terminal, one block after the
/// other, behind the line that `dev` ended its start with.
fn paste_the_readme(dev: &Dev) -> Vec<Value> {
    tools();
    let blocks = blocks();
    let first = blocks
        .iter()
        .position(|block| block.contains("broker() {"))
        .unwrap();
    let lines = blocks[first..].iter().flat_map(|block| block.lines());
    // The tools are there already, built with a lock that a test must not wait for.
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with("make ")).collect();
    let output = Command::new("bash")
        .args([
            "-euo",
            "pipefail",
            "-c",
            &format!("{}\n{}", dev.exports, lines.join("\n")),
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let printed = stdout(&output);
    serde_json::Deserializer::from_str(&printed)
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

fn text<'a>(message: &'a Value, path: &str) -> &'a str {
    let value = message.pointer(path);
    value
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {path} in {message}"))
}

#[test]
fn grpcurl_lists_and_describes_the_service() {
    let state = TempDir::new().unwrap();
    let dev = Dev::start(state.path());
    let services = stdout(&grpcurl(&[dev.says("grpc"), "list"]));
    for service in [
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let described = stdout(&grpcurl(&[dev.says("grpc"), "describe", SERVICE]));
    // The contract's comments travel along.
    assert!(
        described.contains("OK means that the wish is durable"),
        "{described}"
    );
    let request = stdout(&grpcurl(&[
        dev.says("grpc"),
        "describe",
        ".aks.access.v1.GrantRequest",
    ]));
    assert!(request.contains("string justification = 7;"), "{request}");
    let health = stdout(&grpcurl(&[
        "-d",
        &format!(r#"{{"service": "{SERVICE}"}}"#),
        dev.says("grpc"),
        "grpc.health.v1.Health/Check",
    ]));
    assert!(health.contains("SERVING"), "{health}");
    assert!(dev.end_by(Signal::TERM).success());
}

#[test]
fn a_bad_call_is_told_what_is_wrong_with_it() {
    let state = TempDir::new().unwrap();
    let dev = Dev::start(state.path());
    let request = r#"{"cluster": "prod", "access": {"azure_role": "AZURE_ROLE_RBAC_READER", "namespaces": ["Shop"]}}"#;
    let as_platform = dev.authorization("platform");
    let asked = |request, rpc| {
        let method = format!("{SERVICE}/{rpc}");
        grpcurl(&["-H", &as_platform, "-d", request, dev.says("grpc"), &method])
    };
    let call = asked(request, "Grant");
    assert!(!call.status.success());
    let told = String::from_utf8(call.stderr).unwrap();
    for part in [
        "Code: InvalidArgument",
        "google.rpc.BadRequest",
        "google.rpc.ErrorInfo",
        r#""reason": "INVALID_REQUEST""#,
        r#""field": "principal""#,
        r#""field": "cluster""#,
        r#""field": "access.namespaces[0]""#,
        r#""field": "ttl""#,
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    let call = asked("{}", "Offboard");
    let told = String::from_utf8(call.stderr).unwrap();
    assert!(
        told.contains("Unimplemented") && told.contains("NOT_IMPLEMENTED"),
        "{told}"
    );
    let call = grpcurl(&[
        "-d",
        "{}",
        dev.says("grpc"),
        &format!("{SERVICE}/ListGrants"),
    ]);
    let told = String::from_utf8(call.stderr).unwrap();
    assert!(
        told.contains("Unauthenticated") && told.contains("TOKEN_MISSING"),
        "{told}"
    );
    assert!(dev.end_by(Signal::TERM).success());
}

#[test]
fn the_lines_of_the_readme_do_what_it_says() {
    let state = TempDir::new().unwrap();
    let dev = Dev::start(state.path());
    let printed = paste_the_readme(&dev);

    let granted = &printed[0];
    assert_eq!(text(granted, "/grant/state"), "STATE_PENDING");
    let revoked = printed
        .iter()
        .find(|message| message.get("matchedGrants").is_some() && message.get("job").is_some())
        .unwrap();
    let listed = printed
        .iter()
        .find_map(|message| message.get("grants")?.as_array());
    assert_eq!(listed.unwrap().len(), 1, "{printed:#?}");
    let planned = printed
        .iter()
        .find_map(|message| message.get("plannedEffects")?.as_array());
    let changes = planned
        .unwrap()
        .iter()
        .map(|effect| text(effect, "/change"));
    assert_eq!(
        changes.collect::<Vec<_>>(),
        ["CHANGE_DELETE", "CHANGE_DELETE"]
    );
    let extended = printed
        .iter()
        .any(|message| message.pointer("/job/kind").and_then(Value::as_str) == Some("KIND_EXTEND"));
    assert!(extended, "{printed:#?}");
    for accepted in [granted, revoked] {
        let id = text(accepted, "/job/jobId");
        let is_of_job =
            |message: &&Value| message.pointer("/job/jobId").and_then(Value::as_str) == Some(id);
        let last = printed.iter().rfind(is_of_job).unwrap();
        assert_eq!(text(last, "/job/state"), "STATE_SUCCEEDED", "{printed:#?}");
    }
    let checks: Vec<&Value> = printed
        .iter()
        .filter(|message| message.get("decision").is_some())
        .collect();
    let [allowed, denied] = checks.as_slice() else {
        panic!("two checks, not {checks:#?}")
    };
    assert_eq!(text(allowed, "/decision"), "DECISION_ALLOWED");
    assert!(
        allowed.pointer("/permission/paths/0/managed").is_some(),
        "{allowed}"
    );
    assert_eq!(text(denied, "/decision"), "DECISION_DENIED");
    let trail = printed.last().unwrap();
    let trail = trail.get("events").and_then(Value::as_array).unwrap();
    let actions: Vec<&str> = trail.iter().map(|event| text(event, "/action")).collect();
    let expected = [
        "grant/revoked",
        "aks.access.v1.AccessBrokerService/Revoke",
        "aks.access.v1.AccessBrokerService/ExtendGrant",
        "grant/active",
        "aks.access.v1.AccessBrokerService/Grant",
    ];
    assert_eq!(actions, expected);
    assert!(dev.end_by(Signal::TERM).success());
}
