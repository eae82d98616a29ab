//! Which resource a scope asks for, and which audience its tokens carry.

use uuid::Uuid;

use super::EntraError;
use crate::state::State;

/// Azure Resource Manager.
pub(crate) const ARM: &str = "https://management.azure.com";
/// Microsoft Graph.
pub(crate) const GRAPH: &str = "https://graph.microsoft.com";
/// All AKS API servers share one application [azure.md §7].
const AKS: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";
const REDIS: &str = "https://redis.azure.com";
/// ARM's older name, still asked for.
const ARM_CLASSIC: &str = "https://management.core.windows.net";

/// A resource that tokens can be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    /// The `aud` claim.
    pub(crate) value: String,
    /// Microsoft's own resources take version 1 tokens, applications of the tenant version 2.
    pub(crate) v2: bool,
}

impl Audience {
    /// Reads `scope` of the client credentials flow: a resource and `/.default`.
    pub(crate) fn of_scope(state: &State, scope: &str) -> Result<Self, EntraError> {
        let resource = scope
            .strip_suffix("/.default")
            .ok_or_else(|| EntraError::invalid_scope(scope))?;
        Self::of_resource(state, resource)
            .ok_or_else(|| EntraError::no_such_resource(resource, state.tenant()))
    }

    /// A resource by its URI or application id.
    pub(crate) fn of_resource(state: &State, resource: &str) -> Option<Self> {
        let resource = resource.trim_end_matches('/');
        if [ARM, GRAPH, AKS, REDIS, ARM_CLASSIC].contains(&resource) {
            return Some(Self {
                value: resource.to_owned(),
                v2: false,
            });
        }
        let app_id = Uuid::try_parse(resource.strip_prefix("api://").unwrap_or(resource)).ok()?;
        state.application(app_id).map(|application| Self {
            value: application.app_id.to_string(),
            v2: true,
        })
    }
}

/// Is `audience` one that ARM takes?
pub(crate) fn is_for_arm(audience: &str) -> bool {
    [ARM, ARM_CLASSIC].contains(&audience.trim_end_matches('/'))
}

/// Is `audience` one that Graph takes?
pub(crate) fn is_for_graph(audience: &str) -> bool {
    audience.trim_end_matches('/') == GRAPH || audience == "00000003-0000-0000-c000-000000000000"
}
