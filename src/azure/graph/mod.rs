//! Microsoft Graph: who somebody is. Everything that is sent to it is sent here, by [`Graph::send`].

mod error;
mod groups;
mod names;

use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;
use url::Url;
use uuid::Uuid;

use super::Azure;
use super::credential::Tokens;
use super::wire;
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::ids::{ApplicationId, PrincipalId};
use crate::domain::user_principal_name::UserPrincipalName;

pub use error::GraphError;

/// What stands in a path as it is. All else is escaped: `#` is the one that guests' names have, and would end
/// the path; the others mean something to `OData` [azure.md §6].
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@');

// Application permissions, the narrowest first [graph-docs user-get, serviceprincipal-get,
// directoryobject-getbyids].
const READS_USERS: &str = "User.Read.All (or Directory.Read.All)";
const READS_APPLICATIONS: &str = "Application.Read.All (or Directory.Read.All)";
const READS_OBJECTS: &str =
    "User.Read.All, GroupMember.Read.All and Application.Read.All (or Directory.Read.All)";

/// So many questions are under way at once: a batch of explained checks asks thousands.
const AT_ONCE: usize = 64;

pub(super) struct Graph {
    http: reqwest::Client,
    endpoint: Url,
    tokens: Tokens,
    call_timeout: Duration,
    at_once: Semaphore,
}

/// One question.
struct Question<'a> {
    /// For messages, such as "user ada@contoso.example".
    about: &'a str,
    /// The application permissions that it takes.
    needs: &'static str,
    method: Method,
    url: Url,
    body: Option<serde_json::Value>,
    /// `client-request-id`: the same in a retry.
    request: Uuid,
}

/// An answer that means success.
struct Answer {
    status: u16,
    body: Vec<u8>,
    request_id: String,
}

/// An object of the directory, as its id leads to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DirectoryObject {
    /// One that can hold roles.
    Principal(Principal),
    /// One of another kind, in Graph's own word: `device`, `application` and others.
    Other(String),
}

/// What is read of an object. Of one that the broker may not read, id and type alone come without an error,
/// and the rest is null [graph-docs limited information returned for inaccessible member objects].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireObject {
    #[serde(default, rename = "@odata.type")]
    odata_type: Option<String>,
    id: Uuid,
    #[serde(default)]
    app_id: Option<Uuid>,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    user_principal_name: Option<String>,
}

#[derive(Deserialize)]
struct Objects {
    value: Vec<WireObject>,
}

impl WireObject {
    fn principal(self, kind: PrincipalType) -> Principal {
        Principal {
            id: PrincipalId::new(self.id),
            kind,
            display_name: self.display_name.unwrap_or_default(),
            user_principal_name: self.user_principal_name.unwrap_or_default(),
        }
    }

    fn object(self) -> Result<DirectoryObject, String> {
        let odata_type = self.odata_type.clone().unwrap_or_default();
        let kind = match odata_type.strip_prefix("#microsoft.graph.") {
            Some("user") => PrincipalType::User,
            Some("group") => PrincipalType::Group,
            Some("servicePrincipal") => PrincipalType::ServicePrincipal,
            Some(other) if !other.is_empty() => {
                return Ok(DirectoryObject::Other(other.to_owned()));
            }
            _ => return Err(format!("{odata_type:?} is no type of a directory object")),
        };
        Ok(DirectoryObject::Principal(self.principal(kind)))
    }
}

