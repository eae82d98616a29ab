//! What stands for certain, whatever becomes of the calls that are under way.

use std::collections::BTreeMap;

use aks_access_broker::domain::effect::{Answer, Call, Effect};
use aks_access_broker::domain::ids::AssignmentName;
use aks_access_broker::store::{Begun, Recorded};

use super::ALICE;
use super::bench::Bench;

/// Whatever becomes of a PUT, and of its worker: what stood stands.
#[tokio::test]
async fn i4_what_stands_stands_while_it_is_written_again() {
    let mut bench = Bench::start().await;
    bench.active(ALICE).await;
    bench.grant(ALICE).await;
    let mut again = bench.short_pass().await;
    again.steps = again.puts_again();
    assert_eq!(again.begin(&bench).await, Begun::Begun);
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 2));

    bench.is_given_up(&again).await;
    let mut next = bench.pass().await;
    assert!(
        next.claimed
            .target
            .effects
            .values()
            .all(Effect::is_unsettled)
    );
    assert_eq!(stands(&next.claimed.target.effects), (2, 2));
    assert_eq!(next.begin(&bench).await, Begun::Begun);
    next.all_answered();
    next.record(&bench).await;
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 2));
}

/// A DELETE that its worker left may take away what is written after it, until it can do nothing more.
#[tokio::test]
async fn i4_nothing_stands_for_certain_while_a_delete_may_be_under_way() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut dies = bench.short_pass().await;
    assert_eq!(dies.begin(&bench).await, Begun::Begun);
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 0));
    bench.is_given_up(&dies).await;

    bench.grant(ALICE).await;
    let mut again = bench.pass().await;
    assert!(again.steps.iter().all(|step| step.call() == Call::Put));
    assert_eq!(stands(&again.claimed.target.effects), (2, 0));
    assert_eq!(again.begin(&bench).await, Begun::Begun);
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 0));
    again.all_answered();
    again.record(&bench).await;
    let left = bench.effects(ALICE).await;
    assert!(left.values().all(|effect| effect.deadline.is_some()));
    assert_eq!(stands(&left), (2, 0), "{left:?}");
}

/// A DELETE that is said to have met nothing may have met it all the same: what is written over that is in doubt, until
/// it is written.
#[tokio::test]
async fn i4_what_may_have_been_deleted_stands_again_when_it_is_written() {
    let bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let mut pass = bench.pass().await;
    assert_eq!(pass.begin(&bench).await, Begun::Begun);
    for step in pass.steps.clone() {
        pass.answered(&step, &Answer::NotThere);
    }
    assert_eq!(pass.record(&bench).await, Recorded::Recorded);
    let left = bench.effects(ALICE).await;
    let is_in_doubt = |effect: &Effect| effect.open.is_some() && effect.deadline.is_none();
    assert!(left.values().all(is_in_doubt), "{left:?}");

    bench.grant(ALICE).await;
    let mut again = bench.pass().await;
    assert_eq!(again.begin(&bench).await, Begun::Begun);
    assert!(again.steps.iter().all(|step| step.call() == Call::Put));
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 0));
    again.all_answered();
    again.record(&bench).await;
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 2));
}

/// A worker whose DELETE came late says so: what somebody else wrote meanwhile may be gone.
#[tokio::test]
async fn i4_a_delete_that_is_reported_late_puts_what_was_written_in_doubt() {
    let mut bench = Bench::start().await;
    let granted = bench.active(ALICE).await;
    bench.revoke(granted.grant).await;
    let late = bench.late_pass().await;
    bench.grant(ALICE).await;
    let mut other = bench.pass().await;
    assert_eq!(other.begin(&bench).await, Begun::Begun);
    assert_eq!(late.record(&bench).await, Recorded::Lost);
    other.all_answered();
    other.record(&bench).await;
    assert_eq!(stands(&bench.effects(ALICE).await), (2, 0));
}

/// How many effects there are, and how many of them stand for certain.
fn stands(effects: &BTreeMap<AssignmentName, Effect>) -> (usize, usize) {
    let stands = effects.values().filter(|effect| effect.surely_stands());
    (effects.len(), stands.count())
}
