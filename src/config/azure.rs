//! `azure`: the tenant, the subscriptions, and who the broker is there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;
use uuid::Uuid;

use crate::domain::ids::SubscriptionId;

use super::cloud::Cloud;
use super::secret::{Secret, SecretError};
use super::{redact, text};

/// The section `azure`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Azure {
    /// The Entra tenant. Required.
    pub tenant_id: Uuid,
    /// The subscriptions whose clusters the broker manages. Required, at least one.
    #[serde(with = "text::list")]
    pub subscriptions: Vec<SubscriptionId>,
    /// Who the broker is in Entra. Required, exactly one kind.
    pub credential: Credential,
    /// Which of the clouds it all is in. It decides where Azure is, and what tokens are asked for.
    #[serde(default)]
    pub cloud: Cloud,
    /// Where Azure is: the cloud's own addresses unless set.
    pub endpoints: Endpoints,
    /// Certificates, in PEM, that are trusted besides the system's own: for a proxy that opens TLS, or for
    /// the emulator.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long one call may take, its answer's body included.
    #[serde(default = "call_timeout", with = "humantime_serde")]
    pub call_timeout: Duration,
    /// How long connecting may take, TLS included.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    pub connect_timeout: Duration,
}

const fn call_timeout() -> Duration {
    Duration::from_secs(20)
}

const fn connect_timeout() -> Duration {
    Duration::from_secs(5)
}

/// Who the broker is in Entra.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", try_from = "Kinds")]
pub enum Credential {
    /// An application with a client secret.
    ClientSecret(ClientSecretCredential),
    /// An application that a Kubernetes service account stands for.
    WorkloadIdentity(WorkloadIdentityCredential),
    /// The identity of the machine that the broker runs on.
    ManagedIdentity(ManagedIdentityCredential),
    /// Whoever is logged in on this machine.
    DeveloperTools(DeveloperToolsCredential),
}

impl Credential {
    /// Its key under `azure.credential`.
    const fn kind(&self) -> &'static str {
        match self {
            Self::ClientSecret(_) => "client_secret",
            Self::WorkloadIdentity(_) => "workload_identity",
            Self::ManagedIdentity(_) => "managed_identity",
            Self::DeveloperTools(_) => "developer_tools",
        }
    }
}

/// The credential as written: serde alone would take the first of two kinds and skip the other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kinds {
    client_secret: Option<ClientSecretCredential>,
    workload_identity: Option<WorkloadIdentityCredential>,
    managed_identity: Option<ManagedIdentityCredential>,
    developer_tools: Option<DeveloperToolsCredential>,
}

impl TryFrom<Kinds> for Credential {
    type Error = String;

    fn try_from(kinds: Kinds) -> Result<Self, Self::Error> {
        let Kinds {
            client_secret,
            workload_identity,
            managed_identity,
            developer_tools,
        } = kinds;
        let mut set = [
            client_secret.map(Self::ClientSecret),
            workload_identity.map(Self::WorkloadIdentity),
            managed_identity.map(Self::ManagedIdentity),
            developer_tools.map(Self::DeveloperTools),
        ]
        .into_iter()
        .flatten();
        match (set.next(), set.next()) {
            (Some(credential), None) => Ok(credential),
            (Some(one), Some(other)) => Err(format!(
                "{} and {} are both set: keep one",
                one.kind(),
                other.kind()
            )),
            (None, _) => Err(
                "empty: set client_secret, workload_identity, managed_identity or developer_tools; \
                 one that needs no keys of its own is written with {} behind it"
                    .to_owned(),
            ),
        }
    }
}

/// `azure.credential.client_secret`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSecretCredential {
    /// The application (client) id.
    pub client_id: Uuid,
    /// The file that holds the secret.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// The secret itself: from the environment only.
    #[serde(default)]
    pub client_secret: Option<Secret>,
}

impl ClientSecretCredential {
    /// The secret, read anew from its file, so that a rotated one is taken.
    ///
    /// # Errors
    /// [`SecretError`] when the file cannot be read or is empty, or when neither key is set.
    pub fn secret(&self) -> Result<Secret, SecretError> {
        match (&self.client_secret_file, &self.client_secret) {
            (Some(path), _) => Secret::read(path),
            (None, Some(secret)) => Ok(secret.clone()),
            (None, None) => Err(SecretError::Missing {
                file_key: "azure.credential.client_secret.client_secret_file",
                variable: "AKS_ACCESS_BROKER__AZURE__CREDENTIAL__CLIENT_SECRET__CLIENT_SECRET",
            }),
        }
    }
}

/// `azure.credential.workload_identity`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadIdentityCredential {
    /// The application (client) id, or a managed identity's.
    pub client_id: Uuid,
    /// The projected service account token, which Kubernetes rotates: it is read anew for each exchange.
    pub token_file: PathBuf,
}

/// `azure.credential.managed_identity`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedIdentityCredential {
    /// The client id of a user-assigned identity; without it the machine's own, system-assigned one.
    #[serde(default)]
    pub client_id: Option<Uuid>,
}

/// `azure.credential.developer_tools`: the Azure CLI (`az`), or else the Azure Developer CLI (`azd`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeveloperToolsCredential {}

/// Where Azure is. A key that is not set has the address of `azure.cloud`'s.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// Azure Resource Manager.
    #[serde(with = "text")]
    pub arm: Endpoint,
    /// Entra ID, where tokens come from.
    #[serde(with = "text")]
    pub entra: Endpoint,
    /// Microsoft Graph, where principals are looked up.
    #[serde(with = "text")]
    pub graph: Endpoint,
}

/// A bare https origin: tokens are sent there, and paths are put behind it. So it holds no secret either.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// The address.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<Url> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(url: Url) -> Result<Self, Self::Error> {
        let is_bare = url.scheme() == "https"
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_bare {
            Ok(Self(url))
        } else {
            let place = redact::place(&url);
            Err(InvalidEndpoint::NotBare { place })
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(InvalidEndpoint::NotAUrl)?;
        Self::try_from(url)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text or a URL is no endpoint. It repeats nothing that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    /// Not a URL.
    #[error("not a URL ({0}); expected https://HOST[:PORT]")]
    NotAUrl(url::ParseError),
    /// A URL with more or less than an origin in it.
    #[error(
        "{place} cannot be sent tokens to: expected https://HOST[:PORT], without a user name or a password before it and \
         with nothing behind it"
    )]
    NotBare {
        /// Scheme, host and port.
        place: String,
    },
}