impl Graph {
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
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    pub(super) const fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The URL of `path`, which is escaped, with what of the object is to be told.
    fn url(&self, path: &str, select: Option<&str>) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("/v1.0/{path}"));
        url.set_query(select.map(|fields| format!("$select={fields}")).as_deref());
        url
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        question: Question<'_>,
    ) -> Result<(T, Answer), GraphError> {
        let about = question.about;
        let answer = self.send(question).await?;
        let read = answer.read(about)?;
        Ok((read, answer))
    }

    /// Sends one question, once.
    async fn send(&self, question: Question<'_>) -> Result<Answer, GraphError> {
        self.send_within(question, wire::LARGEST_ANSWER).await
    }

    /// Sends one question, once, and reads of the answer no more than `largest` bytes.
    async fn send_within(
        &self,
        question: Question<'_>,
        largest: usize,
    ) -> Result<Answer, GraphError> {
        let about = question.about;
        let turn = tokio::time::timeout(self.call_timeout, self.at_once.acquire()).await;
        let _turn = turn.map_err(|_| {
            let problem = format!(
                "{AT_ONCE} other questions have been under way for {:?}, and Graph answers none of them",
                self.call_timeout
            );
            GraphError::unanswered(about, &problem)
        })?;
        let bearer = self
            .tokens
            .for_call()
            .await
            .map_err(|error| GraphError::no_token(about, &error))?;
        let unanswered = |error| {
            let (_, problem) = wire::unanswered(error, self.call_timeout);
            GraphError::unanswered(about, &problem)
        };
        let started = Instant::now();
        let mut request = self
            .http
            .request(question.method, question.url)
            .timeout(self.call_timeout)
            .bearer_auth(bearer.secret())
            .header("client-request-id", question.request.to_string());
        if let Some(body) = &question.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unanswered)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = wire::body(response, largest).await;
        let request_id = request_id(&headers);
        tracing::debug!(
            question = about,
            status,
            request_id,
            client_request_id = %question.request,
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "Graph answered"
        );
        if status == 401 {
            self.tokens.refused(&bearer);
        }
        if status != 200 {
            let body = body.unwrap_or_default();
            let refusal = wire::refusal(status, &headers, request_id, &body);
            return Err(GraphError::refused(about, question.needs, refusal));
        }
        let body = body.map_err(|problem| match problem {
            wire::NoBody::Cut(error) => unanswered(error),
            wire::NoBody::TooLarge => {
                GraphError::unreadable(about, status, &request_id, &wire::too_large())
            }
        })?;
        Ok(Answer {
            status,
            body,
            request_id,
        })
    }
}

impl Answer {
    fn read<T: DeserializeOwned>(&self, about: &str) -> Result<T, GraphError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.unreadable(about, &error.to_string()))
    }

    fn unreadable(&self, about: &str, problem: &str) -> GraphError {
        GraphError::unreadable(about, self.status, &self.request_id, problem)
    }
}

/// A user's path. The segment `/users/$…` is answered 400, and whether a quote in a segment is doubled is
/// nowhere said: in parentheses it is an `OData` string, where it is [azure.md §6; graph-docs user-get].
fn path_of_user(name: &UserPrincipalName) -> String {
    let name = name.as_str();
    if name.starts_with('$') || name.contains('\'') {
        let quoted = name.replace('\'', "''");
        return format!("users('{}')", utf8_percent_encode(&quoted, ESCAPED));
    }
    format!("users/{}", utf8_percent_encode(name, ESCAPED))
}

