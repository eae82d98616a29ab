//! How a grant is written: what never changes of it is its body.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ENDINGS, Hash, word_of};
use crate::domain::access::{Access, Principal, PrincipalType};
use crate::domain::grant::{Expiry, Grant, GrantState};
use crate::domain::ids::{GrantId, Namespace, PrincipalId, RoleDefinitionId};
use crate::domain::naming::{ExternalKey, LabelKey, LabelValue, Labels, OnBehalfOf};
use crate::domain::role::{BuiltInRole, Role};
use crate::store::{NewGrant, StoreError};

/// As Azure writes them.
pub(super) const TYPES: [(&str, PrincipalType); 3] = [
    ("User", PrincipalType::User),
    ("Group", PrincipalType::Group),
    ("ServicePrincipal", PrincipalType::ServicePrincipal),
];

/// A principal as it was resolved.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct PrincipalBody {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    display_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user_principal_name: String,
}

impl From<&Principal> for PrincipalBody {
    fn from(principal: &Principal) -> Self {
        Self {
            id: principal.id.to_string(),
            kind: word_of(&TYPES, &principal.kind).to_owned(),
            display_name: principal.display_name.clone(),
            user_principal_name: principal.user_principal_name.clone(),
        }
    }
}

impl PrincipalBody {
    /// # Errors
    /// What cannot be read, in words.
    pub(in crate::store) fn principal(self) -> Result<Principal, String> {
        let kind = TYPES.iter().find(|(word, _)| *word == self.kind);
        Ok(Principal {
            id: PrincipalId::parse(&self.id).map_err(|error| error.to_string())?,
            kind: kind
                .ok_or_else(|| format!("a principal's type is {:?}", self.kind))?
                .1,
            display_name: self.display_name,
            user_principal_name: self.user_principal_name,
        })
    }
}

/// What never changes of a grant.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct GrantBody {
    principal: PrincipalBody,
    role: String,
    /// Of a custom role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role_name: Option<String>,
    namespaces: Vec<String>,
    requested_by: String,
    justification: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<String>,
}

impl GrantBody {
    pub(in crate::store) fn new(new: &NewGrant) -> Self {
        let labels = new.labels.iter();
        Self {
            principal: (&new.principal).into(),
            role: new.access.role.id().to_string(),
            role_name: match &new.access.role {
                Role::BuiltIn(_) => None,
                Role::Custom { name, .. } => Some(name.clone()),
            },
            namespaces: new
                .access
                .namespaces
                .iter()
                .map(ToString::to_string)
                .collect(),
            requested_by: new.request.caller.clone(),
            justification: new.justification.clone(),
            labels: labels
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            external_key: new.external_key.as_ref().map(ToString::to_string),
            on_behalf_of: new.on_behalf_of.as_ref().map(ToString::to_string),
        }
    }

    fn access(&self, hash: &Hash) -> Result<Access, StoreError> {
        let id = RoleDefinitionId::parse(&self.role).map_err(|error| hash.unreadable(error))?;
        let role = match (BuiltInRole::from_id(id), &self.role_name) {
            (Some(role), _) => Role::BuiltIn(role),
            (None, Some(name)) => Role::Custom {
                id,
                name: name.clone(),
            },
            (None, None) => return Err(hash.unreadable(format!("its role {id} has no name"))),
        };
        let namespaces = self.namespaces.iter().map(|name| Namespace::parse(name));
        let namespaces = namespaces.collect::<Result<_, _>>();
        Ok(Access {
            role,
            namespaces: namespaces.map_err(|error| hash.unreadable(error))?,
        })
    }

    fn labels(&self, hash: &Hash) -> Result<Labels, StoreError> {
        let read = |(key, value): (&String, &String)| {
            Ok((LabelKey::parse(key)?, LabelValue::parse(value)?))
        };
        let labels: Result<Labels, crate::domain::naming::InvalidText> =
            self.labels.iter().map(read).collect();
        labels.map_err(|error| hash.unreadable(error))
    }
}

pub(in crate::store) fn read_grant(id: GrantId, hash: &Hash) -> Result<Grant, StoreError> {
    let body: GrantBody = hash.json("body")?;
    let ending = || hash.one_of("ending", &ENDINGS);
    let state = match hash.text("state")? {
        "PENDING" => GrantState::Pending,
        "ACTIVE" => GrantState::Active,
        "REVOKING" => GrantState::Revoking(ending()?),
        "ENDED" => GrantState::Ended(ending()?),
        other => return Err(hash.unreadable(format!("state is {other:?}"))),
    };
    let text = |error: crate::domain::naming::InvalidText| hash.unreadable(error);
    let external_key = body
        .external_key
        .as_deref()
        .map(ExternalKey::parse)
        .transpose();
    let on_behalf_of = body
        .on_behalf_of
        .as_deref()
        .map(OnBehalfOf::parse)
        .transpose();
    let expire = hash.optional_time("expire")?;
    Ok(Grant {
        id,
        target: hash.parsed("target")?,
        access: body.access(hash)?,
        state,
        create_time: hash.time("created")?,
        expiry: expire.map_or(Expiry::Never, Expiry::At),
        update_time: hash.time("updated")?,
        end_time: hash.optional_time("ended")?,
        was_active: hash.get("active") == Some("1"),
        ended_by: hash.get("ended_by").unwrap_or_default().to_owned(),
        labels: body.labels(hash)?,
        external_key: external_key.map_err(text)?,
        on_behalf_of: on_behalf_of.map_err(text)?,
        principal: body
            .principal
            .principal()
            .map_err(|problem| hash.unreadable(problem))?,
        requested_by: body.requested_by,
        justification: body.justification,
        job: hash.parsed("job")?,
        last_error: hash.failure("error")?,
    })
}
