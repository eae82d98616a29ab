//! The access broker for AKS: `Grant`, `Revoke` and `CheckAccess` over gRPC, in front of Azure RBAC.
//!
//! A request goes down and an answer comes up; nothing reaches sideways or back:
//! `grpc` → `broker` → `domain`, with `store`, `azure` and `view` beside the domain, and `reconcile` making Azure
//! agree with what was accepted. `docs/architecture.md` is the map.

pub mod audit;
pub mod azure;
pub mod broker;
pub mod caller;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod reconcile;
pub mod store;
pub mod telemetry;
pub mod view;
