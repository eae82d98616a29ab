//! `serve`: runs the broker until it is told to end.

use thiserror::Error;

use crate::config::Config;
use crate::telemetry;

use super::{AnyError, ConfigFile};

/// Why the broker does not start.
#[derive(Debug, Error)]
enum ServeError {
    #[error(
        "callers are not authenticated yet: whoever reaches {listen} can give and take access. \
         Set server.allow_unauthenticated_callers to true if nobody else can reach it"
    )]
    CallersAreNotAuthenticated {
        /// Where the broker would listen.
        listen: std::net::SocketAddr,
    },
}

pub(super) fn run(file: &ConfigFile) -> Result<(), AnyError> {
    let config = Config::load(file.path.as_deref())?;
    telemetry::init(&config.log)?;
    if !config.server.allow_unauthenticated_callers {
        return Err(Box::new(ServeError::CallersAreNotAuthenticated {
            listen: config.server.listen,
        }));
    }
    Ok(())
}
