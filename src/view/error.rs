//! Why the view has nothing to say.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::fresh::Waits;
use crate::azure::{AzureError, GraphError};
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
    /// The replica has just started, or does not get on with reading what the broker did.
    #[error(
        "this replica has not heard in time what the broker did lately: ask again in a moment; if it stays so, its log says          what it cannot read"
    )]
    NotFollowing,
}

impl Waits for AzureError {
    fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl Waits for GraphError {
    fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl Waits for ViewError {
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Cluster(error) | Self::Assignments(error) | Self::Roles(error) => error.wait(),
            Self::Store(_) | Self::NotReached { .. } | Self::NotFollowing => None,
        }
    }
}

impl ViewError {
    pub(super) fn store(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
