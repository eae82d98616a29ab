//! How an emulator is started.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::entra::SigningKeyError;
use crate::settings::Settings;
use crate::tls::TlsError;
use crate::world::{InvalidWorld, World};

/// What an emulator is started with. The default is the built-in world on free ports, forgotten at the end.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it listens.
    pub ports: Ports,
    /// What exists. Left aside when `state_dir` holds the state of an earlier run, which then goes on.
    pub world: World,
    /// How it behaves.
    pub settings: Settings,
    /// Where changes, keys and the CA outlive the process; none forgets them.
    pub state_dir: Option<PathBuf>,
    /// Decides which names have hash conflicts and which calls faults with a probability hit.
    pub seed: u64,
}

/// TCP ports on 127.0.0.1; 0 takes a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// Azure Resource Manager.
    pub arm: u16,
    /// Microsoft Graph.
    pub graph: u16,
    /// Entra ID.
    pub entra: u16,
    /// The admin listener.
    pub admin: u16,
}

/// Where an emulator listens, as `https://127.0.0.1:PORT` without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// Azure Resource Manager, in place of `https://management.azure.com`.
    pub arm: String,
    /// Microsoft Graph, in place of `https://graph.microsoft.com`.
    pub graph: String,
    /// Entra ID, in place of `https://login.microsoftonline.com`.
    pub entra: String,
    /// The admin listener.
    pub admin: String,
}

/// The emulator could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A port is taken.
    #[error("cannot listen on 127.0.0.1:{port}: {error}")]
    Listen {
        /// The port.
        port: u16,
        /// Why not.
        error: io::Error,
    },
    /// The world does not hold together.
    #[error(transparent)]
    World(#[from] InvalidWorld),
    /// The state of an earlier run could not be read, or the state directory not be written.
    #[error("state directory: {0}")]
    State(io::Error),
    /// No certificate could be made or read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No signing key could be made or read.
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
}
