//! The commands. Everything is wired together here, and only here.

mod audit;
mod config;
#[cfg(feature = "dev")]
mod dev;
#[cfg(feature = "dev")]
mod emulator;
mod policy;
mod serve;
mod signals;
mod tasks;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use tasks::TaskEnded;

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
    /// Look at the audit trail.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Look at policies, before they count.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Run the Azure emulator alone. Prints, once it answers, where it listens and what there is, as JSON.
    #[cfg(feature = "dev")]
    Emulator(emulator::Arguments),
    /// Run Redis, the Azure emulator and the broker in this terminal.
    #[cfg(feature = "dev")]
    Dev(dev::Arguments),
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
            ExitCode::from(exit_code(error.as_ref()))
        }
    }
}

/// The exit code of a command that failed; `docs/configuration.md` explains it to operators.
fn exit_code(error: &(dyn std::error::Error + 'static)) -> u8 {
    if error.is::<TaskEnded>() {
        tasks::EXIT_CODE
    } else {
        1
    }
}

/// An error of any kind: what a command ends with is printed and never matched on.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command's asynchronous part. What it leaves behind is not waited for.
fn block_on(work: impl Future<Output = Result<(), AnyError>>) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

impl Command {
    fn run(self) -> Result<(), AnyError> {
        match self {
            Self::Serve(file) => serve::run(&file),
            Self::Config(command) => command.run(),
            Self::Policy(command) => command.run(),
            Self::Audit(command) => command.run(),
            #[cfg(feature = "dev")]
            Self::Emulator(arguments) => emulator::run(&arguments),
            #[cfg(feature = "dev")]
            Self::Dev(arguments) => dev::run(&arguments),
        }
    }
}

/// Prints the error that ended the command: logging may not be set up. Ignores a closed standard error.
fn report(error: &dyn std::error::Error) {
    let _ = writeln!(io::stderr(), "aks-access-broker: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_background_task_that_ended_too_soon_has_an_exit_code_of_its_own() {
        let ended = TaskEnded::Returned { task: "sealer" };
        let by_itself: AnyError = ended.into();
        assert_eq!(exit_code(by_itself.as_ref()), 70);
        let other: AnyError = "anything else".into();
        assert_eq!(exit_code(other.as_ref()), 1);
    }
}
