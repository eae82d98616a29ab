//! What callers attach to grants to find them again: labels, a name of their own, and for whom they act.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::ids::PrincipalId;
use super::user_principal_name::UserPrincipalName;

/// The most labels of one grant.
pub const MAX_LABELS: usize = 16;

/// A grant's labels.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// A text that a caller attaches, and that cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{value:?} is not {expected}")]
pub struct InvalidText {
    /// What was given instead, shortened.
    pub value: String,
    /// What was expected.
    pub expected: &'static str,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $expected:literal if $is_well_formed:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            ///
            /// # Errors
            /// [`InvalidText`] says what was expected.
            pub fn parse(value: &str) -> Result<Self, InvalidText> {
                let is_well_formed: fn(&str) -> bool = $is_well_formed;
                if is_well_formed(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidText {
                        value: value.chars().take(80).collect(),
                        expected: $expected,
                    })
                }
            }

            /// The text as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// A label's key, such as `ticket`.
    LabelKey: "a label key: expected 1 to 63 letters, digits and '-', '_', '.', '/', beginning and ending with a \
               letter or digit" if |text| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= 63
            && ends(text.chars().next())
            && ends(text.chars().last())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
    };
    /// A label's value, such as `INC-4711`; may be empty.
    LabelValue: "a label value: expected at most 256 characters, none of them a control character" if |text| {
        text.chars().count() <= 256 && !text.chars().any(char::is_control)
    };
    /// A caller's own name for a grant.
    ExternalKey: "an external key: expected 1 to 128 characters, none of them a control character" if |text| {
        (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    };
    /// For whom a caller acts, as the caller says: an object id or a user principal name. Never looked up.
    OnBehalfOf: "an Entra object id (a GUID) or a user principal name (NAME@DOMAIN)" if |text| {
        PrincipalId::parse(text).is_ok() || UserPrincipalName::parse(text).is_ok()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_as_given_or_refused_with_what_was_expected() {
        for key in ["a", "ticket", "team/cost-center_2.x", &"a".repeat(63)] {
            assert_eq!(LabelKey::parse(key).unwrap().as_str(), key);
        }
        for key in ["", "-a", "a/", "a=b", "a b", "ä", &"a".repeat(64)] {
            let error = LabelKey::parse(key).unwrap_err().to_string();
            assert!(error.contains("1 to 63 letters"), "{error}");
        }
        for value in ["", "INC 4711: ärger", &"ä".repeat(256)] {
            assert_eq!(LabelValue::parse(value).unwrap().as_str(), value);
        }
        assert!(LabelValue::parse(&"a".repeat(257)).is_err());
        assert!(LabelValue::parse("a\nb").is_err());
        assert!(ExternalKey::parse("order 66/β").is_ok());
        assert!(ExternalKey::parse("").is_err());
        assert!(ExternalKey::parse(&"a".repeat(129)).is_err());
        for who in [
            "ada@contoso.example",
            "10000000-0000-4000-8000-000000000001",
        ] {
            assert!(OnBehalfOf::parse(who).is_ok());
        }
        for who in ["", "ada", "somebody else"] {
            assert!(OnBehalfOf::parse(who).is_err());
        }
    }
}
