//! Access tokens: fetched ahead of need, shared by all calls of a service, dropped when it refuses them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use azure_core::credentials::{AccessToken, Secret};
use azure_core::time::OffsetDateTime;

use super::error::AzureError;
use super::{AzureSettings, identity};

/// How long before its end a token is replaced.
const REFRESH_AHEAD: Duration = Duration::from_mins(5);
/// How long a token that could not be replaced, and still serves, is left alone.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// What a token must outlast a call by, for clocks that differ.
const SLACK: Duration = Duration::from_secs(10);

/// A token in hand. Clones share the secret, whose `Debug` is redacted.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    secret: Secret,
    /// Tells tokens apart without comparing secrets.
    serial: u64,
    refresh_at: Instant,
    ends: Instant,
}

impl Bearer {
    pub(super) fn secret(&self) -> &str {
        self.secret.secret()
    }
}

/// Where the calls of one service get their tokens.
pub(super) struct Tokens {
    settings: Arc<AzureSettings>,
    http: reqwest::Client,
    /// Whom the tokens are for: an address of [`Origins`](crate::config::Origins).
    resource: &'static str,
    /// A std mutex: held for moments, never across an await.
    bearer: Mutex<Option<Bearer>>,
    /// Held while a token is fetched, so that calls that all miss it make one request.
    fetching: tokio::sync::Mutex<Fetches>,
}

#[derive(Default)]
struct Fetches {
    /// How many tokens have been had.
    made: u64,
    /// When the last request failed, if it did, and how.
    failed: Option<(Instant, AzureError)>,
}

