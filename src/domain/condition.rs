//! Conditions on role assignments (Azure ABAC): what a simple one comes to for one data action.
//!
//! Only what can be told from the request itself is evaluated: which action it is, and AKS's attributes of
//! custom resources and subresources. Everything else is unknown, and unknown never becomes true by being
//! turned round: the logic has three values [azure-docs conditions-format.md].

use winnow::ascii::{Caseless, multispace0};
use winnow::combinator::{alt, cut_err, delimited, preceded, separated};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::token::{take_till, take_while};

use super::kubernetes_request::DataAction;
use super::pattern::{overlap, subsumes};

/// What a condition comes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It hangs on something that the request does not tell.
    Unknown,
}

/// A condition, as far as it was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// All of these hold.
    All(Vec<Condition>),
    /// One of these holds.
    Any(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
    /// The action is one of those of this pattern.
    ActionMatches(String),
    /// An attribute of the request compares so with one of some values.
    Compares {
        /// The attribute's name, in lower case.
        attribute: String,
        /// How.
        comparison: Comparison,
        /// With what.
        values: Vec<String>,
    },
    /// Something that is not evaluated here.
    NotUnderstood,
}

/// How an attribute compares with a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Comparison {
    /// The same text.
    Equals,
    /// The same text, in any case.
    EqualsIgnoreCase,
    /// Another text.
    NotEquals,
    /// Another text, in any case.
    NotEqualsIgnoreCase,
}

/// No condition of Azure's is longer [azure-docs limits.md: 8 KB].
const LONGEST: usize = 8 * 1024;

/// Deeper ones are not taken apart: each level costs the stack.
const DEEPEST: usize = 64;

/// Nor are those of more parts: each is looked at for each action. Whoever writes by hand needs a few.
const MOST_PARTS: usize = 100;

impl Condition {
    /// Reads a condition. One that is not of the known form, whole or in part, is
    /// [`NotUnderstood`](Self::NotUnderstood) there.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut depth = 0_usize;
        let deepest = text.bytes().fold(0, |deepest, byte| {
            match byte {
                b'(' | b'!' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest.max(depth)
        });
        if text.len() > LONGEST || deepest > DEEPEST {
            return Self::NotUnderstood;
        }
        let read = delimited(multispace0, any, multispace0).parse(text);
        read.ok()
            .filter(|condition| condition.parts() <= MOST_PARTS)
            .unwrap_or(Self::NotUnderstood)
    }

    fn parts(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::parts).sum(),
            Self::Not(part) => part.parts(),
            Self::ActionMatches(_) | Self::NotUnderstood => 1,
            Self::Compares { values, .. } => values.len(),
        }
    }

    /// What it comes to for this action of a request, or for all actions of a pattern.
    #[must_use]
    pub fn holds_for(&self, action: &DataAction) -> Truth {
        match self {
            Self::All(parts) => all_of(parts.iter().map(|part| part.holds_for(action))),
            // One of them holds unless none does.
            Self::Any(parts) => {
                all_of(parts.iter().map(|part| part.holds_for(action).negated())).negated()
            }
            Self::Not(part) => part.holds_for(action).negated(),
            Self::ActionMatches(pattern) if subsumes(pattern, &action.id) => Truth::True,
            // Of a pattern of actions, some may match.
            Self::ActionMatches(pattern) if overlap(pattern, &action.id) => Truth::Unknown,
            Self::ActionMatches(_) => Truth::False,
            Self::Compares {
                attribute,
                comparison,
                values,
            } => match attribute_of(action, attribute) {
                // What Azure makes of an attribute that a request has not got is not told here.
                None => Truth::Unknown,
                Some(found) => Truth::from(comparison.holds(found, values)),
            },
            Self::NotUnderstood => Truth::Unknown,
        }
    }
}

/// Looks no further than it has to.
fn all_of(truths: impl Iterator<Item = Truth>) -> Truth {
    let mut so_far = Truth::True;
    for truth in truths {
        so_far = so_far.and(truth);
        if so_far == Truth::False {
            break;
        }
    }
    so_far
}

impl Truth {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            _ => Self::Unknown,
        }
    }

    const fn negated(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Comparison {
    /// Of several values one has to compare so; to be none of them, all have to.
    fn holds(self, found: &str, values: &[String]) -> bool {
        let mut values = values.iter();
        match self {
            Self::Equals => values.any(|value| value == found),
            Self::EqualsIgnoreCase => values.any(|value| value.eq_ignore_ascii_case(found)),
            Self::NotEquals => values.all(|value| value != found),
            Self::NotEqualsIgnoreCase => values.all(|value| !value.eq_ignore_ascii_case(found)),
        }
    }
}

/// AKS's attributes of a request [azure.md §3].
fn attribute_of<'a>(action: &'a DataAction, attribute: &str) -> Option<&'a str> {
    let custom = action.custom_resource.as_ref();
    match attribute {
        "microsoft.containerservice/managedclusters/customresources:group" => {
            custom.map(|(group, _)| group.as_str())
        }
        "microsoft.containerservice/managedclusters/customresources:kind" => {
            custom.map(|(_, kind)| kind.as_str())
        }
        "microsoft.containerservice/managedclusters/resources:subresource" => {
            action.subresource.as_deref()
        }
        _ => None,
    }
}

