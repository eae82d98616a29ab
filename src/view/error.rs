//! Why the view has nothing to say.

use std::sync::Arc;

use thiserror::Error;

use crate::azure::AzureError;
use crate::domain::freshness::Position;
use crate::store::StoreError;

/// Why something is not known. Cheap to clone: all who wait for the same are told.
#[derive(Clone, Debug, Error)]
pub enum ViewError {
    /// The cluster itself cannot be read.
    #[error("the cluster cannot be read: {0}")]
    Cluster(Box<AzureError>),
    /// What is assigned, or denied, cannot be read.
    #[error("the assignments cannot be read, so there is no answer: {0}")]
    Assignments(Box<AzureError>),
    /// What roles give cannot be read.
    #[error("the role definitions cannot be read, so there is no answer: {0}")]
    Roles(Box<AzureError>),
    /// The store cannot be asked what the broker did lately.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// This replica has not heard of everything up to there.
    #[error(
        "what a consistency token names ({position}) has not reached this replica in time, which has heard of everything \
         up to {own}: ask again; if it stays so, the token is of another broker, or of before its store was lost"
    )]
    NotReached {
        /// What the token names.
        position: Position,
        /// How far the replica has come.
        own: Position,
    },
    /// The replica has just started, or has never reached its store.
    #[error("this replica has not heard yet what the broker did lately: ask again in a moment")]
    NotFollowing,
}

impl ViewError {
    pub(super) fn store(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
