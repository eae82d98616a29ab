//! The keys that Entra signs a tenant's tokens with, as it publishes them.
//!
//! Fetched at the start and renewed every hour whether or not anybody asks, kept while Entra cannot be reached, and
//! looked up out of turn for a key id that nobody knows.
//!
//! Anybody can make a key id up, and nothing but a look-up tells one that was made up from one that Entra has just begun
//! to use. So each caller with an unknown key id waits for a look-up that began after it asked; all that wait share one;
//! look-ups are rare, and one that is refused is remembered. A caller whose key is known waits for none of that.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse, RSAKeyParameters};
use jsonwebtoken::{Algorithm, DecodingKey};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use url::Url;
use uuid::Uuid;

/// Entra rolls its keys over every few weeks, and publishes new ones long before they are used. What it withdraws is
/// not taken for longer than this, as long as it can be asked.
const RENEW_AFTER: Duration = Duration::from_hours(1);
/// After a renewal that failed, the next is so much later.
const RENEW_AGAIN: Duration = Duration::from_mins(1);
/// So many look-ups for unknown key ids may follow one another at once, ...
const LOOK_UPS: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
/// ... and then one in each such time. A caller whose key has just come into use waits no longer than that for it, however
/// many key ids others make up.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(2);
/// A key id that Entra did not know is not looked up for this long.
const ABSENT_FOR: Duration = Duration::from_mins(5);
/// Of so many such key ids it is remembered.
const ABSENT: usize = 1_000;
/// After a fetch that failed, the next for somebody who waits is so much later.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// What Entra answers is a few kilobytes.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// The algorithm of all of Entra's tokens [azure.md §7].
pub(super) const ALGORITHM: Algorithm = Algorithm::RS256;

/// Why there are no keys to check a token with. What exactly went wrong is in the log: whoever is told this is nobody
/// yet.
#[derive(Clone, Debug, Error)]
#[error(
    "whether the bearer token is good cannot be found out: the signing keys of tenant {tenant} cannot be read from the \
     directory at the moment"
)]
pub struct KeysError {
    /// Whose keys.
    pub tenant: Uuid,
}

/// Why a fetch has failed.
#[derive(Debug, Error)]
#[error("the signing keys of tenant {tenant} cannot be read from {url}: {problem}")]
struct FetchError {
    tenant: Uuid,
    url: String,
    problem: String,
}

/// A tenant's keys, and who issues its tokens.
pub(super) struct Keys {
    /// As tokens of version 1 and 2 name it.
    pub(super) issuers: [String; 2],
    by_id: HashMap<String, Key>,
    published_at: Url,
}

struct Key {
    decoding: DecodingKey,
    parameters: RSAKeyParameters,
}

impl Keys {
    /// A key by its id.
    pub(super) fn get(&self, id: &str) -> Option<&DecodingKey> {
        self.by_id.get(id).map(|key| &key.decoding)
    }

    /// Whether all of these are there still, and are the same.
    fn have_all_of(&self, before: &Self) -> bool {
        before.by_id.iter().all(|(id, key)| {
            let now = self.by_id.get(id);
            now.is_some_and(|now| now.parameters == key.parameters)
        })
    }
}

/// What was tried lately.
#[derive(Default)]
struct Attempts {
    /// When the last fetch that failed did so.
    failed: Option<Instant>,
    /// When the last fetch began that brought keys.
    began: Option<Instant>,
}

impl Attempts {
    fn has_just_failed(&self) -> bool {
        self.failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE)
    }

    /// Whether it failed for somebody who has waited since then.
    fn has_failed_since(&self, asked: Instant) -> bool {
        self.failed.is_some_and(|at| at >= asked) || self.has_just_failed()
    }

    /// Whether what is known was asked of Entra after then.
    fn has_brought_keys_since(&self, asked: Instant) -> bool {
        self.began.is_some_and(|began| began >= asked)
    }

    fn have(&mut self, brought: Result<Instant, Instant>) {
        match brought {
            Ok(began) => (self.began, self.failed) = (Some(began), None),
            Err(failed) => self.failed = Some(failed),
        }
    }
}

