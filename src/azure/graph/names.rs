//! What many principals are called, at once [azure.md §6].

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::super::Azure;
use super::{DirectoryObject, GraphError, Objects, Question, READS_OBJECTS, WireObject};
use crate::domain::access::Principal;
use crate::domain::ids::PrincipalId;

/// `getByIds` takes so many ids.
const MOST_IDS: usize = 1_000;

impl Azure {
    /// Those of these principals that the directory knows, in no order, with their names as far as the broker may read
    /// them. One call for each thousand.
    ///
    /// # Errors
    /// A [`GraphError`]
    pub async fn principals(&self, ids: &[PrincipalId]) -> Result<Vec<Principal>, GraphError> {
        let about = "names of principals";
        let mut principals = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MOST_IDS) {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let question = Question {
                about,
                needs: READS_OBJECTS,
                method: Method::POST,
                url: self.graph.url("directoryObjects/getByIds", None),
                body: Some(json!({ "ids": ids, "types": ["user", "group", "servicePrincipal"] })),
                request: Uuid::new_v4(),
            };
            let (found, answer): (Objects, _) = self.graph.ask(question).await?;
            for object in found.value.into_iter().map(WireObject::object) {
                let object = object.map_err(|problem| answer.unreadable(about, &problem))?;
                if let DirectoryObject::Principal(principal) = object {
                    principals.push(principal);
                }
            }
        }
        Ok(principals)
    }
}
