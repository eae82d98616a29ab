//! gRPC by hand, for what no client library sends: any bytes for a message, any headers, and no timer on this side.

use tonic::Status;

use super::broker::BrokerProcess;

/// The RPCs of the contract that are served.
pub const SERVED: [&str; 15] = [
    "Grant",
    "ExtendGrant",
    "Revoke",
    "CheckAccess",
    "BatchCheckAccess",
    "ListAccess",
    "GetJob",
    "WatchJob",
    "ListJobs",
    "ListJobTargets",
    "GetGrant",
    "ListGrants",
    "GetCluster",
    "ListClusters",
    "ListAuditEvents",
];

/// HTTP/2 to a broker.
#[derive(Clone)]
pub struct RawClient {
    http: reqwest::Client,
    address: String,
    token: Option<String>,
}

impl RawClient {
    /// To this broker.
    pub fn new(broker: &BrokerProcess) -> Self {
        let http = reqwest::Client::builder()
            .http2_prior_knowledge()
            .build()
            .expect("a client");
        Self {
            http,
            address: broker.address().to_owned(),
            token: broker.token().map(str::to_owned),
        }
    }

    /// The same with another token, or without one.
    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// Sends `body` to an RPC, and gives the status that it is refused with; `None` where it is not.
    pub async fn refusal(
        &self,
        rpc: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Option<Status> {
        let method = format!("aks.access.v1.AccessBrokerService/{rpc}");
        self.refusal_of(&method, body, headers).await
    }

    /// The same for an RPC of any service, as `SERVICE/RPC`.
    pub async fn refusal_of(
        &self,
        method: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Option<Status> {
        let url = format!("{}/{method}", self.address);
        let mut request = self
            .http
            .post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        // What is refused has no body, and its status in front.
        Status::from_header_map(response.headers())
    }
}

/// A message as gRPC frames it: not compressed, and so long.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), message].concat()
}
