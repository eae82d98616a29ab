//! What ARM and Microsoft Graph share on the wire: the form of a refusal, how long to wait, what it means that no
//! answer came, and how much of an answer is read.

mod pages;

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use super::cause::innermost;
use super::error::Outcome;

pub(super) use pages::Pages;

/// Azure's messages can quote whole policies.
const LONGEST_MESSAGE: usize = 1_000;
/// No `Retry-After` is believed beyond this: nobody waits for a day because of one header.
const LONGEST_RETRY_AFTER: f64 = 3_600.0;

/// No answer is read beyond this many bytes, nor all pages of one list together: a few times what Azure's own limits
/// allow (4,000 role assignments with descriptions and conditions, 5,000 clusters), and what the broker can hold.
pub(super) const LARGEST_ANSWER: usize = 64 << 20;

/// Why there is no whole body.
pub(super) enum NoBody {
    /// It is larger than was allowed.
    TooLarge,
    /// It was cut off.
    Cut(reqwest::Error),
}

/// The body of an answer, if it has at most `largest` bytes.
pub(super) async fn body(
    mut response: reqwest::Response,
    largest: usize,
) -> Result<Vec<u8>, NoBody> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(NoBody::Cut)? {
        if chunk.len() > largest - body.len() {
            return Err(NoBody::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What is wrong with an answer, or a list, of more than [`LARGEST_ANSWER`].
pub(super) fn too_large() -> String {
    let mib = LARGEST_ANSWER >> 20;
    format!("it is larger than {mib} MiB, which is more than the broker reads")
}

/// What an answer says besides "no".
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) said: String,
    pub(super) correlation_id: String,
    pub(super) retry_after: Option<Duration>,
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

/// Reads a refusal; `correlation_id` is by what the service finds the call again.
pub(super) fn refusal(
    status: u16,
    headers: &HeaderMap,
    correlation_id: String,
    body: &[u8],
) -> Refusal {
    // A gateway before the service may answer with HTML: then the status is all there is.
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

/// Seconds, at least one: ARM's own text may say "after '0' seconds" [azure.md §5]. Graph's can be a decimal
/// [azure.md §6].
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

/// What it means, and what to say of it, that a call which may take `call_timeout` failed before or instead
/// of a whole answer. Only a connection that was never made is proof that nothing was sent.
pub(super) fn unanswered(error: reqwest::Error, call_timeout: Duration) -> (Outcome, String) {
    let outcome = if error.is_connect() || error.is_builder() {
        Outcome::Definite
    } else {
        Outcome::Unknown
    };
    let problem = if error.is_timeout() && !error.is_connect() {
        format!("no answer within {} s", call_timeout.as_secs_f32())
    } else {
        innermost(&error.without_url())
    };
    (outcome, problem)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_no_further() {
        let answer = || reqwest::Response::from(http::Response::new("12345"));
        let read = body(answer(), 5).await;
        assert!(matches!(read, Ok(body) if body == b"12345"));
        let refused = body(answer(), 4).await;
        assert!(matches!(refused, Err(NoBody::TooLarge)));
        let empty = reqwest::Response::from(http::Response::new(""));
        assert!(matches!(body(empty, 0).await, Ok(body) if body.is_empty()));
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
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn an_error_body_that_is_no_json_leaves_the_status() {
        let refusal = refusal(
            502,
            &HeaderMap::new(),
            String::new(),
            b"<html>Bad Gateway</html>",
        );
        assert_eq!((refusal.status, refusal.code.as_str()), (502, ""));
        assert_eq!(refusal.said, "no message");
    }
}
