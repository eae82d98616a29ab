//! The groups that somebody is in, through other groups too [azure.md §6].

use std::collections::BTreeSet;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::super::Azure;
use super::super::wire::Pages;
use super::{GraphError, Question, READS_OBJECTS};
use crate::domain::access::PrincipalType;
use crate::domain::ids::PrincipalId;

/// Nobody's groups are read beyond this many: a hundred pages.
const MOST_GROUPS: usize = 100_000;

#[derive(Deserialize)]
struct MemberGroups {
    value: Vec<Uuid>,
}

#[derive(Deserialize)]
struct Page {
    value: Vec<WireMembership>,
    #[serde(default, rename = "@odata.nextLink")]
    next_link: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMembership {
    #[serde(rename = "@odata.type")]
    odata_type: String,
    id: Uuid,
    #[serde(default)]
    security_enabled: Option<bool>,
}

impl WireMembership {
    /// The group, if it is one that can hold roles: memberships are of directory roles and administrative units as
    /// well, and mailing lists give nothing.
    fn group(self) -> Result<Option<PrincipalId>, String> {
        if self.odata_type != "#microsoft.graph.group" {
            return Ok(None);
        }
        // Of what the broker may not read Graph tells the id, and null for the rest, without an error.
        let security_enabled = self.security_enabled.ok_or_else(|| {
            format!(
                "it does not tell whether group {} is a security group; the broker's application needs {READS_OBJECTS} \
                 in Microsoft Graph",
                self.id
            )
        })?;
        Ok(security_enabled.then_some(PrincipalId::new(self.id)))
    }
}

impl Azure {
    /// The security groups that a user, group or service principal is in, through other groups too.
    ///
    /// # Errors
    /// A [`GraphError`]; `PRINCIPAL_NOT_FOUND` if there is no such principal (yet). Also where not all groups can be
    /// read: somebody's rights are not to be judged by some of them.
    pub async fn transitive_groups(
        &self,
        principal: PrincipalId,
        kind: PrincipalType,
        request: Uuid,
    ) -> Result<BTreeSet<PrincipalId>, GraphError> {
        let about = format!("groups of {principal}");
        let path = format!("directoryObjects/{principal}/getMemberGroups");
        let question = Question {
            about: &about,
            needs: READS_OBJECTS,
            method: Method::POST,
            url: self.graph.url(&path, None),
            body: Some(json!({ "securityEnabledOnly": true })),
            request,
        };
        match self.graph.ask::<MemberGroups>(question).await {
            Ok((groups, _)) => Ok(groups.value.into_iter().map(PrincipalId::new).collect()),
            Err(error) if is_too_many(&error) => {
                self.groups_by_pages(&about, principal, kind, request).await
            }
            Err(error) => Err(error),
        }
    }

    async fn groups_by_pages(
        &self,
        about: &str,
        principal: PrincipalId,
        kind: PrincipalType,
        request: Uuid,
    ) -> Result<BTreeSet<PrincipalId>, GraphError> {
        let set = match kind {
            PrincipalType::User => "users",
            PrincipalType::Group => "groups",
            PrincipalType::ServicePrincipal => "servicePrincipals",
        };
        let path = format!("{set}/{principal}/transitiveMemberOf");
        let mut first = self.graph.url(&path, Some("id,securityEnabled"));
        first.set_query(
            first
                .query()
                .map(|query| format!("{query}&$top=999"))
                .as_deref(),
        );
        let mut groups = BTreeSet::new();
        let mut pages = Pages::new(self.graph.endpoint(), MOST_GROUPS);
        let mut next = Some(first);
        while let Some(url) = next {
            let question = Question {
                about,
                needs: READS_OBJECTS,
                method: Method::GET,
                url: url.clone(),
                body: None,
                request,
            };
            let answer = self.graph.send_within(question, pages.bytes_left()).await?;
            let page: Page = answer.read(about)?;
            let unreadable = |problem: String| answer.unreadable(about, &problem);
            let (rows, bytes) = (page.value.len(), answer.body.len());
            next = pages
                .after(url, rows, bytes, page.next_link.as_deref())
                .map_err(unreadable)?;
            for membership in page.value {
                groups.extend(membership.group().map_err(unreadable)?);
            }
        }
        Ok(groups)
    }
}

/// `getMemberGroups` tells 11,000 groups at most.
fn is_too_many(error: &GraphError) -> bool {
    error.status == Some(400)
        && error
            .code
            .eq_ignore_ascii_case("Directory_ResultSizeLimitExceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, security_enabled: Option<bool>) -> Result<Option<PrincipalId>, String> {
        let row = json!({
            "@odata.type": kind,
            "id": "10000000-0000-4000-8000-000000000001",
            "securityEnabled": security_enabled,
        });
        serde_json::from_value::<WireMembership>(row)
            .map_err(|error| error.to_string())?
            .group()
    }

    #[test]
    fn only_security_groups_count_and_one_that_cannot_be_read_is_an_error() {
        let group = "#microsoft.graph.group";
        assert!(read(group, Some(true)).unwrap().is_some());
        assert_eq!(read(group, Some(false)), Ok(None));
        assert_eq!(read("#microsoft.graph.directoryRole", None), Ok(None));
        assert_eq!(read("#microsoft.graph.administrativeUnit", None), Ok(None));
        let unreadable = read(group, None).unwrap_err();
        assert!(unreadable.contains("GroupMember.Read.All"), "{unreadable}");
    }
}
