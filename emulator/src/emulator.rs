//! The handle: an emulator in the same process, as tests have it.

use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use jsonwebtoken::jwk::JwkSet;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::arm::Throttle;
use crate::changes::ChangeError;
use crate::core::Core;
use crate::entra::{Claims, Signer, SigningKeyError, TokenError};
use crate::faults::{Fault, Faults};
use crate::history::{Call, Change, Event, History, Service};
use crate::options::{Options, Ports, StartError, Urls};
use crate::pending::Pending;
use crate::server::{self, Door};
use crate::settings::Settings;
use crate::state::{RoleAssignment, Store};
use crate::time::Clock;
use crate::tls::Tls;
use crate::world::{
    Cluster, CustomRole, DenyAssignment, Fleet, Lock, NewRoleAssignment, Principal, World,
};

/// A running emulator. It stops when this is dropped; [`Emulator::shutdown`] also waits until it has.
#[must_use = "the emulator stops when its handle is dropped"]
pub struct Emulator {
    core: Arc<Core>,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("urls", self.urls())
            .finish_non_exhaustive()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

/// The four sockets, before they are served.
struct Sockets {
    arm: (TcpListener, u16),
    graph: (TcpListener, u16),
    entra: (TcpListener, u16),
    admin: (TcpListener, u16),
}

impl Sockets {
    async fn bind(ports: Ports) -> Result<Self, StartError> {
        Ok(Self {
            arm: server::bind(ports.arm).await?,
            graph: server::bind(ports.graph).await?,
            entra: server::bind(ports.entra).await?,
            admin: server::bind(ports.admin).await?,
        })
    }

    fn urls(&self) -> Urls {
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        Urls {
            arm: url(self.arm.1),
            graph: url(self.graph.1),
            entra: url(self.entra.1),
            admin: url(self.admin.1),
        }
    }
}

impl Emulator {
    /// Starts an emulator; when this returns it answers.
    ///
    /// # Errors
    /// [`StartError`] says which port, file or part of the world is in the way.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        options.world.check()?;
        let sockets = Sockets::bind(options.ports).await?;
        let (core, tls) = open(&options, sockets.urls())?;
        let core = Arc::new(core);
        for (socket, door) in [
            (sockets.arm, Door::Azure(Service::Arm)),
            (sockets.graph, Door::Azure(Service::Graph)),
            (sockets.entra, Door::Azure(Service::Entra)),
            (sockets.admin, Door::Admin),
        ] {
            server::serve(&core, socket.0, tls.acceptor.clone(), door);
        }
        Ok(Self { core })
    }

    /// Where it listens.
    #[must_use]
    pub fn urls(&self) -> &Urls {
        &self.core.urls
    }

