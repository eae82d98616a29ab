//! Role definitions: `Microsoft.Authorization/roleDefinitions` [azure.md §2].

use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use super::super::Azure;
use super::super::error::AzureError;
use crate::domain::ids::{RoleDefinitionId, SubscriptionId};
use crate::domain::role::{Permissions, RoleDefinition};

/// A preview, because only from here on does ARM show the conditions of a definition's own blocks; it
/// is the version that Azure's CLI uses [azure-cli recording, wire/role-assignments.txt].
const API_VERSION: &str = "2022-05-01-preview";

#[derive(Deserialize)]
struct Wire {
    name: String,
    properties: WireProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    role_name: String,
    #[serde(rename = "type")]
    kind: String,
    permissions: Vec<WirePermissions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WirePermissions {
    #[serde(default, deserialize_with = "null_as_empty")]
    actions: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    not_actions: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    data_actions: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    not_data_actions: Vec<String>,
    #[serde(default)]
    condition: Option<String>,
}

pub(super) fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Wire {
    fn parse(self) -> Result<RoleDefinition, String> {
        Ok(RoleDefinition {
            id: RoleDefinitionId::parse(&self.name).map_err(|e| format!("its name: {e}"))?,
            name: self.properties.role_name,
            // Whatever is not said to be Azure's own is somebody's own.
            custom: !self.properties.kind.eq_ignore_ascii_case("BuiltInRole"),
            permissions: self
                .properties
                .permissions
                .into_iter()
                .map(Into::into)
                .collect(),
        })
    }
}

impl From<WirePermissions> for Permissions {
    fn from(wire: WirePermissions) -> Self {
        Self {
            actions: wire.actions,
            not_actions: wire.not_actions,
            data_actions: wire.data_actions,
            not_data_actions: wire.not_data_actions,
            conditional: wire.condition.is_some_and(|text| !text.is_empty()),
        }
    }
}

/// Which role definitions to list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RoleType {
    /// Azure's own, the same in every subscription.
    BuiltIn,
    /// The tenant's own.
    Custom,
}

impl Azure {
    /// The role definitions of a type that can be assigned in a subscription, all pages of them
    /// [azure-docs role-definitions-list.md].
    ///
    /// # Errors
    /// An [`AzureError`], also where one row cannot be read.
    pub async fn role_definitions(
        &self,
        subscription: SubscriptionId,
        kind: RoleType,
        request: Uuid,
    ) -> Result<Vec<RoleDefinition>, AzureError> {
        let what = format!("list of role definitions in subscription {subscription}");
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions"
        );
        let filter = match kind {
            RoleType::BuiltIn => "type eq 'BuiltInRole'",
            RoleType::Custom => "type eq 'CustomRole'",
        };
        let url = self.arm.url(&path, API_VERSION, Some(filter));
        self.arm.list(&what, url, request, Wire::parse).await
    }

    /// The role definition with this GUID, as seen from a subscription.
    ///
    /// # Errors
    /// An [`AzureError`]; `RoleDefinitionDoesNotExist` if there is none there (yet).
    pub async fn role_definition(
        &self,
        subscription: SubscriptionId,
        role: RoleDefinitionId,
        request: Uuid,
    ) -> Result<RoleDefinition, AzureError> {
        let what = format!("GET of role definition {role} in subscription {subscription}");
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
        );
        let url = self.arm.url(&path, API_VERSION, None);
        let definition = self
            .arm
            .get::<Wire>(&what, url, request)
            .await?
            .parse()
            .map_err(|problem| super::unreadable_answer(&what, &problem))?;
        if definition.id == role {
            Ok(definition)
        } else {
            Err(super::unreadable_answer(&what, "it tells of another role"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_definition_is_read() {
        let wire: Wire = serde_json::from_value(serde_json::json!({
            "properties": {
                "roleName": "Reader", "type": "BuiltInRole", "assignableScopes": ["/"],
                "permissions": [{"actions": ["*/read"], "notActions": [], "dataActions": null}]
            },
            "name": "acdd72a7-3385-48ef-bd42-f606fba81ae7"
        }))
        .unwrap();
        let definition = wire.parse().unwrap();
        assert!(!definition.custom);
        assert_eq!(definition.permissions[0].actions, ["*/read"]);
        assert!(definition.permissions[0].data_actions.is_empty());
        assert!(!definition.permissions[0].conditional);
    }
}
