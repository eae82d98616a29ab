//! An emulator of the parts of Azure that an AKS access broker talks to, with Azure's manners.
//!
//! It shares no code with the broker, so that both can be wrong alone. What it says is pinned to recorded
//! traffic by the tests beside it; `README.md` shows how to use it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use azure_emulator::{Emulator, Options, Settings};
//!
//! let emulator = Emulator::start(Options { settings: Settings::immediate(), ..Options::default() }).await?;
//! println!("{}", emulator.urls().arm);
//! emulator.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The map, from the wire inwards:
//!
//! | module | |
//! | --- | --- |
//! | `server`, `tls` | connections: TLS, HTTP/1.1, and how one is cut |
//! | `exchange` | one call from its first byte to its end: history, faults, the call itself |
//! | `arm`, `graph`, `entra` | the services: a whole request in, a whole answer out |
//! | `admin` | the handle's methods over HTTPS and JSON |
//! | `state` | the one truth: versioned objects, the tree of scopes, the directory, the journal |
//! | `world` | the data that a world is made of |
//! | `settings`, `faults`, `history` | Azure's manners, trouble on demand, what happened |
//! | `emulator`, `options`, `changes`, `core` | the handle, its start, and what all of this hangs on |

mod admin;
mod arm;
mod changes;
mod core;
mod emulator;
mod entra;
mod exchange;
mod faults;
mod files;
mod graph;
mod history;
mod message;
mod operation;
mod options;
mod pending;
mod scope;
mod server;
mod settings;
mod state;
mod time;
mod tls;
mod wildcard;
mod world;

pub use changes::{ChangeError, SOMEBODY_ELSE};
pub use emulator::Emulator;
pub use entra::{Claims, SigningKeyError, TokenError};
pub use faults::{Fault, FaultEffect};
pub use history::{Call, Change, ChangeKind, Event, Service};
pub use operation::Operation;
pub use options::{Options, Ports, StartError, Urls};
pub use scope::{InvalidScope, Scope};
pub use settings::{
    Bucket, Cloud, PutExistingStatus, RoleAssignmentExistsWording, Settings, Throttling,
};
pub use state::RoleAssignment;
pub use time::Moment;
pub use tls::TlsError;
pub use world::{
    AppRoleAssignment, Cluster, CustomRole, DEFAULT_FEDERATED_AUDIENCE, DenyAssignment, DenyEffect,
    Device, EVERYONE, EntraIntegration, FederatedCredential, Fleet, FleetMember, Group,
    InvalidWorld, Lock, LockLevel, ManagementGroup, NewRoleAssignment, Permissions, Principal,
    PrincipalType, ResourceGroup, ServicePrincipal, Subscription, User, World,
};
