//! The `aks-access-broker` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    aks_access_broker::cli::run()
}
