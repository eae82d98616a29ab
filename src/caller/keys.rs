//! The keys that Entra signs a tenant's tokens with, as it publishes them.
//!
//! Fetched when they are first needed and renewed behind those who ask, kept while Entra cannot be reached, and fetched
//! out of turn for a key id that nobody knows: rarely, because anybody can make one up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

/// Entra rolls its keys over every few weeks, and publishes new ones long before they are used.
const RENEW_AFTER: Duration = Duration::from_hours(1);
/// Keys are fetched for an unknown key id no more often than this.
const UNKNOWN_KEY_AGAIN: Duration = Duration::from_mins(5);
/// After a fetch that failed, the next is so much later.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// What Entra answers is a few kilobytes.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// The algorithm of all of Entra's tokens [azure.md §7].
pub(super) const ALGORITHM: Algorithm = Algorithm::RS256;

/// Why there are no keys to check a token with.
#[derive(Clone, Debug, Error)]
#[error("the signing keys of tenant {tenant} cannot be read from {url}: {problem}")]
pub struct KeysError {
    /// Whose keys.
    pub tenant: Uuid,
    /// Where they were looked for.
    pub url: String,
    /// What went wrong.
    pub problem: String,
}

/// A tenant's keys, and who issues its tokens.
pub(super) struct Keys {
    /// As tokens of version 1 and 2 name it.
    pub(super) issuers: [String; 2],
    by_id: HashMap<String, DecodingKey>,
    published_at: Url,
    fetched: Instant,
}

impl Keys {
    /// A key by its id.
    pub(super) fn get(&self, id: &str) -> Option<&DecodingKey> {
        self.by_id.get(id)
    }
}

/// What was tried lately.
#[derive(Default)]
struct Attempts {
    failed: Option<Instant>,
    for_unknown_key: Option<Instant>,
}

impl Attempts {
    fn has_just_failed(&self) -> bool {
        self.failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE)
    }
}

/// A tenant whose tokens are taken.
pub(super) struct Tenant {
    id: Uuid,
    authority: Url,
    http: reqwest::Client,
    keys: ArcSwapOption<Keys>,
    /// One fetch at a time.
    attempts: Mutex<Attempts>,
    withdrawn: AtomicU64,
}

impl Tenant {
    pub(super) fn new(id: Uuid, authority: Url, http: reqwest::Client) -> Self {
        Self {
            id,
            authority,
            http,
            keys: ArcSwapOption::empty(),
            attempts: Mutex::default(),
            withdrawn: AtomicU64::new(0),
        }
    }

    /// How often a key has been withdrawn: what was signed with it before is to be checked again.
    pub(super) fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// The keys; fetched, if they never were.
    ///
    /// # Errors
    /// [`KeysError`] while they cannot be fetched a first time.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<Keys>, KeysError> {
        if let Some(known) = self.keys.load_full() {
            if known.fetched.elapsed() >= RENEW_AFTER {
                self.renew();
            }
            return Ok(known);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(known) = self.keys.load_full() {
            return Ok(known);
        }
        if attempts.has_just_failed() {
            return Err(self.error(&self.authority, "a moment ago they could not; try again"));
        }
        self.fetch_all(&mut attempts).await
    }

    /// The keys with this one among them, if Entra has published it.
    ///
    /// # Errors
    /// [`KeysError`] while they cannot be fetched a first time.
    pub(super) async fn keys_with(self: &Arc<Self>, id: &str) -> Result<Arc<Keys>, KeysError> {
        let known = self.keys().await?;
        if known.get(id).is_some() {
            return Ok(known);
        }
        let mut attempts = self.attempts.lock().await;
        let known = self.keys.load_full().unwrap_or(known);
        let is_too_soon = attempts
            .for_unknown_key
            .is_some_and(|at| at.elapsed() < UNKNOWN_KEY_AGAIN);
        if known.get(id).is_some() || is_too_soon || attempts.has_just_failed() {
            return Ok(known);
        }
        attempts.for_unknown_key = Some(Instant::now());
        match self
            .fetch_keys(known.issuers.clone(), &known.published_at)
            .await
        {
            Ok(keys) => Ok(self.put(keys)),
            Err(error) => {
                tracing::warn!(%error, "a token names an unknown key");
                attempts.failed = Some(Instant::now());
                // It was not Entra that did not know it.
                attempts.for_unknown_key = None;
                Ok(known)
            }
        }
    }