/// A tenant whose tokens are taken.
pub(super) struct Tenant {
    id: Uuid,
    authority: Url,
    http: reqwest::Client,
    keys: ArcSwapOption<Keys>,
    /// One fetch at a time. Each has a task of its own, which holds this: whoever waits for it may go away.
    attempts: Arc<Mutex<Attempts>>,
    look_ups: DefaultDirectRateLimiter,
    /// Key ids that Entra did not know, by their SHA-256: they are as long as whoever made them up wants.
    absent: Cache<[u8; 32], Instant>,
    withdrawn: AtomicU64,
}

impl Tenant {
    pub(super) fn new(id: Uuid, authority: Url, http: reqwest::Client) -> Self {
        Self {
            id,
            authority,
            http,
            keys: ArcSwapOption::empty(),
            attempts: Arc::default(),
            look_ups: RateLimiter::direct(quota()),
            absent: Cache::new(ABSENT),
            withdrawn: AtomicU64::new(0),
        }
    }

    /// The keys, if they are known and this one is among them. Waits for nothing.
    pub(super) fn known(&self, id: &str) -> Option<Arc<Keys>> {
        let known = self.keys.load_full()?;
        known.get(id).is_some().then_some(known)
    }

    /// How often a key has been withdrawn: what was signed with it before is to be checked again. Asked before the keys
    /// are: then it is never said to be newer than they are.
    pub(super) fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// The keys; fetched, if they never were.
    ///
    /// # Errors
    /// [`KeysError`] while they cannot be fetched a first time.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<Keys>, KeysError> {
        let unknown = KeysError { tenant: self.id };
        if let Some(known) = self.keys.load_full() {
            return Ok(known);
        }
        let attempts = Arc::clone(&self.attempts).lock_owned().await;
        if let Some(known) = self.keys.load_full() {
            return Ok(known);
        }
        if attempts.has_just_failed() {
            return Err(unknown);
        }
        let fetched = tokio::spawn(Arc::clone(self).fetch_all(attempts)).await;
        fetched.ok().flatten().ok_or(unknown)
    }

    /// The keys with this one among them or, if Entra does not publish it, without.
    ///
    /// # Errors
    /// [`KeysError`] while Entra cannot be asked: whether it publishes the key is not known then.
    pub(super) async fn keys_with(self: &Arc<Self>, id: &str) -> Result<Arc<Keys>, KeysError> {
        let asked = Instant::now();
        let known = self.keys().await?;
        if known.get(id).is_some() {
            return Ok(known);
        }
        let fingerprint: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let is_absent = |at: Instant| at.elapsed() < ABSENT_FOR;
        if self.absent.get(&fingerprint).is_some_and(is_absent) {
            return Ok(known);
        }
        let keys = self.looked_up(id, asked, known).await?;
        if keys.get(id).is_none() {
            self.absent.insert(fingerprint, Instant::now());
        }
        Ok(keys)
    }

    /// The keys as Entra has them after `asked`, or before if this one is among them.
    async fn looked_up(
        self: &Arc<Self>,
        id: &str,
        asked: Instant,
        known: Arc<Keys>,
    ) -> Result<Arc<Keys>, KeysError> {
        let unknown = KeysError { tenant: self.id };
        let attempts = Arc::clone(&self.attempts).lock_owned().await;
        let known = self.keys.load_full().unwrap_or(known);
        if known.get(id).is_some() || attempts.has_brought_keys_since(asked) {
            return Ok(known);
        }
        if attempts.has_failed_since(asked) {
            return Err(unknown);
        }
        // The others wait for their turn behind this one, and share what it finds.
        while let Err(not_yet) = self.look_ups.check() {
            tokio::time::sleep(not_yet.wait_time_from(DefaultClock::default().now())).await;
        }
        let fetched = tokio::spawn(Arc::clone(self).fetch_for_unknown(attempts, known)).await;
        fetched.ok().flatten().ok_or(unknown)
    }

    /// Fetches everything anew every hour, for good.
    pub(super) async fn renew(self: Arc<Self>) {
        let mut is_known = self.keys().await.is_ok();
        loop {
            let next = if is_known { RENEW_AFTER } else { RENEW_AGAIN };
            tokio::time::sleep(next).await;
            let attempts = Arc::clone(&self.attempts).lock_owned().await;
            is_known = Arc::clone(&self).fetch_all(attempts).await.is_some();
        }
    }

    async fn fetch_for_unknown(
        self: Arc<Self>,
        mut attempts: OwnedMutexGuard<Attempts>,
        known: Arc<Keys>,
    ) -> Option<Arc<Keys>> {
        let began = Instant::now();
        match self
            .fetch_keys(known.issuers.clone(), &known.published_at)
            .await
        {
            Ok(keys) => {
                attempts.have(Ok(began));
                Some(self.put(keys))
            }
            Err(error) => {
                tracing::warn!(%error, "a token names an unknown key, and the directory cannot be asked for it");
                attempts.have(Err(Instant::now()));
                None
            }
        }
    }

    async fn fetch_all(
        self: Arc<Self>,
        mut attempts: OwnedMutexGuard<Attempts>,
    ) -> Option<Arc<Keys>> {
        let began = Instant::now();
        let fetched = async {
            let v2 = self.configuration("v2.0/.well-known/openid-configuration");
            let v1 = self.configuration(".well-known/openid-configuration");
            let (v2, v1) = tokio::try_join!(v2, v1)?;
            let published_at = Url::parse(&v2.jwks_uri)
                .map_err(|error| self.error(&self.authority, &format!("jwks_uri: {error}")))?;
            self.fetch_keys([v1.issuer, v2.issuer], &published_at).await
        };
        match fetched.await {
            Ok(keys) => {
                attempts.have(Ok(began));
                Some(self.put(keys))
            }
            Err(error) => {
                tracing::warn!(%error, "callers' tokens are checked by what was known before, if anything");
                attempts.have(Err(Instant::now()));
                None
            }
        }
    }

    fn put(&self, keys: Keys) -> Arc<Keys> {
        let keys = Arc::new(keys);
        let before = self.keys.swap(Some(Arc::clone(&keys)));
        if before.is_some_and(|before| !keys.have_all_of(&before)) {
            self.withdrawn.fetch_add(1, Ordering::AcqRel);
        }
        keys
    }

    async fn configuration(&self, path: &str) -> Result<Configuration, FetchError> {
        let url = self.authority.join(&format!("/{}/{path}", self.id));
        let url = url.map_err(|error| self.error(&self.authority, &error.to_string()))?;
        self.get(&url).await
    }

    async fn fetch_keys(&self, issuers: [String; 2], url: &Url) -> Result<Keys, FetchError> {
        let published: Published = self.get(url).await?;
        let keys = published.keys.into_iter();
        let by_id: HashMap<String, Key> = keys
            .filter_map(|key| usable(key, &issuers, self.id))
            .collect();
        if by_id.is_empty() {
            return Err(self.error(url, "there is none that tokens could be signed with"));
        }
        Ok(Keys {
            issuers,
            by_id,
            published_at: url.clone(),
        })
    }

    async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<T, FetchError> {
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

    fn error(&self, url: &Url, problem: &str) -> FetchError {
        FetchError {
            tenant: self.id,
            url: url.to_string(),
            problem: problem.to_owned(),
        }
    }
}

