//! `config`: looks at the configuration and runs nothing.

use std::io::{Write, stderr, stdout};

use clap::Subcommand;

use crate::config::Config;

use super::{AnyError, ConfigFile};

/// `config …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with the configuration, or print it as it takes effect.
    Check(ConfigFile),
}

impl Command {
    pub(super) fn run(self) -> Result<(), AnyError> {
        match self {
            Self::Check(file) => check(&file),
        }
    }
}

fn check(file: &ConfigFile) -> Result<(), AnyError> {
    let config = Config::load(file.path.as_deref())?;
    let text = config.to_yaml()?;
    // Its own error, not a panic: the reader may have gone (`config check | head`).
    stdout().write_all(text.as_bytes())?;
    if let Some(why) = config.not_served_because() {
        // Well-formed, and not enough: whoever checks before deploying hears it now.
        writeln!(stderr(), "note: {why}")?;
    }
    Ok(())
}
