//! Who the broker is: a credential of `azure_identity` for each kind that the configuration knows.

use std::error::Error as _;
use std::sync::Arc;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential};
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, AzureDeveloperCliCredential,
    AzureDeveloperCliCredentialOptions, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::AzureSettings;
use super::cause::innermost;
use super::error::AzureError;
use crate::config::{self, Credential};

type Source = Arc<dyn TokenCredential>;

/// A token for `resource`, fetched now.
///
/// The credential is built anew for each: a rotated secret or token file is then taken up, and a token that
/// was refused is not served again, which `azure_identity` would do until it ends. (A managed identity's
/// endpoint keeps tokens of its own, and may.)
///
/// # Errors
/// Definite ones only, after `call_timeout` at the latest: a virtual machine's managed identity is asked
/// again for 72 seconds by `azure_identity`, whatever it is told of retries, and `az` for ever.
pub(super) async fn token(
    settings: &AzureSettings,
    http: &reqwest::Client,
    resource: &str,
) -> Result<AccessToken, AzureError> {
    let sources =
        sources(settings, http).map_err(|problem| AzureError::no_token(false, &problem))?;
    let scope = format!("{resource}/.default");
    let asking = first_of(&sources, &scope);
    tokio::time::timeout(settings.call_timeout, asking)
        .await
        .unwrap_or_else(|_| {
            Err(AzureError::no_token(
                false,
                &format!(
                    "{} gave none within {} s",
                    asked(&settings.credential),
                    settings.call_timeout.as_secs_f32()
                ),
            ))
        })
}

/// What there is to ask, in order.
///
/// # Errors
/// Why a credential cannot be built, for instance because its token file is missing.
pub(super) fn sources(
    settings: &AzureSettings,
    http: &reqwest::Client,
) -> Result<Vec<Source>, String> {
    match &settings.credential {
        Credential::ClientSecret(client) => client_secret(settings, http, client),
        Credential::WorkloadIdentity(workload) => workload_identity(settings, http, workload),
        Credential::ManagedIdentity(identity) => managed_identity(settings, identity),
        Credential::DeveloperTools(_) => developer_tools(settings),
    }
}

/// Whoever is asked for a token, for messages.
const fn asked(credential: &Credential) -> &'static str {
    match credential {
        Credential::ClientSecret(_) | Credential::WorkloadIdentity(_) => "Entra",
        Credential::ManagedIdentity(_) => {
            "the managed identity's endpoint (IDENTITY_ENDPOINT, or else 169.254.169.254)"
        }
        Credential::DeveloperTools(_) => "az and azd",
    }
}

fn client_secret(
    settings: &AzureSettings,
    http: &reqwest::Client,
    client: &config::ClientSecretCredential,
) -> Result<Vec<Source>, String> {
    let secret = client.secret().map_err(|error| error.to_string())?;
    let options = ClientSecretCredentialOptions {
        client_options: entra_options(settings, http),
    };
    let built = ClientSecretCredential::new(
        &settings.tenant.to_string(),
        client.client_id.to_string(),
        Secret::new(secret.expose().to_owned()),
        Some(options),
    );
    Ok(vec![built.map_err(|error| said_by(&error))?])
}

fn workload_identity(
    settings: &AzureSettings,
    http: &reqwest::Client,
    workload: &config::WorkloadIdentityCredential,
) -> Result<Vec<Source>, String> {
    let built = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions {
            client_options: entra_options(settings, http),
        },
        client_id: Some(workload.client_id.to_string()),
        tenant_id: Some(settings.tenant.to_string()),
        token_file_path: Some(workload.token_file.clone()),
    }));
    Ok(vec![built.map_err(|error| said_by(&error))?])
}

fn managed_identity(
    settings: &AzureSettings,
    identity: &config::ManagedIdentityCredential,
) -> Result<Vec<Source>, String> {
    let built = ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
        user_assigned_id: identity
            .client_id
            .map(|id| UserAssignedId::ClientId(id.to_string())),
        client_options: options(&next_door(settings)?),
    }));
    Ok(vec![built.map_err(|error| said_by(&error))?])
}

/// Not `azure_identity`'s own chain of the two: that one takes whatever tenant each tool is logged in to.
fn developer_tools(settings: &AzureSettings) -> Result<Vec<Source>, String> {
    let tenant_id = Some(settings.tenant.to_string());
    let az = AzureCliCredential::new(Some(AzureCliCredentialOptions {
        tenant_id: tenant_id.clone(),
        ..AzureCliCredentialOptions::default()
    }));
    let azd = AzureDeveloperCliCredential::new(Some(AzureDeveloperCliCredentialOptions {
        tenant_id,
        ..AzureDeveloperCliCredentialOptions::default()
    }));
    Ok(vec![
        az.map_err(|error| said_by(&error))?,
        azd.map_err(|error| said_by(&error))?,
    ])
}

/// The first token that one of the sources gives, or what they all said.
async fn first_of(sources: &[Source], scope: &str) -> Result<AccessToken, AzureError> {
    let mut said = Vec::new();
    let mut refused = !sources.is_empty();
    for source in sources {
        match source.get_token(&[scope], None).await {
            Ok(token) => return Ok(token),
            Err(error) => {
                refused &= is_refusal(&error);
                said.push(said_by(&error));
            }
        }
    }
    Err(AzureError::no_token(refused, &said.join("; ")))
}

fn entra_options(settings: &AzureSettings, http: &reqwest::Client) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    settings
        .authority
        .as_str()
        .clone_into(&mut cloud.authority_host);
    ClientOptions {
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        ..options(http)
    }
}

fn options(http: &reqwest::Client) -> ClientOptions {
    ClientOptions {
        // The default policy took 82 seconds and nine calls over one 500.
        retry: RetryOptions::none(),
        transport: Some(Transport::new(Arc::new(http.clone()))),
        ..ClientOptions::default()
    }
}

/// A client for the endpoint that every machine with a managed identity has to itself: plain HTTP, and never
/// through a proxy, which would ask for its own identity.
fn next_door(settings: &AzureSettings) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .timeout(settings.call_timeout)
        .connect_timeout(settings.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
        .map_err(|error| innermost(&error))
}

/// A 400 or 401 of a token endpoint says that the credential is no good; all else may pass.
fn is_refusal(error: &azure_core::Error) -> bool {
    matches!(status_of(error), Some(400 | 401))
}

/// What the SDK says, and why: its own words alone are "failed to execute", or "failed to read".
fn said_by(error: &azure_core::Error) -> String {
    let text = error.to_string();
    // What follows is a link to a page on troubleshooting the SDK.
    let said = text
        .split("\nTo troubleshoot")
        .next()
        .unwrap_or_default()
        .trim();
    match error.source() {
        None => said.to_owned(),
        Some(cause) => format!("{said} ({})", innermost(cause)),
    }
}

fn status_of(error: &azure_core::Error) -> Option<u16> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(status) = error
            .downcast_ref::<azure_core::Error>()
            .and_then(azure_core::Error::http_status)
        {
            return Some(status.into());
        }
        next = error.source();
    }
    None
}
