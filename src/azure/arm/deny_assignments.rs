//! Deny assignments: `Microsoft.Authorization/denyAssignments` [azure.md §1, wire/pim-and-deny-assignments.txt].

use serde::Deserialize;
use uuid::Uuid;

use super::super::Azure;
use super::super::error::AzureError;
use super::role_assignments::Place;
use super::role_definitions::{WirePermissions, null_as_empty};
use crate::domain::deny::{DenyAssignment, Effect, Principals};
use crate::domain::ids::PrincipalId;

/// The first version that says whether a deny assignment is enforced or only audited.
const API_VERSION: &str = "2024-07-01-preview";
const PROVIDER: &str = "/providers/Microsoft.Authorization/denyAssignments";

/// Which deny assignments to list [azure.md §1]. Those that bind at their own scope only may be among them wherever
/// that is: compare scopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DenyFilter {
    /// Everything at the place, above it, and perhaps below it.
    All,
    /// What was made at the place or above.
    AtScope,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    properties: WireProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    #[serde(default)]
    deny_assignment_name: Option<String>,
    scope: String,
    #[serde(default)]
    do_not_apply_to_child_scopes: Option<bool>,
    #[serde(default)]
    deny_assignment_effect: Option<String>,
    permissions: Vec<WirePermissions>,
    principals: Vec<WirePrincipal>,
    #[serde(default, deserialize_with = "null_as_empty")]
    exclude_principals: Vec<WirePrincipal>,
    #[serde(default)]
    condition: Option<String>,
}

/// The type is not read: everyone has an id that nobody else has.
#[derive(Deserialize)]
struct WirePrincipal {
    id: String,
}

impl Wire {
    /// What is left out is taken for what denies more: enforced, below its scope as well, and without exceptions.
    fn parse(self) -> Result<DenyAssignment, String> {
        let properties = self.properties;
        let effect = match properties.deny_assignment_effect.as_deref() {
            None => Effect::Enforced,
            Some(text) if text.eq_ignore_ascii_case("enforced") => Effect::Enforced,
            Some(text) if text.eq_ignore_ascii_case("audit") => Effect::Audit,
            Some(other) => return Err(format!("its effect is {other:?}")),
        };
        Ok(DenyAssignment {
            display_name: properties.deny_assignment_name.unwrap_or_default(),
            scope: properties.scope.to_ascii_lowercase(),
            at_its_scope_only: properties.do_not_apply_to_child_scopes.unwrap_or(false),
            effect,
            permissions: properties.permissions.into_iter().map(Into::into).collect(),
            principals: principals(&properties.principals)?,
            excluded: principals(&properties.exclude_principals)?,
            conditional: properties.condition.is_some_and(|text| !text.is_empty()),
            resource_id: self.id,
        })
    }
}

/// Everyone is the zero GUID.
fn principals(listed: &[WirePrincipal]) -> Result<Principals, String> {
    let mut read = Principals::default();
    for principal in listed {
        let id = PrincipalId::parse(&principal.id).map_err(|e| format!("a principal: {e}"))?;
        if id.guid().is_nil() {
            read.everyone = true;
        } else {
            read.ids.insert(id);
        }
    }
    Ok(read)
}

impl Azure {
    /// The deny assignments at `place` that pass `filter`, all pages of them.
    ///
    /// # Errors
    /// An [`AzureError`]; also where one row cannot be read or the list is longer than is read, because a list with a
    /// hole in it would be taken for the whole truth.
    pub async fn deny_assignments(
        &self,
        place: &Place,
        filter: DenyFilter,
        request: Uuid,
    ) -> Result<Vec<DenyAssignment>, AzureError> {
        let what = format!("list of deny assignments at {place}");
        let filter = match filter {
            DenyFilter::All => None,
            DenyFilter::AtScope => Some("atScope()"),
        };
        let url = self
            .arm
            .url(&format!("{place}{PROVIDER}"), API_VERSION, filter);
        self.arm
            .list(&what, url, request, |wire: Wire| {
                let id = wire.id.clone();
                wire.parse().map_err(|problem| format!("{id}: {problem}"))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Result<DenyAssignment, String> {
        let mut properties = json!({
            "denyAssignmentName": "Nobody deletes", "description": null,
            "permissions": [{
                "actions": ["*/delete"], "notActions": [], "dataActions": null, "notDataActions": [],
                "condition": null, "conditionVersion": null
            }],
            "scope": "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/RG",
            "doNotApplyToChildScopes": true,
            "principals": [{"id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined"}],
            "excludePrincipals": [{"id": "88C53162-0000-4000-8000-000000000001", "type": "User"}],
            "isSystemProtected": true, "denyAssignmentEffect": "Audit",
            "condition": null, "conditionVersion": null
        });
        change(&mut properties);
        let wire = json!({"properties": properties, "id": "/the/id", "name": "n"});
        serde_json::from_value::<Wire>(wire)
            .map_err(|error| error.to_string())?
            .parse()
    }

    #[test]
    fn one_is_read_as_azure_writes_it() {
        let deny = read(|_| ()).unwrap();
        assert_eq!(
            deny.scope,
            "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/rg"
        );
        assert_eq!(deny.effect, Effect::Audit);
        assert_eq!(deny.permissions[0].actions, ["*/delete"]);
        assert!(deny.at_its_scope_only && !deny.conditional);
        assert!(deny.principals.everyone && !deny.excluded.everyone);
        let excluded = PrincipalId::parse("88c53162-0000-4000-8000-000000000001").unwrap();
        assert!(deny.excluded.ids.contains(&excluded));
    }

    #[test]
    fn what_is_left_out_denies_more_and_what_is_not_understood_is_an_error() {
        let bare = read(|it| {
            let it = it.as_object_mut().unwrap();
            it.retain(|key, _| ["scope", "permissions", "principals"].contains(&key.as_str()));
        })
        .unwrap();
        assert_eq!(bare.effect, Effect::Enforced);
        assert!(!bare.at_its_scope_only && !bare.conditional);
        assert_eq!(bare.excluded, Principals::default());
        assert!(
            read(|it| it["condition"] = "@Resource[a]".into())
                .unwrap()
                .conditional
        );
        for (key, value) in [
            ("denyAssignmentEffect", json!("perhaps")),
            ("principals", json!([{"id": "everyone"}])),
            ("principals", Value::Null),
            ("permissions", Value::Null),
            ("excludePrincipals", json!([{"id": ""}])),
        ] {
            assert!(
                read(|it| it[key] = value.clone()).is_err(),
                "{key}: {value}"
            );
        }
    }
}
