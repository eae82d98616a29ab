//! Defaults that hang on another key, as a layer below everything that was set.
//!
//! So the structs hold what takes effect, `config check` prints it, and no reader of them works it out again.

use figment::Figment;
use figment::providers::Serialized;

use super::cloud::{Cloud, Origins};

/// Puts them below what `figment` holds.
pub(super) fn below(figment: Figment) -> Figment {
    endpoints(figment)
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
