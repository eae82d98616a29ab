//! The three processes of the world, each with its configuration, and how one sees that it is ready.
//!
//! Their names sort in the order in which they have to end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use tokio::process::Command;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cli::emulator::Ready;
use crate::cli::serve::LISTENING;

use super::children::{Child, ChildError};
use super::description::Description;
use super::state_dir::{StateDir, at};
use super::{Arguments, DevError, Running};

/// Starts Redis as the broker wants it (I1): everything that is acknowledged is on disk.
pub(super) async fn redis(
    running: &mut Running,
    state: &StateDir,
    port: u16,
) -> Result<SocketAddr, DevError> {
    let address = free(port)?;
    let directory = state.make_dir("redis")?;
    let configuration = state.write("redis/redis.conf", &redis_conf(address.port(), &directory))?;
    let mut command = Command::new("redis-server");
    command.arg(configuration);
    let remedy = "; install it (Debian: redis-server), or use `make dev`, which does";
    let child = running.keep(Child::start(state, "3-redis", &mut command, remedy)?);
    let is_ready = |line: &str| line.contains("Ready to accept connections").then_some(());
    child.ready(is_ready).await?;
    Ok(address)
}

fn redis_conf(port: u16, directory: &Path) -> String {
    let directory = directory.display().to_string();
    let directory = directory.replace('\\', "\\\\").replace('"', "\\\"");
    [
        "bind 127.0.0.1",
        &format!("port {port}"),
        &format!("dir \"{directory}\""),
        "appendonly yes",
        "appendfsync always",
        "no-appendfsync-on-rewrite no",
        "save \"\"",
        "maxmemory-policy noeviction",
        "daemonize no",
        // A process that names itself otherwise could not be told from somebody else's Redis.
        "set-proc-title no",
        "",
    ]
    .join("\n")
}

/// Starts the Azure emulator.
pub(super) async fn emulator(
    running: &mut Running,
    state: &StateDir,
    arguments: &Arguments,
) -> Result<Ready, DevError> {
    let directory = state.make_dir("emulator")?;
    let mut command = own_command(state)?;
    command
        .arg("emulator")
        .arg("--state-dir")
        .arg(&directory)
        .arg("--ca-file")
        .arg(state.join("ca.pem"));
    let ports = arguments.ports;
    for (option, port) in [
        ("--arm-port", ports.arm),
        ("--graph-port", ports.graph),
        ("--entra-port", ports.entra),
        ("--admin-port", ports.admin),
    ] {
        command.arg(option).arg(port.to_string());
    }
    let world = &arguments.world;
    command.arg("--seed").arg(world.seed.to_string());
    for (option, file) in [("--world", &world.world), ("--settings", &world.settings)] {
        if let Some(file) = file {
            command.arg(option).arg(file);
        }
    }
    let child = running.keep(Child::start(state, "2-emulator", &mut command, "")?);
    let line = child.ready(|line| Some(line.to_owned())).await?;
    Ok(serde_json::from_str(&line).map_err(|error| child.unexpected(&error))?)
}

/// Starts the broker, and waits until it is serving by its own word.
pub(super) async fn broker(
    running: &mut Running,
    state: &StateDir,
    port: u16,
    world: &Description,
) -> Result<SocketAddr, DevError> {
    state.write("client-secret", &world.azure.client_secret)?;
    let configuration = state.write("broker.yaml", &world.broker_yaml(port, state)?)?;
    let mut command = own_command(state)?;
    command.arg("serve").arg("--config").arg(configuration);
    let child = running.keep(Child::start(state, "1-broker", &mut command, "")?);
    let address = child
        .ready(|line| line.strip_prefix(LISTENING)?.parse().ok())
        .await?;
    tokio::select! {
        serving = serving(address) => serving.map_err(|status| child.unexpected(&status))?,
        ended = child.ended() => return Err(ended.into()),
    }
    Ok(address)
}

/// Follows the broker's health until it says that it serves.
async fn serving(address: SocketAddr) -> Result<(), tonic::Status> {
    let channel = tonic::transport::Endpoint::try_from(format!("http://{address}"))
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?
        .connect()
        .await
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let request = HealthCheckRequest::default();
    let mut health = HealthClient::new(channel)
        .watch(request)
        .await?
        .into_inner();
    while let Some(told) = health.message().await? {
        if told.status() == ServingStatus::Serving {
            return Ok(());
        }
    }
    Err(tonic::Status::unavailable("it ended before it was serving"))
}

/// This program, to be run as another process.
fn own_command(state: &StateDir) -> Result<Command, ChildError> {
    let program = std::env::current_exe().map_err(at(state.path()))?;
    let mut command = Command::new(program);
    // What is set for another broker on this machine is not meant for this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AKS_ACCESS_BROKER_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The port that was asked for, or one that is free now. Redis takes no socket from outside, so another
/// process may still take the port first: Redis then says so.
fn free(port: u16) -> Result<SocketAddr, DevError> {
    let taken = |source| DevError::Port {
        option: REDIS_PORT,
        port,
        source,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(taken)?;
    listener.local_addr().map_err(taken)
}

/// The option that sets Redis's port.
const REDIS_PORT: &str = "--redis-port";

/// Fails if a port that was asked for cannot be taken, or was asked for twice. Looked at before anything is started:
/// a child's own words would come after a while, and without the option that helps.
///
/// # Errors
/// [`DevError::Port`] names the option and the port.
pub(super) fn check_ports(arguments: &Arguments) -> Result<(), DevError> {
    let ports = arguments.ports;
    let asked_for = [
        ("--grpc-port", arguments.grpc_port),
        (REDIS_PORT, arguments.redis_port),
        ("--arm-port", ports.arm),
        ("--graph-port", ports.graph),
        ("--entra-port", ports.entra),
        ("--admin-port", ports.admin),
    ];
    let mut held = Vec::new();
    for (option, port) in asked_for.into_iter().filter(|(_, port)| *port != 0) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        held.push(listener.map_err(|source| DevError::Port {
            option,
            port,
            source,
        })?);
    }
    Ok(())
}
