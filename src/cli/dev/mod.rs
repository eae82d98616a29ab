//! `dev`: the whole world on one machine. Redis, the Azure emulator and the broker, each a process of its
//! own, so that the broker is run exactly as it is in production and can be killed alone.

mod children;
mod description;
mod leftovers;
mod next_steps;
mod processes;
mod state_dir;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::fs::Mode;
use thiserror::Error;

use crate::config::Log;
use crate::telemetry;

use super::emulator::{PortArguments, WorldArguments};
use super::signals::Signals;
use super::{AnyError, block_on};

use children::{Child, ChildError};
use description::{Description, NoBrokerIdentity};
use state_dir::{OF_OTHERS, StateDir, StateDirError};

/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// `dev …`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where Redis and the emulator keep their state, so that the next `dev` goes on where this one ended;
    /// without it a new world is made and forgotten. All files in it are for their owner only (mode 0600), those of an
    /// earlier `dev` too.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The broker's port on 127.0.0.1; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    grpc_port: u16,
    /// Redis's port on 127.0.0.1; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    redis_port: u16,
    #[command(flatten)]
    ports: PortArguments,
    #[command(flatten)]
    world: WorldArguments,
}

/// Why there is no world, or no longer.
#[derive(Debug, Error)]
enum DevError {
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    NoBrokerIdentity(#[from] NoBrokerIdentity),
    #[error(
        "{option}: port {port} on 127.0.0.1 cannot be taken: {source}; end what listens there, or choose another port (0: a \
         free one)"
    )]
    Port {
        option: &'static str,
        port: u16,
        source: std::io::Error,
    },
    #[error("{0}")]
    Signals(std::io::Error),
    #[error("cannot print: {0}")]
    Print(std::io::Error),
    #[error("told twice to end: what was still running was killed")]
    Aborted,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), AnyError> {
    // The children inherit it: what Redis, the emulator and the broker write is for this user alone.
    rustix::process::umask(Mode::from_raw_mode(OF_OTHERS));
    telemetry::init(&Log::default())?;
    block_on(async { Ok(dev(arguments).await?) })
}

async fn dev(arguments: &Arguments) -> Result<(), DevError> {
    let mut signals = Signals::take().map_err(DevError::Signals)?;
    let state = StateDir::open(arguments.state_dir.as_deref())?;
    let mut running = Running::default();
    let outcome = tokio::select! {
        outcome = running.live(arguments, &state) => outcome,
        () = signals.next() => Ok(()),
    };
    let forgotten = state.forget_description();
    tokio::select! {
        // The last to start ends first: the broker may still need what it stands on.
        () = running.end() => {}
        () = signals.next() => return Err(DevError::Aborted),
    }
    outcome?;
    Ok(forgotten?)
}

/// The processes, in the order in which they were started. Dropped, they are killed.
#[derive(Default)]
struct Running(Vec<Child>);

impl Running {
    /// Starts everything, says so, and goes on until one of them ends by itself.
    async fn live(&mut self, arguments: &Arguments, state: &StateDir) -> Result<(), DevError> {
        leftovers::end(state, GRACE).await?;
        processes::check_ports(arguments)?;
        let redis = processes::redis(self, state, arguments.redis_port).await?;
        let azure = processes::emulator(self, state, arguments).await?;
        let world = Description::new(redis, azure, state)?;
        let grpc = processes::broker(self, state, arguments.grpc_port, &world).await?;
        let world = world.served_at(grpc);
        state.publish(&world)?;
        next_steps::print(&world, state).map_err(DevError::Print)?;
        Err(self.first_to_end().await.into())
    }

    /// Keeps a process, so that it is ended with the others whatever happens next.
    fn keep(&mut self, child: Child) -> &mut Child {
        self.0.push(child);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    async fn first_to_end(&mut self) -> ChildError {
        let ends = self.0.iter_mut().map(|child| Box::pin(child.ended()));
        futures::future::select_all(ends).await.0
    }

    async fn end(&mut self) {
        while let Some(child) = self.0.pop() {
            child.end(GRACE).await;
        }
    }
}
