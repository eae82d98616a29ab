//! What we know of one object in Azure that carries grants out, and how each answer changes that.
//!
//! A call whose answer never came may still take effect, long after its sender gave up. So an effect
//! is never just "there" or "not there": it carries the last definite answer, whether a call is open,
//! and a *deadline*, after which no earlier call can still take effect and the effect is written again.

use jiff::{SignedDuration, Timestamp};

use super::access::{PrincipalType, RoleAtScope};
use super::ids::AssignmentName;
use super::ownership::Description;

/// One role assignment of ours, by name: one row of a target's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// The assignment's name.
    pub name: AssignmentName,
    /// What it assigns, and where.
    pub at: RoleAtScope,
    /// Its place in the series of names for `at`.
    pub n: u32,
    /// The last definite answer.
    pub known: Known,
    /// A call that has had no definite answer: until one comes, `known` may not be true any more.
    pub open: Option<Call>,
    /// It may be gone, or go, whatever `known` says: a DELETE of ours was not answered, or what it was answered is not
    /// believed.
    pub may_be_gone: bool,
    /// It was there once, as far as any answer told.
    pub stood: bool,
    /// The settle deadline: by then every earlier call without an answer has taken effect or never will.
    /// Once it is over, the effect is written again as the wishes then say.
    pub deadline: Option<Timestamp>,
    /// The last moment at which a PUT of ours can have taken effect.
    pub put_until: Option<Timestamp>,
    /// What the last answered PUT wrote; `None` where that is not known.
    pub written: Option<Description>,
    /// When that last changed; `None` where it is not known, or never did.
    pub rewritten: Option<Timestamp>,
    /// What kind of principal holds it, as our last PUT said; `None` where none of ours did.
    pub holder_kind: Option<PrincipalType>,
    /// When `known` last changed.
    pub changed: Timestamp,
}

/// What a definite answer last said of an effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// Never there, or gone.
    Absent,
    /// There.
    Present,
    /// Azure refuses this name for good; the series goes on with the next.
    NameRefused,
    /// Somebody else's assignment gives the same.
    Foreign(Foreign),
}

/// Somebody else's assignment of the same role, at the same scope, to the same principal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// Its name.
    pub name: AssignmentName,
    /// Whether an ABAC condition limits it: then it is not what was asked for.
    pub conditional: bool,
}

/// The two calls that change a role assignment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Call {
    /// Create it, or write its description anew.
    Put,
    /// Remove it.
    Delete,
}

/// One value for each of the two kinds of call. Azure limits and refuses the kinds separately, and neither waits for
/// the other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PerCall<T> {
    /// The value for PUTs.
    pub writes: T,
    /// The value for DELETEs.
    pub deletes: T,
}

impl<T> PerCall<T> {
    /// The value of `call`.
    pub const fn get(&self, call: Call) -> &T {
        match call {
            Call::Put => &self.writes,
            Call::Delete => &self.deletes,
        }
    }

    /// The value of `call`, to change it.
    pub const fn get_mut(&mut self, call: Call) -> &mut T {
        match call {
            Call::Put => &mut self.writes,
            Call::Delete => &mut self.deletes,
        }
    }

    /// Makes the value of each call.
    pub fn from_fn(mut value: impl FnMut(Call) -> T) -> Self {
        Self {
            writes: value(Call::Put),
            deletes: value(Call::Delete),
        }
    }
}

/// What came back from a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// PUT: it stands as written.
    Written(Description),
    /// PUT: the name is refused for good.
    NameRefused,
    /// PUT: the same assignment stands under another name, which a read showed to be somebody else's.
    Foreign(Foreign),
    /// PUT: the same is said to stand under another name, but no read shows it (yet), or it is one of
    /// our own series: nothing was done, and what stands is not known.
    Unexplained,
    /// DELETE: it stood, and is gone.
    Deleted,
    /// DELETE: there was none, says a replica that may not have seen our PUT.
    NotThere,
    /// A definite no: nothing was done.
    Refused,
    /// No definite answer: the call may still take effect until this time (give-up time + settle time).
    Unknown {
        /// When it can take effect no more.
        until: Timestamp,
    },
}

/// When a pass was claimed, and how far reads may trail writes: what an answer is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassTime {
    /// Redis's time at the claim: what is judged to be over is judged by it.
    pub claimed: Timestamp,
    /// Redis's time when the answer came, or a little later: what just happened is dated by it.
    pub now: Timestamp,
    /// The longest that ARM's reads may trail its writes.
    pub lag: SignedDuration,
}

