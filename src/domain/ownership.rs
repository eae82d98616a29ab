//! Names and descriptions of what the broker makes: how its effects are told from everybody else's.
//!
//! Names are a deterministic series, so that whoever revokes knows every name that may have been used.
//! Descriptions say when an effect ends and which grants it carries out, so that an expiry holds even
//! where Redis is lost (I6).

use jiff::Timestamp;
use uuid::Uuid;

use super::access::RoleAtScope;
use super::grant::Expiry;
use super::ids::{AssignmentName, GrantId, InstanceId, PrincipalId};

/// The name of the `n`th role assignment of the series for one role at one scope and one principal.
///
/// About one name in a hundred is refused for good with `HashConflictOnDifferentRoleAssignmentIds`
/// [azure-cli#13368, ARO-RP#670]; then the next of the series is taken.
#[must_use]
pub fn assignment_name(
    instance: InstanceId,
    at: &RoleAtScope,
    principal: PrincipalId,
    n: u32,
) -> AssignmentName {
    let seed = format!("{}|{}|{principal}|{n}", at.scope, at.role);
    AssignmentName::new(Uuid::new_v5(&instance.guid(), seed.as_bytes()))
}

/// The length of a series. The names at places 0 to 63 are the broker's own, and the planner uses no others, so the
/// broker recognises every name that it ever intended. Azure refuses about one name in a hundred by chance, so even
/// four in a row are rare. If Azure refuses all 64, the names are not the cause.
pub const LONGEST_SERIES: u32 = 64;

/// The place of `name` in that series, if it is one of its names.
#[must_use]
pub fn place_in_series(
    instance: InstanceId,
    at: &RoleAtScope,
    principal: PrincipalId,
    name: AssignmentName,
) -> Option<u32> {
    (0..LONGEST_SERIES).find(|n| assignment_name(instance, at, principal, *n) == name)
}

/// What a description says: enough to own the effect, and to end it without Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Which broker made the effect.
    pub instance: InstanceId,
    /// The latest end of the live grants that call for the effect.
    pub expiry: Expiry,
    /// Those grants, as many as fit.
    pub grants: Vec<GrantId>,
}

const MARK: &str = "aks-access-broker/v1";

/// Azure recommends at most this many characters [azure-docs limits.md]; its hard limit is 2 KB.
pub const MAX_DESCRIPTION: usize = 512;

impl Description {
    /// The text that is written: `aks-access-broker/v1 instance=… expires=… grants=…`, at most
    /// [`MAX_DESCRIPTION`] characters; grants that do not fit are left out, and `+N` says how many.
    #[must_use]
    pub fn write(&self) -> String {
        let expires = match self.expiry {
            Expiry::At(time) => time.to_string(),
            Expiry::Never => "never".to_owned(),
        };
        let mut text = format!(
            "{MARK} instance={} expires={expires} grants=",
            self.instance
        );
        // Room for the longest "+N" that can follow, so that what is written never exceeds the limit.
        let room = MAX_DESCRIPTION - 12;
        for (index, grant) in self.grants.iter().enumerate() {
            let grant = grant.to_string();
            if text.len() + grant.len() + 1 > room {
                text.push('+');
                text.push_str(&(self.grants.len() - index).to_string());
                break;
            }
            if index > 0 {
                text.push(',');
            }
            text.push_str(&grant);
        }
        text
    }

    /// Reads a description back; `None` for one that this format did not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != MARK {
            return None;
        }
        let instance = InstanceId::parse(words.next()?.strip_prefix("instance=")?).ok()?;
        let expiry = match words.next()?.strip_prefix("expires=")? {
            "never" => Expiry::Never,
            time => Expiry::At(time.parse::<Timestamp>().ok()?),
        };
        let listed = words.next()?.strip_prefix("grants=")?;
        let listed = listed.split('+').next().unwrap_or(listed);
        let grants = listed
            .split(',')
            .filter(|grant| !grant.is_empty())
            .map(|grant| GrantId::parse(grant).ok())
            .collect::<Option<Vec<_>>>()?;
        words.next().is_none().then_some(Self {
            instance,
            expiry,
            grants,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_description_is_read_back_and_never_too_long(
            instance: u128,
            expires in proptest::option::of(0_i64..4_102_444_800_000),
            grants in proptest::collection::vec(any::<u128>(), 0..40),
        ) {
            let description = Description {
                instance: InstanceId::new(Uuid::from_u128(instance)),
                expiry: expires.map_or(Expiry::Never, |ms| Expiry::At(Timestamp::from_millisecond(ms).unwrap())),
                grants: grants.into_iter().map(|g| GrantId::new(Uuid::from_u128(g))).collect(),
            };
            let text = description.write();
            prop_assert!(text.len() <= MAX_DESCRIPTION, "{}", text.len());
            let read = Description::parse(&text).unwrap();
            prop_assert_eq!(read.instance, description.instance);
            prop_assert_eq!(read.expiry, description.expiry);
            prop_assert!(description.grants.starts_with(&read.grants));
        }

        #[test]
        fn a_stranger_s_description_is_not_ours(text in ".{0,80}") {
            prop_assert_eq!(Description::parse(&text), None);
        }
    }
}
