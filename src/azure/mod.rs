//! Azure, as the broker uses it: Azure Resource Manager and Microsoft Graph, with access tokens from Entra ID.
//!
//! Azure's JSON stops here: what comes out are the domain's types. Nothing in this module retries; what
//! an error means, and whether to try again, is data ([`AzureError`]) for whoever asked.

mod arm;
mod cause;
mod credential;
mod error;
mod graph;
mod identity;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use url::Url;
use uuid::Uuid;

pub use arm::deny_assignments::DenyFilter;
pub use arm::role_assignments::{Deletion, Filter, Place, RoleAssignment, Written};
pub use arm::role_definitions::RoleType;
pub use error::{AzureError, Disposition, Outcome, Purpose, REPLICATION};
pub use graph::{DirectoryObject, GraphError};

use crate::config::{Cloud, Credential, Endpoint, InvalidEndpoint};
use credential::Tokens;

/// How to reach Azure, and as whom.
#[derive(Clone)]
pub struct AzureSettings {
    /// Azure Resource Manager: `https://management.azure.com`, or another cloud's [azure.md §7].
    pub arm_endpoint: Url,
    /// Microsoft Graph: `https://graph.microsoft.com`, or another cloud's.
    pub graph_endpoint: Url,
    /// Entra ID: `https://login.microsoftonline.com`, or another cloud's.
    pub authority: Url,
    /// Which cloud that is: it decides what tokens are asked for, whatever stands between.
    pub cloud: Cloud,
    /// The tenant.
    pub tenant: Uuid,
    /// Who the broker is.
    pub credential: Credential,
    /// Certificate authorities to trust besides the system's, as PEM: an emulator's, or a proxy's.
    pub ca_pem: Option<Vec<u8>>,
    /// How long one call may take, from connecting to the last byte of the answer.
    pub call_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl fmt::Debug for AzureSettings {
    /// The addresses without what may be a secret in them: [`Azure::new`] checks them only later.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = |url: &Url| url.origin().ascii_serialization();
        f.debug_struct("AzureSettings")
            .field("arm_endpoint", &origin(&self.arm_endpoint))
            .field("graph_endpoint", &origin(&self.graph_endpoint))
            .field("authority", &origin(&self.authority))
            .field("cloud", &self.cloud)
            .field("tenant", &self.tenant)
            .field("credential", &self.credential)
            .field("call_timeout", &self.call_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl AzureSettings {
    /// From the configuration's section `azure`; reads the file of certificate authorities.
    ///
    /// # Errors
    /// [`InvalidAzureSettings::Ca`] when that file cannot be read.
    pub fn from_config(config: &crate::config::Azure) -> Result<Self, InvalidAzureSettings> {
        let ca_pem = match &config.ca_file {
            None => None,
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                InvalidAzureSettings::Ca(format!("{} cannot be read: {error}", path.display()))
            })?),
        };
        Ok(Self {
            arm_endpoint: config.endpoints.arm.url().clone(),
            graph_endpoint: config.endpoints.graph.url().clone(),
            authority: config.endpoints.entra.url().clone(),
            cloud: config.cloud,
            tenant: config.tenant_id,
            credential: config.credential.clone(),
            ca_pem,
            call_timeout: config.call_timeout,
            connect_timeout: config.connect_timeout,
        })
    }
}

/// Why there can be no clients with these settings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidAzureSettings {
    /// An endpoint that is no bare https origin: tokens are sent there.
    #[error("{setting}: {problem}")]
    Endpoint {
        /// Which.
        setting: &'static str,
        /// What is wrong with it.
        problem: InvalidEndpoint,
    },
    /// The certificate authorities cannot be read, or are not PEM.
    #[error("the certificate authorities cannot be used: {0}")]
    Ca(String),
    /// The credential cannot be built.
    #[error("the broker's own credential cannot be used: {0}")]
    Credential(String),
    /// The HTTP client cannot be built.
    #[error("no HTTP client for Azure: {0}")]
    Client(String),
}

/// A handle on Azure, cheap to clone.
#[derive(Clone)]
pub struct Azure {
    arm: Arc<arm::Arm>,
    graph: Arc<graph::Graph>,
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure")
            .field("arm", &self.arm.endpoint().as_str())
            .field("graph", &self.graph.endpoint().as_str())
            .finish_non_exhaustive()
    }
}

