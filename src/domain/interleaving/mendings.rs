//! What the protocol owes its promises to. Each can be taken out, and then the model has to find what goes wrong: a
//! model that does not is of no use.

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::{Action, Fate, PassEnd, action, runs};

/// Rules of the protocol (design §5), each of which a run can do without.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub(super) struct Mended {
    /// What waits is a target's bucket, never a target.
    pub(super) buckets_wait_apart: bool,
    /// No wait is longer than the next settle deadline.
    pub(super) waits_end_with_deadlines: bool,
    /// Before each PUT the pass looks whether it may still give.
    pub(super) looks_before_it_gives: bool,
    /// A revocation by selector waits for what is going already.
    pub(super) selects_what_is_going: bool,
    /// Every script compares `meta` with what its process began with.
    pub(super) compares_meta: bool,
    /// A lease, a wait or a closing that lies further ahead than it can is ignored.
    pub(super) believes_no_time_beyond: bool,
    /// So is a settle deadline.
    pub(super) bounds_deadlines: bool,
    /// When Redis's clock has gone back, the times in `due` move with it.
    pub(super) due_moves_with_the_clock: bool,
    /// A call that may be under way gets a deadline by Redis's clock, whatever the worker takes the time for.
    pub(super) dates_open_calls: bool,
    /// A deadline is over when it is so by Redis's clock and by the process's own.
    pub(super) judges_by_both_clocks: bool,
    /// A record that is sent again is recognised by its token, even if other workers have recorded since.
    pub(super) remembers_records: bool,
    /// A pass tries only so many names of a series.
    pub(super) tries_few_names: bool,
    /// A name that was refused is a failed attempt.
    pub(super) counts_refused_names: bool,
    /// An ending that rests on other grants is put off only so often.
    pub(super) puts_off_a_few_times: bool,
    /// What a pass left undone is not taken for done.
    pub(super) doubts_what_is_left: bool,
}

impl Mended {
    pub(super) const ALL: Self = Self {
        buckets_wait_apart: true,
        waits_end_with_deadlines: true,
        looks_before_it_gives: true,
        selects_what_is_going: true,
        compares_meta: true,
        believes_no_time_beyond: true,
        bounds_deadlines: true,
        due_moves_with_the_clock: true,
        dates_open_calls: true,
        judges_by_both_clocks: true,
        remembers_records: true,
        tries_few_names: true,
        counts_refused_names: true,
        puts_off_a_few_times: true,
        doubts_what_is_left: true,
    };
}

/// Takes one rule out; a run that goes wrong without it has to be found within so many.
fn is_found_without(take_out: impl Fn(&mut Mended)) {
    const RUNS: u32 = 50_000;
    let mut mended = Mended::ALL;
    take_out(&mut mended);
    let config = Config {
        cases: RUNS,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    // The same runs each time: whether this finds anything is no matter of luck.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let actions = proptest::collection::vec(action(), 0..80);
    let found = TestRunner::new_with_rng(config, rng).run(&actions, |actions| {
        runs(mended, &actions);
        Ok(())
    });
    assert!(
        matches!(found, Err(TestError::Fail(..))),
        "{RUNS} runs without it end as they should: the model does not cover it"
    );
}

macro_rules! is_found_without {
    ($($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                is_found_without(|mended| mended.$rule = false);
            }
        )*
    };
}

mod taken_out {
    use super::is_found_without;

    is_found_without!(
        buckets_wait_apart,
        waits_end_with_deadlines,
        looks_before_it_gives,
        selects_what_is_going,
        compares_meta,
        believes_no_time_beyond,
        bounds_deadlines,
        due_moves_with_the_clock,
        judges_by_both_clocks,
        remembers_records,
        tries_few_names,
        counts_refused_names,
        puts_off_a_few_times,
        doubts_what_is_left,
    );
}

/// A worker's idea of the time is behind: what it takes for the settle deadline of its DELETE passes long before that
/// can take effect no more. Too rare to be met by chance.
#[test]
#[should_panic(expected = "it is said to stand")]
fn dates_open_calls() {
    let mended = Mended {
        dates_open_calls: false,
        ..Mended::ALL
    };
    runs(mended, &a_late_delete_of_a_worker_that_was_suspended());
}

#[test]
fn a_call_is_waited_for_whatever_its_worker_takes_the_time_for() {
    runs(Mended::ALL, &a_late_delete_of_a_worker_that_was_suspended());
}

fn a_late_delete_of_a_worker_that_was_suspended() -> Vec<Action> {
    let grant = Action::Grant {
        access: 2,
        ttl: None,
    };
    let mut actions = vec![grant.clone(), Action::Claim(false), Action::Begin(false)];
    actions.extend(vec![Action::Call(false, Fate::Answered); 6]);
    actions.extend([
        Action::Record(false),
        Action::Revoke(0),
        Action::Claim(false),
        Action::Begin(false),
        Action::Suspend(false, 8),
        Action::Call(false, Fate::Late(8)),
        grant,
        Action::Record(false),
        Action::Wait(2),
        Action::Claim(true),
        Action::Begin(true),
    ]);
    actions.extend(vec![Action::Call(true, Fate::Answered); 6]);
    actions.extend([Action::Record(true), Action::Wait(7)]);
    actions
}

/// A grant's end passes before the pass that would have looked again at a stranger's assignment, which has gone. After its
/// end nothing is written for it, so what an earlier pass saw must not make it active.
#[test]
fn what_an_earlier_pass_saw_makes_no_grant_active_after_its_end() {
    let pass = |fates: &[Fate]| Action::Pass {
        worker: false,
        fates: fates.to_vec(),
        ends: PassEnd::Records,
    };
    let actions = [
        Action::Stranger {
            access: 1,
            conditional: false,
        },
        Action::RequestsWithoutEnd {
            worker: false,
            passes: 2,
        },
        Action::StrangerLeaves,
        Action::RevokeMany { every: 1 },
        Action::Grant {
            access: 2,
            ttl: Some(4),
        },
        Action::Wait(1),
        pass(&[Fate::Answered]),
        Action::SetTheClock(3),
        pass(&[]),
    ];
    runs(Mended::ALL, &actions);
}
