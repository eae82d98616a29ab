//! Faults on demand: what a network and a cloud can do to a call, aimed at chosen calls.
//!
//! A fault that is due applies before anything else looks at the call, as trouble on the way would. Chance
//! comes from the emulator's seed and from how often a fault was considered, so a run can be repeated.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::operation::Operation;
use crate::time::millis;
use crate::wildcard;

/// Something that shall go wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Only these operations; `*` stands for any run of characters. None means all.
    #[serde(default)]
    pub operation: Option<String>,
    /// Only calls whose path and query contain this, in any case.
    #[serde(default)]
    pub path_contains: Option<String>,
    /// What happens.
    pub effect: FaultEffect,
    /// To how many calls; none means to all until the faults are cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// How likely it is for each call that matches, from 0 to 1; none means certain. Only calls that it
    /// hits count for `times`.
    #[serde(default)]
    pub probability: Option<f64>,
}

/// What a fault does to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultEffect {
    /// The call waits before it is looked at. It goes on whether or not its caller still waits.
    Latency {
        /// How long (`ms`).
        #[serde(rename = "ms", with = "millis")]
        delay: Duration,
    },
    /// An error is answered and nothing is done.
    Status {
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: String,
        /// The error's message.
        message: String,
        /// The `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The connection is closed without an answer, and nothing is done.
    CutBeforeCommit,
    /// The call is carried out; then the connection is closed without an answer.
    CutAfterCommit,
    /// The caller gets no answer; the call is carried out later, by the rules that hold then.
    CommitLate {
        /// How long after the call was received (`delay_ms`).
        #[serde(rename = "delay_ms", with = "millis")]
        delay: Duration,
        /// Whether the connection stays open for as long as the caller waits; otherwise it is cut at once.
        #[serde(default)]
        hang: bool,
    },
    /// A DELETE of a role assignment is answered with 204 and does nothing, as by a replica that has not
    /// seen the PUT. It leaves all other calls alone.
    LaggingNoContent {
        /// Only where the assignment was written less than so long ago (`within_ms`): a replica lags by so
        /// much and no more. None: however long ago.
        #[serde(default, rename = "within_ms", with = "millis::optional")]
        within: Option<Duration>,
    },
    /// The call waits, before it is looked at, until its name is released.
    Hold {
        /// What to release it by.
        name: String,
    },
    /// The call is carried out; the answer waits until its name is released.
    HoldAfterCommit {
        /// What to release it by.
        name: String,
    },
}

impl Fault {
    /// A fault that hits the next call of one operation.
    #[must_use]
    pub fn once(operation: Operation, effect: FaultEffect) -> Self {
        Self {
            operation: Some(operation.as_str().to_owned()),
            path_contains: None,
            effect,
            times: Some(1),
            probability: None,
        }
    }

    /// A fault that hits every call of one operation.
    #[must_use]
    pub fn always(operation: Operation, effect: FaultEffect) -> Self {
        Self {
            times: None,
            ..Self::once(operation, effect)
        }
    }

    fn matches(&self, operation: Operation, path: &str) -> bool {
        let pattern = self.operation.as_deref().unwrap_or("*");
        let part = self
            .path_contains
            .as_deref()
            .unwrap_or_default()
            .to_lowercase();
        let only_deletes = matches!(self.effect, FaultEffect::LaggingNoContent { .. });
        wildcard::matches(pattern, operation.as_str())
            && path.to_lowercase().contains(&part)
            && (!only_deletes || operation == Operation::RoleAssignmentDelete)
    }
}

/// All faults that wait, and the calls that they hold.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    // A std mutex: never held across an await.
    inner: Mutex<Waiting>,
    gates: watch::Sender<BTreeMap<String, Gate>>,
}

#[derive(Debug, Default)]
struct Waiting {
    added: u64,
    faults: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    chance: StdRng,
}