/// How often unknown key ids are looked up.
fn quota() -> Quota {
    let one = Quota::with_period(LOOK_UP_AGAIN);
    one.unwrap_or(Quota::per_second(NonZeroU32::MIN))
        .allow_burst(LOOK_UPS)
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

/// A key that tokens of this tenant's may be signed with. Some are published for one issuer alone.
fn usable(
    published: serde_json::Value,
    issuers: &[String; 2],
    tenant: Uuid,
) -> Option<(String, Key)> {
    let issuer = published.get("issuer").and_then(serde_json::Value::as_str);
    let issuer = issuer.map(|issuer| issuer.replace("{tenantid}", &tenant.to_string()));
    let key: Jwk = serde_json::from_value(published).ok()?;
    let signs = matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let is_rs256 = matches!(key.common.key_algorithm, None | Some(KeyAlgorithm::RS256));
    let is_ours = issuer.is_none_or(|issuer| issuers.contains(&issuer));
    let decoding = DecodingKey::from_jwk(&key).ok()?;
    let AlgorithmParameters::RSA(parameters) = key.algorithm else {
        return None;
    };
    let key_id = key.common.key_id?;
    let key = Key {
        decoding,
        parameters,
    };
    (signs && is_rs256 && is_ours).then_some((key_id, key))
}
