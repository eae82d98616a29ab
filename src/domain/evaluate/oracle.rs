//! The evaluator against an oracle that knows nothing of its numbers, its tables and its patterns laid over patterns:
//! on small worlds drawn at random, it asks Azure's rules about one action at one place after the other.
//!
//! Where one action decides, the two must agree. Where a question stands for many, the evaluator may be the more careful
//! one, and never the more generous (I9). A failure tells its seed; `ORACLE_SEED` asks that one again.

mod asks;
mod lists;
mod rules;
mod world;

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::{Answer, Decision, Layer, Question, Verdict};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::assignments::Listed;
use crate::domain::grant::Expiry;
use crate::domain::ids::PrincipalId;
use crate::domain::snapshot::Snapshot;
use asks::{Ask, Case};
use lists::snapshot;
use rules::{Needed, Rules};
use world::{Assigned, Dice, ME, World, at, group};

const CASES: usize = 100_000;
const DRAWN_PER_WORLD: usize = 8;

#[test]
fn the_evaluator_agrees_with_azures_rules_told_one_by_one() {
    if let Some(seed) = option_env!("ORACLE_SEED") {
        let seed = seed.parse().unwrap();
        println!("{:#?}", World::draw(&mut Dice::new(seed)));
        try_world(seed, &mut Tally::default());
        return;
    }
    let mut tally = Tally::default();
    let mut seed = 0;
    // Worlds that are the same every time: whoever changes the evaluator learns of it, and nobody else.
    while tally.cases < CASES {
        try_world(seed, &mut tally);
        seed += 1;
    }
    println!("{tally:?}");
    tally.is_worth_something();
}

/// What came up.
#[derive(Default, Debug)]
struct Tally {
    cases: usize,
    exact: usize,
    cluster_access: HashMap<Decision, usize>,
    permission: HashMap<Decision, usize>,
    /// Of the questions that stand for many actions.
    of_many: HashMap<Decision, usize>,
    ends: usize,
}

impl Tally {
    fn count(&mut self, case: &Case, verdict: Verdict) {
        self.cases += 1;
        self.exact += usize::from(case.exact);
        self.ends += usize::from(verdict.expire_time.is_some());
        let permission = if case.exact {
            &mut self.permission
        } else {
            &mut self.of_many
        };
        *permission.entry(verdict.permission).or_default() += 1;
        *self
            .cluster_access
            .entry(verdict.cluster_access)
            .or_default() += 1;
    }

    /// Whoever always hears the same answer learns nothing from it.
    fn is_worth_something(&self) {
        let decisions = [Decision::Denied, Decision::Conditional, Decision::Allowed];
        for (came_up, of) in [
            (&self.permission, self.exact),
            (&self.of_many, self.cases - self.exact),
            (&self.cluster_access, self.cases),
        ] {
            for decision in decisions {
                let times = came_up.get(&decision).copied().unwrap_or_default();
                assert!(times * 100 >= of * 3, "{decision:?} too seldom: {self:?}");
            }
        }
        assert!(self.ends * 100 >= self.cases, "too few ends: {self:?}");
    }
}

fn try_world(seed: u64, tally: &mut Tally) {
    let mut dice = Dice::new(seed);
    let world = World::draw(&mut dice);
    let snapshot = snapshot(&world);
    let mut asked: Vec<(PrincipalId, Ask)> = Vec::new();
    for _ in 0..DRAWN_PER_WORLD {
        let who = if dice.one_in(8) {
            group(dice.below(2))
        } else {
            ME
        };
        for case in Case::draw(&mut dice, &world).in_each_namespace() {
            let key = (who, case.ask.clone());
            if !asked.contains(&key) {
                asked.push(key);
                try_case(seed, &world, &snapshot, who, &case, tally);
            }
        }
    }
}

fn try_case(
    seed: u64,
    world: &World,
    snapshot: &Snapshot,
    who: PrincipalId,
    case: &Case,
    tally: &mut Tally,
) {
    let principal = principal(world, who);
    let groups = groups_of(world, who);
    let question = Question {
        principal: &principal,
        groups: &groups,
        asks: case.ask.asks(),
    };
    let verdict = snapshot.decide(&question);
    let told = || format!("ORACLE_SEED={seed}: {who} asks {case:?}, and hears {verdict:?}");
    let rules = Rules {
        world,
        who,
        after: None,
        hopeful: false,
    };
    assert_eq!(verdict.cluster_access, rules.cluster_access(), "{}", told());
    if case.exact {
        let permission = rules.permission(&case.needed, &case.namespaces);
        assert_eq!(verdict.permission, permission, "{}", told());
    } else if verdict.permission != Decision::Denied {
        let most = at_most(rules, case);
        assert!(verdict.permission <= most, "at most {most:?}: {}", told());
    }
    check_end(rules, case, verdict, &told);
    check_reasons(world, snapshot, &question, case, verdict, &told);
    tally.count(case, verdict);
}

