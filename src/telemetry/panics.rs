//! Logs panics. A panic that ends a task ends nothing else, so it would go unnoticed otherwise.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

use tracing::{Level, error};

/// The message of a panic. `payload` is the value that the panic carries.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message")
}

/// Logs each panic at `error` from now on, with its place. If the log filters errors out, writes it to standard error.
pub(super) fn log_panics() {
    let without_a_log = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !tracing::enabled!(Level::ERROR) {
            without_a_log(panic);
            return;
        }
        let backtrace = Backtrace::capture();
        let is_there = backtrace.status() == BacktraceStatus::Captured;
        error!(
            location = panic.location().map(ToString::to_string),
            backtrace = is_there.then(|| backtrace.to_string()),
            "a panic: {}",
            panic.payload_as_str().unwrap_or("without a message")
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panics_own_words_are_told() {
        for (payload, said) in [
            (Box::new("plain") as Box<dyn Any + Send>, "plain"),
            (Box::new("made".to_owned()), "made"),
            (Box::new(7), "a panic without a message"),
        ] {
            assert_eq!(panic_message(&*payload), said);
        }
    }
}
