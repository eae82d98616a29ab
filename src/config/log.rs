//! `log`: what is logged, and how.

use serde::{Deserialize, Serialize};

/// The section `log`. Logs go to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// Which events, as in `info,aks_access_broker=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            // The Azure SDK tells of each call at info.
            filter: "info,typespec_client_core=warn".to_owned(),
        }
    }
}

/// How a line of log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
