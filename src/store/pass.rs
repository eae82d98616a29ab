//! A pass's way through the store: claim, begin, renew, record.

mod wire;

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use wire::{
    BackoffArgument, BeginArgument, Budgets, CheckLeaseArgument, ClaimArgument, ClosedRow,
    IntentRow, RecordArgument, RemainingRow, RenewArgument, bucket, effect_row, grant_rows,
    job_rows,
};

use super::Store;
use super::codec::{self, Hash, call_word, time_millis, write_effect};
use super::error::StoreError;
use super::link::COMES_AGAIN_WITHIN;
use super::read::{Fields, text};
use super::script::millis;
use crate::config::LaneBudget;
use crate::domain::backoff::Backoff;
use crate::domain::conclude::Conclusion;
use crate::domain::effect::{Call, Effect, PerCall};
use crate::domain::ids::{AssignmentName, GrantId, LeaseToken, TargetId};
use crate::domain::settle_clock::SettledTime;
use crate::domain::target::Target;
use crate::telemetry::Loop;

/// On what terms a worker claims.
#[derive(Clone, Debug)]
pub struct ClaimTerms {
    /// The claimer's own random token.
    pub token: LeaseToken,
    /// How long the target is its own.
    pub lease: Duration,
    /// The settle time, for intents that an earlier worker left.
    pub settle: Duration,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// Counts the claimer's claims: lanes take turns, and one in eight goes to a grant first.
    pub turn: u64,
    /// How long the next attempt waits if this one's worker dies.
    pub backoff: Backoff,
    /// The jitter for it, 0 to 1.
    pub jitter: f64,
}

/// A target, claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The target as it was loaded.
    pub target: Target,
    /// Redis's time at the claim.
    pub now: Timestamp,
    /// When the lease ends, by Redis's clock.
    pub lease_end: Timestamp,
    /// For how long calls of each kind still have to wait; the pass makes none of these. Zero if they need not wait.
    pub waits: PerCall<Duration>,
}

/// What `check_lease` found during a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseCheck {
    /// The lease is ours.
    Held {
        /// Whether access has ended on the target since the claim.
        has_ended: bool,
        /// Redis's time.
        now: Timestamp,
        /// What is left of the lease, by Redis's clock.
        left: Duration,
    },
    /// The lease is over, or another worker has it.
    Lost,
}

/// What became of writing down intents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begun {
    /// They are written; calls may go out.
    Begun,
    /// The lease is over, or another worker has it.
    Lost,
    /// The wishes have changed since the claim: claim again.
    Moved,
    /// The lane's budget does not reach before so long.
    Wait {
        /// How long.
        wait: Duration,
        /// How many calls would go now.
        free: PerCall<usize>,
    },
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// It is recorded, and the lease handed back.
    Recorded,
    /// The lease was not ours any more: nothing is recorded but that what we touched is unsettled.
    Lost,
}

/// An effect that a pass touched, as it is after the pass's answers.
#[derive(Clone, Debug)]
pub struct TouchedEffect {
    /// The effect.
    pub effect: Effect,
    /// The call that touched it.
    pub call: Call,
    /// Whether the call was sent at all: an intent whose call never started is withdrawn.
    pub sent: bool,
    /// Whether the call was sent and got no answer, so that it may still be under way.
    pub unanswered: bool,
    /// The settle deadline that the claim returned.
    pub loaded_deadline: Option<Timestamp>,
    /// Whether a PUT of this pass took effect.
    pub landed: bool,
}

/// A queue that Azure told us to close for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closing {
    /// Which calls.
    pub call: Call,
    /// For how long.
    pub for_: Duration,
}

/// What a pass leaves to do by calls of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NextLook {
    /// Whether there is work left now.
    pub needed: bool,
    /// How long that work waits, unless access ends meanwhile; `None` if not at all. No wait is longer than the
    /// target's next settle deadline.
    pub wait: Option<Duration>,
    /// How many passes in a row have failed at such calls.
    pub failures: u32,
}

/// Everything that a pass leaves behind.
#[derive(Clone, Debug)]
pub struct PassRecord<'a> {
    /// Which target.
    pub target: &'a TargetId,
    /// The pass's token.
    pub token: LeaseToken,
    /// The generation that claim returned.
    pub generation: u64,
    /// The time at the claim, by which the pass has judged settle deadlines.
    pub claimed: Timestamp,
    /// The settle clock's present view of Redis's time.
    pub clock: SettledTime,
    /// What it touched.
    pub effects: &'a [TouchedEffect],
    /// What it means for grants and jobs.
    pub conclusion: &'a Conclusion,
    /// Effects that the pass leaves open, including those that it found open.
    pub open: &'a [AssignmentName],
    /// What is left to do, by kind of call.
    pub looks: PerCall<NextLook>,
    /// Whether the target is to be looked at again at once: steps are left that nothing stood in the way of.
    pub again: bool,
    /// Queues to close.
    pub closings: &'a [Closing],
    /// How many more calls of a kind ARM allows the subscription at once, by its latest answers.
    pub remaining: &'a [(Call, u32)],
    /// The length of a lease.
    pub lease: Duration,
    /// The settle time.
    pub settle: Duration,
    /// The longest that reads may trail writes.
    pub lag: Duration,
    /// One audit event for each effect that Azure answered on, as JSON.
    pub audit_events: Vec<String>,
    /// One for each grant that changes its state, as JSON.
    pub grant_events: HashMap<GrantId, String>,
    /// The one that tells of a lost lease, as JSON.
    pub lost_event: String,
}

