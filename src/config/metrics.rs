//! `metrics`: where the broker's metrics are read.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The section `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where `GET /metrics` is served over plain HTTP, in Prometheus's text format. Port 0 takes a free one, which the
    /// log names. `None`: nowhere.
    pub listen: Option<SocketAddr>,
}
