//! Entra's access tokens: whether one was issued by an allowed tenant, for this broker, and whose it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jsonwebtoken::dangerous::insecure_decode;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use thiserror::Error;
use url::Url;
use uuid::Uuid;

use super::keys::{ALGORITHM, Keys, KeysError, Tenant};
use super::{Caller, now};

/// No token of Entra's is longer: it leaves groups out before it becomes so.
const LONGEST_TOKEN: usize = 32 * 1024;
/// So many tokens are remembered as good.
const REMEMBERED: usize = 10_000;

/// Why a token is not taken.
#[derive(Clone, Debug, Error)]
pub enum TokenError {
    /// It is none, or none of Entra's for anybody.
    #[error("the bearer token is no access token of Entra ID's: {0}")]
    Malformed(String),
    /// It was signed by nobody who may.
    #[error(
        "the bearer token is not signed by Entra ID for a tenant that is allowed here ({allowed})"
    )]
    NotSigned {
        /// Whose tokens are taken.
        allowed: String,
    },
    /// It is of another tenant, or another issuer.
    #[error("the bearer token is of issuer {issuer:?}, tenant {tenant}: expected one of {allowed}")]
    Issuer {
        /// Who says to have issued it.
        issuer: String,
        /// Of which tenant it says to be.
        tenant: Uuid,
        /// Whose tokens are taken.
        allowed: String,
    },
    /// It is for somebody else.
    #[error(
        "the bearer token is for {}: ask for one for {expected}",
        named(audience)
    )]
    Audience {
        /// Whom it is for.
        audience: String,
        /// Whom it has to be for.
        expected: String,
    },
    /// Its time is over.
    #[error("the bearer token has expired: get a new one")]
    Expired,
    /// Its time is yet to come.
    #[error("the bearer token is not valid yet: compare the clocks")]
    NotYetValid,
    /// It says who somebody is, and not what they may ask for.
    #[error("the bearer token is no access token: {0}")]
    NotForAccess(&'static str),
    /// Nobody knows whether it is good.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Where Entra is, such as `https://login.microsoftonline.com`.
    pub authority: Url,
    /// The tenants whose tokens are taken.
    pub tenants: BTreeSet<Uuid>,
    /// Whom they must be for: the broker's client id and its application id URI.
    pub audiences: BTreeSet<String>,
    /// How far the clocks of Entra and of this machine may be apart.
    pub clock_skew: Duration,
}

/// A token that was found to be good.
#[derive(Clone)]
struct Verified {
    caller: Arc<Caller>,
    /// Until then, in seconds since 1970, clock skew included.
    until: i64,
    /// What its tenant said of withdrawn keys then.
    withdrawn: u64,
    tenant: Arc<Tenant>,
}

/// Checks tokens. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    tenants: HashMap<Uuid, Arc<Tenant>>,
    audiences: BTreeSet<String>,
    skew: Duration,
    /// By the token's SHA-256: what lies in memory is of no use to anybody else.
    verified: Cache<[u8; 32], Verified>,
}

impl Tokens {
    /// Takes these tokens. `http` reaches Entra, whose published keys are for everybody: no token goes there.
    #[must_use]
    pub fn new(settings: TokenSettings, http: &reqwest::Client) -> Self {
        let TokenSettings {
            authority,
            tenants,
            audiences,
            clock_skew,
        } = settings;
        let tenant = |id| {
            let tenant = Tenant::new(id, authority.clone(), http.clone());
            (id, Arc::new(tenant))
        };
        Self(Arc::new(Inner {
            tenants: tenants.into_iter().map(tenant).collect(),
            audiences,
            skew: clock_skew,
            verified: Cache::new(REMEMBERED),
        }))
    }

    /// Fetches the keys of all tenants, so that the first caller need not wait for them.
    ///
    /// # Errors
    /// [`KeysError`] of the first whose keys cannot be read.
    pub async fn prepare(&self) -> Result<(), KeysError> {
        for tenant in self.0.tenants.values() {
            tenant.keys().await?;
        }
        Ok(())
    }

    /// Keeps the keys of all tenants up to date, for good.
    pub async fn follow(self) {
        let tenants = self.0.tenants.values().cloned();
        join_all(tenants.map(Tenant::renew)).await;
    }

