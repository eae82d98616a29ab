//! Shows that the test can refuse: bad sources that it must see through, and good ones that it must let be.

use std::path::Path;

use super::{MAX_LINES, arrows_of_the_document, reach, violations};

/// What is said of a file with a proper header.
fn said_of(file: &str, code: &str) -> Vec<String> {
    violations(Path::new(file), &format!("//! What it is for.\n{code}"))
}

#[track_caller]
fn refused(because: &str, file: &str, codes: &[&str]) {
    for code in codes {
        let said = said_of(file, code);
        assert!(
            said.iter().any(|problem| problem.contains(because)),
            "{code:?} in {file} should be refused because {because:?}; said: {said:?}"
        );
    }
}

#[track_caller]
fn accepted(file: &str, codes: &[&str]) {
    for code in codes {
        let said = said_of(file, code);
        assert!(said.is_empty(), "{code:?} in {file}: {said:?}");
    }
}

#[test]
fn an_edge_that_the_table_lacks_is_refused_however_it_is_written() {
    let file = "grpc/service.rs";
    let codes = [
        "use crate::store::Store;",
        "use crate::{domain::Grant, store::Store};",
        "use crate::{domain::{a, b}, store as s};",
        "use super::super::store;",
        "fn f(s: &crate::store::Store) {}",
        "fn f() { Vec::<crate::store::S>::new(); }",
        "fn f() { m!(a => crate::store::x()) }",
        "fn f() { for x in 0..crate::store::N {} }",
        "macro_rules! m { () => { $crate::store::x() } }",
        "struct S(pub (crate::store::T, u8));",
        "mod tests { use super::super::super::store; }",
    ];
    refused("grpc may not use store", file, &codes);
    let of_mod = ["use super::store;", "use super::{broker, store};"];
    refused("grpc may not use store", "grpc/mod.rs", &of_mod);
    refused("grpc may not use store", "grpc.rs", &of_mod);
}

#[test]
fn an_edge_of_the_table_is_accepted() {
    let codes = [
        "use crate::{broker::Broker, domain::{a, b}};",
        "use super::convert; use crate::grpc::status;",
        "mod tests { use super::*; use super::super::convert; }",
        "pub(crate) fn f() {} pub(in crate::grpc) struct S(pub(super) u8);",
        "fn f(self) { self.store.accept(); }",
    ];
    accepted("grpc/service.rs", &codes);
    accepted("cli/serve.rs", &["use crate::{azure, grpc, reconcile};"]);
}

#[test]
fn the_root_is_no_way_round() {
    let codes = [
        "use crate::*;",
        "use crate as everything;",
        "use crate::{self as everything};",
        "use super::*;",
    ];
    refused("root", "grpc/mod.rs", &codes);
    let main = ["use aks_access_broker::store;"];
    refused("main goes through cli", "main.rs", &main);
    accepted("main.rs", &["use aks_access_broker::cli;"]);
}

#[test]
fn a_crate_behind_a_boundary_is_refused_before_it() {
    let codes = [
        "use redis::Client;",
        "use redis;",
        "use ::redis::Client;",
        "fn f() { redis::cmd(); }",
        "fn f() -> ::redis::Value {}",
    ];
    refused("redis stays in store", "broker/grant.rs", &codes);
    refused("redis stays in store", "cli/serve.rs", &codes);
    let call = ["fn f() -> reqwest::Error {}"];
    refused(
        "reqwest stays in azure, caller, cli",
        "reconcile/apply.rs",
        &call,
    );
    let status = ["type S = tonic::Status;"];
    refused("tonic stays in grpc", "broker/grant.rs", &status);
    accepted("store/mod.rs", &codes);
    // A section of the configuration, and a variable, that happen to be called so.
    accepted("config/mod.rs", &["mod redis; fn f() { redis::read(); }"]);
    accepted("broker/grant.rs", &["fn f(redis: u8) -> u8 { redis }"]);
}