    /// Fetches everything anew, unless somebody does.
    fn renew(self: &Arc<Self>) {
        let this = Arc::clone(self);
        if self
            .attempts
            .try_lock()
            .is_ok_and(|it| !it.has_just_failed())
        {
            tokio::spawn(async move {
                let mut attempts = this.attempts.lock().await;
                let known = this.keys.load();
                let is_old = |known: &Arc<Keys>| known.fetched.elapsed() >= RENEW_AFTER;
                if !attempts.has_just_failed() && known.as_ref().is_none_or(is_old) {
                    // It says why, and the old ones stay.
                    let _ = this.fetch_all(&mut attempts).await;
                }
            });
        }
    }

    async fn fetch_all(&self, attempts: &mut Attempts) -> Result<Arc<Keys>, KeysError> {
        let fetched = async {
            let v2 = self.configuration("v2.0/.well-known/openid-configuration");
            let v1 = self.configuration(".well-known/openid-configuration");
            let (v2, v1) = tokio::try_join!(v2, v1)?;
            let keys_url = Url::parse(&v2.jwks_uri)
                .map_err(|error| self.error(&self.authority, &format!("jwks_uri: {error}")))?;
            self.fetch_keys([v1.issuer, v2.issuer], &keys_url).await
        };
        match fetched.await {
            Ok(keys) => {
                attempts.failed = None;
                Ok(self.put(keys))
            }
            Err(error) => {
                tracing::warn!(%error, "callers' tokens are checked by what was known before");
                attempts.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn put(&self, keys: Keys) -> Arc<Keys> {
        let keys = Arc::new(keys);
        let before = self.keys.swap(Some(Arc::clone(&keys)));
        let is_gone = |id: &String| keys.get(id).is_none();
        if before.is_some_and(|before| before.by_id.keys().any(is_gone)) {
            self.withdrawn.fetch_add(1, Ordering::AcqRel);
        }
        keys
    }

    async fn configuration(&self, path: &str) -> Result<Configuration, KeysError> {
        let url = self.authority.join(&format!("/{}/{path}", self.id));
        let url = url.map_err(|error| self.error(&self.authority, &error.to_string()))?;
        self.get(&url).await
    }

    async fn fetch_keys(&self, issuers: [String; 2], url: &Url) -> Result<Keys, KeysError> {
        let fetched = Instant::now();
        let published: Published = self.get(url).await?;
        let by_id: HashMap<String, DecodingKey> =
            published.keys.into_iter().filter_map(usable).collect();
        if by_id.is_empty() {
            return Err(self.error(url, "there is none that tokens could be signed with"));
        }
        Ok(Keys {
            issuers,
            by_id,
            published_at: url.clone(),
            fetched,
        })
    }

    async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<T, KeysError> {
        let failed = |error: reqwest::Error| {
            // Without the address, which the error has already.
            self.error(url, &told(&error.without_url()))
        };
        let sent = self.http.get(url.clone()).send().await;
        let mut response = sent
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_ANSWER {
                return Err(self.error(url, "the answer is too long"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| self.error(url, &error.to_string()))
    }

    fn error(&self, url: &Url, problem: &str) -> KeysError {
        KeysError {
            tenant: self.id,
            url: url.to_string(),
            problem: problem.to_owned(),
        }
    }
}

/// An error with its causes: reqwest's own words alone say only that something failed.
fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

/// The part of the discovery document of `OpenID` Connect that is of use here.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Published {
    /// Each read by itself: one of a kind that nobody knows takes nothing from the others.
    keys: Vec<serde_json::Value>,
}

/// A key that tokens may be signed with.
fn usable(published: serde_json::Value) -> Option<(String, DecodingKey)> {
    let key: Jwk = serde_json::from_value(published).ok()?;
    let is_rsa = matches!(key.algorithm, AlgorithmParameters::RSA(_));
    let signs = matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let is_ours = matches!(key.common.key_algorithm, None | Some(KeyAlgorithm::RS256));
    let decoding = DecodingKey::from_jwk(&key).ok()?;
    let id = key.common.key_id?;
    (is_rsa && signs && is_ours).then_some((id, decoding))
}