    /// Whose a token is, where that can be said without asking the directory: it was found to be good before, or the key
    /// that it names is known, or it is refused whatever its key is. `None`: its key has to be looked up.
    #[must_use]
    pub fn at_once(&self, token: &str) -> Option<Result<Arc<Caller>, TokenError>> {
        if token.len() > LONGEST_TOKEN {
            let problem = format!("{} bytes long; at most {LONGEST_TOKEN}", token.len());
            return Some(Err(TokenError::Malformed(problem)));
        }
        let fingerprint = fingerprint(token);
        if let Some(caller) = self.remembered(&fingerprint) {
            return Some(Ok(caller));
        }
        let (key_id, tenant) = match self.key_of(token) {
            Ok(named) => named,
            Err(error) => return Some(Err(error)),
        };
        // Before the keys are: it is never said to be newer than they are.
        let withdrawn = tenant.withdrawn();
        let keys = tenant.known(&key_id)?;
        Some(self.checked(token, &key_id, &keys, tenant, withdrawn))
    }

    fn remembered(&self, fingerprint: &[u8; 32]) -> Option<Arc<Caller>> {
        let known = self.0.verified.get(fingerprint)?;
        let holds = now() < known.until && known.tenant.withdrawn() == known.withdrawn;
        holds.then_some(known.caller)
    }

    /// Whose a token is.
    ///
    /// # Errors
    /// [`TokenError`]
    pub async fn verify(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        if let Some(known) = self.at_once(token) {
            return known;
        }
        let (key_id, tenant) = self.key_of(token)?;
        let withdrawn = tenant.withdrawn();
        let keys = tenant.keys_with(&key_id).await?;
        self.checked(token, &key_id, &keys, tenant, withdrawn)
    }

    /// The key that a token names, and whose it says to be. Nothing of that is proven: only what refuses the token
    /// whatever its key is counts.
    fn key_of(&self, token: &str) -> Result<(String, &Arc<Tenant>), TokenError> {
        let header =
            decode_header(token).map_err(|error| TokenError::Malformed(error.to_string()))?;
        if header.alg != ALGORITHM {
            let problem = format!("signed by {:?}; expected {ALGORITHM:?}", header.alg);
            return Err(TokenError::Malformed(problem));
        }
        // Whoever does not know an extension that is critical has to refuse the token [RFC 7515 §4.1.11].
        if let Some(critical) = header.crit {
            let problem =
                format!("its header has critical extensions that are not known here: {critical:?}");
            return Err(TokenError::Malformed(problem));
        }
        let key_id = header
            .kid
            .ok_or_else(|| TokenError::Malformed("it names no key".to_owned()))?;
        // Whose keys count it says itself, and is believed only once one of them has signed that.
        let says = insecure_decode::<Claims>(token)
            .map_err(|error| TokenError::Malformed(error.to_string()))?
            .claims;
        let tenant = self.0.tenants.get(&says.tid);
        let tenant = tenant.ok_or_else(|| self.wrong_issuer(&says))?;
        // Before its signature: that of a token for Graph cannot be checked by anybody but Graph [azure.md §7], and its
        // bearer is to hear what is wrong with it.
        self.is_for_us(&says)?;
        Ok((key_id, tenant))
    }

    /// Whose a token is that has to be signed by one of these keys. One that is good is remembered.
    fn checked(
        &self,
        token: &str,
        key_id: &str,
        keys: &Keys,
        tenant: &Arc<Tenant>,
        withdrawn: u64,
    ) -> Result<Arc<Caller>, TokenError> {
        let claims = self.signed(token, keys, key_id)?;
        if !keys.issuers.contains(&claims.iss) {
            return Err(self.wrong_issuer(&claims));
        }
        self.is_for_us(&claims)?;
        let until = claims.exp.saturating_add(self.0.skew.as_secs());
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        let caller = Arc::new(claims.caller()?.until(until));
        let verified = Verified {
            caller: Arc::clone(&caller),
            until,
            withdrawn,
            tenant: Arc::clone(tenant),
        };
        self.0.verified.insert(fingerprint(token), verified);
        Ok(caller)
    }

