//! What the process counts. This is the one place where the names and labels of metrics are written.
//!
//! The metrics belong to the process, as its log does: a part of the broker counts where it sees something happen, and
//! nobody hands the metrics down to it. `docs/metrics.md` lists them, and a test compares.

use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// The metrics of this process.
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The metrics of this process.
#[must_use]
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Work over many stored entries. It skips an entry that it cannot read, and goes on with the others (I6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loop {
    /// Queues targets whose wait or lease is over.
    Wake,
    /// Ends grants whose time is up.
    Expire,
    /// Deletes old records.
    Forget,
    /// Takes the next target for a pass.
    Claim,
    /// Writes what a pass has done.
    Record,
    /// Takes changes into the view.
    Changes,
    /// Reads the audit log.
    Audit,
    /// Ends the grants that a selector matches.
    Revoke,
}

impl Loop {
    const fn label(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Expire => "expire",
            Self::Forget => "forget",
            Self::Claim => "claim",
            Self::Record => "record",
            Self::Changes => "changes",
            Self::Audit => "audit",
            Self::Revoke => "revoke",
        }
    }
}

/// Every metric of the broker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Its end would be the end of counting.
    _provider: SdkMeterProvider,
    skipped_entries: Counter<u64>,
}

impl Metrics {
    #[expect(
        clippy::expect_used,
        reason = "registering fails only where a registry has the name already, and this registry is new"
    )]
    fn new() -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build();
        let exporter = exporter.expect("a new registry takes its first collector");
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("aks-access-broker");
        Self {
            registry,
            _provider: provider,
            skipped_entries: meter
                .u64_counter("aks_access_broker_skipped_entries")
                .with_description(
                    "Stored entries that a loop skipped because it could not read them. Each try counts.",
                )
                .build(),
        }
    }

    /// Counts a stored entry that `of` has skipped.
    pub fn skipped_entry(&self, of: Loop) {
        self.skipped_entries
            .add(1, &[KeyValue::new("loop", of.label())]);
    }

    /// All metrics in Prometheus's text format.
    ///
    /// # Errors
    /// [`prometheus::Error`] where a metric has no valid name.
    pub fn in_text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loop_counts_what_it_skips_under_its_own_label() {
        let metrics = Metrics::new();
        metrics.skipped_entry(Loop::Wake);
        metrics.skipped_entry(Loop::Wake);
        metrics.skipped_entry(Loop::Audit);
        let text = metrics.in_text().unwrap();
        let rows: Vec<&str> = text.lines().filter(|row| !row.starts_with('#')).collect();
        let mut expected = [
            "aks_access_broker_skipped_entries_total{loop=\"audit\"} 1",
            "aks_access_broker_skipped_entries_total{loop=\"wake\"} 2",
        ];
        expected.sort_unstable();
        assert_eq!(rows, expected);
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let metrics = Metrics::new();
        metrics.skipped_entry(Loop::Wake);
        let page = include_str!("../../docs/metrics.md");
        let families = metrics.registry.gather();
        assert!(!families.is_empty());
        for family in families {
            let name = family.name();
            assert!(page.contains(&format!("`{name}`")), "{name} is not listed");
        }
    }
}