/// The calls held under one name.
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    waiting: usize,
    /// How often the name has been released; a held call waits for the next one.
    releases: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            inner: Mutex::default(),
            gates: watch::Sender::default(),
        }
    }

    pub(crate) fn add(&self, fault: Fault) {
        let mut inner = self.waiting();
        inner.added += 1;
        let chance = StdRng::seed_from_u64(self.seed.wrapping_add(inner.added));
        inner.faults.push(Armed { fault, chance });
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        self.waiting()
            .faults
            .iter()
            .map(|armed| armed.fault.clone())
            .collect()
    }

    /// Forgets all faults and lets everything that is held go.
    pub(crate) fn clear(&self) {
        self.waiting().faults.clear();
        self.gates.send_modify(|gates| {
            for gate in gates.values_mut() {
                gate.release();
            }
        });
    }

    /// The effects that hit this call; a fault that has hit often enough is gone.
    pub(crate) fn strike(&self, operation: Operation, path: &str) -> Vec<FaultEffect> {
        let mut inner = self.waiting();
        let mut effects = Vec::new();
        for armed in &mut inner.faults {
            if armed.fault.matches(operation, path) && armed.hits() {
                effects.push(armed.fault.effect.clone());
            }
        }
        inner.faults.retain(|armed| armed.fault.times != Some(0));
        effects
    }

    /// Waits until `name` is released after this.
    pub(crate) async fn hold(&self, name: &str) {
        let mut seen = 0;
        self.gates.send_modify(|gates| {
            let gate = gates.entry(name.to_owned()).or_default();
            gate.waiting += 1;
            seen = gate.releases;
        });
        let released = |gates: &BTreeMap<String, Gate>| {
            gates.get(name).is_some_and(|gate| gate.releases > seen)
        };
        // The sender lives in `self`, so the wait cannot end for want of one.
        let _ = self.gates.subscribe().wait_for(released).await;
    }

    /// Lets the calls that are held under `name` go; says how many there are.
    pub(crate) fn release(&self, name: &str) -> usize {
        let mut held = 0;
        self.gates.send_modify(|gates| {
            if let Some(gate) = gates.get_mut(name) {
                held = gate.release();
            }
        });
        held
    }

    /// Waits until at least `count` calls are held under `name`.
    pub(crate) async fn until_held(&self, name: &str, count: usize) {
        let enough = |gates: &BTreeMap<String, Gate>| {
            gates.get(name).is_some_and(|gate| gate.waiting >= count)
        };
        let _ = self.gates.subscribe().wait_for(enough).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Lets everybody go; says how many that are. They count no longer from here on, not from when they
    /// notice: else a test that waits for the next one would find the last.
    fn release(&mut self) -> usize {
        self.releases += 1;
        std::mem::take(&mut self.waiting)
    }
}

impl Armed {
    fn hits(&mut self) -> bool {
        if self.fault.times == Some(0) {
            return false;
        }
        let hit = self
            .fault
            .probability
            .is_none_or(|probability| self.chance.random::<f64>() < probability);
        if let (true, Some(times)) = (hit, &mut self.fault.times) {
            *times -= 1;
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultEffect, Faults};
    use crate::operation::Operation;

    fn hits(seed: u64, fault: &Fault, calls: usize) -> Vec<bool> {
        let faults = Faults::new(seed);
        faults.add(fault.clone());
        (0..calls)
            .map(|_| !faults.strike(Operation::Token, "/").is_empty())
            .collect()
    }

    #[test]
    fn chance_repeats_with_the_seed_and_only_with_it() {
        let mut fault = Fault::always(Operation::Token, FaultEffect::CutBeforeCommit);
        fault.probability = Some(0.5);
        let first = hits(7, &fault, 64);
        assert_eq!(first, hits(7, &fault, 64));
        assert_ne!(first, hits(8, &fault, 64));
        assert!(first.contains(&true) && first.contains(&false));
    }

    #[test]
    fn times_counts_hits_and_then_the_fault_is_gone() {
        let faults = Faults::new(0);
        faults.add(Fault::once(Operation::Token, FaultEffect::CutAfterCommit));
        assert!(
            faults.strike(Operation::Keys, "/").is_empty(),
            "another operation is left alone"
        );
        assert_eq!(
            faults.strike(Operation::Token, "/"),
            [FaultEffect::CutAfterCommit]
        );
        assert!(faults.strike(Operation::Token, "/").is_empty());
        assert!(faults.list().is_empty());
    }

    #[test]
    fn the_effects_have_the_json_that_the_readme_shows() {
        for (json, effect) in [
            (
                r#"{"kind": "cut_after_commit"}"#,
                FaultEffect::CutAfterCommit,
            ),
            (
                r#"{"kind": "hold", "name": "a"}"#,
                FaultEffect::Hold {
                    name: "a".to_owned(),
                },
            ),
            (
                r#"{"kind": "commit_late", "delay_ms": 1500, "hang": true}"#,
                FaultEffect::CommitLate {
                    delay: std::time::Duration::from_millis(1500),
                    hang: true,
                },
            ),
        ] {
            assert_eq!(
                serde_json::from_str::<FaultEffect>(json).expect("an effect"),
                effect
            );
        }
        serde_json::from_str::<FaultEffect>(r#"{"kind": "latency", "ms": 1, "s": 2}"#)
            .expect_err("unknown key");
    }
}
