//! `dev`: starts whole, ends whole, goes on where it was, and clears up after one that was killed.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

#[path = "dev/running.rs"]
mod running;

use running::{Dev, command};

/// Handles on the children of a `dev`, which tell their end whoever's children they are by then.
fn children(state: &Path) -> Vec<(Pid, OwnedFd)> {
    let files = fs::read_dir(state.join("pids")).unwrap();
    files
        .map(|file| {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let pid = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
            (pid, pidfd_open(pid, PidfdFlags::empty()).unwrap())
        })
        .collect()
}

fn has_ended(handle: &OwnedFd) -> bool {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&at_once)).unwrap() > 0
}

fn wait_for_end(handle: &OwnedFd) {
    poll(&mut [PollFd::new(handle, PollFlags::IN)], None).unwrap();
}

fn reachable(url: &str) -> bool {
    let authority = url.rsplit_once('/').map_or(url, |(_, authority)| authority);
    TcpStream::connect(authority).is_ok()
}

fn redis(dev: &Dev) -> redis::Connection {
    let client = redis::Client::open(dev.says("redis")).unwrap();
    client.get_connection().unwrap()
}

#[test]
fn dev_json_says_where_everything_is_and_who_is_there() {
    let state = TempDir::new().unwrap();
    let dev = Dev::start(state.path());
    for key in ["grpc", "arm", "graph", "entra", "emulator_admin", "redis"] {
        assert!(reachable(dev.says(key)), "{key}: {}", dev.says(key));
    }
    let ca = fs::read_to_string(dev.says("ca_file")).unwrap();
    assert!(ca.contains("BEGIN CERTIFICATE"), "{ca}");
    let clusters = dev.world["clusters"].as_array().unwrap();
    assert_eq!(clusters.len(), 5);
    let principals = dev.world["principals"].as_array().unwrap();
    for kind in ["User", "Group", "ServicePrincipal"] {
        assert!(principals.iter().any(|p| p["type"] == kind), "{kind}");
    }
    for key in ["name", "object_id", "type"] {
        assert!(principals.iter().all(|p| p[key].is_string()), "{key}");
    }
    let azure = &dev.world["azure"];
    assert_eq!(azure["subscription_ids"].as_array().unwrap().len(), 2);
    for key in ["tenant_id", "client_id", "client_secret"] {
        assert!(azure[key].is_string(), "{key}");
    }
    let settings: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("appendfsync")
        .query(&mut redis(&dev))
        .unwrap();
    assert_eq!(settings, ["appendfsync", "always"]);
    assert!(dev.end_by(Signal::TERM).success());
}

/// Every file and directory below a directory.
fn everything_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            let below = if path.is_dir() {
                everything_in(&path)
            } else {
                Vec::new()
            };
            [vec![path], below].concat()
        })
        .collect()
}

/// Secrets are among the files, and what the broker accepted.
#[test]
fn nobody_else_can_read_what_a_dev_writes_nor_what_an_earlier_one_left() {
    let state = TempDir::new().unwrap();
    for _ in 0..2 {
        let dev = Dev::start(state.path());
        let written = everything_in(state.path());
        let is_written = |end: &str| written.iter().any(|path| path.ends_with(end));
        for name in [
            "client-secret",
            "dev.json",
            "broker.yaml",
            "ca.pem",
            "1-broker.log",
        ] {
            assert!(is_written(name), "{name} is not among {written:?}");
        }
        assert!(
            written
                .iter()
                .any(|path| path.starts_with(state.path().join("redis")))
        );
        for path in &written {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
        assert!(dev.end_by(Signal::TERM).success());
        // As an earlier version left them.
        for path in everything_in(state.path()) {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    // What is not of a `dev` is left alone.
    let other = state.path().join("notes.txt");
    fs::write(&other, "mine").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let dev = Dev::start(state.path());
    let mode = fs::metadata(&other).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(dev.end_by(Signal::TERM).success());
}

#[test]
fn a_signal_ends_everything_and_the_next_dev_goes_on_where_it_was() {
    let state = TempDir::new().unwrap();
    let mut ca = None;
    for signal in [Signal::TERM, Signal::INT] {
        let dev = Dev::start(state.path());
        let started = children(state.path());
        assert_eq!(started.len(), 3);
        let before: Option<String> = redis::cmd("GETSET")
            .arg("marker")
            .arg("was here")
            .query(&mut redis(&dev))
            .unwrap();
        let authority = fs::read_to_string(dev.says("ca_file")).unwrap();
        match &ca {
            None => assert_eq!(before, None),
            Some(earlier) => {
                assert_eq!(before.as_deref(), Some("was here"));
                assert_eq!(&authority, earlier);
            }
        }
        ca = Some(authority);
        assert!(dev.end_by(signal).success());
        assert!(started.iter().all(|(_, handle)| has_ended(handle)));
        assert!(!state.path().join("dev.json").exists());
        assert!(children(state.path()).is_empty());
    }
}

#[test]
fn what_a_killed_dev_left_is_ended_by_the_next() {
    let state = TempDir::new().unwrap();
    let first = Dev::start(state.path());
    let left = children(state.path());
    first.end_by(Signal::KILL);
    assert!(left.iter().all(|(_, handle)| !has_ended(handle)));
    // One of them would not listen to a signal that asks.
    kill_process(left[0].0, Signal::STOP).unwrap();

    let second = Dev::start(state.path());
    assert!(left.iter().all(|(_, handle)| has_ended(handle)));
    assert!(reachable(second.says("grpc")));
    assert!(second.end_by(Signal::TERM).success());
}

#[test]
fn a_pid_that_became_somebody_elses_is_left_alone() {
    let state = TempDir::new().unwrap();
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    fs::create_dir(state.path().join("pids")).unwrap();
    let file = state.path().join("pids/3-redis.pid");
    fs::write(&file, format!("{}\n", bystander.id())).unwrap();
    let dev = Dev::start(state.path());
    assert!(bystander.try_wait().unwrap().is_none());
    assert!(dev.end_by(Signal::TERM).success());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_second_dev_in_the_same_place_is_refused() {
    let state = TempDir::new().unwrap();
    let dev = Dev::start(state.path());
    let second = command(state.path()).output().unwrap();
    assert!(!second.status.success());
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains("in use by another dev"), "{told}");
    assert!(state.path().join("dev.json").exists());
    assert!(dev.end_by(Signal::TERM).success());
}

#[test]
fn a_second_signal_does_not_wait_for_a_child_that_hangs() {
    let state = TempDir::new().unwrap();
    let mut dev = Dev::start(state.path());
    let started = children(state.path());
    for (pid, _) in &started {
        kill_process(*pid, Signal::STOP).unwrap();
    }
    dev.signal(Signal::TERM);
    // It has taken the first signal once its description is gone: only then is the next one the second.
    while state.path().join("dev.json").exists() {
        std::thread::yield_now();
    }
    dev.signal(Signal::TERM);
    assert!(!dev.ended().success());
    for (_, handle) in &started {
        wait_for_end(handle);
    }
}

#[test]
fn a_broker_that_ends_by_itself_ends_the_world_with_a_word() {
    let state = TempDir::new().unwrap();
    let mut dev = Dev::start(state.path());
    let started = children(state.path());
    let broker = fs::read_to_string(state.path().join("pids/1-broker.pid")).unwrap();
    let broker = Pid::from_raw(broker.trim().parse().unwrap()).unwrap();
    kill_process(broker, Signal::KILL).unwrap();
    assert!(!dev.ended().success());
    assert!(started.iter().all(|(_, handle)| has_ended(handle)));
}