impl Effect {
    /// An effect that no call has touched.
    #[must_use]
    pub const fn untouched(name: AssignmentName, at: RoleAtScope, n: u32, now: Timestamp) -> Self {
        Self {
            name,
            at,
            n,
            known: Known::Absent,
            open: None,
            may_be_gone: false,
            stood: false,
            deadline: None,
            put_until: None,
            written: None,
            rewritten: None,
            holder_kind: None,
            changed: now,
        }
    }

    /// Whether the last call on it has had no definite answer, or an earlier one may still take effect.
    #[must_use]
    pub const fn is_unsettled(&self) -> bool {
        self.open.is_some() || self.deadline.is_some()
    }

    /// Whether it is there for certain: it was, and no DELETE of ours is under way. A PUT, however it ends, leaves
    /// nothing less behind than was there before.
    #[must_use]
    pub fn surely_stands(&self) -> bool {
        matches!(self.known, Known::Present) && self.open != Some(Call::Delete) && !self.may_be_gone
    }

    /// Whether it was there, and gone when it was last heard of. What a PUT that is under way has made of it, nobody knows
    /// yet.
    #[must_use]
    pub const fn was_taken_away(&self) -> bool {
        matches!(self.known, Known::Absent) && self.stood
    }

    /// Whether it is known to be gone, and nothing can bring it back.
    #[must_use]
    pub fn is_gone_and_settled(&self) -> bool {
        matches!(self.known, Known::Absent) && !self.is_unsettled()
    }

    /// Whether the settle deadline has passed, so that the effect is due to be written again.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether a row of it tells nothing any more: gone, settled, and longer ago than any read may trail.
    #[must_use]
    pub fn is_forgettable(&self, time: PassTime) -> bool {
        let old = |moment: Timestamp| {
            moment
                .saturating_add(time.lag)
                .is_ok_and(|end| end <= time.claimed)
        };
        self.is_gone_and_settled() && old(self.changed) && self.put_until.is_none_or(old)
    }

    /// What becomes of the effect by `answer` to `call`, in a pass of `time`.
    ///
    /// Only a pass that was claimed after the deadline clears it, and only by a definite answer: a call
    /// of before may have been overtaken by the one that was open.
    pub fn answered(&mut self, call: Call, answer: &Answer, time: PassTime) {
        match answer {
            Answer::Written(description) => {
                if self.written.as_ref() != Some(description) {
                    self.rewritten = Some(time.now);
                }
                self.settle(Known::Present, time);
                self.written = Some(description.clone());
                self.put_until = self.put_until.max(Some(time.now));
            }
            Answer::NameRefused => self.settle(Known::NameRefused, time),
            Answer::Foreign(foreign) => self.settle(Known::Foreign(foreign.clone()), time),
            Answer::Deleted => {
                self.settle(Known::Absent, time);
                // It stood, whatever we knew.
                self.stood = true;
                self.changed = time.now;
            }
            Answer::NotThere if self.absence_is_believed(time) => self.settle(Known::Absent, time),
            // That another name carries the same says that this one does not.
            Answer::NotThere | Answer::Unexplained => {
                self.open = Some(call);
                self.may_be_gone = true;
            }
            Answer::Unknown { until } => {
                self.open = Some(call);
                self.may_be_gone |= call == Call::Delete;
                self.deadline = self.deadline.max(Some(*until));
                if call == Call::Put {
                    self.put_until = self.put_until.max(Some(*until));
                }
            }
            Answer::Refused => {}
        }
    }

    /// The cluster is gone, in a pass of `time`, and the effect with it: a definite answer. It does not clear a
    /// deadline before its time: a call that is still under way may meet another cluster, made under the same id.
    pub fn went_with_its_cluster(&mut self, time: PassTime) {
        self.settle(Known::Absent, time);
    }

    fn settle(&mut self, known: Known, time: PassTime) {
        // What a call without an answer did, and when, nobody knows: it may have been a moment ago.
        if self.known != known || self.is_unsettled() {
            self.changed = time.now;
        }
        self.stood |= known == Known::Present;
        self.known = known;
        self.open = None;
        self.written = None;
        if self.is_due(time.claimed) {
            self.deadline = None;
        }
        // With a deadline left, something that began earlier may still take effect.
        self.may_be_gone &= self.deadline.is_some();
    }

    /// Whether "there was none" can be believed: only when the last PUT of ours is older than the lag,
    /// counted from the last moment at which it can have taken effect.
    fn absence_is_believed(&self, time: PassTime) -> bool {
        self.put_until.is_none_or(|put| {
            put.saturating_add(time.lag)
                .is_ok_and(|seen| seen <= time.claimed)
        })
    }
}
