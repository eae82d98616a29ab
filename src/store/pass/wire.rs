//! What the scripts of a pass are told: their arguments, as their own comments describe them.

use serde::Serialize;

use super::super::codec::{
    call_word, grant_state_words, job_state_word, time_millis, write_effect, write_failure,
    write_job_effect,
};
use super::super::script::millis;
use super::{NextLook, PassRecord, TouchedEffect};
use crate::config::LaneBudget;
use crate::domain::conclude::Conclusion;
use crate::domain::effect::{Call, PerCall};
use crate::domain::grant::GrantState;
use crate::domain::job::JobEffect;

#[derive(Serialize)]
pub(super) struct Budget {
    pub(super) capacity: u32,
    pub(super) per_second: f64,
}

#[derive(Serialize)]
pub(super) struct Budgets {
    pub(super) writes: Budget,
    pub(super) deletes: Budget,
}

impl Budgets {
    pub(super) fn new(lane: &LaneBudget) -> Self {
        let budget = |bucket: &crate::config::Bucket| Budget {
            capacity: bucket.capacity.get(),
            per_second: f64::from(bucket.per_second.get()),
        };
        Self {
            writes: budget(&lane.writes),
            deletes: budget(&lane.deletes),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ClaimArgument {
    pub(super) token: String,
    pub(super) lease: u64,
    pub(super) settle: u64,
    pub(super) timeout: u64,
    pub(super) turn: u64,
    pub(super) backoff: BackoffArgument,
    pub(super) jitter: f64,
    pub(super) budget: Budgets,
    pub(super) remembered: u64,
}

#[derive(Serialize)]
pub(super) struct BackoffArgument {
    pub(super) initial: u64,
    pub(super) max: u64,
}

#[derive(Serialize)]
pub(super) struct BeginArgument {
    pub(super) target: String,
    pub(super) token: String,
    pub(super) generation: u64,
    pub(super) rows: Vec<IntentRow>,
    pub(super) budget: Budgets,
}

#[derive(Serialize)]
pub(super) struct IntentRow {
    pub(super) name: String,
    pub(super) call: &'static str,
    pub(super) body: String,
}

#[derive(Serialize)]
pub(super) struct RenewArgument {
    pub(super) target: String,
    pub(super) token: String,
    pub(super) lease: u64,
}

#[derive(Serialize)]
pub(super) struct CheckLeaseArgument {
    pub(super) target: String,
    pub(super) token: String,
}

#[derive(Serialize)]
pub(super) struct RecordArgument<'a> {
    pub(super) target: String,
    pub(super) token: String,
    pub(super) generation: u64,
    pub(super) claimed: i64,
    pub(super) behind: u64,
    pub(super) caught_up: i64,
    pub(super) rows: Vec<EffectRow>,
    pub(super) grants: Vec<GrantRow<'a>>,
    pub(super) jobs: Vec<JobRow>,
    pub(super) forget: Vec<String>,
    pub(super) open: Vec<String>,
    pub(super) moved: bool,
    pub(super) again: bool,
    pub(super) looks: LookRows,
    pub(super) closed: Vec<ClosedRow>,
    pub(super) remaining: Vec<RemainingRow>,
    pub(super) lease: u64,
    pub(super) settle: u64,
    pub(super) lag: u64,
    pub(super) audit_events: &'a [String],
    pub(super) lost_event: &'a str,
    pub(super) remembered: u64,
}

#[derive(Serialize)]
pub(super) struct LookRows {
    pub(super) writes: LookRow,
    pub(super) deletes: LookRow,
}

#[derive(Serialize)]
pub(super) struct LookRow {
    pub(super) needed: bool,
    pub(super) wait: u64,
    pub(super) failures: u32,
}

impl From<PerCall<NextLook>> for LookRows {
    fn from(looks: PerCall<NextLook>) -> Self {
        let row = |look: NextLook| LookRow {
            needed: look.needed,
            wait: look.wait.map_or(0, millis),
            failures: look.failures,
        };
        Self {
            writes: row(looks.writes),
            deletes: row(looks.deletes),
        }
    }
}

#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the script's arguments, each one a question of its own"
)]
pub(super) struct EffectRow {
    pub(super) name: String,
    pub(super) body: String,
    pub(super) call: &'static str,
    pub(super) open: &'static str,
    pub(super) may_be_gone: bool,
    pub(super) sent: bool,
    pub(super) unanswered: bool,
    pub(super) was: i64,
    pub(super) deadline: i64,
    pub(super) put_until: i64,
    pub(super) landed: bool,
}