impl Tokens {
    /// Tokens for `resource`, an address of [`Origins`](crate::config::Origins).
    ///
    /// # Errors
    /// Why the credential cannot be built, for instance because its token file is missing.
    pub(super) fn new(
        settings: Arc<AzureSettings>,
        http: reqwest::Client,
        resource: &'static str,
    ) -> Result<Self, String> {
        // Built only to see that it can be: a file that is missing now should stop the broker, not its
        // first call.
        identity::sources(&settings, &http)?;
        Ok(Self {
            settings,
            http,
            resource,
            bearer: Mutex::new(None),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// A token that outlasts a call: the one in hand, without waiting for anything, if it does.
    pub(super) async fn for_call(&self) -> Result<Bearer, AzureError> {
        match self.in_hand() {
            Some(bearer) if self.outlasts_a_call(&bearer) => Ok(bearer),
            _ => self.fresh().await,
        }
    }

    /// The token in hand, replaced first if it ends within minutes. While somebody else replaces it, or
    /// when that failed just now, the one in hand will do as long as it outlasts a call.
    pub(super) async fn fresh(&self) -> Result<Bearer, AzureError> {
        if let Some(bearer) = self.in_hand().filter(Bearer::is_fresh) {
            return Ok(bearer);
        }
        let arrived = Instant::now();
        let usable = self.in_hand().filter(|bearer| self.outlasts_a_call(bearer));
        let mut fetches = match (self.fetching.try_lock(), &usable) {
            (Ok(fetches), _) => fetches,
            (Err(_), Some(bearer)) => return Ok(bearer.clone()),
            (Err(_), None) => self.fetching.lock().await,
        };
        if let Some(bearer) = self.in_hand().filter(Bearer::is_fresh) {
            return Ok(bearer);
        }
        if let Some((at, error)) = &fetches.failed {
            match &usable {
                Some(bearer) if at.elapsed() < RENEWAL_PAUSE => return Ok(bearer.clone()),
                // Whoever waited for a request shares its failure: one at a time, each with a time-out
                // of its own, the last of many would wait for minutes.
                None if *at >= arrived => return Err(error.clone()),
                _ => {}
            }
        }
        match self.fetch(&mut fetches).await {
            Ok(bearer) => Ok(bearer),
            Err(error) => {
                fetches.failed = Some((Instant::now(), error.clone()));
                tracing::warn!(resource = self.resource, %error, "no new access token");
                usable.ok_or(error)
            }
        }
    }

    /// ARM refused this token: the next call gets another.
    pub(super) fn refused(&self, bearer: &Bearer) {
        let mut held = self.held();
        if held
            .as_ref()
            .is_some_and(|held| held.serial == bearer.serial)
        {
            *held = None;
        }
    }

    async fn fetch(&self, fetches: &mut Fetches) -> Result<Bearer, AzureError> {
        // Boxed: it is rare, and every call would otherwise carry its size.
        let token = Box::pin(identity::token(&self.settings, &self.http, self.resource)).await?;
        fetches.made += 1;
        fetches.failed = None;
        let bearer = Bearer::new(token, fetches.made);
        *self.held() = Some(bearer.clone());
        Ok(bearer)
    }

    fn in_hand(&self) -> Option<Bearer> {
        self.held().clone()
    }

    fn outlasts_a_call(&self, bearer: &Bearer) -> bool {
        bearer.ends > Instant::now() + self.settings.call_timeout + SLACK
    }

    /// Nothing can panic half-way through a change, so a poisoned lock holds good data.
    fn held(&self) -> MutexGuard<'_, Option<Bearer>> {
        self.bearer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bearer {
    fn new(token: AccessToken, serial: u64) -> Self {
        // Instants: a wall clock that is set back must not make a dead token look alive.
        let now = Instant::now();
        let lifetime = (token.expires_on - OffsetDateTime::now_utc())
            .try_into()
            .unwrap_or(Duration::ZERO);
        Self {
            secret: token.token,
            serial,
            refresh_at: now + lifetime.saturating_sub(REFRESH_AHEAD.min(lifetime / 2)),
            ends: now + lifetime,
        }
    }

    fn is_fresh(&self) -> bool {
        Instant::now() < self.refresh_at
    }
}

#[cfg(test)]
mod tests {
    use url::Url;
    use uuid::Uuid;

    use super::*;
    use crate::azure::error::Outcome;
    use crate::config::{self, ClientSecretCredential, Cloud, Credential};

    /// Entra cannot be reached.
    fn tokens() -> Tokens {
        let settings = AzureSettings {
            arm_endpoint: Url::parse("https://127.0.0.1:1").unwrap(),
            graph_endpoint: Url::parse("https://127.0.0.1:1").unwrap(),
            authority: Url::parse("https://127.0.0.1:1").unwrap(),
            cloud: Cloud::Public,
            tenant: Uuid::from_u128(1),
            credential: Credential::ClientSecret(ClientSecretCredential {
                client_id: Uuid::from_u128(2),
                client_secret_file: None,
                client_secret: Some(config::Secret::new("hunter2".to_owned())),
            }),
            ca_pem: None,
            call_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
        };
        let http = reqwest::Client::builder()
            .timeout(settings.call_timeout)
            .build()
            .unwrap();
        Tokens::new(Arc::new(settings), http, Cloud::Public.origins().arm).unwrap()
    }

    /// A token that is due to be replaced, and ends so long from now.
    fn due(ends_in: Duration) -> Bearer {
        Bearer {
            secret: Secret::new("token"),
            serial: 1,
            refresh_at: Instant::now(),
            ends: Instant::now() + ends_in,
        }
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_replaced_serves_for_as_long_as_it_outlasts_a_call() {
        let tokens = tokens();
        let served = due(Duration::from_mins(1));
        *tokens.held() = Some(served.clone());
        assert_eq!(tokens.fresh().await.unwrap().serial, served.serial);
        let failed = tokens
            .fetching
            .lock()
            .await
            .failed
            .as_ref()
            .map(|(at, _)| *at);
        assert!(failed.is_some());
        // It is left alone for a while, and never waited for.
        assert_eq!(tokens.fresh().await.unwrap().serial, served.serial);
        let renewing = tokens.fetching.lock().await;
        assert_eq!(renewing.failed.as_ref().map(|(at, _)| *at), failed);
        assert_eq!(tokens.fresh().await.unwrap().serial, served.serial);
        drop(renewing);

        *tokens.held() = Some(due(Duration::from_secs(5)));
        let error = tokens.for_call().await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Definite, "{error:?}");
    }
}
