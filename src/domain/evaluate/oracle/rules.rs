//! Azure's documented rules, told one by one and in no hurry: what the evaluator must come to by its short cuts.

use jiff::Timestamp;

use super::world::{
    ABOVE_ALL, ABOVE_ONE, ABOVE_OTHER, Assigned, CLUSTER, Clause, ME, OF_CLUSTERS, OF_FLEETS,
    OTHER_SUBSCRIPTION, SUBSCRIPTION, World,
};
use crate::domain::access::PrincipalType;
use crate::domain::deny::{DenyAssignment, Effect};
use crate::domain::evaluate::Decision;
use crate::domain::grant::Expiry;
use crate::domain::ids::PrincipalId;
use crate::domain::role::{Permissions, RoleDefinition};

/// One data action, by its end, with what a condition can ask about the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) end: &'static str,
    pub(super) subresource: Option<&'static str>,
    pub(super) custom: Option<(&'static str, &'static str)>,
}

/// What it takes.
#[derive(Clone, Debug)]
pub(super) enum Needed {
    Nothing,
    /// What nothing gives.
    Never,
    ClusterAccess,
    /// All of these at one and the same place.
    Together(Vec<Asked>),
    /// Each of these, wherever.
    Each(Vec<Asked>),
}

/// How somebody fares by the rules.
#[derive(Clone, Copy)]
pub(super) struct Rules<'w> {
    pub(super) world: &'w World,
    pub(super) who: PrincipalId,
    /// What has ended by then is gone.
    pub(super) after: Option<Timestamp>,
    /// Takes every condition of a role assignment for one that nobody can evaluate.
    pub(super) hopeful: bool,
}

/// Takes `*` for any run of characters.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*'] => true,
        [b'*', rest @ ..] => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
        [c, rest @ ..] => match text {
            [d, behind @ ..] if c.eq_ignore_ascii_case(d) => matches(rest, behind),
            _ => false,
        },
    }
}

fn any_matches(patterns: &[String], text: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| matches(pattern.as_bytes(), text.as_bytes()))
}

fn names(block: &Permissions, action: &str, data: bool) -> bool {
    if data {
        any_matches(&block.data_actions, action) && !any_matches(&block.not_data_actions, action)
    } else {
        any_matches(&block.actions, action) && !any_matches(&block.not_actions, action)
    }
}

/// Whether a role names a data action of clusters, conditions aside.
pub(super) fn gives(role: &RoleDefinition, end: &str) -> bool {
    let action = format!("{OF_CLUSTERS}{end}");
    role.permissions
        .iter()
        .any(|block| names(block, &action, true))
}

/// Whether the one scope is the other, or has it in it.
pub(super) fn holds(scope: &str, place: &str) -> bool {
    match scope {
        "/" | ABOVE_ALL => true,
        ABOVE_ONE => holds(SUBSCRIPTION, place),
        ABOVE_OTHER => holds(OTHER_SUBSCRIPTION, place),
        _ => place == scope || place.starts_with(&format!("{scope}/")),
    }
}

