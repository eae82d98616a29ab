//! Azure Resource Manager. Everything that is sent to it is sent here, by [`Arm::send`].

pub(super) mod managed_clusters;
pub(super) mod role_assignments;
pub(super) mod role_definitions;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use super::cause::innermost;
use super::credential::Tokens;
use super::error::{AzureError, Outcome, Refusal};

/// Azure's messages can quote whole policies.
const LONGEST_MESSAGE: usize = 1_000;
/// No `Retry-After` is believed beyond this: a lane must not close for a day over one header.
const LONGEST_RETRY_AFTER: f64 = 3_600.0;

pub(super) struct Arm {
    http: reqwest::Client,
    endpoint: Url,
    tokens: Tokens,
    call_timeout: Duration,
}

/// One request.
struct Call<'a> {
    /// For messages, such as "GET of cluster X".
    what: &'a str,
    method: Method,
    url: Url,
    body: Option<serde_json::Value>,
    /// `x-ms-client-request-id`: the same in a retry.
    request: Uuid,
    /// The statuses that mean success here.
    expects: &'static [u16],
}

/// An answer that means success.
struct Answer {
    status: u16,
    body: Vec<u8>,
    correlation_id: String,
    remaining: Option<u32>,
}

#[derive(Deserialize)]
struct Page<T> {
    value: Vec<T>,
    #[serde(default, rename = "nextLink")]
    next_link: Option<String>,
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    code: String,
    message: String,
}

impl Arm {
    pub(super) fn new(
        http: reqwest::Client,
        endpoint: Url,
        tokens: Tokens,
        call_timeout: Duration,
    ) -> Self {
        Self {
            http,
            endpoint,
            tokens,
            call_timeout,
        }
    }

    pub(super) const fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    pub(super) const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The URL of `path`, which begins with a slash, with an `OData` filter if there is one.
    fn url(&self, path: &str, api_version: &str, filter: Option<&str>) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        // Not `query_pairs_mut`: it writes spaces as '+', which OData does not have to understand.
        let filter = filter.map_or_else(String::new, |filter| {
            format!("&$filter={}", utf8_percent_encode(filter, NON_ALPHANUMERIC))
        });
        url.set_query(Some(&format!("api-version={api_version}{filter}")));
        url
    }

    async fn get<T: DeserializeOwned>(
        &self,
        what: &str,
        url: Url,
        request: Uuid,
    ) -> Result<T, AzureError> {
        let answer = self
            .send(Call {
                what,
                method: Method::GET,
                url,
                body: None,
                request,
                expects: &[200],
            })
            .await?;
        answer.read(what)
    }

    /// All pages of a list. Stays on ARM's own origin: whatever else a `nextLink` names would get the token.
    async fn list<T: DeserializeOwned>(
        &self,
        what: &str,
        first: Url,
        request: Uuid,
    ) -> Result<Vec<T>, AzureError> {
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(first);
        while let Some(url) = next {
            if !seen.insert(url.clone()) {
                return Err(unreadable_answer(what, "its pages run in a circle"));
            }
            let page: Page<T> = self.get(what, url, request).await?;
            rows.extend(page.value);
            next = match page.next_link.filter(|link| !link.is_empty()) {
                None => None,
                Some(link) => Some(next_page(&self.endpoint, &link).ok_or_else(|| {
                    unreadable_answer(
                        what,
                        &format!("its nextLink leads away from {}", self.endpoint),
                    )
                })?),
            };
        }
        Ok(rows)
    }

    /// Sends one request, once.
    async fn send(&self, call: Call<'_>) -> Result<Answer, AzureError> {
        let bearer = self.tokens.for_call().await?;
        let started = Instant::now();
        let mut request = self
            .http
            .request(call.method.clone(), call.url)
            .timeout(self.call_timeout)
            .bearer_auth(bearer.secret())
            .header("x-ms-client-request-id", call.request.to_string());
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unanswered(call.what, error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.bytes().await;
        let correlation_id = correlation_id(&headers);
        tracing::debug!(
            call = call.what,
            status,
            correlation_id,
            request_id = %call.request,
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "Azure answered"
        );
        if status == 401 {
            self.tokens.refused(&bearer);
        }
        if !call.expects.contains(&status) {
            return Err(AzureError::refused(
                call.what,
                refusal(status, &headers, correlation_id, &body.unwrap_or_default()),
            ));
        }
        Ok(Answer {
            status,
            body: body
                .map_err(|error| self.unanswered(call.what, error))?
                .into(),
            correlation_id,
            remaining: remaining(&headers),
        })
    }

    /// An error before or instead of a whole answer. Only a connection that was never made is proof that
    /// nothing was sent.
    fn unanswered(&self, what: &str, error: reqwest::Error) -> AzureError {
        let outcome = if error.is_connect() || error.is_builder() {
            Outcome::Definite
        } else {
            Outcome::Unknown
        };
        let problem = if error.is_timeout() && !error.is_connect() {
            format!("no answer within {} s", self.call_timeout.as_secs_f32())
        } else {
            innermost(&error.without_url())
        };
        AzureError::unanswered(what, outcome, &problem)
    }
}

