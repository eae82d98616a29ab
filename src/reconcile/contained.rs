//! What goes wrong in one pass stays in it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tracing::{error, warn};

use crate::domain::ids::TargetId;
use crate::store::StoreError;
use crate::telemetry::panic_message;

/// Carries a pass over `target` to its end. Should it panic, that ends neither the process nor the worker: a target that
/// makes every worker panic would otherwise end one replica after the other. Nothing of it is recorded, so the lease ends
/// by itself, and whoever takes the target over settles the calls that were begun.
pub(super) async fn contained(
    target: &TargetId,
    pass: impl Future<Output = Result<(), StoreError>>,
) {
    // A pass owns what it changes: what is shared are handles on Redis and Azure.
    match AssertUnwindSafe(pass).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%target, %error, "a pass could not be recorded; its lease ends by itself");
        }
        Err(panic) => error!(
            %target,
            panic = panic_message(&*panic),
            "a pass panicked: nothing of it is recorded, and its lease ends by itself"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::{ClusterId, PrincipalId};
    use crate::telemetry::Captured;

    /// I6: of many targets one may be poisoned. The others are still worked on, by the same process.
    #[tokio::test]
    async fn a_pass_that_panics_ends_nothing_but_itself_and_is_told_with_its_target() {
        let (log, _guard) = Captured::begin();
        let cluster = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/\
                       Microsoft.ContainerService/managedClusters/one";
        let target = TargetId {
            cluster: ClusterId::parse(cluster).unwrap(),
            principal: PrincipalId::new(Uuid::from_u128(42)),
        };
        contained(&target, poll_fn(|_| panic!("a poisoned {}", "row"))).await;
        let told = log.text();
        assert!(told.contains("ERROR"), "{told}");
        for words in ["a poisoned row", &target.to_string()] {
            assert!(told.contains(words), "{words:?} is not in {told}");
        }
    }
}