fn truth(clause: &Clause, action: &str, asked: &Asked) -> Option<bool> {
    let of = |part: &Clause| truth(part, action, asked);
    match clause {
        Clause::Unknowable => None,
        Clause::Matches(pattern) => Some(matches(pattern.as_bytes(), action.as_bytes())),
        Clause::Not(part) => of(part).map(|truth| !truth),
        Clause::Both(one, other) => match (of(one), of(other)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Clause::Either(one, other) => match (of(one), of(other)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Clause::Group(name) => asked
            .custom
            .map(|(group, _)| group.eq_ignore_ascii_case(name)),
        Clause::Kind(name) => asked
            .custom
            .map(|(_, kind)| kind.eq_ignore_ascii_case(name)),
        Clause::Subresource(name) => asked.subresource.map(|it| it == *name),
    }
}

impl Rules<'_> {
    pub(super) fn cluster_access(&self) -> Decision {
        if !self.world.entra_integration {
            return Decision::Denied;
        }
        let nothing_else = Asked {
            end: "",
            subresource: None,
            custom: None,
        };
        let action = "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action";
        self.at(CLUSTER, action, &nothing_else, false)
    }

    pub(super) fn permission(&self, needed: &Needed, namespaces: &[&str]) -> Decision {
        if let Needed::ClusterAccess = needed {
            return self.cluster_access();
        }
        if self.is_refused() {
            return Decision::Denied;
        }
        let places: Vec<Vec<(String, &str)>> = if namespaces.is_empty() {
            vec![self.places(None)]
        } else {
            namespaces
                .iter()
                .map(|name| self.places(Some(name)))
                .collect()
        };
        let all_of = |asked: &[Asked]| {
            let everywhere = places.iter().map(|places| self.anywhere(places, asked));
            everywhere.min().unwrap()
        };
        match needed {
            Needed::Nothing => Decision::Allowed,
            Needed::Never | Needed::ClusterAccess => Decision::Denied,
            Needed::Together(asked) => all_of(asked),
            Needed::Each(asked) => {
                let each = asked.iter().map(|asked| all_of(&[*asked]));
                each.min().unwrap_or(Decision::Allowed)
            }
        }
    }

    fn is_refused(&self) -> bool {
        let world = self.world;
        let myself = self.who == ME;
        let too_many = world.kind == PrincipalType::ServicePrincipal && self.groups() > 200;
        let of_the_system = world
            .user_principal_name
            .to_lowercase()
            .starts_with("system:");
        !world.entra_integration || !world.azure_rbac || (myself && (too_many || of_the_system))
    }

    fn groups(&self) -> usize {
        let groups = (0..6).map(super::world::group);
        groups
            .filter(|group| self.is_in(self.who, *group, 6))
            .count()
            + self.world.idle_groups
    }

    /// Whether somebody is in a group, through so many others at most.
    fn is_in(&self, who: PrincipalId, group: PrincipalId, through: usize) -> bool {
        self.world.members.iter().any(|(member, of)| {
            *member == who && (*of == group || (through > 0 && self.is_in(*of, group, through - 1)))
        })
    }

    fn stands_for_me(&self, holder: PrincipalId) -> bool {
        holder == self.who || self.is_in(self.who, holder, 6)
    }

    fn places(&self, namespace: Option<&str>) -> Vec<(String, &str)> {
        let mut places = Vec::new();
        let outer = [
            (Some(CLUSTER), OF_CLUSTERS),
            (self.world.fleet.as_deref(), OF_FLEETS),
        ];
        for (outer, prefix) in outer {
            let Some(outer) = outer else { continue };
            match namespace {
                None => places.push((outer.to_owned(), prefix)),
                Some(name) => {
                    places.push((format!("{outer}/namespaces/{name}"), prefix));
                    places.push((format!("{outer}/managednamespaces/{name}"), prefix));
                }
            }
        }
        places
    }

    /// Any yes is a yes.
    fn anywhere(&self, places: &[(String, &str)], asked: &[Asked]) -> Decision {
        let at = |place: &(String, &str)| {
            let each = asked.iter().map(|asked| {
                let action = format!("{}{}", place.1, asked.end);
                self.at(&place.0, &action, asked, true)
            });
            each.min().unwrap()
        };
        places.iter().map(at).max().unwrap()
    }

    /// A deny assignment beats all.
    fn at(&self, place: &str, action: &str, asked: &Asked, data: bool) -> Decision {
        let denies = self
            .world
            .denies
            .iter()
            .map(|deny| self.left_by(deny, place, action, data));
        let left = denies.min().unwrap_or(Decision::Allowed);
        if left == Decision::Denied {
            return left;
        }
        let (assigned, made) = (&self.world.assigned, &self.world.made);
        let is_of = |list: &[Assigned], it: &Assigned| {
            let mut list = list.iter();
            list.find(|of| of.listed.name == it.listed.name).cloned()
        };
        // What we made is as we made it, whatever a list says of it; but a condition is somebody else's.
        let is_old = |it: &&Assigned| {
            let is_ours = is_of(made, it).is_some() && it.condition.is_none();
            is_ours || self.world.removed.contains(&it.listed.name)
        };
        let is_new = |it: &&Assigned| is_of(assigned, it).is_none_or(|it| it.condition.is_none());
        let shown = assigned.iter().filter(|it| !is_old(it));
        let given = shown.chain(made.iter().filter(is_new));
        let given = given.map(|assigned| self.given_by(assigned, place, action, asked, data));
        given.max().unwrap_or(Decision::Denied).min(left)
    }

    fn given_by(
        &self,
        assigned: &Assigned,
        place: &str,
        action: &str,
        asked: &Asked,
        data: bool,
    ) -> Decision {
        let listed = &assigned.listed;
        let ended = match (listed.ours, self.after) {
            (Some(Expiry::At(end)), Some(now)) => end <= now,
            _ => false,
        };
        if ended || !holds(&listed.scope, place) || !self.stands_for_me(listed.holder) {
            return Decision::Denied;
        }
        let known = self
            .world
            .roles
            .iter()
            .find(|(role, readable)| *readable && role.id == listed.role);
        let Some((role, _)) = known else {
            return Decision::Denied;
        };
        let condition = match &assigned.condition {
            None => Decision::Allowed,
            Some(_) if self.hopeful => Decision::Conditional,
            Some(clause) => match truth(clause, action, asked) {
                Some(true) => Decision::Allowed,
                Some(false) => Decision::Denied,
                None => Decision::Conditional,
            },
        };
        let naming = role
            .permissions
            .iter()
            .filter(|block| names(block, action, data));
        let by_blocks = naming.map(|block| {
            if block.conditional {
                Decision::Conditional
            } else {
                Decision::Allowed
            }
        });
        by_blocks.max().unwrap_or(Decision::Denied).min(condition)
    }

    fn left_by(&self, deny: &DenyAssignment, place: &str, action: &str, data: bool) -> Decision {
        let is_here = if deny.at_its_scope_only {
            deny.scope == place
        } else {
            holds(&deny.scope, place)
        };
        let is_meant = deny.principals.everyone
            || deny.principals.ids.iter().any(|id| self.stands_for_me(*id));
        let is_excluded = deny.excluded.everyone || deny.excluded.ids.contains(&self.who);
        if deny.effect == Effect::Audit || !is_here || !is_meant || is_excluded {
            return Decision::Allowed;
        }
        let naming = deny
            .permissions
            .iter()
            .filter(|block| names(block, action, data));
        let by_blocks = naming.map(|block| {
            if deny.conditional || block.conditional {
                Decision::Conditional
            } else {
                Decision::Denied
            }
        });
        by_blocks.min().unwrap_or(Decision::Allowed)
    }
}