type Parsed<T> = Result<T, ErrMode<ContextError>>;

fn any(text: &mut &str) -> Parsed<Condition> {
    separated(1.., all, spaced(alt((Caseless("OR"), "||"))))
        .map(|parts: Vec<Condition>| one_or(parts, Condition::Any))
        .parse_next(text)
}

fn all(text: &mut &str) -> Parsed<Condition> {
    separated(1.., part, spaced(alt((Caseless("AND"), "&&"))))
        .map(|parts: Vec<Condition>| one_or(parts, Condition::All))
        .parse_next(text)
}

fn one_or(mut parts: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            parts.push(last);
            several(parts)
        }
        (None, _) => Condition::NotUnderstood,
    }
}

fn part(text: &mut &str) -> Parsed<Condition> {
    let not = preceded(("!", multispace0), part).map(|part| Condition::Not(Box::new(part)));
    let inner = delimited(("(", multispace0), any, (multispace0, ")"));
    alt((not, inner, action_matches, compares)).parse_next(text)
}

fn action_matches(text: &mut &str) -> Parsed<Condition> {
    let pattern = delimited((multispace0, "{", multispace0), quoted, (multispace0, "}"));
    preceded(Caseless("ActionMatches"), cut_err(pattern))
        .map(Condition::ActionMatches)
        .parse_next(text)
}

fn compares(text: &mut &str) -> Parsed<Condition> {
    let source = preceded("@", take_while(1.., char::is_alphabetic));
    let attribute = delimited("[", take_till(1.., ']'), "]");
    let operator = take_while(1.., |c: char| c.is_alphanumeric() || c == ':');
    let values = alt((
        delimited(
            ("{", multispace0),
            separated(1.., quoted, spaced(",")),
            (multispace0, "}"),
        ),
        quoted.map(|value| vec![value]),
    ));
    let (source, attribute, _, operator, _, values): (&str, &str, _, &str, _, Vec<String>) = (
        source,
        attribute,
        multispace0,
        operator,
        multispace0,
        values,
    )
        .parse_next(text)?;
    let comparison = match operator.to_ascii_lowercase().as_str() {
        "stringequals" | "foranyofanyvalues:stringequals" => Comparison::Equals,
        "stringequalsignorecase" | "foranyofanyvalues:stringequalsignorecase" => {
            Comparison::EqualsIgnoreCase
        }
        "stringnotequals" => Comparison::NotEquals,
        "stringnotequalsignorecase" => Comparison::NotEqualsIgnoreCase,
        _ => return Ok(Condition::NotUnderstood),
    };
    if !source.eq_ignore_ascii_case("Request") {
        return Ok(Condition::NotUnderstood);
    }
    Ok(Condition::Compares {
        attribute: attribute.to_ascii_lowercase(),
        comparison,
        values,
    })
}

fn quoted(text: &mut &str) -> Parsed<String> {
    delimited("'", take_till(0.., '\''), "'")
        .map(|value: &str| value.to_owned())
        .parse_next(text)
}