/// What a question that stands for many actions may be answered. A condition that comes to one thing for some of them
/// and to another for the rest is one that the broker does not take apart: such an answer may be `Conditional`.
fn at_most(rules: Rules<'_>, case: &Case) -> Decision {
    let hopeful = Rules {
        hopeful: true,
        ..rules
    };
    let [known, perhaps] = [rules, hopeful].map(|it| it.permission(&case.needed, &case.namespaces));
    known.max(perhaps.min(Decision::Conditional))
}

/// An `Allowed` ends with the first assignment without which it is none.
fn check_end(rules: Rules<'_>, case: &Case, verdict: Verdict, told: &impl Fn() -> String) {
    if verdict.decision() != Decision::Allowed {
        assert_eq!(verdict.expire_time, None, "{}", told());
        return;
    }
    let end = (1..5).map(at).find(|end| {
        let then = Rules {
            after: Some(*end),
            ..rules
        };
        let permission = || then.permission(&case.needed, &case.namespaces);
        then.cluster_access().min(permission()) != Decision::Allowed
    });
    if case.exact {
        assert_eq!(verdict.expire_time, end, "{}", told());
    } else {
        let ends = |time: Option<_>| time.map_or(Expiry::Never, Expiry::At);
        assert!(
            ends(verdict.expire_time) <= ends(end),
            "not after {end:?}: {}",
            told()
        );
    }
}

fn check_reasons(
    world: &World,
    snapshot: &Snapshot,
    question: &Question<'_>,
    case: &Case,
    verdict: Verdict,
    told: &impl Fn() -> String,
) {
    let answer: Answer = snapshot.explain(question);
    let same = Verdict {
        cluster_access: answer.cluster_access.decision,
        permission: answer.permission.decision,
        expire_time: answer.expire_time,
    };
    assert_eq!(
        (answer.decision, same),
        (verdict.decision(), verdict),
        "{}",
        told()
    );
    for (layer, needs_nothing) in [
        (&answer.cluster_access, false),
        (&answer.permission, matches!(case.needed, Needed::Nothing)),
    ] {
        let rests_on_something = !layer.paths.is_empty();
        let expected = layer.decision != Decision::Denied && !needs_nothing;
        assert_eq!(rests_on_something, expected, "{layer:?}: {}", told());
        check_paths(world, layer, question, told);
    }
}

fn check_paths(world: &World, layer: &Layer, question: &Question<'_>, told: &impl Fn() -> String) {
    for path in &layer.paths {
        let stands_for = |assigned: &&Assigned| {
            let Listed { name, scope, .. } = &assigned.listed;
            let scope = scope.trim_end_matches('/');
            path.resource_id
                == format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}")
        };
        let assigned = world.assigned.iter().chain(&world.made).find(stands_for);
        let holder = assigned
            .unwrap_or_else(|| panic!("{path:?}: {}", told()))
            .listed
            .holder;
        let me = question.principal.id;
        assert!(
            holder == me || question.groups.contains(&holder),
            "{path:?}: {}",
            told()
        );
        let via = path.via.last().copied().unwrap_or(me);
        assert_eq!(via, holder, "{path:?}: {}", told());
    }
}

fn principal(world: &World, who: PrincipalId) -> Principal {
    if who == ME {
        Principal {
            user_principal_name: world.user_principal_name.to_owned(),
            ..Principal::unnamed(who, world.kind)
        }
    } else {
        Principal::unnamed(who, PrincipalType::Group)
    }
}

/// All groups that somebody is in, through other groups too.
fn groups_of(world: &World, who: PrincipalId) -> Vec<PrincipalId> {
    let mut groups = BTreeSet::new();
    let mut open = vec![who];
    while let Some(member) = open.pop() {
        let of = world.members.iter().filter(|(it, _)| *it == member);
        open.extend(
            of.map(|(_, group)| *group)
                .filter(|group| groups.insert(*group)),
        );
    }
    let idle =
        (0..world.idle_groups as u128).map(|it| PrincipalId::new(Uuid::from_u128(1_000 + it)));
    groups.into_iter().chain(idle).collect()
}
