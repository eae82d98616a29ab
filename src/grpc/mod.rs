//! The way in for callers: the contract's messages in, the contract's messages out.
//!
//! What a request says is checked here, all of it at once ([`validate`]), and handed down as types that
//! can only exist well-formed; what comes back is turned into messages ([`convert`]) or, where something
//! went wrong, into a status with `google.rpc` error details ([`status`]), in one place each. No other
//! module knows the contract's messages.

mod answer;
mod batch;
mod connections;
mod convert;
mod front;
mod guard;
mod health;
mod intake;
mod limits;
mod reflection;
mod rpcs;
mod server;
mod service;
mod status;
mod tls;
mod validate;
mod weigh;

/// What the contract's compiler wrote.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
pub mod proto {
    tonic::include_proto!("aks.access.v1");
}

/// The contract's descriptors, comments included, for server reflection: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use server::{Parts, Readiness, ServeError, serve, within_drain};
pub use tls::{Tls, TlsError};
