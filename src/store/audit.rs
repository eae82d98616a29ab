//! The audit trail: events that no other script writes.

use serde::Serialize;

use super::Store;
use super::error::StoreError;

#[derive(Serialize)]
struct EventArgument<'a> {
    audit_event: &'a str,
}

impl Store {
    /// Writes one event, as JSON, that stands alone: a refusal. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been written or not.
    pub async fn write_event(&self, event: &str) -> Result<(), StoreError> {
        let argument = EventArgument { audit_event: event };
        self.run::<_, ()>(&self.scripts.audit, &argument).await
    }
}
