//! The token endpoint: client credentials, with a secret or a federated assertion.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::audience::Audience;
use super::{Claims, EntraError, assertion};
use crate::core::Core;
use crate::message::{Answer, Request};
use crate::state::State;
use crate::world::ServicePrincipal;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The fields of the request's form.
struct Form(BTreeMap<String, String>);

impl Form {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, EntraError> {
        self.get(name)
            .ok_or_else(|| EntraError::missing_parameter(name))
    }
}

pub(super) fn issue(core: &Core, request: &Request) -> Result<Answer, EntraError> {
    let form = Form(
        url::form_urlencoded::parse(&request.body)
            .into_owned()
            .collect(),
    );
    let grant = form.required("grant_type")?;
    if grant != "client_credentials" {
        return Err(EntraError::unsupported_grant(grant));
    }
    let claims = claims(core, &form)?;
    let lifetime = claims.exp - claims.iat;
    let token = core
        .signer
        .sign(&claims)
        .map_err(|error| EntraError::signing(&error.to_string()))?;
    let body = json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    });
    Ok(Answer::json(StatusCode::OK, &body))
}

/// What the token will say. Apart from the signing, which is slow and needs no state.
fn claims(core: &Core, form: &Form) -> Result<Claims, EntraError> {
    let store = core.store();
    let state = &store.state;
    let application = application(state, form.required("client_id")?)?;
    authenticate(core, application, form)?;
    let scope = form.required("scope")?;
    let audience = Audience::of_scope(core.settings().cloud, state, scope)?;
    Ok(Claims::of_application(core, state, &audience, application))
}

fn application<'a>(state: &'a State, client_id: &str) -> Result<&'a ServicePrincipal, EntraError> {
    let found = Uuid::try_parse(client_id)
        .ok()
        .and_then(|id| state.application(id));
    let application =
        found.ok_or_else(|| EntraError::no_such_application(client_id, state.tenant()))?;
    if !application.account_enabled {
        return Err(EntraError::disabled_application(application.app_id));
    }
    Ok(application)
}

fn authenticate(
    core: &Core,
    application: &ServicePrincipal,
    form: &Form,
) -> Result<(), EntraError> {
    if let Some(secret) = form.get("client_secret") {
        let known = application.secrets.iter().any(|known| known == secret);
        return known
            .then_some(())
            .ok_or_else(|| EntraError::invalid_secret(application.app_id));
    }
    let assertion = form
        .get("client_assertion")
        .ok_or_else(EntraError::no_credential)?;
    if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
        return Err(EntraError::unsupported_assertion_type());
    }
    assertion::check(core, application, assertion)
}