#[derive(Serialize)]
pub(super) struct GrantRow<'a> {
    pub(super) id: String,
    pub(super) from: &'static str,
    pub(super) from_ending: &'static str,
    pub(super) to: &'static str,
    pub(super) ending: &'static str,
    pub(super) error: String,
    pub(super) settled: Vec<String>,
    pub(super) shared: bool,
    pub(super) audit_event: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct JobRow {
    pub(super) id: String,
    pub(super) to: &'static str,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pub(super) error: String,
    pub(super) grants: Vec<String>,
    pub(super) waits_for: Vec<&'static str>,
    pub(super) effects: Vec<JobEffectRow>,
}

#[derive(Serialize)]
pub(super) struct JobEffectRow {
    pub(super) name: String,
    pub(super) body: String,
}

#[derive(Serialize)]
pub(super) struct RemainingRow {
    pub(super) bucket: &'static str,
    pub(super) calls: u32,
}

#[derive(Serialize)]
pub(super) struct ClosedRow {
    pub(super) bucket: &'static str,
    pub(super) until_after: u64,
}

pub(super) const fn bucket(call: Call) -> &'static str {
    match call {
        Call::Put => "writes",
        Call::Delete => "deletes",
    }
}

pub(super) fn effect_row(touched: &TouchedEffect) -> EffectRow {
    let effect = &touched.effect;
    EffectRow {
        name: effect.name.to_string(),
        body: write_effect(effect),
        call: call_word(touched.call),
        open: effect.open.map_or("", call_word),
        may_be_gone: effect.may_be_gone,
        sent: touched.sent,
        unanswered: touched.unanswered,
        was: touched.loaded_deadline.map_or(0, time_millis),
        deadline: effect.deadline.map_or(0, time_millis),
        put_until: effect.put_until.map_or(0, time_millis),
        landed: touched.landed,
    }
}

pub(super) fn grant_rows<'a>(pass: &'a PassRecord<'_>) -> Vec<GrantRow<'a>> {
    let row = |change: &crate::domain::conclude::GrantChange| {
        let (from, from_ending) = grant_state_words(change.from);
        let (to, ending) = grant_state_words(change.to);
        GrantRow {
            id: change.id.to_string(),
            from,
            from_ending,
            to,
            ending,
            error: write_failure(change.error.as_ref()),
            settled: change.settled.iter().map(ToString::to_string).collect(),
            shared: change.shared,
            audit_event: pass.grant_events.get(&change.id).map(String::as_str),
        }
    };
    // What is live comes first: what ends may rest on it.
    let (ended, others): (Vec<_>, Vec<_>) = pass
        .conclusion
        .grants
        .iter()
        .partition(|change| matches!(change.to, GrantState::Ended(_)));
    others.into_iter().chain(ended).map(row).collect()
}

fn job_effect_row(done: &JobEffect) -> JobEffectRow {
    JobEffectRow {
        name: done.effect.name.to_string(),
        body: write_job_effect(done),
    }
}

pub(super) fn job_rows(conclusion: &Conclusion) -> Vec<JobRow> {
    conclusion
        .jobs
        .iter()
        .map(|change| JobRow {
            id: change.id.to_string(),
            to: job_state_word(change.to),
            is_final: change.to.is_final(),
            error: write_failure(change.error.as_ref()),
            grants: change.grants.iter().map(ToString::to_string).collect(),
            waits_for: change.waits_for.iter().map(|call| bucket(*call)).collect(),
            effects: change.effects.iter().map(job_effect_row).collect(),
        })
        .collect()
}