    /// What a token says, if it is signed by one of these keys, and its time is now.
    fn signed(&self, token: &str, keys: &Keys, key_id: &str) -> Result<Claims, TokenError> {
        let unsigned = || TokenError::NotSigned {
            allowed: self.allowed(),
        };
        let key = keys.get(key_id).ok_or_else(unsigned)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss"]);
        validation.leeway = self.0.skew.as_secs();
        validation.validate_nbf = true;
        // Issuer and audience are compared where the caller can be told.
        validation.validate_aud = false;
        let read = decode::<Claims>(token, key, &validation);
        read.map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYetValid,
                ErrorKind::InvalidSignature => unsigned(),
                other => TokenError::Malformed(format!("{other:?}")),
            })
    }

    fn is_for_us(&self, claims: &Claims) -> Result<(), TokenError> {
        if self.0.audiences.contains(&claims.aud) {
            return Ok(());
        }
        let expected: Vec<&str> = self.0.audiences.iter().map(String::as_str).collect();
        Err(TokenError::Audience {
            audience: claims.aud.clone(),
            expected: expected.join(" or "),
        })
    }

    fn wrong_issuer(&self, claims: &Claims) -> TokenError {
        TokenError::Issuer {
            issuer: claims.iss.clone(),
            tenant: claims.tid,
            allowed: self.allowed(),
        }
    }

    fn allowed(&self) -> String {
        let tenants = self.0.tenants.keys().collect::<BTreeSet<_>>();
        let tenants: Vec<String> = tenants.into_iter().map(Uuid::to_string).collect();
        tenants.join(", ")
    }
}

/// Microsoft Graph's application id and its names in the clouds: tokens for it are what is brought by mistake most often.
const GRAPH: [&str; 4] = [
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.com",
    "https://graph.microsoft.us",
    "https://microsoftgraph.chinacloudapi.cn",
];

fn named(audience: &str) -> String {
    let is_graph = GRAPH.contains(&audience.trim_end_matches('/'));
    let of = if is_graph { "Microsoft Graph, " } else { "" };
    format!("{of}{audience:?}")
}

fn fingerprint(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// What is of use here of an access token's claims, of version 1 and 2 [azure.md §7].
#[derive(Debug, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    exp: u64,
    tid: Uuid,
    oid: Uuid,
    sub: String,
    appid: Option<Uuid>,
    azp: Option<Uuid>,
    idtyp: Option<String>,
    scp: Option<String>,
    #[serde(default)]
    roles: BTreeSet<String>,
    /// Object ids, unless the application was set up to get names.
    #[serde(default)]
    groups: Vec<String>,
    #[serde(rename = "_claim_names")]
    claim_names: Option<IgnoredAny>,
    /// The same in tokens that were given without a code: it is in groups, and the token has none.
    #[serde(default)]
    hasgroups: bool,
}

impl Claims {
    /// Who signed in. An id token says that as well, and is for the application that somebody signed in to: it names no
    /// application that asks.
    fn caller(self) -> Result<Caller, TokenError> {
        let application = self.appid.or(self.azp);
        let application = application.ok_or(TokenError::NotForAccess(
            "it names no application that it was given to, as id tokens do not",
        ))?;
        let is_of_application = self.idtyp.as_deref() == Some("app")
            || (self.idtyp.is_none() && self.scp.is_none() && self.sub == self.oid.to_string());
        let is_of_user = matches!(self.idtyp.as_deref(), None | Some("user"))
            && self.scp.as_deref().is_some_and(|scopes| !scopes.is_empty());
        let caller = match (is_of_application, is_of_user) {
            (true, _) => Caller::application(self.tid, self.oid, application),
            (false, true) => Caller::user(self.tid, self.oid, application),
            (false, false) => {
                return Err(TokenError::NotForAccess(
                    "it is neither an application's own nor given for a user's permission (scp)",
                ));
            }
        };
        let groups = self.groups.iter().filter_map(|id| Uuid::parse_str(id).ok());
        let groups: BTreeSet<Uuid> = groups.collect();
        // A name says not which group it is.
        let has_more_groups =
            self.claim_names.is_some() || self.hasgroups || groups.len() < self.groups.len();
        Ok(caller.with(self.roles, groups, has_more_groups))
    }
}
