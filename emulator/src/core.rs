//! What the listeners and the handle share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::arm::Throttle;
use crate::entra::Signer;
use crate::faults::Faults;
use crate::history::{Call, Change, ChangeKind, Event, History, Service};
use crate::message::{Answer, Request};
use crate::operation::Operation;
use crate::options::Urls;
use crate::pending::Pending;
use crate::settings::Settings;
use crate::state::{Record, Store};
use crate::time::{Clock, Moment};
use crate::{arm, entra, graph};

/// One emulated Azure.
pub(crate) struct Core {
    pub(crate) urls: Urls,
    pub(crate) tenant: Uuid,
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
    pub(crate) signer: Signer,
    pub(crate) ca_pem: String,
    pub(crate) history: History,
    pub(crate) faults: Faults,
    pub(crate) throttle: Throttle,
    pub(crate) pending: Pending,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    // Std locks: they are held for look-ups and a small write, never across an await.
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) store: Mutex<Store>,
}

impl Core {
    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The state, locked. Whoever decides and commits holds it from the first look to the last write.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The issuer of version 1 tokens. Entra's own is `https://sts.windows.net/{tenant}/`; here it must lead
    /// to the emulator.
    pub(crate) fn issuer_v1(&self) -> String {
        format!("{}/{}/", self.urls.entra, self.tenant)
    }

    /// The issuer of version 2 tokens.
    pub(crate) fn issuer_v2(&self) -> String {
        format!("{}/{}/v2.0", self.urls.entra, self.tenant)
    }

    /// Makes changes true and notes them in the history, in this order and under the store's lock, so that
    /// the history has them as they happened.
    ///
    /// # Errors
    /// When they cannot be written down; then nothing has changed.
    pub(crate) fn commit(
        &self,
        store: &mut Store,
        records: Vec<Record>,
        call: Option<u64>,
        now: Moment,
    ) -> std::io::Result<()> {
        let settings = self.settings();
        let changes: Vec<Change> = records
            .iter()
            .map(|record| describe(store, record, call, now))
            .collect();
        store.commit(records, now, settings.longest_lag())?;
        for change in changes {
            self.history.push(settings.history_limit, |sequence| {
                Event::Change(Change { sequence, ..change })
            });
        }
        Ok(())
    }

    /// Notes a call that has arrived.
    pub(crate) fn note_call(&self, call: Call) -> u64 {
        let limit = self.settings().history_limit;
        self.history
            .push(limit, |sequence| Event::Call(Call { sequence, ..call }))
    }

    /// Carries a call out.
    pub(crate) fn handle(&self, request: &Request) -> Answer {
        match request.service {
            Service::Arm => arm::handle(self, request),
            Service::Graph => graph::handle(self, request),
            Service::Entra => entra::handle(self, request),
        }
    }
}

/// What a call to `service` asks for.
pub(crate) fn operation(service: Service, method: &hyper::Method, path: &str) -> Operation {
    match service {
        Service::Arm => arm::operation(method, path),
        Service::Graph => graph::operation(method, path),
        Service::Entra => entra::operation(method, path),
    }
}

fn describe(store: &Store, record: &Record, call: Option<u64>, time: Moment) -> Change {
    let change = |kind, name: String| Change {
        sequence: 0,
        call,
        kind,
        name,
        scope: None,
        principal: None,
        role: None,
        time,
    };
    match record {
        Record::RoleAssignment(assignment) => {
            let known = store.state.role_assignment(assignment.name).is_some();
            let kind = if known {
                ChangeKind::Updated
            } else {
                ChangeKind::Created
            };
            of_assignment(change(kind, assignment.name.to_string()), Some(assignment))
        }
        Record::RoleAssignmentDeleted(name) => of_assignment(
            change(ChangeKind::Deleted, name.to_string()),
            store.state.role_assignment(*name),
        ),
        Record::World(world) => change(ChangeKind::WorldPut, world.tenant.to_string()),
        Record::Cluster(cluster) => change(ChangeKind::WorldPut, cluster.id().to_string()),
        Record::ClusterDeleted(id) | Record::FleetDeleted(id) => {
            change(ChangeKind::WorldDeleted, id.to_string())
        }
        Record::Fleet(fleet) => change(ChangeKind::WorldPut, fleet.id().to_string()),
        Record::DenyAssignment(deny) => {
            change(ChangeKind::WorldPut, deny.name_or_derived().to_string())
        }
        Record::DenyAssignmentDeleted(name) => change(ChangeKind::WorldDeleted, name.to_string()),
        Record::Principal(principal) => change(ChangeKind::WorldPut, principal.id().to_string()),
        Record::PrincipalDeleted(id) => change(ChangeKind::WorldDeleted, id.to_string()),
        Record::CustomRole(role) => change(ChangeKind::WorldPut, role.id.to_string()),
        Record::Locked(lock) => change(ChangeKind::WorldPut, lock.scope.to_string()),
        Record::Unlocked(scope) => change(ChangeKind::WorldDeleted, scope.to_string()),
    }
}

fn of_assignment(change: Change, assignment: Option<&crate::state::RoleAssignment>) -> Change {
    Change {
        scope: assignment.map(|it| it.scope.clone()),
        principal: assignment.map(|it| it.principal),
        role: assignment.map(|it| it.role),
        ..change
    }
}
