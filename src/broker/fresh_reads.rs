//! Reads of Azure that a caller forces, by asking for fresher data than the configuration's: they have a budget of their
//! own, far below Azure's, so that one caller in a loop leaves the others theirs.
//!
//! A read counts where it begins. Whoever waits for one that is under way, or is answered from memory, spends nothing;
//! nor does whoever takes data as old as `view.max_staleness`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use quick_cache::sync::Cache;
use thiserror::Error;

use crate::caller::Caller;
use crate::config::{FreshReads as Settings, ReadBudget};
use crate::domain::ids::SubscriptionId;
use crate::view::Need;

/// Maximum number of callers whose budget is tracked; the least recently seen starts afresh.
const REMEMBERED: usize = 10_000;
/// How many calls to Azure a look at a subscription takes: four lists of assignments, one of roles and one of fleets.
const OF_A_SUBSCRIPTION: u32 = 6;
/// How many a look at a cluster takes besides.
const OF_A_CLUSTER: u32 = 1;
/// How many a look at a principal's groups takes.
const OF_GROUPS: u32 = 1;

/// A budget of forced reads is used up.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "fresher data than this broker keeps can be asked for only so often: {whose} is used up, {} calls to Azure at once and \
     {} more each minute; wait, or ask for less: without consistency, or with an older max_staleness",
    .budget.capacity,
    .budget.per_minute
)]
pub struct Spent {
    /// Whose budget it is.
    pub whose: &'static str,
    /// How large it is.
    pub budget: ReadBudget,
    /// When there is enough again.
    pub wait: Duration,
}

/// All budgets. Cheap to clone; clones share them.
#[derive(Clone)]
pub(super) struct FreshReads(Arc<Inner>);

struct Inner {
    settings: Settings,
    callers: Cache<String, Arc<Budget>>,
    subscriptions: BTreeMap<SubscriptionId, Budget>,
    directory: Budget,
}

/// One budget.
struct Budget {
    settings: ReadBudget,
    left: DefaultDirectRateLimiter,
}

impl Budget {
    fn new(settings: ReadBudget) -> Self {
        let quota = Quota::per_minute(settings.per_minute).allow_burst(settings.capacity);
        Self {
            settings,
            left: RateLimiter::direct(quota),
        }
    }

    fn take(&self, calls: u32, whose: &'static str) -> Result<(), Spent> {
        let Some(calls) = NonZeroU32::new(calls) else {
            return Ok(());
        };
        let wait = match self.left.check_n(calls) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until.wait_time_from(DefaultClock::default().now()),
            // More than ever fit: the configuration is checked for that.
            Err(_) => Duration::MAX,
        };
        Err(Spent {
            whose,
            budget: self.settings,
            wait,
        })
    }
}

impl std::fmt::Debug for FreshReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshReads").finish_non_exhaustive()
    }
}

impl FreshReads {
    /// Full budgets.
    #[must_use]
    pub(super) fn new(settings: Settings, subscriptions: &BTreeSet<SubscriptionId>) -> Self {
        let budget = |id: &SubscriptionId| (*id, Budget::new(settings.per_subscription));
        Self(Arc::new(Inner {
            callers: Cache::new(REMEMBERED),
            subscriptions: subscriptions.iter().map(budget).collect(),
            directory: Budget::new(settings.per_subscription),
            settings,
        }))
    }

    fn of(&self, caller: &Caller) -> Arc<Budget> {
        let new =
            || Ok::<_, std::convert::Infallible>(Arc::new(Budget::new(self.0.settings.per_caller)));
        match self.0.callers.get_or_insert_with(caller.name(), new) {
            Ok(budget) => budget,
            Err(never) => match never {},
        }
    }
}

/// How fresh the data have to be that a request is answered from, and what its reads are taken from. Cheap to clone;
/// clones are of the same request.
#[derive(Clone, Debug)]
pub struct Demand {
    /// How fresh.
    pub need: Need,
    /// `None`: data as old as the configuration's do, and are read without a budget of their own.
    spending: Option<Arc<Spending>>,
}

/// What one request spends.
struct Spending {
    reads: FreshReads,
    caller: Arc<Budget>,
    /// The subscriptions that it has paid for: their lists are read once, for all of their clusters.
    /// A std mutex: held for moments, never across an await.
    paid: Mutex<BTreeSet<SubscriptionId>>,
}

impl std::fmt::Debug for Spending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spending").finish_non_exhaustive()
    }
}

impl From<Need> for Demand {
    fn from(need: Need) -> Self {
        Self {
            need,
            spending: None,
        }
    }
}

impl Demand {
    /// A caller's demand for data that are fresher than the configuration's.
    pub(super) fn forced(need: Need, caller: &Caller, reads: &FreshReads) -> Self {
        let spending = Spending {
            caller: reads.of(caller),
            reads: reads.clone(),
            paid: Mutex::default(),
        };
        Self {
            need,
            spending: Some(Arc::new(spending)),
        }
    }

    /// Pays for a look at a cluster.
    ///
    /// # Errors
    /// [`Spent`]
    pub(super) fn pay_for_cluster(&self, subscription: SubscriptionId) -> Result<(), Spent> {
        self.spending
            .as_ref()
            .map_or(Ok(()), |spending| spending.pay_for_cluster(subscription))
    }

    /// Pays for a look at a principal's groups.
    ///
    /// # Errors
    /// [`Spent`]
    pub(super) fn pay_for_groups(&self) -> Result<(), Spent> {
        let Some(spending) = &self.spending else {
            return Ok(());
        };
        spending.caller.take(OF_GROUPS, CALLERS)?;
        let directory = &spending.reads.0.directory;
        directory.take(OF_GROUPS, "what all callers may ask of the directory")
    }
}

/// Whose a caller's budget is, in its words.
const CALLERS: &str = "what you may ask for";

impl Spending {
    fn pay_for_cluster(&self, subscription: SubscriptionId) -> Result<(), Spent> {
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let of_subscription = if paid.contains(&subscription) {
            0
        } else {
            OF_A_SUBSCRIPTION
        };
        let calls = of_subscription + OF_A_CLUSTER;
        self.caller.take(calls, CALLERS)?;
        if let Some(budget) = self.reads.0.subscriptions.get(&subscription) {
            budget.take(calls, "what all callers may ask of the subscription")?;
        }
        paid.insert(subscription);
        Ok(())
    }
}
