//! What a token says about its bearer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::{Uuid, uuid};

use super::audience::{Audience, is_for_graph};
use crate::core::Core;
use crate::state::State;
use crate::world::{Principal, ServicePrincipal, User};

/// What people sign in with: kubelogin's own client [azure.md §8].
const SOME_CLIENT: Uuid = uuid!("80faf920-1908-4b52-b5ef-a8e7bedfc67a");

/// Groups in a token at most; with more, a reference stands in their place.
const MOST_GROUPS: usize = 200;

/// The claims of an access token, versions 1 and 2 [azure.md §7].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Whom the token is for.
    pub aud: String,
    /// Who issued it.
    pub iss: String,
    /// When, in seconds since 1970.
    pub iat: i64,
    /// From when on it holds, in seconds since 1970.
    pub nbf: i64,
    /// Until when it holds, in seconds since 1970.
    pub exp: i64,
    /// The application, in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appid: Option<Uuid>,
    /// The application, in version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azp: Option<Uuid>,
    /// `app` for an application's own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idtyp: Option<String>,
    /// The bearer's object id.
    pub oid: Uuid,
    /// The bearer, once more.
    pub sub: String,
    /// The tenant.
    pub tid: Uuid,
    /// The bearer's sign-in name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upn: Option<String>,
    /// The bearer's name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Delegated permissions, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scp: Option<String>,
    /// Application permissions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Object ids of the groups that the bearer is in, directly or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Uuid>>,
    /// Where to ask for the groups when there are too many for the token.
    #[serde(
        default,
        rename = "_claim_names",
        skip_serializing_if = "Option::is_none"
    )]
    pub claim_names: Option<serde_json::Value>,
    /// A value of each token's own.
    pub uti: String,
    /// `1.0` or `2.0`.
    pub ver: String,
}

/// No token can be made for this.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// Nobody in the directory has this object id, or it is a group's.
    #[error("there is no user or service principal '{0}'")]
    UnknownPrincipal(Uuid),
    /// No resource of this name is known.
    #[error("there is no resource '{0}'")]
    UnknownResource(String),
    /// The claims could not be signed.
    #[error("signing failed: {0}")]
    Signing(String),
}

impl Claims {
    /// An application's own token.
    pub(crate) fn of_application(
        core: &Core,
        state: &State,
        audience: &Audience,
        bearer: &ServicePrincipal,
    ) -> Self {
        let mut claims = Self::bare(core, audience, bearer.id, Some(bearer.app_id));
        claims.idtyp = Some("app".to_owned());
        if is_for_graph(core.settings().cloud, &audience.value) {
            claims.roles.clone_from(&bearer.graph_permissions);
        }
        claims.set_groups(state, bearer.id);
        claims.add_app_roles(state, bearer.id);
        claims
    }

    /// A person's token, as after a sign-in through some client.
    pub(crate) fn of_user(core: &Core, state: &State, audience: &Audience, bearer: &User) -> Self {
        let mut claims = Self::bare(core, audience, bearer.id, Some(SOME_CLIENT));
        // Another one for each application, so that two of them cannot compare notes.
        let pairwise = Uuid::new_v5(&bearer.id, audience.value.as_bytes());
        claims.sub = pairwise.simple().to_string();
        claims.upn = Some(bearer.user_principal_name.clone());
        claims.name = Some(bearer.display_name.clone());
        claims.scp = Some("user_impersonation".to_owned());
        claims.set_groups(state, bearer.id);
        claims.add_app_roles(state, bearer.id);
        claims
    }

    /// The token of anybody who can have one.
    pub(crate) fn of(
        core: &Core,
        state: &State,
        bearer: Uuid,
        resource: &str,
    ) -> Result<Self, TokenError> {
        let audience = Audience::of_resource(core.settings().cloud, state, resource)
            .ok_or_else(|| TokenError::UnknownResource(resource.to_owned()))?;
        match state.principal(bearer) {
            Some(Principal::User(user)) => Ok(Self::of_user(core, state, &audience, user)),
            Some(Principal::ServicePrincipal(app)) => {
                Ok(Self::of_application(core, state, &audience, app))
            }
            Some(Principal::Group(_)) | None => Err(TokenError::UnknownPrincipal(bearer)),
        }
    }

    fn bare(core: &Core, audience: &Audience, bearer: Uuid, app: Option<Uuid>) -> Self {
        let now = Timestamp::now().as_second();
        let lifetime =
            i64::try_from(core.settings().token_lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        Self {
            aud: audience.value.clone(),
            iss: if audience.v2 {
                core.issuer_v2()
            } else {
                core.issuer_v1()
            },
            iat: now,
            nbf: now,
            exp: now + lifetime,
            appid: app.filter(|_| !audience.v2),
            azp: app.filter(|_| audience.v2),
            idtyp: None,
            oid: bearer,
            sub: bearer.to_string(),
            tid: core.tenant,
            upn: None,
            name: None,
            scp: None,
            roles: Vec::new(),
            groups: None,
            claim_names: None,
            uti: Uuid::new_v4().simple().to_string(),
            ver: if audience.v2 { "2.0" } else { "1.0" }.to_owned(),
        }
    }

    /// The app roles of the application that the token is for.
    fn add_app_roles(&mut self, state: &State, bearer: Uuid) {
        let application = Uuid::try_parse(&self.aud).ok();
        let Some(application) = application.and_then(|id| state.application(id)) else {
            return;
        };
        let direct = |group: Uuid| {
            let mut groups = state.groups();
            groups.any(|known| known.id == group && known.members.contains(&bearer))
        };
        let assigned = application.app_role_assignments.iter();
        let own = assigned.filter(|it| it.principal == bearer || direct(it.principal));
        self.roles.extend(own.map(|it| it.role.clone()));
    }

    fn set_groups(&mut self, state: &State, bearer: Uuid) {
        let groups = state
            .groups_of(bearer)
            .into_iter()
            .filter(|group| group.security_enabled);
        let groups: Vec<Uuid> = groups.map(|group| group.id).collect();
        if groups.len() > MOST_GROUPS {
            self.claim_names = Some(serde_json::json!({"groups": "src1"}));
        } else if !groups.is_empty() {
            self.groups = Some(groups);
        }
    }

    /// How ARM's errors name the bearer: the application id or the sign-in name [errors.txt].
    pub(crate) fn name_in_errors(&self) -> String {
        let app = self.appid.or(self.azp).map(|id| id.to_string());
        self.upn
            .clone()
            .or(app)
            .unwrap_or_else(|| self.oid.to_string())
    }
}
