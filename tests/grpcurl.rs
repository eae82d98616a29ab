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

/// A terminal in which the first lines of the README have been typed already.
struct Terminal {
    setup: String,
}

impl Terminal {
    fn new(dev: &Dev) -> Self {
        let setup = blocks()
            .into_iter()
            .find(|block| block.contains("broker() {"))
            .unwrap();
        // The tools are there: `tools` has seen to it.
        let setup = setup.lines().filter(|line| !line.starts_with("make "));
        Self {
            setup: format!("{}\n{}", dev.exports, setup.collect::<Vec<_>>().join("\n")),
        }
    }

    /// Types lines, and gives the messages that were printed.
    fn types(&self, lines: &str) -> Vec<Value> {
        tools();
        let output = Command::new("bash")
            .args([
                "-euo",
                "pipefail",
                "-c",
                &format!("{}\n{lines}", self.setup),
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
}

/// The command of the README that calls an RPC, here-document and all.
fn readme(rpc: &str) -> String {
    let call = format!("broker {rpc} ");
    let blocks = blocks();
    let block = blocks.iter().find(|block| block.contains(&call)).unwrap();
    let lines = &block[block.find(&call).unwrap()..];
    let end = match lines.lines().next().unwrap() {
        first if first.contains("<<JSON") => lines.find("\nJSON").unwrap() + "\nJSON\n".len(),
        first => first.len(),
    };
    lines.get(..end).unwrap_or(lines).to_owned()
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
    let call = grpcurl(&["-d", request, dev.says("grpc"), &format!("{SERVICE}/Grant")]);
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
    let call = grpcurl(&["-d", "{}", dev.says("grpc"), &format!("{SERVICE}/Offboard")]);
    let told = String::from_utf8(call.stderr).unwrap();
    assert!(
        told.contains("Unimplemented") && told.contains("NOT_IMPLEMENTED"),
        "{told}"
    );
    assert!(dev.end_by(Signal::TERM).success());
}

#[test]
fn the_lines_of_the_readme_do_what_it_says() {
    let state = TempDir::new().unwrap();
    let dev = Dev::start(state.path());
    let terminal = Terminal::new(&dev);

    let granted = &terminal.types(&readme("Grant"))[0];
    assert_eq!(text(granted, "/grant/state"), "STATE_PENDING");
    let follow = |job: &str| {
        let told = terminal.types(&readme("WatchJob").replace("JOB_ID", job));
        let last = told.last().unwrap();
        assert_eq!(text(last, "/job/state"), "STATE_SUCCEEDED", "{told:?}");
    };
    follow(text(granted, "/job/jobId"));
    let check = || terminal.types(&readme("CheckAccess")).remove(0);
    let allowed = check();
    assert_eq!(text(&allowed, "/decision"), "DECISION_ALLOWED");
    assert!(
        allowed.pointer("/permission/paths/0/managed").is_some(),
        "{allowed}"
    );

    let revoke = readme("Revoke").replace("GRANT_ID", text(granted, "/grant/grantId"));
    follow(text(&terminal.types(&revoke)[0], "/job/jobId"));
    assert_eq!(text(&check(), "/decision"), "DECISION_DENIED");
    assert!(dev.end_by(Signal::TERM).success());
}
