//! The use cases: what each RPC means, from a well-formed request to an answer.
//!
//! Nothing here knows gRPC, Redis's encodings or Azure's JSON. Each use case is a file that reads like
//! its specification, top to bottom.

pub mod check;
pub mod clusters;
pub mod page;
pub mod request;
pub mod roles;
