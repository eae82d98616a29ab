//! What a benchmark says: how far it is, and in the end a table and whether the limits were kept.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a benchmark could not be carried out.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A figure, what it is measured against, and what it must keep to.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The figure, with its unit.
    pub(crate) figure: String,
    /// What it is compared with; empty: a figure that means something alone.
    pub(crate) against: String,
    /// What is judged, and whether it may be.
    pub(crate) verdict: Verdict,
}

/// Whether a limit was kept.
pub(crate) enum Verdict {
    /// There is none: the figure is for the reader.
    Told,
    /// There is none for this ratio either.
    Ratio(f64),
    /// At least so much.
    AtLeast(f64, f64),
    /// At most so much.
    AtMost(f64, f64),
}

impl Verdict {
    fn is_kept(&self) -> bool {
        match self {
            Self::Told | Self::Ratio(_) => true,
            Self::AtLeast(value, limit) => value >= limit,
            Self::AtMost(value, limit) => value <= limit,
        }
    }

    fn words(&self) -> String {
        let kept = if self.is_kept() { "kept" } else { "MISSED" };
        match self {
            Self::Told => " | |".to_owned(),
            Self::Ratio(value) => format!("{value:.2} | |"),
            Self::AtLeast(value, limit) => format!("{value:.2} | >= {limit:.2} | {kept}"),
            Self::AtMost(value, limit) => format!("{value:.2} | <= {limit:.2} | {kept}"),
        }
    }
}

/// Says how far a run is, to whoever waits for it.
pub(crate) fn progress(words: &str) {
    // Nobody has to listen.
    let _ = writeln!(io::stderr(), "{words}");
}

/// The table, and what the process ends with. With `BENCH_REPORT_ONLY=1` a missed limit is only told.
pub(crate) fn conclude(rows: &[Row]) -> Result<ExitCode, AnyError> {
    let mut out = io::stdout().lock();
    writeln!(out, "| | measured | against | ratio | limit | |")?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- |")?;
    for row in rows {
        let Row {
            what,
            figure,
            against,
            verdict,
        } = row;
        writeln!(
            out,
            "| {what} | {figure} | {against} | {} |",
            verdict.words()
        )?;
    }
    let missed = rows.iter().filter(|row| !row.verdict.is_kept()).count();
    let report_only = std::env::var("BENCH_REPORT_ONLY").is_ok_and(|value| value == "1");
    if missed == 0 || report_only {
        return Ok(ExitCode::SUCCESS);
    }
    progress(&format!("{missed} limits were missed"));
    Ok(ExitCode::FAILURE)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
