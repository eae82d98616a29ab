//! What all calls of one connection share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::ClientCertificate;

/// How many calls of health and reflection one connection may have under way at once, watches included.
pub(in crate::grpc) const BESIDE: usize = 16;

/// A connection, as its calls see it: each has it among its extensions.
pub(in crate::grpc) struct Origin {
    certificate: Option<ClientCertificate>,
    has_called: AtomicBool,
    beside: Arc<Semaphore>,
}

impl Origin {
    pub(super) fn new(certificate: Option<ClientCertificate>) -> Self {
        Self {
            certificate,
            has_called: AtomicBool::new(false),
            beside: Arc::new(Semaphore::new(BESIDE)),
        }
    }

    /// The certificate that its client proved to have.
    pub(in crate::grpc) const fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// Somebody known has called: whoever needs room closes others first.
    pub(in crate::grpc) fn has_called(&self) {
        self.has_called.store(true, Ordering::Relaxed);
    }

    /// Whether nobody known has called by it.
    pub(super) fn is_silent(&self) -> bool {
        !self.has_called.load(Ordering::Relaxed)
    }

    /// A place for one more call of health or reflection; `None` where there is none.
    pub(in crate::grpc) fn ask_beside(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.beside).try_acquire_owned().ok()
    }
}
