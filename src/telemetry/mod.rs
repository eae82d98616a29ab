//! What the process tells of itself: logs and metrics. Logs go to standard error, so that what a command prints can be
//! piped on.

#[cfg(test)]
mod capture;
mod metrics;
mod panics;
mod repeats;
mod scrape;

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

#[cfg(test)]
pub(crate) use capture::Captured;
pub use metrics::{Loop, Metrics, metrics};
pub use panics::panic_message;
pub use repeats::Repeats;
pub use scrape::serve_metrics;

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// `log.filter` is not one.
    #[error("log.filter {filter:?} is not a filter: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already: {0}")]
    Taken(#[from] TryInitError),
}

/// Sends every event that `log.filter` lets through to standard error from now on. Each panic of any thread is an event
/// too.
///
/// # Errors
/// [`TelemetryError`]
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|source| TelemetryError::Filter {
        filter: log.filter.clone(),
        source,
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => registry.with(lines).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    panics::log_panics();
    Ok(())
}
