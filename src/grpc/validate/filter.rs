//! Scalars of filters: each narrows what is meant, and left out it means any. So one that is set but empty is refused:
//! the caller meant to narrow, for example by a variable that turned out to be empty.

use std::convert::Infallible;
use std::fmt::Display;

use super::Violations;

/// What is wrong with a filter's scalar that is there and says nothing.
pub(super) const EMPTY: &str =
    "is set but empty, and does not mean any: leave it out, or say which";

/// A text that is parsed. The outer `Option` is whether it is well-formed, the inner whether there is one.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn parsed<T, E: Display>(
    field: impl Display,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, E>,
    wrong: &mut Violations,
) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some("") => {
            wrong.add(field, EMPTY);
            None
        }
        Some(text) => wrong.take(field, parse(text)).map(Some),
    }
}

/// A text of which any is well-formed that is not empty.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
pub(super) fn text(
    field: impl Display,
    text: Option<&str>,
    wrong: &mut Violations,
) -> Option<Option<String>> {
    parsed(
        field,
        text,
        |text| Ok::<_, Infallible>(text.to_owned()),
        wrong,
    )
}
