//! `emulator`: runs the Azure emulator alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use azure_emulator::{Emulator, Options, Ports, Settings, TokenError, World};
use clap::Args;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Log;
use crate::telemetry;

use super::signals::Signals;
use super::{AnyError, block_on};

/// `emulator …`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) world: WorldArguments,
    #[command(flatten)]
    pub(super) ports: PortArguments,
    /// Where changes, keys and the CA outlive the process; without it they are forgotten.
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Where to write the certificate that clients must trust (PEM).
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
}

/// What the emulated Azure is like.
#[derive(Clone, Debug, Args)]
pub(super) struct WorldArguments {
    /// The world to begin with (YAML); a small company unless given. Left aside where the state directory
    /// holds one already.
    #[arg(long, value_name = "FILE")]
    pub(super) world: Option<PathBuf>,
    /// Azure's manners (YAML): lags, budgets, conflicts.
    #[arg(long, value_name = "FILE")]
    pub(super) settings: Option<PathBuf>,
    /// Decides what happens by chance.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) seed: u64,
}

/// TCP ports on 127.0.0.1; 0 takes a free one.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PortArguments {
    /// Azure Resource Manager's port.
    #[arg(long = "arm-port", value_name = "PORT", default_value_t = 0)]
    pub(super) arm: u16,
    /// Microsoft Graph's port.
    #[arg(long = "graph-port", value_name = "PORT", default_value_t = 0)]
    pub(super) graph: u16,
    /// Entra ID's port.
    #[arg(long = "entra-port", value_name = "PORT", default_value_t = 0)]
    pub(super) entra: u16,
    /// The admin listener's port.
    #[arg(long = "admin-port", value_name = "PORT", default_value_t = 0)]
    pub(super) admin: u16,
}

/// What the emulator prints, as one line of JSON, once it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Azure Resource Manager.
    pub(super) arm: String,
    /// Microsoft Graph.
    pub(super) graph: String,
    /// Entra ID.
    pub(super) entra: String,
    /// The admin listener.
    pub(super) admin: String,
    /// Where the certificate that clients must trust was written.
    pub(super) ca_file: Option<PathBuf>,
    /// Tokens with which applications may call the one that has app roles to give, by their names.
    pub(super) tokens: BTreeMap<String, String>,
    /// What exists.
    pub(super) world: World,
}

#[derive(Debug, Error)]
enum EmulatorError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} does not fit: {message}", path.display())]
    Unfit { path: PathBuf, message: String },
    #[error("there can be no token for a caller: {0}")]
    Token(#[from] TokenError),
}

/// A week, in seconds: nobody wants to fetch another one while trying something out.
const TOKENS_LAST: i64 = 7 * 86_400;

pub(super) fn run(arguments: &Arguments) -> Result<(), AnyError> {
    telemetry::init(&Log::default())?;
    block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<(), AnyError> {
    let mut signals = Signals::take()?;
    let emulator = Emulator::start(options(arguments)?).await?;
    let line = serde_json::to_string(&ready(&emulator, arguments.ca_file.as_deref())?)?;
    writeln!(stdout(), "{line}")?;
    signals.next().await;
    tokio::select! {
        () = emulator.shutdown() => Ok(()),
        () = signals.next() => Err("told twice to end: calls under way were cut off".into()),
    }
}

fn options(arguments: &Arguments) -> Result<Options, EmulatorError> {
    let mut options = Options {
        ports: ports(arguments.ports),
        state_dir: arguments.state_dir.clone(),
        seed: arguments.world.seed,
        ..Options::default()
    };
    if let Some(path) = &arguments.world.world {
        options.world = parsed(path, World::from_yaml)?;
    }
    if let Some(path) = &arguments.world.settings {
        options.settings = parsed(path, |text| serde_saphyr::from_str::<Settings>(text))?;
    }
    Ok(options)
}

fn ports(arguments: PortArguments) -> Ports {
    Ports {
        arm: arguments.arm,
        graph: arguments.graph,
        entra: arguments.entra,
        admin: arguments.admin,
    }
}

fn parsed<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, EmulatorError> {
    let text = fs::read_to_string(path).map_err(|source| EmulatorError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|error| EmulatorError::Unfit {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn ready(emulator: &Emulator, ca_file: Option<&Path>) -> Result<Ready, EmulatorError> {
    if let Some(path) = ca_file {
        fs::write(path, emulator.ca_pem()).map_err(|source| EmulatorError::Unwritable {
            path: path.to_owned(),
            source,
        })?;
    }
    let urls = emulator.urls();
    Ok(Ready {
        arm: urls.arm.clone(),
        graph: urls.graph.clone(),
        entra: urls.entra.clone(),
        admin: urls.admin.clone(),
        ca_file: ca_file.map(Path::to_owned),
        tokens: tokens(emulator)?,
        world: emulator.world(),
    })
}

/// Tokens with which the world's applications may call the one that has app roles to give, by their names.
fn tokens(emulator: &Emulator) -> Result<BTreeMap<String, String>, EmulatorError> {
    let world = emulator.world();
    let mut applications = world.service_principals.iter();
    let Some(called) = applications.find(|it| !it.app_role_assignments.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    let callers = world.service_principals.iter();
    callers
        .filter(|caller| caller.id != called.id)
        .map(|caller| {
            let mut claims = emulator.claims(caller.id, &called.app_id.to_string())?;
            claims.exp = claims.iat + TOKENS_LAST;
            Ok((caller.display_name.clone(), emulator.sign(&claims)?))
        })
        .collect()
}
