//! Labels.

use std::collections::HashMap;

use crate::domain::naming::{LabelKey, LabelValue, Labels, MAX_LABELS};

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
