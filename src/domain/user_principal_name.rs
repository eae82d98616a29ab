//! A user's sign-in name, as the directory spells it.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// 64 before the `@`, 48 behind it: what Entra takes.
const MOST_CHARACTERS: usize = 113;

/// A user principal name, such as `ada@contoso.example`, or a guest's,
/// `ada_fabrikam.example#EXT#@contoso.onmicrosoft.com`.
///
/// Who bears it is the directory's to say, and may be another person tomorrow: it names somebody in a
/// request, and is never kept as anybody's identity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UserPrincipalName(Arc<str>);

/// A text that cannot be a user principal name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{value:?} is not a user principal name: {problem}; expected NAME@DOMAIN, such as ada@contoso.example"
)]
pub struct InvalidUserPrincipalName {
    /// What was given, shortened.
    pub value: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl UserPrincipalName {
    /// Takes a name in any case, and keeps it as given.
    ///
    /// Looser than Entra, whose rules differ with how a user came to be: only what no directory takes is
    /// refused here, for the rest the directory is asked.
    ///
    /// # Errors
    /// [`InvalidUserPrincipalName`] says what is wrong.
    pub fn parse(value: &str) -> Result<Self, InvalidUserPrincipalName> {
        match problem_of(value) {
            None => Ok(Self(value.into())),
            Some(problem) => Err(InvalidUserPrincipalName {
                value: value.chars().take(MOST_CHARACTERS).collect(),
                problem,
            }),
        }
    }

    /// The name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one form of all the spellings that mean the same user: Entra compares without regard to case.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for UserPrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn problem_of(value: &str) -> Option<&'static str> {
    if value.chars().count() > MOST_CHARACTERS {
        return Some("it is longer than 113 characters");
    }
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("it has a blank or a control character in it");
    }
    if value.contains(['/', '?', '\\']) {
        return Some("it has one of / ? \\ in it");
    }
    match value.split_once('@') {
        None => Some("it has no @"),
        Some((_, domain)) if domain.contains('@') => Some("it has more than one @"),
        Some(("", _)) => Some("nothing stands before the @"),
        Some((_, "")) => Some("nothing stands behind the @"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_are_and_compared_in_one_case() {
        for name in [
            "ada@contoso.example",
            "Ada.Byron-King_1815@Contoso.Example",
            "ada_fabrikam.example#EXT#@contoso.onmicrosoft.com",
            "o'neill@contoso.example",
            "$oda@contoso.example",
            "a!^~%41+b@contoso.example",
            "ödön@contoso.example",
        ] {
            let parsed = UserPrincipalName::parse(name).unwrap();
            assert_eq!(parsed.as_str(), name);
            let other = UserPrincipalName::parse(&name.to_ascii_uppercase()).unwrap();
            assert_eq!(parsed.canonical(), other.canonical());
        }
    }

    #[test]
    fn what_no_directory_takes_is_refused_with_what_is_wrong() {
        let longest = format!("{}@{}", "a".repeat(64), "b".repeat(48));
        assert!(UserPrincipalName::parse(&longest).is_ok());
        for (name, problem) in [
            ("", "no @"),
            ("ada", "no @"),
            ("ada@b@c", "more than one @"),
            ("@contoso.example", "before the @"),
            ("ada@", "behind the @"),
            ("ada byron@contoso.example", "blank"),
            ("ada\u{a0}byron@contoso.example", "blank"),
            ("ada\n@contoso.example", "control"),
            ("ada\0@contoso.example", "control"),
            ("../me@contoso.example", "one of /"),
            ("ada?@contoso.example", "one of /"),
            ("ada\\@contoso.example", "one of /"),
            (&format!("{longest}b"), "longer than 113"),
        ] {
            let error = UserPrincipalName::parse(name).unwrap_err().to_string();
            assert!(error.contains(problem), "{name:?}: {error}");
        }
    }
}
