//! What the admin listener says when it cannot do what it is told.

use hyper::StatusCode;
use serde_json::json;
use thiserror::Error;

use crate::changes::ChangeError;
use crate::entra::TokenError;
use crate::message::Answer;

/// Why not.
#[derive(Debug, Error)]
pub(super) enum AdminError {
    #[error("there is nothing here; emulator/README.md lists what there is")]
    NotFound,
    #[error("{0}")]
    Bad(String),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl AdminError {
    pub(super) fn answer(&self) -> Answer {
        let status = match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Change(ChangeError::State(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Change(ChangeError::Conflict(_) | ChangeError::InAnotherFleet(..)) => {
                StatusCode::CONFLICT
            }
            Self::Bad(_) | Self::Json(_) | Self::Token(_) | Self::Change(_) => {
                StatusCode::BAD_REQUEST
            }
        };
        Answer::pretty_json(status, &json!({"error": self.to_string()}))
    }
}