#[test]
fn the_contracts_types_are_refused_outside_grpc() {
    let codes = [
        "use crate::grpc::proto::Grant;",
        "use crate::grpc::{pb, service};",
    ];
    refused("stop at grpc", "cli/dev.rs", &codes);
    accepted("grpc/convert.rs", &["use super::proto::Grant;"]);
}

#[test]
fn domain_is_refused_clocks_and_the_world() {
    let codes = [
        "use std::time::{Duration, Instant};",
        "use std::{fmt, fs};",
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { Timestamp::now(); }",
        "fn f() { jiff::Timestamp::now(); }",
        "fn f() { tracing::info!(\"x\"); }",
        "#[tokio::test] async fn f() {}",
    ];
    refused("pure", "domain/plan.rs", &codes);
    let upwards = ["use crate::config::Settings;"];
    refused("domain may not use config", "domain/plan.rs", &upwards);
    let given = ["use std::time::Duration; fn f(now: jiff::Timestamp) {}"];
    accepted("domain/plan.rs", &given);
}

#[test]
fn an_unknown_module_a_bare_file_and_a_long_one_are_refused() {
    refused("not in the table", "helpers.rs", &[""]);
    let unknown = ["use crate::helpers::x;"];
    refused("grpc may not use helpers", "grpc/service.rs", &unknown);
    let long = "\n".repeat(MAX_LINES);
    refused("more than 500", "grpc/service.rs", &[&long]);
    let bare = violations(Path::new("grpc/service.rs"), "// Says nothing.\n");
    assert!(bare.iter().any(|said| said.contains("//!")), "{bare:?}");
}

#[test]
fn a_task_that_nobody_watches_is_refused_however_it_is_started() {
    let codes = [
        "fn f() { tokio::spawn(g()); }",
        "use tokio::spawn; fn f() { spawn(g()); }",
        "use tokio::{spawn as go}; fn f() { go(g()); }",
        "use tokio::task; fn f() { task::spawn(g()); }",
        "use tokio as t; fn f() { t::spawn(g()); }",
        "fn f() { tokio::task::spawn_blocking(g); }",
        "fn f() { std::thread::spawn(g); }",
        "use std::thread::Builder;",
        "fn f() { std::thread::scope(g); }",
        "use tokio::task::JoinSet;",
        "fn f(tasks: &tokio_util::task::TaskTracker) {}",
        "use tokio::runtime::Handle;",
        "fn f() { tokio::runtime::Runtime::new(); }",
    ];
    refused("spawned by cli's Tasks", "view/own.rs", &codes);
    // What is listed is listed as often as it is there.
    let twice = ["fn f() { tokio::spawn(g()); tokio::spawn(g()); }"];
    refused("2 times", "store/link.rs", &twice);
    refused("0 times", "store/link.rs", &["fn f() {}"]);
    accepted("store/link.rs", &["fn f() { tokio::spawn(g()); }"]);
    let others = [
        "fn f(child: Command) { child.spawn(); }",
        "fn f(scope: &Scope) -> Scope { scope.clone() }",
    ];
    accepted("view/own.rs", &others);
    accepted("view/own/tests.rs", &["fn f() { tokio::spawn(g()); }"]);
}

#[test]
fn a_picture_that_lies_is_seen() {
    let drawn = |text: &str| {
        reach(&arrows_of_the_document(&format!(
            "flowchart TD\n{text}```\n"
        )))
    };
    let honest = drawn("    grpc --> broker\n    broker --> store & domain\n");
    assert_eq!(honest["grpc"].len(), 3);
    let hides_one = drawn("    grpc --> broker\n    broker --> domain\n");
    assert_ne!(honest, hides_one);
    let adds_one =
        drawn("    grpc --> broker\n    broker --> store & domain\n    store --> grpc\n");
    assert_ne!(honest, adds_one);
}