fn request_id(headers: &HeaderMap) -> String {
    headers
        .get("request-id")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

impl Azure {
    /// The user of this name, if there is one.
    ///
    /// # Errors
    /// A [`GraphError`]; `PRINCIPAL_NOT_FOUND` if there is none (yet).
    pub async fn user(
        &self,
        name: &UserPrincipalName,
        request: Uuid,
    ) -> Result<Principal, GraphError> {
        let about = format!("user {name}");
        let select = "id,displayName,userPrincipalName";
        let question = Question {
            about: &about,
            needs: READS_USERS,
            method: Method::GET,
            url: self.graph.url(&path_of_user(name), Some(select)),
            body: None,
            request,
        };
        let (user, answer): (WireObject, _) = self.graph.ask(question).await?;
        let theirs = user.user_principal_name.as_deref().unwrap_or_default();
        // Access goes to whoever was named, and to nobody that something on the way takes them for.
        if theirs.to_lowercase() != name.as_str().to_lowercase() {
            return Err(answer.unreadable(&about, &format!("it tells of {theirs:?}")));
        }
        Ok(user.principal(PrincipalType::User))
    }

    /// The service principal that an application has in the tenant.
    ///
    /// # Errors
    /// A [`GraphError`]; `PRINCIPAL_NOT_FOUND` if there is none (yet).
    pub async fn service_principal(
        &self,
        application: ApplicationId,
        request: Uuid,
    ) -> Result<Principal, GraphError> {
        let about = format!("service principal of application {application}");
        let path = format!("servicePrincipals(appId='{application}')");
        let question = Question {
            about: &about,
            needs: READS_APPLICATIONS,
            method: Method::GET,
            url: self.graph.url(&path, Some("id,appId,displayName")),
            body: None,
            request,
        };
        let (found, answer): (WireObject, _) = self.graph.ask(question).await?;
        if found.app_id != Some(application.guid()) {
            return Err(answer.unreadable(&about, &format!("it tells of {:?}", found.app_id)));
        }
        Ok(found.principal(PrincipalType::ServicePrincipal))
    }

    /// The object of this id, of whatever kind; `None` if there is none (yet).
    ///
    /// # Errors
    /// A [`GraphError`]
    pub async fn directory_object(
        &self,
        id: PrincipalId,
        request: Uuid,
    ) -> Result<Option<DirectoryObject>, GraphError> {
        let about = format!("directory object {id}");
        // Without `types` all kinds are looked through, so that a device is told from nobody; an unknown id is
        // left out [graph-docs directoryobject-getbyids; graph.txt].
        let question = Question {
            about: &about,
            needs: READS_OBJECTS,
            method: Method::POST,
            url: self.graph.url("directoryObjects/getByIds", None),
            body: Some(json!({ "ids": [id.to_string()] })),
            request,
        };
        let (found, answer): (Objects, _) = self.graph.ask(question).await?;
        let mut objects = found.value.into_iter();
        objects
            .find(|object| object.id == id.guid())
            .map(WireObject::object)
            .transpose()
            .map_err(|problem| answer.unreadable(&about, &problem))
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> UserPrincipalName {
        UserPrincipalName::parse(text).unwrap()
    }

    /// The URL as it is sent.
    fn sent(name: &UserPrincipalName) -> Url {
        let mut url = Url::parse("https://graph.microsoft.com").unwrap();
        url.set_path(&format!("/v1.0/{}", path_of_user(name)));
        url
    }

    #[test]
    fn names_are_escaped_as_graph_wants_them() {
        for (text, path) in [
            ("ada@contoso.example", "/v1.0/users/ada@contoso.example"),
            (
                "ada_fabrikam.example#EXT#@contoso.onmicrosoft.com",
                "/v1.0/users/ada_fabrikam.example%23EXT%23@contoso.onmicrosoft.com",
            ),
            (
                "$oda@contoso.example",
                "/v1.0/users('%24oda@contoso.example')",
            ),
            (
                "o'neill@contoso.example",
                "/v1.0/users('o%27%27neill@contoso.example')",
            ),
            (
                "a%23b@contoso.example",
                "/v1.0/users/a%2523b@contoso.example",
            ),
            (
                "a(b)@contoso.example",
                "/v1.0/users/a%28b%29@contoso.example",
            ),
        ] {
            assert_eq!(sent(&name(text)).path(), path);
        }
    }

    proptest! {
        /// Read as Graph reads it: split, then decoded, then without the quotes of `OData`.
        #[test]
        fn whatever_may_stand_in_a_name_arrives_as_it_is(
            text in r"[^@/?\\\s\p{Cc}]{1,40}@[^@/?\\\s\p{Cc}]{1,40}"
        ) {
            let url = sent(&name(&text));
            prop_assert_eq!((url.query(), url.fragment()), (None, None));
            let segments: Vec<&str> = url.path_segments().unwrap().collect();
            let read = match segments.as_slice() {
                ["v1.0", "users", segment] => {
                    prop_assert!(!text.starts_with('$') && !text.contains('\''));
                    percent_decode_str(segment).decode_utf8().unwrap().into_owned()
                }
                ["v1.0", call] => {
                    let call = percent_decode_str(call).decode_utf8().unwrap();
                    let quoted = call.strip_prefix("users('").and_then(|rest| rest.strip_suffix("')"));
                    let quoted = quoted.unwrap();
                    prop_assert!(!quoted.replace("''", "").contains('\''));
                    quoted.replace("''", "'")
                }
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(read, text);
        }
    }

    #[test]
    fn recorded_objects_are_read_and_types_that_nobody_knows_are_not_principals() {
        let read = |text: &str| {
            let objects: Objects = serde_json::from_str(text).unwrap();
            objects.value.into_iter().next().unwrap().object()
        };
        let id = "10000000-0000-4000-8000-000000000001";
        let of = |kind: &str| {
            format!(r#"{{"value":[{{"@odata.type":"{kind}","id":"{id}","displayName":null}}]}}"#)
        };
        assert_eq!(
            read(&of("#microsoft.graph.group")),
            Ok(DirectoryObject::Principal(Principal::unnamed(
                PrincipalId::parse(id).unwrap(),
                PrincipalType::Group
            )))
        );
        assert_eq!(
            read(&of("#microsoft.graph.device")),
            Ok(DirectoryObject::Other("device".to_owned()))
        );
        for odd in ["", "#microsoft.graph.", "user"] {
            assert!(read(&of(odd)).is_err(), "{odd}");
        }
    }
}
