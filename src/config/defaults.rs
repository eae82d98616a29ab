//! Defaults that hang on another key, as layers below everything that was set.
//!
//! So the structs hold what takes effect, `config check` prints it, and no reader of them works it out again.

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::cloud::{Cloud, Origins};

/// Where they are taken from, if they are there.
const WORKLOAD_IDENTITY: &str = "azure.credential.workload_identity";

/// What AKS's webhook puts into the environment of a pod with workload identity, and which key each is for
/// [azure.md §7]. A pod whose service account is set up so needs `workload_identity: {}` and no more.
const INJECTED: [(&str, &str); 4] = [
    ("azure.tenant_id", "AZURE_TENANT_ID"),
    (
        "azure.credential.workload_identity.client_id",
        "AZURE_CLIENT_ID",
    ),
    (
        "azure.credential.workload_identity.token_file",
        "AZURE_FEDERATED_TOKEN_FILE",
    ),
    ("azure.endpoints.entra", "AZURE_AUTHORITY_HOST"),
];

/// Puts them below what `figment` holds.
pub(super) fn below(figment: Figment) -> Figment {
    endpoints(injected(figment))
}

/// The variable of another's, if any, that would have given `key` a value.
pub(super) fn variable(figment: &Figment, key: &str) -> Option<&'static str> {
    let found = INJECTED.iter().find(|(injected, _)| *injected == key);
    let (_, variable) = found.filter(|_| is_workload_identity(figment))?;
    Some(variable)
}

fn is_workload_identity(figment: &Figment) -> bool {
    matches!(figment.find_value(WORKLOAD_IDENTITY), Ok(Value::Dict(..)))
}

/// Other credentials do not look there: on a developer's machine such variables may be for anything.
fn injected(figment: Figment) -> Figment {
    if !is_workload_identity(&figment) {
        return figment;
    }
    INJECTED.iter().fold(figment, |figment, (key, variable)| {
        match std::env::var(variable)
            .ok()
            .filter(|value| !value.is_empty())
        {
            None => figment,
            Some(value) => figment.join(Injected {
                key,
                variable,
                value,
            }),
        }
    })
}

/// Each cloud's own addresses.
fn endpoints(figment: Figment) -> Figment {
    // A cloud that there is not is told with the section's other problems.
    let cloud: Cloud = figment.extract_inner("azure.cloud").unwrap_or_default();
    let Origins { arm, entra, graph } = cloud.origins();
    [("arm", arm), ("entra", entra), ("graph", graph)]
        .into_iter()
        .fold(figment, |figment, (service, origin)| {
            figment.join(Serialized::default(
                &format!("azure.endpoints.{service}"),
                origin,
            ))
        })
}

/// One such variable as a layer. figment's own would read a value of digits as a number.
struct Injected {
    key: &'static str,
    variable: &'static str,
    value: String,
}

impl Provider for Injected {
    fn metadata(&self) -> Metadata {
        Metadata::from("environment", Source::Custom(self.variable.to_owned()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(self.key, &self.value).data()
    }
}
