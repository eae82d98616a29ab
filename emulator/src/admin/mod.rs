//! The admin listener: what the handle can do, over HTTPS and JSON, for operators with curl and for `dev`.
//!
//! It asks nobody who they are: it listens on the loopback interface of a machine for development only, and
//! there is nothing behind it but a made-up world.

mod answer;

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use crate::core::Core;
use crate::exchange::collect;
use crate::message::Answer;
use crate::server::Cut;
use answer::AdminError;

/// Serves one call of an operator.
pub(crate) async fn exchange(
    core: &Arc<Core>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let call = AdminCall {
        path: head.uri.path().trim_matches('/').to_owned(),
        query: url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect(),
        method: head.method,
        body: collect(body).await?,
    };
    // The two that wait are apart: everything else is decided on the spot.
    let segments: Vec<&str> = call.path.split('/').collect();
    let answer = match (call.method.as_str(), segments.as_slice()) {
        ("POST", ["quiesce"]) => {
            core.pending.none().await;
            Ok(done())
        }
        ("POST", ["held", name]) => {
            core.faults.until_held(name, call.count()).await;
            Ok(done())
        }
        _ => call.answer(core, &segments),
    };
    Ok(answer.unwrap_or_else(|error| error.answer()).into())
}

struct AdminCall {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Bytes,
}

/// What is asked for to get a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    principal: Uuid,
    resource: String,
}

fn done() -> Answer {
    Answer::empty(StatusCode::NO_CONTENT)
}

fn shown(body: &impl serde::Serialize) -> Answer {
    Answer::pretty_json(StatusCode::OK, body)
}

/// 204 if something was there to be deleted, 404 if not.
fn deleted(was_there: bool) -> Result<Answer, AdminError> {
    if was_there {
        Ok(done())
    } else {
        Err(AdminError::NotFound)
    }
}

impl AdminCall {
    fn answer(&self, core: &Core, segments: &[&str]) -> Result<Answer, AdminError> {
        match (self.method.as_str(), segments) {
            ("GET", [""]) => Ok(shown(&json!({"urls": core.urls, "tenant": core.tenant}))),
            ("GET", ["ca.pem"]) => Ok(Answer::text(core.ca_pem.clone())),
            ("GET", ["world"]) => Ok(shown(&core.store().state.world())),
            ("GET", ["history"]) => Ok(shown(&core.history.events())),
            ("DELETE", ["history"]) => {
                core.history.clear();
                Ok(done())
            }
            ("GET", ["settings"]) => Ok(shown(&*core.settings())),
            ("PATCH", ["settings"]) => self.patch_settings(core),
            ("GET", ["faults"]) => Ok(shown(&core.faults.list())),
            ("POST", ["faults"]) => {
                core.faults.add(self.json()?);
                Ok(done())
            }
            ("DELETE", ["faults"]) => {
                core.faults.clear();
                Ok(done())
            }
            ("POST", ["release", name]) => {
                Ok(shown(&json!({"released": core.faults.release(name)})))
            }
            ("POST", ["tokens"]) => self.token(core),
            _ => self.change_world(core, segments),
        }
    }

    fn change_world(&self, core: &Core, segments: &[&str]) -> Result<Answer, AdminError> {
        match (self.method.as_str(), segments) {
            ("GET", ["role-assignments"]) => {
                let store = core.store();
                Ok(shown(&store.state.role_assignments().collect::<Vec<_>>()))
            }
            ("POST", ["role-assignments"]) => Ok(shown(&core.put_foreign(&self.json()?)?)),
            ("DELETE", ["role-assignments", name]) => deleted(core.delete_foreign(guid(name)?)?),
            ("PUT", ["clusters"]) => Ok(shown(&core.put_cluster(self.json()?)?)),
            ("DELETE", ["clusters"]) => deleted(core.delete_cluster(&self.parameter("id")?)?),
            ("PUT", ["fleets"]) => core
                .put_fleet(self.json()?)
                .map(|()| done())
                .map_err(Into::into),
            ("DELETE", ["fleets"]) => deleted(core.delete_fleet(&self.parameter("id")?)?),
            ("GET", ["deny-assignments"]) => {
                let store = core.store();
                Ok(shown(&store.state.deny_assignments().collect::<Vec<_>>()))
            }
            ("PUT", ["deny-assignments"]) => Ok(shown(&core.put_deny_assignment(self.json()?)?)),
            ("DELETE", ["deny-assignments", name]) => {
                deleted(core.delete_deny_assignment(guid(name)?)?)
            }
            ("PUT", ["principals"]) => core
                .add_principal(self.json()?)
                .map(|()| done())
                .map_err(Into::into),
            ("DELETE", ["principals", id]) => deleted(core.delete_principal(guid(id)?)?),
            ("PUT", ["custom-roles"]) => core
                .add_custom_role(self.json()?)
                .map(|()| done())
                .map_err(Into::into),
            ("PUT", ["locks"]) => core.lock(self.json()?).map(|()| done()).map_err(Into::into),
            ("DELETE", ["locks"]) => core
                .unlock(&self.parameter("scope")?)
                .map(|()| done())
                .map_err(Into::into),
            _ => Err(AdminError::NotFound),
        }
    }

    /// Changes the settings that are named and leaves the others.
    fn patch_settings(&self, core: &Core) -> Result<Answer, AdminError> {
        let mut settings = serde_json::to_value(&*core.settings())?;
        merge(&mut settings, self.json()?);
        core.set_settings(serde_json::from_value(settings)?);
        core.throttle.refill();
        Ok(shown(&*core.settings()))
    }

    fn token(&self, core: &Core) -> Result<Answer, AdminError> {
        let wanted: TokenRequest = self.json()?;
        let claims = crate::entra::Claims::of(
            core,
            &core.store().state,
            wanted.principal,
            &wanted.resource,
        )?;
        Ok(shown(&json!({"access_token": core.signer.sign(&claims)?})))
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, AdminError> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    fn parameter(&self, name: &str) -> Result<String, AdminError> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| AdminError::Bad(format!("?{name}= is missing")))
    }

    fn count(&self) -> usize {
        self.parameter("count")
            .ok()
            .and_then(|count| count.parse().ok())
            .unwrap_or(1)
    }
}

fn guid(text: &str) -> Result<Uuid, AdminError> {
    let text = percent_decode_str(text).decode_utf8_lossy();
    Uuid::try_parse(&text).map_err(|_| AdminError::Bad(format!("'{text}' is no GUID")))
}

/// Objects are merged member by member; anything else replaces what was there.
fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