/// Target, now, end of the lease, record, grants, and how long deletes and writes wait still.
type ClaimAnswer = (Vec<u8>, i64, i64, Fields, Vec<Fields>, (u64, u64));

/// What `check_lease` answers.
type LeaseCheckAnswer = (String, u64, i64, u64);

impl Store {
    /// Claims the next target; `None` if no target is ready in an open lane. Skips and logs rows that cannot be read.
    /// O(lanes + effects and grants of the target), one script.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Unavailable`] a target may be claimed under the token: its
    /// lease ends by itself.
    pub async fn claim(
        &self,
        terms: &ClaimTerms,
        lane: &LaneBudget,
    ) -> Result<Option<Claimed>, StoreError> {
        let argument = ClaimArgument {
            token: terms.token.to_string(),
            lease: millis(terms.lease),
            settle: millis(terms.settle),
            timeout: millis(terms.call_timeout),
            turn: terms.turn,
            backoff: BackoffArgument {
                initial: millis(terms.backoff.initial),
                max: millis(terms.backoff.max),
            },
            jitter: terms.jitter.clamp(0.1, 1.0),
            budget: Budgets::new(lane),
            remembered: millis(COMES_AGAIN_WITHIN),
        };
        let (claimed, damaged): (Option<ClaimAnswer>, Vec<Vec<u8>>) =
            self.run(&self.scripts.claim, &argument).await?;
        self.tell_skipped_rows(Loop::Claim, &damaged);
        claimed.map(|claimed| self.read_claim(claimed)).transpose()
    }

    fn read_claim(
        &self,
        (id, now, lease_end, record, grants, (deletes, writes)): ClaimAnswer,
    ) -> Result<Claimed, StoreError> {
        let id = String::from_utf8_lossy(&id);
        let key = self.key(&format!("target:{id}"));
        let record = Hash::new(key.clone(), text(&key, record)?)?;
        let time = |millis| {
            Timestamp::from_millisecond(millis).map_err(|error| StoreError::Unreadable {
                key: "Redis's clock".to_owned(),
                problem: error.to_string(),
            })
        };
        let grants: Result<Vec<_>, StoreError> = grants
            .into_iter()
            .map(|fields| {
                // The script has put it behind the grant's own fields.
                let id = fields.last().map(|(_, id)| String::from_utf8_lossy(id));
                let id = id.unwrap_or_default().into_owned();
                let key = self.key(&format!("grant:{id}"));
                let hash = Hash::new(key.clone(), text(&key, fields)?)?;
                let id = GrantId::parse(&id).map_err(|error| StoreError::Unreadable {
                    key,
                    problem: error.to_string(),
                })?;
                codec::read_grant(id, &hash)
            })
            .collect();
        Ok(Claimed {
            target: Target {
                id: codec::parse_target(&id)?,
                generation: codec::generation(&record)?,
                effects: codec::read_effects(&record)?,
                grants: grants?,
                jobs: codec::read_waiting_jobs(&record)?,
                attempts: codec::attempts(&record)?,
                failures: codec::failures(&record)?,
                put_off: codec::put_off(&record)?,
            },
            now: time(now)?,
            lease_end: time(lease_end)?,
            waits: PerCall {
                writes: Duration::from_millis(writes),
                deletes: Duration::from_millis(deletes),
            },
        })
    }

    /// Writes down intents before their calls, and takes the calls out of the lane's budget.
    /// O(intents), one script.
    ///
    /// # Errors
    /// [`StoreError`]: then no call may be made.
    pub async fn begin(
        &self,
        target: &Target,
        token: LeaseToken,
        intents: &[(&Effect, Call)],
        lane: &LaneBudget,
    ) -> Result<Begun, StoreError> {
        let argument = BeginArgument {
            target: target.id.to_string(),
            token: token.to_string(),
            generation: target.generation,
            rows: intents
                .iter()
                .map(|(effect, call)| IntentRow {
                    name: effect.name.to_string(),
                    call: call_word(*call),
                    body: write_effect(effect),
                })
                .collect(),
            budget: Budgets::new(lane),
        };
        let answer: Vec<String> = self.run(&self.scripts.begin, &argument).await?;
        match answer.as_slice() {
            [word] if word == "begun" => Ok(Begun::Begun),
            [word] if word == "lost" => Ok(Begun::Lost),
            [word] if word == "moved" => Ok(Begun::Moved),
            [word, wait, writes, deletes] if word == "wait" => {
                let odd = |_| self.odd_answer("begin", &answer);
                Ok(Begun::Wait {
                    wait: Duration::from_millis(wait.parse().map_err(odd)?),
                    free: PerCall {
                        writes: writes.parse().map_err(odd)?,
                        deletes: deletes.parse().map_err(odd)?,
                    },
                })
            }
            _ => Err(self.odd_answer("begin", &answer)),
        }
    }

