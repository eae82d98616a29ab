//! What a caller attaches to a grant: labels, a key of its own, and for whom it asks.

use std::collections::HashMap;

use crate::domain::free_text::can_be_seen;
use crate::domain::naming::{ExternalKey, LabelKey, LabelValue, Labels, MAX_LABELS, OnBehalfOf};

use super::{Violations, optional};

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

/// The key of a new grant. What its readers cannot see cannot tell one grant from another. A selector takes any key that
/// a grant of an older version may have.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn new_external_key(text: &str, wrong: &mut Violations) -> Option<Option<ExternalKey>> {
    let key = optional("external_key", text, ExternalKey::parse, wrong)?;
    is_readable("external_key", text, [text], wrong).then_some(key)
}

/// For whom somebody asks for access. A name whose parts nobody can see names nobody, and must not count as one.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn beneficiary(text: &str, wrong: &mut Violations) -> Option<Option<OnBehalfOf>> {
    let whom = optional("on_behalf_of", text, OnBehalfOf::parse, wrong)?;
    is_readable("on_behalf_of", text, text.split('@'), wrong).then_some(whom)
}

/// Whether something can be seen of each part of a text; nothing is wrong with a text that is left out.
fn is_readable<'a>(
    field: &str,
    text: &str,
    parts: impl IntoIterator<Item = &'a str>,
    wrong: &mut Violations,
) -> bool {
    let is_readable = text.is_empty() || parts.into_iter().all(can_be_seen);
    if !is_readable {
        let expected = "expected at least one character that can be seen, on each side of an @";
        wrong.add(field, format!("{text:?} cannot be read: {expected}"));
    }
    is_readable
}
