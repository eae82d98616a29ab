//! Keeps a panic or an error of one pass away from all other passes.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tracing::{error, warn};

use crate::domain::ids::TargetId;
use crate::store::StoreError;
use crate::telemetry::panic_message;

/// Runs a pass over `target` to its end. A panic in the pass ends neither the worker nor the process: otherwise a
/// target that makes every worker panic would end one replica after the other. Such a pass records nothing. Its lease
/// ends by itself, and the next worker that claims the target settles the calls that were begun.
pub(super) async fn contained(
    target: &TargetId,
    pass: impl Future<Output = Result<(), StoreError>>,
) {
    // A pass owns what it changes. It shares only handles on Redis and Azure.
    match AssertUnwindSafe(pass).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%target, %error, "the broker could not record a pass. Another pass follows when the lease ends");
        }
        Err(panic) => error!(
            %target,
            panic = panic_message(&*panic),
            "a pass panicked. It has recorded nothing. Another pass follows when the lease ends"
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

    /// I6: a target that makes its pass panic does not stop the process from working on the others.
    #[tokio::test]
    async fn a_pass_that_panics_ends_only_itself_and_is_logged_with_its_target() {
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
