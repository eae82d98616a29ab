//! Requests and answers as whole values.
//!
//! Azure's bodies here are small, so services get a request that has fully arrived and give an answer that
//! is complete; what happens on the wire between the two is the server's business alone.

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use crate::entra::{BadToken, Claims};
use crate::history::Service;
use crate::operation::Operation;
use crate::time::Moment;

/// A request that has fully arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) service: Service,
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    /// The path as sent, percent signs and all.
    pub(crate) path: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// Decoded query parameters.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Its place in the history.
    pub(crate) sequence: u64,
    pub(crate) received: Moment,
    /// Who asks, if the token is good.
    pub(crate) token: Result<Claims, BadToken>,
}

impl Request {
    /// A query parameter; `OData` and ARM names ignore case.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self
            .query
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The object id of who asks.
    pub(crate) fn caller(&self) -> Option<Uuid> {
        self.token.as_ref().ok().map(|claims| claims.oid)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Compact JSON, as most of Azure writes it.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self::of(
            status,
            "application/json; charset=utf-8",
            serde_json::to_vec(body),
        )
    }

    /// JSON with indentation, as the AKS resource provider writes it [aks.txt].
    pub(crate) fn pretty_json(status: StatusCode, body: &impl Serialize) -> Self {
        Self::of(status, "application/json", serde_json::to_vec_pretty(body))
    }

    fn of(
        status: StatusCode,
        content_type: &'static str,
        body: serde_json::Result<Vec<u8>>,
    ) -> Self {
        // Bodies are built from strings and numbers here; if one still cannot be written, an empty 500 says
        // more than a torn body.
        let Ok(body) = body else {
            return Self::empty(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let mut answer = Self::empty(status);
        answer
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer.body = body.into();
        answer
    }

    /// Text, e.g. a certificate.
    pub(crate) fn text(body: String) -> Self {
        let mut answer = Self::empty(StatusCode::OK);
        answer.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        answer.body = body.into();
        answer
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        // A value that cannot stand in a header (a client's odd id, echoed) is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }
}
