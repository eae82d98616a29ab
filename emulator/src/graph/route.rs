//! Graph's addresses, `/v1.0/…`.
//!
//! A key is a path segment or stands in parentheses: `users/{id}`, `users('{id}')`,
//! `servicePrincipals(appId='{id}')`; in the second form a quote is doubled [azure.md §6].

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::operation::Operation;

/// The collections that are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Users,
    Groups,
    ServicePrincipals,
    DirectoryObjects,
}

/// How an object is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An object id or, for users, a sign-in name.
    Id(String),
    /// A service principal's application id.
    AppId(String),
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Users,
    Object(Set, Key),
    GetMemberGroups(Set, Key),
    TransitiveMemberOf(Set, Key),
    GetByIds,
}

/// Reads a path; [`None`] if it names nothing that is emulated.
pub(super) fn parse(path: &str) -> Option<Target> {
    let rest = path.strip_prefix("/v1.0/")?.trim_end_matches('/');
    // Split before decoding: a sign-in name may hold an encoded slash.
    let segments: Vec<String> = rest
        .split('/')
        .map(|segment| {
            percent_decode_str(segment)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
        })
        .collect::<Result<_, _>>()
        .ok()?;
    let (first, rest) = segments.split_first()?;
    if let Some((set, key)) = first.split_once('(') {
        return below(Set::parse(set)?, in_parentheses(key)?, rest);
    }
    let set = Set::parse(first)?;
    match rest {
        [] => (set == Set::Users).then_some(Target::Users),
        [action] if set == Set::DirectoryObjects && is_action(action, "getByIds") => {
            Some(Target::GetByIds)
        }
        // Only system query options may begin so [graph-docs user-get]: the key has to stand in parentheses.
        [id, ..] if id.starts_with('$') => None,
        [id, rest @ ..] => below(set, Key::Id(id.clone()), rest),
    }
}

fn below(set: Set, key: Key, rest: &[String]) -> Option<Target> {
    match rest {
        [] if set == Set::DirectoryObjects => None,
        [] => Some(Target::Object(set, key)),
        [action] if is_action(action, "getMemberGroups") => Some(Target::GetMemberGroups(set, key)),
        // A navigation of users, groups and service principals, not of every object [azure.md §6].
        [action]
            if set != Set::DirectoryObjects
                && action.eq_ignore_ascii_case("transitiveMemberOf") =>
        {
            Some(Target::TransitiveMemberOf(set, key))
        }
        _ => None,
    }
}

/// Actions may be written with their namespace.
fn is_action(segment: &str, action: &str) -> bool {
    segment
        .strip_prefix("microsoft.graph.")
        .unwrap_or(segment)
        .eq_ignore_ascii_case(action)
}

fn in_parentheses(key: &str) -> Option<Key> {
    let key = key.strip_suffix(')')?;
    // What stands in quotes may have a '=' of its own.
    let named = key.split_once('=').filter(|_| !key.starts_with('\''));
    let (name, value) = named.unwrap_or(("", key));
    let value = value
        .strip_prefix('\'')?
        .strip_suffix('\'')?
        .replace("''", "'");
    match name.to_ascii_lowercase().as_str() {
        "" | "id" | "userprincipalname" => Some(Key::Id(value)),
        "appid" => Some(Key::AppId(value)),
        _ => None,
    }
}

impl Set {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "users" => Some(Self::Users),
            "groups" => Some(Self::Groups),
            "serviceprincipals" => Some(Self::ServicePrincipals),
            "directoryobjects" => Some(Self::DirectoryObjects),
            _ => None,
        }
    }
}

impl Target {
    /// What `method` does to it.
    pub(super) fn operation(&self, method: &Method) -> Operation {
        match (method.as_str(), self) {
            ("GET", Self::Users) => Operation::UserList,
            ("GET", Self::Object(Set::Users, _)) => Operation::UserRead,
            ("GET", Self::Object(Set::Groups, _)) => Operation::GroupRead,
            ("GET", Self::Object(Set::ServicePrincipals, _)) => Operation::ServicePrincipalRead,
            ("POST", Self::GetMemberGroups(..)) => Operation::GetMemberGroups,
            ("GET", Self::TransitiveMemberOf(..)) => Operation::TransitiveMemberOf,
            ("POST", Self::GetByIds) => Operation::GetByIds,
            _ => Operation::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Set, Target, parse};

    fn id(text: &str) -> Key {
        Key::Id(text.to_owned())
    }

    #[test]
    fn keys_are_segments_or_stand_in_parentheses() {
        for (path, expected) in [
            (
                "/v1.0/users/a@b.example",
                Some(Target::Object(Set::Users, id("a@b.example"))),
            ),
            (
                "/v1.0/users/n_f.example%23EXT%23@c",
                Some(Target::Object(Set::Users, id("n_f.example#EXT#@c"))),
            ),
            (
                "/v1.0/users('$o''neill@b')",
                Some(Target::Object(Set::Users, id("$o'neill@b"))),
            ),
            (
                "/v1.0/users('a=''b@c')",
                Some(Target::Object(Set::Users, id("a='b@c"))),
            ),
            (
                "/v1.0/servicePrincipals(appId='4')",
                Some(Target::Object(
                    Set::ServicePrincipals,
                    Key::AppId("4".to_owned()),
                )),
            ),
            (
                "/v1.0/groups/2/getMemberGroups",
                Some(Target::GetMemberGroups(Set::Groups, id("2"))),
            ),
            (
                "/v1.0/directoryObjects/2/microsoft.graph.getMemberGroups",
                Some(Target::GetMemberGroups(Set::DirectoryObjects, id("2"))),
            ),
            (
                "/v1.0/users/2/transitiveMemberOf",
                Some(Target::TransitiveMemberOf(Set::Users, id("2"))),
            ),
            ("/v1.0/directoryObjects/2/transitiveMemberOf", None),
            ("/v1.0/directoryObjects/getByIds", Some(Target::GetByIds)),
            ("/v1.0/users", Some(Target::Users)),
            ("/v1.0/users/$oda@b.example", None),
            ("/v1.0/users/%24oda@b.example", None),
            (
                "/v1.0/users/o'neill@b",
                Some(Target::Object(Set::Users, id("o'neill@b"))),
            ),
            ("/v1.0/groups", None),
            ("/beta/users/a", None),
        ] {
            assert_eq!(parse(path), expected, "{path}");
        }
    }
}