    /// Looks whether the lease is ours still, and whether access has ended on the target since the claim: before each
    /// call that gives access. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]: then the pass must not make the call.
    pub async fn check_lease(
        &self,
        target: &TargetId,
        token: LeaseToken,
    ) -> Result<LeaseCheck, StoreError> {
        let argument = CheckLeaseArgument {
            target: target.to_string(),
            token: token.to_string(),
        };
        let answer: LeaseCheckAnswer = self.run(&self.scripts.check_lease, &argument).await?;
        let odd = |problem: String| StoreError::Unreadable {
            key: self.key(&format!("target:{target}")),
            problem,
        };
        match answer {
            (word, _, _, _) if word == "lost" => Ok(LeaseCheck::Lost),
            (word, ended, now, left) if word == "held" => Ok(LeaseCheck::Held {
                has_ended: ended != 0,
                now: Timestamp::from_millisecond(now).map_err(|error| odd(error.to_string()))?,
                left: Duration::from_millis(left),
            }),
            answer => Err(odd(format!("the script check_lease answered {answer:?}"))),
        }
    }

    /// Lengthens the lease; `false` where it is somebody else's. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]: then the lease is as it was.
    pub async fn renew(
        &self,
        target: &TargetId,
        token: LeaseToken,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let argument = RenewArgument {
            target: target.to_string(),
            token: token.to_string(),
            lease: millis(lease),
        };
        let answer: Vec<String> = self.run(&self.scripts.renew, &argument).await?;
        match answer.first().map(String::as_str) {
            Some("renewed") => Ok(true),
            Some("lost") => Ok(false),
            _ => Err(self.odd_answer("renew", &answer)),
        }
    }

    /// Records a pass, and hands its lease back. O(effects and grants of the target), one script.
    ///
    /// # Errors
    /// [`StoreError`]: then the pass's intents stay open, and its lease ends by itself.
    pub async fn record(&self, pass: &PassRecord<'_>) -> Result<Recorded, StoreError> {
        let argument = RecordArgument {
            target: pass.target.to_string(),
            token: pass.token.to_string(),
            generation: pass.generation,
            claimed: time_millis(pass.claimed),
            behind: millis(pass.clock.behind),
            caught_up: time_millis(pass.clock.caught_up),
            rows: pass.effects.iter().map(effect_row).collect(),
            grants: grant_rows(pass),
            jobs: job_rows(pass.conclusion),
            forget: pass
                .conclusion
                .forget
                .iter()
                .map(ToString::to_string)
                .collect(),
            open: pass.open.iter().map(ToString::to_string).collect(),
            moved: pass.conclusion.wishes_changed,
            again: pass.again,
            looks: pass.looks.into(),
            closed: pass
                .closings
                .iter()
                .map(|closing| ClosedRow {
                    bucket: bucket(closing.call),
                    until_after: millis(closing.for_),
                })
                .collect(),
            remaining: pass
                .remaining
                .iter()
                .map(|(call, calls)| RemainingRow {
                    bucket: bucket(*call),
                    calls: *calls,
                })
                .collect(),
            lease: millis(pass.lease),
            settle: millis(pass.settle),
            lag: millis(pass.lag),
            audit_events: &pass.audit_events,
            lost_event: &pass.lost_event,
            remembered: millis(COMES_AGAIN_WITHIN),
        };
        let answer: Vec<Vec<u8>> = self.run(&self.scripts.record, &argument).await?;
        match answer.split_first() {
            Some((word, damaged)) if word == b"recorded" => {
                self.tell_skipped_rows(Loop::Record, damaged);
                Ok(Recorded::Recorded)
            }
            Some((word, _)) if word == b"lost" => Ok(Recorded::Lost),
            _ => {
                let words = answer.iter().map(|word| String::from_utf8_lossy(word));
                let words: Vec<String> = words.map(std::borrow::Cow::into_owned).collect();
                Err(self.odd_answer("record", &words))
            }
        }
    }

    fn odd_answer(&self, script: &str, answer: &[String]) -> StoreError {
        StoreError::Unreadable {
            key: self.key("meta"),
            problem: format!("the script {script} answered {answer:?}"),
        }
    }
}
