//! Azure Resource Manager. Everything that is sent to it is sent here, by [`Arm::send`].

pub(super) mod deny_assignments;
pub(super) mod fleets;
pub(super) mod managed_clusters;
pub(super) mod role_assignments;
pub(super) mod role_definitions;

use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use super::credential::Tokens;
use super::error::AzureError;
use super::wire;

/// No list is read beyond this many rows: a subscription has at most 4,000 role assignments, to which come those of the
/// management groups above it, 500 each in at most six levels and the root, and at most 5,000 clusters
/// [azure-docs limits.md].
const MOST_ROWS: usize = 10_000;

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

impl<'a> Call<'a> {
    const fn get(what: &'a str, url: Url, request: Uuid) -> Self {
        Self {
            what,
            method: Method::GET,
            url,
            body: None,
            request,
            expects: &[200],
        }
    }
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
        let answer = self.send(Call::get(what, url, request)).await?;
        answer.read(what)
    }

    /// All pages of a list, each row read by `parse`, which says what is wrong with one: a list with a hole in it would
    /// be taken for the whole truth.
    async fn list<Wire: DeserializeOwned, T>(
        &self,
        what: &str,
        first: Url,
        request: Uuid,
        parse: impl Fn(Wire) -> Result<T, String>,
    ) -> Result<Vec<T>, AzureError> {
        let rows = self.rows(what, first, request).await?;
        rows.into_iter()
            .map(|row| parse(row).map_err(|problem| unreadable_answer(what, &problem)))
            .collect()
    }

    /// All pages of a list, which must not be longer or larger than the broker reads of one: a list with its end cut
    /// off would be taken for the whole truth, too.
    async fn rows<T: DeserializeOwned>(
        &self,
        what: &str,
        first: Url,
        request: Uuid,
    ) -> Result<Vec<T>, AzureError> {
        let mut rows = Vec::new();
        let mut pages = wire::Pages::new(&self.endpoint, MOST_ROWS);
        let mut next = Some(first);
        while let Some(url) = next {
            let call = Call::get(what, url.clone(), request);
            let answer = self.send_within(call, pages.bytes_left()).await?;
            let page: Page<T> = answer.read(what)?;
            next = pages
                .after(
                    url,
                    page.value.len(),
                    answer.body.len(),
                    page.next_link.as_deref(),
                )
                .map_err(|problem| answer.unreadable(what, &problem))?;
            rows.extend(page.value);
        }
        Ok(rows)
    }

    /// Sends one request, once.
    async fn send(&self, call: Call<'_>) -> Result<Answer, AzureError> {
        self.send_within(call, wire::LARGEST_ANSWER).await
    }

    /// Sends one request, once, and reads of the answer no more than `largest` bytes.
    async fn send_within(&self, call: Call<'_>, largest: usize) -> Result<Answer, AzureError> {
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
        let body = wire::body(response, largest).await;
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
                wire::refusal(status, &headers, correlation_id, &body.unwrap_or_default()),
            ));
        }
        let body = body.map_err(|problem| match problem {
            wire::NoBody::Cut(error) => self.unanswered(call.what, error),
            wire::NoBody::TooLarge => {
                AzureError::unreadable(call.what, status, &correlation_id, &wire::too_large())
            }
        })?;
        Ok(Answer {
            status,
            body,
            correlation_id,
            remaining: remaining(&headers),
        })
    }

    /// An error before or instead of a whole answer.
    fn unanswered(&self, what: &str, error: reqwest::Error) -> AzureError {
        let (outcome, problem) = wire::unanswered(error, self.call_timeout);
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

fn unreadable_answer(what: &str, problem: &str) -> AzureError {
    AzureError::unreadable(what, 200, "", problem)
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
}
