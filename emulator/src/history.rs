//! What happened, in order: every call as it came and went, every change as it was committed.
//!
//! Tests ask it what truly went over the wire: how often, how many at once, in which order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::operation::Operation;
use crate::scope::Scope;
use crate::time::Moment;

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A call.
    Call(Call),
    /// A change that a call, or the test itself, committed.
    Change(Change),
}

/// One of the Azure services that are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Azure Resource Manager.
    Arm,
    /// Microsoft Graph.
    Graph,
    /// Entra ID.
    Entra,
}

/// A call to the emulated Azure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Its place among all events.
    pub sequence: u64,
    /// Who was called.
    pub service: Service,
    /// The HTTP method.
    pub method: String,
    /// What was asked for.
    pub operation: Operation,
    /// Path and query as sent.
    pub path: String,
    /// The object id in the caller's token; [`None`] without a good token.
    pub principal: Option<Uuid>,
    /// `x-ms-client-request-id` (`client-request-id` at Graph and Entra).
    pub client_request_id: Option<String>,
    /// When its head had arrived.
    pub received: Moment,
    /// When it was over for the caller: taken before the first byte of the answer can reach them, or when
    /// the connection was cut or given up. [`None`] while it is open.
    pub closed: Option<Moment>,
    /// The status that was answered; [`None`] while open, and when there was no answer.
    pub status: Option<u16>,
}

/// A committed change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its place among all events.
    pub sequence: u64,
    /// The call that did it; [`None`] when the test or an operator did.
    pub call: Option<u64>,
    /// What was done.
    pub kind: ChangeKind,
    /// The name of the role assignment, or of the other object.
    pub name: String,
    /// Where, for a role assignment; the object itself otherwise.
    pub scope: Option<Scope>,
    /// Whose role assignment.
    pub principal: Option<Uuid>,
    /// The GUID of its role definition.
    pub role: Option<Uuid>,
    /// When.
    pub time: Moment,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A role assignment was made.
    Created,
    /// A role assignment was written again.
    Updated,
    /// A role assignment was deleted.
    Deleted,
    /// Something else in the world was put.
    WorldPut,
    /// Something else in the world was deleted.
    WorldDeleted,
}

impl Event {
    /// The call, if this is one.
    #[must_use]
    pub fn as_call(&self) -> Option<&Call> {
        match self {
            Self::Call(call) => Some(call),
            Self::Change(_) => None,
        }
    }

    /// The change, if this is one.
    #[must_use]
    pub fn as_change(&self) -> Option<&Change> {
        match self {
            Self::Change(change) => Some(change),
            Self::Call(_) => None,
        }
    }
}

/// The record of everything.
#[derive(Debug)]
pub(crate) struct History {
    // A std mutex: it is held for a push or a clone, never across an await.
    log: Mutex<Log>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Log {
    last: u64,
    events: BTreeMap<u64, Event>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            log: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Notes an event, made with its sequence number, and forgets the oldest beyond `limit`.
    pub(crate) fn push(&self, limit: usize, event: impl FnOnce(u64) -> Event) -> u64 {
        let mut log = self.log();
        log.last += 1;
        let sequence = log.last;
        log.events.insert(sequence, event(sequence));
        while log.events.len() > limit.max(1) {
            log.events.pop_first();
        }
        drop(log);
        self.changed.send_replace(());
        sequence
    }

    /// Notes that a call is over.
    pub(crate) fn close(&self, sequence: u64, status: Option<u16>, at: Moment) {
        let mut log = self.log();
        // Cleared or forgotten meanwhile: nothing to close.
        if let Some(Event::Call(call)) = log.events.get_mut(&sequence) {
            call.closed = Some(at);
            call.status = status;
        }
        drop(log);
        self.changed.send_replace(());
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.log().events.values().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.log().events.clear();
    }

    /// Told of every change of the history from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic while it was held can leave no half-done event behind: each is one insert.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