impl Answer {
    fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T, AzureError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.unreadable(what, &error.to_string()))
    }

    fn unreadable(&self, what: &str, problem: &str) -> AzureError {
        AzureError::unreadable(what, self.status, &self.correlation_id, problem)
    }
}

/// The page that a `nextLink` names, if it is ARM's own.
fn next_page(endpoint: &Url, link: &str) -> Option<Url> {
    let url = Url::parse(link).ok()?;
    (url.origin() == endpoint.origin()).then_some(url)
}

fn unreadable_answer(what: &str, problem: &str) -> AzureError {
    AzureError::unreadable(what, 200, "", problem)
}

fn refusal(status: u16, headers: &HeaderMap, correlation_id: String, body: &[u8]) -> Refusal {
    // A gateway before ARM may answer with HTML: then the status is all there is.
    let ErrorBody { error } = serde_json::from_slice(body).unwrap_or_default();
    let said = if error.message.is_empty() {
        "no message".to_owned()
    } else {
        error.message.chars().take(LONGEST_MESSAGE).collect()
    };
    Refusal {
        status,
        code: error.code.chars().take(100).collect(),
        said,
        correlation_id,
        retry_after: retry_after(headers),
    }
}

/// Seconds, at least one: ARM's own text may say "after '0' seconds" [azure.md §5].
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    seconds
        .is_finite()
        .then(|| Duration::from_secs_f64(seconds.clamp(1.0, LONGEST_RETRY_AFTER)))
}

fn correlation_id(headers: &HeaderMap) -> String {
    ["x-ms-correlation-request-id", "x-ms-request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// How many calls of this kind ARM still allows: the least of what it says of this caller and of all
/// callers [azure.md §5]. An answer speaks of the one kind that it was.
fn remaining(headers: &HeaderMap) -> Option<u32> {
    ["", "global-"]
        .iter()
        .flat_map(|whose| {
            ["reads", "writes", "deletes"]
                .map(|kind| format!("x-ms-ratelimit-remaining-subscription-{whose}{kind}"))
        })
        .filter_map(|name| headers.get(name)?.to_str().ok()?.parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_wait_is_at_least_a_second_and_at_most_an_hour() {
        for (value, seconds) in [
            ("0", Some(1.0)),
            ("6", Some(6.0)),
            ("2.128", Some(2.128)),
            ("-3", Some(1.0)),
            ("1e300", Some(3_600.0)),
            ("NaN", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            let expected = seconds.map(Duration::from_secs_f64);
            assert_eq!(
                retry_after(&headers(&[("retry-after", value)])),
                expected,
                "{value}"
            );
        }
        assert_eq!(retry_after(&headers(&[])), None);
    }

    #[test]
    fn what_remains_is_the_least_that_is_said() {
        let said = headers(&[
            ("x-ms-ratelimit-remaining-subscription-writes", "199"),
            (
                "x-ms-ratelimit-remaining-subscription-global-writes",
                "2999",
            ),
        ]);
        assert_eq!(remaining(&said), Some(199));
        assert_eq!(remaining(&headers(&[])), None);
    }

    #[test]
    fn a_list_goes_on_at_arm_and_nowhere_else() {
        let endpoint = Url::parse("https://management.azure.com/").unwrap();
        let next = |link: &str| next_page(&endpoint, link).is_some();
        assert!(next(
            "https://management.azure.com:443/subscriptions/s?$skiptoken=x"
        ));
        for elsewhere in [
            "https://management.azure.com.example/subscriptions",
            "https://management.azure.com:8443/subscriptions",
            "https://management.azure.com@example/subscriptions",
            "http://management.azure.com/subscriptions",
            "/subscriptions/s?$skiptoken=x",
        ] {
            assert!(!next(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn an_error_body_that_is_no_json_leaves_the_status() {
        let refusal = refusal(
            502,
            &headers(&[]),
            String::new(),
            b"<html>Bad Gateway</html>",
        );
        assert_eq!((refusal.status, refusal.code.as_str()), (502, ""));
        assert_eq!(refusal.said, "no message");
    }
}