impl Azure {
    /// Builds the clients; calls nothing.
    ///
    /// # Errors
    /// [`InvalidAzureSettings`] says which setting cannot be used, and why.
    pub fn new(settings: AzureSettings) -> Result<Self, InvalidAzureSettings> {
        for (setting, url) in [
            ("the ARM endpoint", &settings.arm_endpoint),
            ("the Graph endpoint", &settings.graph_endpoint),
            ("the Entra authority", &settings.authority),
        ] {
            Endpoint::try_from(url.clone())
                .map_err(|problem| InvalidAzureSettings::Endpoint { setting, problem })?;
        }
        let http = http_client(&settings)?;
        let settings = Arc::new(settings);
        let timeout = settings.call_timeout;
        let tokens = |resource| {
            Tokens::new(Arc::clone(&settings), http.clone(), resource)
                .map_err(InvalidAzureSettings::Credential)
        };
        let origins = settings.cloud.origins();
        let arm = settings.arm_endpoint.clone();
        let arm = arm::Arm::new(http.clone(), arm, tokens(origins.arm)?, timeout);
        let graph = settings.graph_endpoint.clone();
        let graph = graph::Graph::new(http.clone(), graph, tokens(origins.graph)?, timeout);
        Ok(Self {
            arm: Arc::new(arm),
            graph: Arc::new(graph),
        })
    }

    /// Makes sure that an access token for ARM is in hand that outlasts a call, so that the calls after
    /// it do not wait for Entra.
    ///
    /// Returns nothing: the token itself never leaves this module.
    ///
    /// # Errors
    /// Definite ones only: no call has been made.
    pub async fn fetch_access_token(&self) -> Result<(), AzureError> {
        self.arm.tokens().fresh().await.map(drop)
    }
}

/// A client for ARM, Graph and Entra: they share what is trusted and how long a call may take.
///
/// # Errors
/// [`InvalidAzureSettings`] where the certificate authorities are not PEM, or no client can be built.
pub fn http_client(settings: &AzureSettings) -> Result<reqwest::Client, InvalidAzureSettings> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("aks-access-broker/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.call_timeout)
        .connect_timeout(settings.connect_timeout)
        // Following a redirect would send the token to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        // By default reqwest sends again what HTTP/2 refused: nothing underneath may retry, because a
        // call's whole timeout is reckoned against what is left of a lease.
        .retry(reqwest::retry::never())
        // Without, a connection that died in silence would time out call after call, as all share it.
        .http2_keep_alive_interval(settings.connect_timeout)
        .http2_keep_alive_timeout(settings.connect_timeout)
        .https_only(true);
    if let Some(pem) = &settings.ca_pem {
        let authorities = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| InvalidAzureSettings::Ca(error.to_string()))?;
        builder = builder.tls_certs_merge(authorities);
    }
    builder
        .build()
        .map_err(|error| InvalidAzureSettings::Client(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientSecretCredential, Secret, WorkloadIdentityCredential};

    fn settings() -> AzureSettings {
        AzureSettings {
            arm_endpoint: Url::parse("https://management.azure.com").unwrap(),
            graph_endpoint: Url::parse("https://graph.microsoft.com").unwrap(),
            authority: Url::parse("https://login.microsoftonline.com").unwrap(),
            cloud: Cloud::Public,
            tenant: Uuid::from_u128(1),
            credential: Credential::ClientSecret(ClientSecretCredential {
                client_id: Uuid::from_u128(2),
                client_secret_file: None,
                client_secret: Some(Secret::new("hunter2".to_owned())),
            }),
            ca_pem: None,
            call_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert!(!format!("{:?}", settings()).contains("hunter2"));
        let azure = Azure::new(settings()).unwrap();
        assert!(!format!("{azure:?}").contains("hunter2"));
    }

    #[test]
    fn tokens_go_to_bare_https_origins_only() {
        for endpoint in [
            "http://management.azure.com",
            "https://management.azure.com/arm",
            "https://user:hunter2@management.azure.com",
            "https://management.azure.com?x",
        ] {
            let url = Url::parse(endpoint).unwrap();
            let authority = url.clone();
            let printed = format!(
                "{:?}",
                AzureSettings {
                    authority,
                    ..settings()
                }
            );
            assert!(!printed.contains("hunter2"), "{printed}");
            let of_arm = AzureSettings {
                arm_endpoint: url.clone(),
                ..settings()
            };
            let of_graph = AzureSettings {
                graph_endpoint: url,
                ..settings()
            };
            for settings in [of_arm, of_graph] {
                let refused = Azure::new(settings).unwrap_err();
                assert!(
                    matches!(refused, InvalidAzureSettings::Endpoint { .. }),
                    "{endpoint}"
                );
                assert!(!refused.to_string().contains("hunter2"));
            }
        }
    }

    #[test]
    fn a_missing_token_file_is_refused_before_anything_is_called() {
        let refused = Azure::new(AzureSettings {
            credential: Credential::WorkloadIdentity(WorkloadIdentityCredential {
                client_id: Uuid::from_u128(2),
                token_file: "/nonexistent/token".into(),
            }),
            ..settings()
        });
        let refused = refused.unwrap_err();
        assert!(matches!(refused, InvalidAzureSettings::Credential(_)));
        let told = refused.to_string();
        for part in ["/nonexistent/token", "No such file or directory"] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
    }
}
