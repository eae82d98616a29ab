//! Which resource a scope asks for, and which audience its tokens carry.

use uuid::Uuid;

use super::EntraError;
use crate::settings::Cloud;
use crate::state::State;

/// All AKS API servers share one application [azure.md §7].
const AKS: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";
const REDIS: &str = "https://redis.azure.com";
/// Microsoft Graph's application id, which is the same everywhere.
const GRAPH_ID: &str = "00000003-0000-0000-c000-000000000000";

/// Azure Resource Manager by its two names, of which the second is the older one and still asked for.
pub(crate) const fn arm_audiences(cloud: Cloud) -> [&'static str; 2] {
    match cloud {
        Cloud::Public => [
            "https://management.azure.com",
            "https://management.core.windows.net",
        ],
        Cloud::UsGovernment => [
            "https://management.usgovcloudapi.net",
            "https://management.core.usgovcloudapi.net",
        ],
        Cloud::China => [
            "https://management.chinacloudapi.cn",
            "https://management.core.chinacloudapi.cn",
        ],
    }
}

const fn graph(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Public => "https://graph.microsoft.com",
        Cloud::UsGovernment => "https://graph.microsoft.us",
        Cloud::China => "https://microsoftgraph.chinacloudapi.cn",
    }
}

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
    pub(crate) fn of_scope(cloud: Cloud, state: &State, scope: &str) -> Result<Self, EntraError> {
        let resource = scope
            .strip_suffix("/.default")
            .ok_or_else(|| EntraError::invalid_scope(scope))?;
        Self::of_resource(cloud, state, resource)
            .ok_or_else(|| EntraError::no_such_resource(resource, state.tenant()))
    }

    /// A resource by its URI or application id.
    pub(crate) fn of_resource(cloud: Cloud, state: &State, resource: &str) -> Option<Self> {
        let resource = resource.trim_end_matches('/');
        let [arm, arm_classic] = arm_audiences(cloud);
        if [arm, arm_classic, graph(cloud), AKS, REDIS].contains(&resource) {
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
pub(crate) fn is_for_arm(cloud: Cloud, audience: &str) -> bool {
    arm_audiences(cloud).contains(&audience.trim_end_matches('/'))
}

/// Is `audience` one that Graph takes?
pub(crate) fn is_for_graph(cloud: Cloud, audience: &str) -> bool {
    [graph(cloud), GRAPH_ID].contains(&audience.trim_end_matches('/'))
}