fn spaced<'a, O>(
    parser: impl Parser<&'a str, O, ErrMode<ContextError>>,
) -> impl Parser<&'a str, O, ErrMode<ContextError>> {
    delimited(multispace0, parser, multispace0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "Microsoft.ContainerService/managedClusters/customResources:group";
    const KIND: &str = "Microsoft.ContainerService/managedClusters/customResources:kind";
    const SUBRESOURCE: &str = "Microsoft.ContainerService/managedClusters/resources:subresource";

    fn action(id: &str) -> DataAction {
        DataAction {
            id: format!("Microsoft.ContainerService/managedClusters/{id}"),
            subresource: None,
            custom_resource: None,
        }
    }

    fn custom(group: &str, kind: &str) -> DataAction {
        DataAction {
            custom_resource: Some((group.to_owned(), kind.to_owned())),
            ..action("customresources/read")
        }
    }

    fn comes_to(condition: &str, action: &DataAction) -> Truth {
        Condition::parse(condition).holds_for(action)
    }

    /// As AKS documents it [azure.md §3].
    #[test]
    fn the_condition_on_custom_resources_lets_one_kind_through() {
        let condition = format!(
            "((!(ActionMatches{{'Microsoft.ContainerService/managedClusters/customresources/read'}})) OR \
             (@Request[{GROUP}] StringEqualsIgnoreCase 'kyverno.io' AND @Request[{KIND}] StringEqualsIgnoreCase \
             'policies'))"
        );
        assert_eq!(
            comes_to(&condition, &custom("kyverno.io", "policies")),
            Truth::True
        );
        assert_eq!(
            comes_to(&condition, &custom("Kyverno.IO", "Policies")),
            Truth::True
        );
        assert_eq!(
            comes_to(&condition, &custom("kyverno.io", "reports")),
            Truth::False
        );
        assert_eq!(
            comes_to(&condition, &custom("example.com", "policies")),
            Truth::False
        );
        assert_eq!(
            comes_to(&condition, &action("pods/read")),
            Truth::True,
            "of other actions it says nothing"
        );
    }

    #[test]
    fn of_a_pattern_it_is_unknown_what_does_not_hold_for_all_its_actions() {
        let condition = "ActionMatches{'*/pods/read'}";
        for (pattern, expected) in [
            ("pods/read", Truth::True),
            ("pods/*", Truth::Unknown),
            ("*", Truth::Unknown),
            ("secrets/*", Truth::Unknown),
            ("pods/write", Truth::False),
        ] {
            assert_eq!(comes_to(condition, &action(pattern)), expected, "{pattern}");
        }
        let (one, none) = (
            "ActionMatches{'*/pods/*'}",
            "ActionMatches{'*/nodes/write'}",
        );
        assert_eq!(comes_to(one, &action("pods/*")), Truth::True);
        assert_eq!(comes_to(none, &action("pods/read")), Truth::False);
    }

    #[test]
    fn comparisons_are_what_their_names_say() {
        let exec = DataAction {
            subresource: Some("exec".to_owned()),
            ..action("pods/exec/action")
        };
        for (operator, values, expected) in [
            ("StringEquals", "'exec'", Truth::True),
            ("StringEquals", "'Exec'", Truth::False),
            ("StringEqualsIgnoreCase", "'Exec'", Truth::True),
            ("StringNotEquals", "'exec'", Truth::False),
            ("StringNotEquals", "'attach'", Truth::True),
            ("StringNotEqualsIgnoreCase", "'EXEC'", Truth::False),
            (
                "ForAnyOfAnyValues:StringEquals",
                "{'attach', 'exec'}",
                Truth::True,
            ),
            (
                "ForAnyOfAnyValues:StringEqualsIgnoreCase",
                "{ 'attach' }",
                Truth::False,
            ),
            ("StringLike", "'ex*'", Truth::Unknown),
            ("ForAllOfAllValues:StringEquals", "{'exec'}", Truth::Unknown),
        ] {
            let condition = format!("@Request[{SUBRESOURCE}] {operator} {values}");
            assert_eq!(comes_to(&condition, &exec), expected, "{condition}");
        }
    }

    #[test]
    fn what_is_unknown_stays_unknown_unless_it_makes_no_difference() {
        let unknown = "@Resource[Microsoft.Storage/x:name] StringEquals 'x'";
        let (yes, no) = ("ActionMatches{'*/read'}", "ActionMatches{'*/write'}");
        let read = action("pods/read");
        for (condition, expected) in [
            (unknown.to_owned(), Truth::Unknown),
            (format!("!({unknown})"), Truth::Unknown),
            (format!("{yes} AND {unknown}"), Truth::Unknown),
            (format!("{no} && {unknown}"), Truth::False),
            (format!("{yes} OR {unknown}"), Truth::True),
            (format!("{unknown} || {no}"), Truth::Unknown),
            (format!("({yes} or {unknown}) and !{no}"), Truth::True),
            // AND binds more closely.
            (format!("{yes} OR {no} AND {no}"), Truth::True),
            // An attribute that this request has not got.
            (
                format!("@Request[{GROUP}] StringNotEquals 'x'"),
                Truth::Unknown,
            ),
            (
                format!("@Principal[{GROUP}] StringEquals 'x'"),
                Truth::Unknown,
            ),
        ] {
            assert_eq!(comes_to(&condition, &read), expected, "{condition}");
        }
    }

    #[test]
    fn what_is_not_a_condition_is_not_understood_and_harms_nobody() {
        for text in [
            "",
            "true",
            "ActionMatches",
            "ActionMatches{'x'",
            "(ActionMatches{'x'}",
            "ActionMatches{'x'} AND",
            "@Request[x] StringEquals",
            "@Request[x] NumericEquals 5",
            "Exists @Request[x]",
            &"(".repeat(100_000),
            &"!".repeat(8_000),
            &format!("ActionMatches{{'{}'}}", "x".repeat(9_000)),
            &vec!["ActionMatches{'x'}"; 101].join(" OR "),
        ] {
            assert_eq!(Condition::parse(text), Condition::NotUnderstood, "{text}");
        }
    }
}
