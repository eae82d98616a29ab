//! Labels, external keys, and on whose behalf.

use std::collections::HashMap;

use crate::domain::naming::{ExternalKey, LabelKey, LabelValue, Labels, MAX_LABELS, OnBehalfOf};

use super::Violations;

pub(super) fn labels(
    field: &str,
    given: &HashMap<String, String>,
    wrong: &mut Violations,
) -> Option<Labels> {
    if given.len() > MAX_LABELS {
        wrong.add(
            field,
            format!("{} labels; at most {MAX_LABELS}", given.len()),
        );
        return None;
    }
    let mut sorted: Vec<_> = given.iter().collect();
    sorted.sort();
    let mut labels = Labels::new();
    for (key, value) in &sorted {
        let shown: String = key.chars().take(80).collect();
        let field = format!("{field}[{shown:?}]");
        let key = wrong.take(&field, LabelKey::parse(key));
        let value = wrong.take(&field, LabelValue::parse(value));
        labels.extend(key.zip(value));
    }
    (labels.len() == given.len()).then_some(labels)
}

/// The outer `Option` is whether it is well-formed, the inner whether there is one.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn external_key(
    field: &str,
    given: &str,
    wrong: &mut Violations,
) -> Option<Option<ExternalKey>> {
    if given.is_empty() {
        return Some(None);
    }
    wrong.take(field, ExternalKey::parse(given)).map(Some)
}

/// As [`external_key`].
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn on_behalf_of(given: &str, wrong: &mut Violations) -> Option<Option<OnBehalfOf>> {
    if given.is_empty() {
        return Some(None);
    }
    wrong
        .take("on_behalf_of", OnBehalfOf::parse(given))
        .map(Some)
}
