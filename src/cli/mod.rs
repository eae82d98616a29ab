//! The commands. Everything is wired together here, and only here.

mod config;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Gives and takes back access to AKS clusters, durably, through Azure RBAC.
#[derive(Debug, Parser)]
#[command(name = "aks-access-broker", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(ConfigFile),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(config::Command),
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration file (YAML). Environment variables `AKS_ACCESS_BROKER__SECTION__KEY` go over it.
    #[arg(long = "config", value_name = "FILE", env = "AKS_ACCESS_BROKER_CONFIG")]
    path: Option<PathBuf>,
}

/// Runs the command that the process was started with. What goes wrong is printed to standard error.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// An error of any kind: what a command ends with is printed and never matched on.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl Command {
    fn run(self) -> Result<(), AnyError> {
        match self {
            Self::Serve(file) => serve::run(&file),
            Self::Config(command) => command.run(),
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the command's own last word, where logging may not be set up"
)]
fn report(error: &dyn std::error::Error) {
    eprintln!("aks-access-broker: {error}");
}