    /// The certificate that clients must trust, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.core.ca_pem
    }

    /// The world as it is now.
    #[must_use]
    pub fn world(&self) -> World {
        self.core.store().state.world()
    }

    /// All role assignments as they truly are, by name, whatever lagging reads show.
    #[must_use]
    pub fn role_assignments(&self) -> Vec<RoleAssignment> {
        self.core
            .store()
            .state
            .role_assignments()
            .cloned()
            .collect()
    }

    /// Everything that happened so far, in order.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.core.history.events()
    }

    /// The calls of the history.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.history()
            .iter()
            .filter_map(Event::as_call)
            .cloned()
            .collect()
    }

    /// The changes of the history.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.history()
            .iter()
            .filter_map(Event::as_change)
            .cloned()
            .collect()
    }

    /// Forgets what happened so far. Sequence numbers go on.
    pub fn clear_history(&self) {
        self.core.history.clear();
    }

    /// Waits until the history satisfies `enough`, and gives it back as it then is.
    pub async fn until(&self, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let mut changes = self.core.history.subscribe();
        loop {
            changes.mark_unchanged();
            let events = self.history();
            if enough(&events) {
                return events;
            }
            // The sender lives in the history, so the wait cannot end for want of one.
            let _ = changes.changed().await;
        }
    }

    /// How it behaves.
    #[must_use]
    pub fn settings(&self) -> Settings {
        (*self.core.settings()).clone()
    }

    /// Changes how it behaves, from the next call on. Request budgets begin full again.
    pub fn set_settings(&self, settings: Settings) {
        self.core.set_settings(settings);
        self.core.throttle.refill();
    }

    /// Adds a fault behind those that are already waiting.
    pub fn add_fault(&self, fault: Fault) {
        self.core.faults.add(fault);
    }

    /// The faults that still wait for calls.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.core.faults.list()
    }

    /// Forgets all faults, and lets go of the calls that they hold.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }

    /// Lets the calls go that are held under `name` now; says how many.
    #[must_use = "nothing held means that the call has not come yet"]
    pub fn release(&self, name: &str) -> usize {
        self.core.faults.release(name)
    }

    /// Waits until at least `count` calls are held under `name`.
    pub async fn until_held(&self, name: &str, count: usize) {
        self.core.faults.until_held(name, count).await;
    }

    /// Makes a cluster, or changes the one with this id: that one keeps its `resourceUID` unless another is
    /// given.
    ///
    /// # Errors
    /// [`ChangeError`] when there is no such subscription.
    pub fn put_cluster(&self, cluster: Cluster) -> Result<Cluster, ChangeError> {
        self.core.put_cluster(cluster)
    }

    /// Deletes a cluster, its role assignments and those of its namespaces; says whether there was one.
    ///
    /// # Errors
    /// [`ChangeError`] when `id` is no ARM id.
    pub fn delete_cluster(&self, id: &str) -> Result<bool, ChangeError> {
        self.core.delete_cluster(id)
    }

    /// Makes a fleet, or changes the one with this id.
    ///
    /// # Errors
    /// [`ChangeError`] when there is no such subscription, a member is no cluster's id, or it is in another
    /// fleet.
    pub fn put_fleet(&self, fleet: Fleet) -> Result<(), ChangeError> {
        self.core.put_fleet(fleet)
    }

    /// Deletes a fleet, and what is assigned at it and its namespaces; says whether there was one.
    ///
    /// # Errors
    /// [`ChangeError`] when `id` is no ARM id.
    pub fn delete_fleet(&self, id: &str) -> Result<bool, ChangeError> {
        self.core.delete_fleet(id)
    }

    /// Makes a deny assignment, or changes the one with this name, and gives it back under its name.
    ///
    /// # Errors
    /// [`ChangeError`] when its scope or one of its principals does not exist.
    pub fn put_deny_assignment(&self, deny: DenyAssignment) -> Result<DenyAssignment, ChangeError> {
        self.core.put_deny_assignment(deny)
    }

    /// Deletes a deny assignment; says whether there was one.
    ///
    /// # Errors
    /// [`ChangeError::State`] when the change cannot be written down.
    pub fn delete_deny_assignment(&self, name: Uuid) -> Result<bool, ChangeError> {
        self.core.delete_deny_assignment(name)
    }

    /// Adds somebody to the directory, or changes whoever has this object id. Somebody new is unknown to
    /// role assignments without `principalType` until [`Settings::principal_replication`] is over.
    ///
    /// # Errors
    /// [`ChangeError::State`] when the change cannot be written down.
    pub fn add_principal(&self, principal: Principal) -> Result<(), ChangeError> {
        self.core.add_principal(principal)
    }

    /// Deletes somebody from the directory; what they were given stays. Says whether there was anybody.
    ///
    /// # Errors
    /// [`ChangeError::State`] when the change cannot be written down.
    pub fn delete_principal(&self, id: Uuid) -> Result<bool, ChangeError> {
        self.core.delete_principal(id)
    }

    /// Adds a custom role, or changes the one with this GUID.
    ///
    /// # Errors
    /// [`ChangeError::State`] when the change cannot be written down.
    pub fn add_custom_role(&self, role: CustomRole) -> Result<(), ChangeError> {
        self.core.add_custom_role(role)
    }

    /// Makes a role assignment round the API, as the portal or another tool would
    /// ([`crate::SOMEBODY_ELSE`]); no lock, limit or budget is in its way.
    ///
    /// # Errors
    /// [`ChangeError`] when scope, role or principal do not exist, or another assignment is in the way.
    pub fn put_role_assignment_as_somebody_else(
        &self,
        new: &NewRoleAssignment,
    ) -> Result<RoleAssignment, ChangeError> {
        self.core.put_foreign(new)
    }

    /// Deletes a role assignment round the API; says whether there was one.
    ///
    /// # Errors
    /// [`ChangeError::State`] when the change cannot be written down.
    pub fn delete_role_assignment(&self, name: Uuid) -> Result<bool, ChangeError> {
        self.core.delete_foreign(name)
    }

    /// Locks a scope and everything below it, in place of a lock that is already there.
    ///
    /// # Errors
    /// [`ChangeError::State`] when the change cannot be written down.
    pub fn lock(&self, lock: Lock) -> Result<(), ChangeError> {
        self.core.lock(lock)
    }

    /// Takes the lock of a scope away, if it has one.
    ///
    /// # Errors
    /// [`ChangeError`] when `scope` is no ARM id.
    pub fn unlock(&self, scope: &str) -> Result<(), ChangeError> {
        self.core.unlock(scope)
    }

    /// An access token for a user or service principal, as they would have it after signing in. `resource`
    /// is a URI such as `https://management.azure.com`, or the application id of a service principal.
    ///
    /// # Errors
    /// [`TokenError`] when there is no such bearer or resource.
    pub fn token(&self, bearer: Uuid, resource: &str) -> Result<String, TokenError> {
        let claims = self.claims(bearer, resource)?;
        self.sign(&claims)
    }

    /// What [`Emulator::token`] would sign: to be changed and signed by a test.
    ///
    /// # Errors
    /// [`TokenError`] when there is no such bearer or resource.
    pub fn claims(&self, bearer: Uuid, resource: &str) -> Result<Claims, TokenError> {
        Claims::of(&self.core, &self.core.store().state, bearer, resource)
    }

    /// Signs any claims with the key that tokens are signed with; also a federated credential's assertion,
    /// if that credential has no keys of its own.
    ///
    /// # Errors
    /// [`TokenError::Signing`] when the claims are no JSON object.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        self.core.signer.sign(claims)
    }

    /// The same with other fields in the header; its algorithm and its key id are the emulator's.
    ///
    /// # Errors
    /// [`TokenError::Signing`] when the claims are no JSON object.
    pub fn sign_with(
        &self,
        header: jsonwebtoken::Header,
        claims: &impl Serialize,
    ) -> Result<String, TokenError> {
        self.core.signer.sign_with(header, claims)
    }

    /// Signs with a new key from now on; the old one stays published only if it is to be kept.
    ///
    /// # Errors
    /// [`SigningKeyError`] when no key can be made.
    pub fn roll_over_keys(&self, keep_old: bool) -> Result<(), SigningKeyError> {
        self.core.signer.roll_over(keep_old)
    }

    /// The public keys that tokens are checked with, as a JSON Web Key Set.
    #[must_use]
    pub fn published_keys(&self) -> JwkSet {
        self.core.signer.jwks()
    }

    /// Waits until every call that has arrived is decided, also those whose callers have gone. A call that
    /// is held stays undecided until it is released.
    pub async fn quiesce(&self) {
        self.core.pending.none().await;
    }

    /// Stops, and waits until all connections are closed.
    pub async fn shutdown(self) {
        self.core.stop.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}

fn open(options: &Options, urls: Urls) -> Result<(Core, Tls), StartError> {
    let directory: Option<&Path> = options.state_dir.as_deref();
    let clock = Clock::start();
    let store = Store::open(&options.world, directory, clock.now()).map_err(StartError::State)?;
    store.state.check_scopes()?;
    let tls = Tls::open(directory)?;
    let tenant = store.state.tenant();
    let core = Core {
        urls,
        tenant,
        seed: options.seed,
        clock,
        signer: Signer::open(directory)?,
        ca_pem: tls.ca_pem.clone(),
        history: History::new(),
        faults: Faults::new(options.seed),
        throttle: Throttle::new(tenant),
        pending: Pending::default(),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        settings: RwLock::new(Arc::new(options.settings.clone())),
        store: Mutex::new(store),
    };
    Ok((core, tls))
}
