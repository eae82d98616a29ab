//! What the broker knows of access, with no I/O, no clock and no logging of its own.
//!
//! Time, randomness and everything read from outside are passed in, so that what could go wrong
//! between two steps is a question about data, and a property test can ask it.

pub mod access;
pub mod assignments;
pub mod backoff;
pub mod cluster;
pub mod conclude;
pub mod condition;
pub mod deny;
pub mod effect;
pub mod evaluate;
pub mod fleet;
pub mod free_text;
pub mod freshness;
pub mod grant;
pub mod hex;
pub mod ids;
#[cfg(test)]
mod interleaving;
pub mod job;
pub mod kubernetes_request;
pub mod membership;
pub mod naming;
pub mod ownership;
pub mod pattern;
pub mod plan;
pub mod power;
pub mod preview;
pub mod reason;
pub mod role;
pub mod selector;
pub mod settle_clock;
pub mod snapshot;
pub mod target;
pub mod user_principal_name;
