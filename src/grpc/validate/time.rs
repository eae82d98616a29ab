//! Times and durations as Protocol Buffers write them. Read by hand: prost-types' own conversions panic in a debug build
//! on the least number of seconds, and take nanoseconds that the format does not allow.

use std::time::Duration;

use jiff::Timestamp;

/// Nanoseconds of a whole second, which neither format allows beside the seconds.
const SECOND: i32 = 1_000_000_000;

/// A duration of 0 or more; `None` for what is negative or malformed.
pub(super) fn duration(given: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(given.seconds).ok()?;
    let nanos = u32::try_from(given.nanos).ok()?;
    (given.nanos < SECOND).then(|| Duration::new(seconds, nanos))
}

/// A point in time; `None` for what is malformed, or further away than times are written.
pub(super) fn point(given: prost_types::Timestamp) -> Option<Timestamp> {
    let is_whole = (0..SECOND).contains(&given.nanos);
    let time = Timestamp::new(given.seconds, given.nanos).ok();
    time.filter(|_| is_whole)
}
