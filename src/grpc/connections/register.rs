//! Which connections are open, and which of them nobody would miss.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

use super::origin::Origin;

/// The connections that are open.
#[derive(Default)]
pub(super) struct Register {
    /// A std mutex: held for moments, never across an await.
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last: u64,
    /// The oldest first.
    connections: BTreeMap<u64, Arc<Entry>>,
}

/// One of them.
pub(super) struct Entry {
    peer: IpAddr,
    /// Closes it at once.
    pub(super) close: CancellationToken,
    /// Once keys are agreed on.
    pub(super) origin: OnceLock<Arc<Origin>>,
}

impl Entry {
    fn is_silent(&self) -> bool {
        let origin = self.origin.get();
        origin.is_none_or(|origin| origin.is_silent())
    }
}

/// A place in the register, for as long as the connection is open.
pub(super) struct Registered {
    register: Arc<Register>,
    number: u64,
    pub(super) entry: Arc<Entry>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.register.open().connections.remove(&self.number);
    }
}

impl Register {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections this address has. O(connections).
    pub(super) fn count(&self, peer: IpAddr) -> usize {
        let open = self.open();
        let of_peer = open.connections.values().filter(|entry| entry.peer == peer);
        of_peer.count()
    }

    /// Enters a connection from this address. O(log connections).
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Registered {
        let mut open = self.open();
        open.last += 1;
        let number = open.last;
        let entry = Arc::new(Entry {
            peer,
            close: CancellationToken::new(),
            origin: OnceLock::new(),
        });
        open.connections.insert(number, Arc::clone(&entry));
        Registered {
            register: Arc::clone(self),
            number,
            entry,
        }
    }

    /// Closes the oldest connection by which nobody known has called, if there is one. O(connections).
    pub(super) fn close_a_silent_one(&self) {
        let open = self.open();
        let mut silent = open
            .connections
            .values()
            .filter(|entry| !entry.close.is_cancelled() && entry.is_silent());
        if let Some(entry) = silent.next() {
            entry.close.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

    fn entered(register: &Arc<Register>) -> Registered {
        let registered = register.enter(HERE);
        let origin = Arc::new(Origin::new(None));
        assert!(registered.entry.origin.set(origin).is_ok());
        registered
    }

    #[test]
    fn the_oldest_connection_without_a_call_is_closed_first_and_none_with_one() {
        let register = Arc::new(Register::default());
        let [first, second, third] = [(); 3].map(|()| entered(&register));
        first.entry.origin.get().unwrap().has_called();
        let closed =
            || [&first, &second, &third].map(|registered| registered.entry.close.is_cancelled());
        register.close_a_silent_one();
        assert_eq!(closed(), [false, true, false]);
        register.close_a_silent_one();
        assert_eq!(closed(), [false, true, true]);
        register.close_a_silent_one();
        assert_eq!(closed(), [false, true, true]);
    }

    #[test]
    fn the_connections_of_an_address_count_while_they_are_open() {
        let register = Arc::new(Register::default());
        let first = register.enter(HERE);
        let _second = register.enter(THERE);
        assert_eq!((register.count(HERE), register.count(THERE)), (1, 1));
        drop(first);
        assert_eq!((register.count(HERE), register.count(THERE)), (0, 1));
    }
}
