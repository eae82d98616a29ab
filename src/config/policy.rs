//! `policy`: who may ask for what.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The directory whose files `*.cedar` are the policies; looked at again every two seconds. Unset: those that the
    /// broker brings along.
    pub directory: Option<PathBuf>,
}
