//! The clouds that Azure is run as. What one knows, the others do not: tenants, subscriptions, tokens.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

/// `azure.cloud`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Azure, as most know it.
    #[default]
    Public,
    /// Azure Government, of the United States.
    UsGovernment,
    /// Azure in China, run by 21Vianet.
    China,
}

/// Where a cloud's services are. Each address is also the resource that tokens for the service are asked
/// for [azure.md §7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origins {
    /// Azure Resource Manager.
    pub arm: &'static str,
    /// Entra ID, where tokens come from.
    pub entra: &'static str,
    /// Microsoft Graph.
    pub graph: &'static str,
}

impl Cloud {
    /// Every cloud.
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGovernment, Self::China];

    /// Its addresses, without a slash behind them [azure.md §1, §6, §7].
    #[must_use]
    pub const fn origins(self) -> Origins {
        match self {
            Self::Public => Origins {
                arm: "https://management.azure.com",
                entra: "https://login.microsoftonline.com",
                graph: "https://graph.microsoft.com",
            },
            Self::UsGovernment => Origins {
                arm: "https://management.usgovcloudapi.net",
                entra: "https://login.microsoftonline.us",
                graph: "https://graph.microsoft.us",
            },
            Self::China => Origins {
                arm: "https://management.chinacloudapi.cn",
                entra: "https://login.chinacloudapi.cn",
                graph: "https://microsoftgraph.chinacloudapi.cn",
            },
        }
    }

    /// Whose address a URL is, and which: a cloud, and the name of its service's key under
    /// `azure.endpoints`. None knows a proxy's, or an emulator's.
    #[must_use]
    pub fn of(url: &Url) -> Option<(Self, &'static str)> {
        Self::ALL.into_iter().find_map(|cloud| {
            let Origins { arm, entra, graph } = cloud.origins();
            let mut services = [("arm", arm), ("entra", entra), ("graph", graph)].into_iter();
            let is_host = |origin: &str| url.host_str() == origin.strip_prefix("https://");
            services
                .find(|(_, origin)| is_host(origin))
                .map(|(service, _)| (cloud, service))
        })
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::UsGovernment => "usgovernment",
            Self::China => "china",
        })
    }
}
