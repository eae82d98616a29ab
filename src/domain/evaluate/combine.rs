//! Whether some blocks of permissions together give everything that is asked for.
//!
//! What is asked for may be patterns: then blocks and patterns are compared so that the answer may be too careful, and
//! is never too generous (I9).

use crate::domain::pattern::{overlap, subsumes};
use crate::domain::role::{Permissions, RoleDefinition};

/// How many roles may be laid over each other to make up one permission. Beyond that, roles that are
/// made to contradict each other could keep the evaluation busy; the answer is then too careful.
const DEEPEST_COMBINATION: usize = 4;

/// Which half of a role definition counts: data actions have nothing to do with control-plane actions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plane {
    Control,
    Data,
}

/// How many blocks are looked at for one combination. Beyond that, too, the answer is too careful.
const MOST_STEPS: usize = 20_000;

/// One block of what is asked for: what matches one of the patterns and nothing that is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    pub(super) patterns: Vec<String>,
    pub(super) left_out: Vec<String>,
}

/// One block of a role that is held.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    gives: &'a [String],
    but_not: &'a [String],
}

impl<'a> Block<'a> {
    pub(super) fn of(permissions: &'a Permissions, plane: Plane) -> Self {
        match plane {
            Plane::Control => Self {
                gives: &permissions.actions,
                but_not: &permissions.not_actions,
            },
            Plane::Data => Self {
                gives: &permissions.data_actions,
                but_not: &permissions.not_data_actions,
            },
        }
    }
}

/// The blocks of a role. Those that hang on a condition of their own count only if `conditional`.
pub(super) fn blocks(
    role: &RoleDefinition,
    plane: Plane,
    conditional: bool,
) -> impl Iterator<Item = Block<'_>> {
    role.permissions
        .iter()
        .filter(move |block| conditional || !block.conditional)
        .map(move |block| Block::of(block, plane))
}

/// The data actions that a role gives; empty if it gives none. A condition in its definition is left
/// aside: without it, more is asked for.
pub(super) fn wanted_by(role: &RoleDefinition) -> Vec<Wanted> {
    role.permissions
        .iter()
        .map(|block| Wanted {
            patterns: block
                .data_actions
                .iter()
                .filter(|pattern| !is_left_out(pattern, &block.not_data_actions))
                .cloned()
                .collect(),
            left_out: block.not_data_actions.clone(),
        })
        .filter(|wanted| !wanted.patterns.is_empty())
        .collect()
}

fn is_left_out(pattern: &str, left_out: &[String]) -> bool {
    left_out.iter().any(|out| subsumes(out, pattern))
}

/// Whether the blocks together give all of it.
pub(super) fn all_held(wanted: &[Wanted], blocks: &[Block<'_>]) -> bool {
    let mut search = Search {
        blocks,
        spent: vec![false; blocks.len()],
        steps: MOST_STEPS,
    };
    wanted.iter().all(|wanted| {
        let mut patterns = wanted.patterns.iter();
        patterns.all(|pattern| search.covers(pattern, &wanted.left_out, 0))
    })
}

/// A search for blocks that make something up together.
struct Search<'s, 'b> {
    blocks: &'s [Block<'b>],
    /// Which of them are in use already.
    spent: Vec<bool>,
    /// How many more may be looked at.
    steps: usize,
}

impl Search<'_, '_> {
    /// Whether the blocks together give all that `pattern` matches, less what is left out.
    ///
    /// One block must give the whole pattern; what that block takes out again must be left out anyway, or
    /// come from the other blocks.
    fn covers(&mut self, pattern: &str, left_out: &[String], depth: usize) -> bool {
        if is_left_out(pattern, left_out) {
            return true;
        }
        if depth == DEEPEST_COMBINATION {
            return false;
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let Some(left) = self.steps.checked_sub(1) else {
                return false;
            };
            self.steps = left;
            if self.spent[index] || !block.gives.iter().any(|gives| subsumes(gives, pattern)) {
                continue;
            }
            self.spent[index] = true;
            let mut taken_out = block.but_not.iter().filter(|out| overlap(out, pattern));
            let whole = taken_out.all(|out| self.covers(out, left_out, depth + 1));
            self.spent[index] = false;
            if whole {
                return true;
            }
        }
        false
    }
}

/// Which of the patterns that are asked for the blocks give, each by itself and what they take out again aside: a bit
/// each, of the first 64. Of a combination, for each pattern one block must: whatever else is in it.
pub(super) fn given_whole<'a>(wanted: &[Wanted], blocks: impl Iterator<Item = Block<'a>>) -> u64 {
    let blocks: Vec<Block<'_>> = blocks.collect();
    let patterns = || wanted.iter().flat_map(|wanted| &wanted.patterns);
    let mut whole = 0;
    for (at, pattern) in patterns().take(64).enumerate() {
        let gives = |block: &Block<'_>| block.gives.iter().any(|it| subsumes(it, pattern));
        whole |= u64::from(blocks.iter().any(gives)) << at;
    }
    whole
}

/// All bits of [`given_whole`].
pub(super) fn all_whole(wanted: &[Wanted]) -> u64 {
    let count = wanted.iter().map(|wanted| wanted.patterns.len()).sum();
    match count {
        0..64 => (1 << count) - 1,
        _ => u64::MAX,
    }
}

/// Whether the blocks may give some of it.
pub(super) fn gives_part<'a>(
    wanted: &[Wanted],
    mut blocks: impl Iterator<Item = Block<'a>>,
) -> bool {
    blocks.any(|block| {
        let gives = |pattern: &String| block.gives.iter().any(|gives| overlap(gives, pattern));
        wanted.iter().flat_map(|wanted| &wanted.patterns).any(gives)
    })
}

/// Whether a block that denies may take some of it away.
pub(super) fn takes_part(wanted: &[Wanted], block: Block<'_>) -> bool {
    let takes = |wanted: &Wanted, pattern: &str| {
        let spared = |denied: &str| {
            is_left_out(denied, &wanted.left_out)
                || is_left_out(denied, block.but_not)
                || is_left_out(pattern, block.but_not)
        };
        block
            .gives
            .iter()
            .any(|denied| overlap(denied, pattern) && !spared(denied))
    };
    wanted
        .iter()
        .any(|wanted| wanted.patterns.iter().any(|pattern| takes(wanted, pattern)))
}
