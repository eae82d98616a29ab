//! What the broker itself did lately, on whichever replica: laid over Azure's lists, which trail its writes.
//!
//! Every replica follows the stream of changes; what it has heard of decides what it may say about a token.

mod clock;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tracing::{error, warn};

use self::clock::Clock;
use crate::domain::access::{PrincipalType, RoleAtScope};
use crate::domain::assignments::Listed;
use crate::domain::effect::Effect;
use crate::domain::freshness::Position;
use crate::domain::grant::Expiry;
use crate::domain::ids::{AssignmentName, ClusterId, PrincipalId, TargetId};
use crate::domain::snapshot::OwnChanges;
use crate::store::{Change, Changes, Event, Heard, Store, StoreError, TargetRecord};
use crate::telemetry::{Loop, Repeats, metrics};

/// So many records are read at once.
const READ_AT_ONCE: usize = 32;
/// After the store has failed, the next try is so much later.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// So much longer than it may be of use it is kept, for callers that take their time.
const SLACK: SignedDuration = SignedDuration::from_mins(1);
/// How long the log stays silent about an unreadable record after a line about it.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// How often what has become old is dropped.
const TIDY: Duration = Duration::from_mins(1);

/// One effect of ours that is there for certain, or is not as far as anybody knows. Of all others Azure's word counts.
#[derive(Clone, PartialEq, Eq, Debug)]
struct OwnEffect {
    /// The assignment's name.
    pub name: AssignmentName,
    /// What it assigns, and where.
    pub at: RoleAtScope,
    /// Whether it is there.
    pub present: bool,
    /// When that, or its end, last changed.
    pub changed: Timestamp,
    /// What kind of principal has it, where that is known.
    pub holder_kind: Option<PrincipalType>,
    /// When the last of the grants that call for it ends by itself; `None` where it is not known what its description
    /// says.
    pub expiry: Option<Expiry>,
}

impl OwnEffect {
    /// What is known of an effect. What was taken away stays so while it is given once more, until that is known to have
    /// happened: a list that trails would show what is gone.
    fn of(effect: &Effect) -> Option<Self> {
        let present = effect.surely_stands();
        let written = effect.written.as_ref();
        let absent = effect.is_gone_and_settled() || effect.was_taken_away();
        (present || absent).then(|| Self {
            name: effect.name,
            at: effect.at.clone(),
            present,
            changed: match effect.rewritten {
                Some(rewritten) if present => rewritten.max(effect.changed),
                _ => effect.changed,
            },
            holder_kind: effect.holder_kind,
            expiry: written.map(|written| written.expiry),
        })
    }
}

#[derive(Clone, Debug)]
struct OwnOfTarget {
    /// The `resourceUID` of the cluster that the effects are at; empty where it is not known.
    cluster_uid: String,
    effects: Vec<OwnEffect>,
}

/// What the broker did lately on one cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnOfCluster {
    /// Raised by each change, and never taken back: a later one knows at least as much.
    pub(super) version: u64,
    targets: BTreeMap<PrincipalId, OwnOfTarget>,
    /// What was done there and cannot be read.
    unreadable: BTreeMap<PrincipalId, Arc<StoreError>>,
}

impl OwnOfCluster {
    /// What a list that was read at `read` may not show yet. What was assigned at a cluster whose place another has taken
    /// under the same id is not there any more: Azure took it away with that. What was removed there is gone all the
    /// more.
    pub(super) fn changes(&self, uid: &str, read: Timestamp, lag: SignedDuration) -> OwnChanges {
        let mut changes = OwnChanges::default();
        for (principal, target) in &self.targets {
            let known = !uid.is_empty() && !target.cluster_uid.is_empty();
            let is_of_another = known && target.cluster_uid != uid;
            for effect in &target.effects {
                if read.duration_since(effect.changed) >= lag {
                    continue;
                }
                if !effect.present {
                    changes.absent.insert(effect.name);
                } else if !is_of_another {
                    if effect.expiry.is_some() && effect.holder_kind.is_some() {
                        changes.known_best.insert(effect.name);
                    }
                    changes.present.push(Listed {
                        name: effect.name,
                        scope: effect.at.scope.to_string(),
                        role: effect.at.role,
                        holder: *principal,
                        holder_kind: effect.holder_kind,
                        condition: None,
                        ours: Some(effect.expiry.unwrap_or(Expiry::Never)),
                    });
                }
            }
        }
        changes
    }
}

/// What was missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// So many of the broker's own changes that lists may be older than what is known of them.
    Changes,
    /// Time: how old anything is, is not known any more.
    Time,
}

/// What the broker did lately, on all clusters. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Own(Arc<State>);

#[derive(Debug)]
struct State {
    clusters: RwLock<HashMap<ClusterId, Arc<OwnOfCluster>, RandomState>>,
    versions: AtomicU64,
    /// Up to where every change is taken in; `None` before anything was read.
    position: ArcSwap<Option<Position>>,
    /// No change behind this is taken in: records are read as they are, which may be later than the change that told of
    /// them.
    told: ArcSwap<Position>,
    /// Tells those who wait for a position that there is another.
    moved: watch::Sender<()>,
    clock: ArcSwap<Option<Clock>>,
    /// When it was last known that nothing had been missed, in milliseconds from `beginning`; 0: never.
    current: AtomicU64,
    beginning: Instant,
    lag: SignedDuration,
    /// How long an entry is of use: the lag, and the age that a list may have.
    keep: SignedDuration,
    /// Which unreadable records were logged lately.
    damage: Repeats,
}

impl Own {
    pub(super) fn new(lag: SignedDuration, oldest_list: SignedDuration) -> Self {
        let now = Instant::now();
        Self(Arc::new(State {
            clusters: RwLock::default(),
            versions: AtomicU64::new(0),
            position: ArcSwap::default(),
            told: ArcSwap::default(),
            moved: watch::Sender::new(()),
            clock: ArcSwap::default(),
            current: AtomicU64::new(0),
            beginning: now.checked_sub(Duration::from_millis(1)).unwrap_or(now),
            lag,
            keep: lag.saturating_add(oldest_list).saturating_add(SLACK),
            damage: Repeats::every(SAY_AGAIN),
        }))
    }

    /// What the broker did lately on a cluster.
    pub(super) fn of(&self, cluster: &ClusterId) -> Option<Arc<OwnOfCluster>> {
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let clusters = self
            .0
            .clusters
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        clusters.get(cluster).cloned()
    }

    /// The newest version of any cluster.
    pub(super) fn newest_version(&self) -> u64 {
        self.0.versions.load(Ordering::Acquire)
    }

    /// Up to where changes have been taken in.
    pub(super) fn position(&self) -> Position {
        self.0.position.load().unwrap_or_default()
    }

    /// Whoever has taken in everything up to there knows all that is known here.
    pub(super) fn told(&self) -> Position {
        **self.0.told.load()
    }

    /// Waits until all changes up to there have been taken in.
    pub(super) async fn reaches(&self, position: Position) {
        let mut moved = self.0.moved.subscribe();
        let is_there = || self.0.position.load().is_some_and(|own| own >= position);
        // The sender lives as long as this.
        while !is_there() && moved.changed().await.is_ok() {}
    }

    /// Whether nothing was missed at that moment.
    pub(super) fn is_current_since(&self, moment: Instant) -> bool {
        let current = self.0.current.load(Ordering::Acquire);
        current > 0 && self.0.beginning + Duration::from_millis(current) >= moment
    }

    /// A moment by the store's clock, or a little earlier; `None` before the store was there.
    pub(super) fn time_of(&self, moment: Instant) -> Option<Timestamp> {
        (**self.0.clock.load())?.then(moment)
    }

    /// Follows the stream of changes for good. `lost`: what was read before is not to be believed.
    pub(super) async fn follow(self, store: Store, changes: Changes, lost: impl Fn(Lost) + Send) {
        let mut events = changes.subscribe();
        let mut heard = changes.heard();
        let mut tidy = tokio::time::interval(TIDY);
        self.catch_up(&store, &lost).await;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) => self.take(event, &mut events, &store, &lost).await,
                    Err(RecvError::Lagged(_)) => self.catch_up(&store, &lost).await,
                    Err(RecvError::Closed) => return,
                },
                more = heard.changed() => if more.is_err() { return },
                _ = tidy.tick() => {
                    self.tidy();
                    self.read_again(&store).await;
                }
            }
            let heard = *heard.borrow_and_update();
            self.hears(heard, &lost);
        }
    }

    /// How far the reader of the stream has come: if everything it handed on is taken in, nothing is missing.
    fn hears(&self, heard: Heard, lost: &impl Fn(Lost)) {
        if let Some((at, time)) = heard.clock {
            let told = Clock { at, time };
            let (clock, has_jumped) = match **self.0.clock.load() {
                Some(known) => known.or_later(told),
                None => (told, false),
            };
            self.0.clock.store(Arc::new(Some(clock)));
            if has_jumped {
                warn!(
                    "the machine slept, or the store's clock was set: what is known of who has what is read anew"
                );
                self.0.current.store(0, Ordering::Release);
                lost(Lost::Time);
            }
        }
        if let Some(at) = heard.at
            && self.position() >= heard.position
        {
            self.is_current_at(at);
        }
    }

    fn is_current_at(&self, moment: Instant) {
        let since = moment.saturating_duration_since(self.0.beginning);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.0.current.fetch_max(millis, Ordering::AcqRel);
    }

    /// Takes in an event, and whatever else has come.
    async fn take(
        &self,
        first: Event,
        events: &mut broadcast::Receiver<Event>,
        store: &Store,
        lost: &impl Fn(Lost),
    ) {
        let mut targets = Vec::new();
        let mut next = Some(first);
        let mut position = self.position();
        while let Some(event) = next.take() {
            match event.change {
                Change::Effects(target) if event.position > self.position() => targets.push(target),
                Change::Missed => return self.catch_up(store, lost).await,
                Change::Job(_) | Change::Effects(_) | Change::Other | Change::Lost => {}
            }
            position = position.max(event.position);
            next = match events.try_recv() {
                Ok(event) => Some(event),
                Err(TryRecvError::Lagged(_)) => return self.catch_up(store, lost).await,
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
            };
        }
        targets.sort_unstable();
        targets.dedup();
        match self.read(store, targets).await {
            Ok(()) => self.is_at(position),
            Err(error) => {
                if !store.has_logged(&error) {
                    warn!(%error, "the broker cannot read its own recent changes");
                }
                self.catch_up(store, lost).await;
            }
        }
    }

    /// Reads everything that changed lately, until that works.
    async fn catch_up(&self, store: &Store, lost: &impl Fn(Lost)) {
        loop {
            match self.try_to_catch_up(store, lost).await {
                Ok(()) => return,
                Err(error) if store.has_logged(&error) => {}
                Err(error) => warn!(%error, "what the broker did lately cannot be read yet"),
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn try_to_catch_up(&self, store: &Store, lost: &impl Fn(Lost)) -> Result<(), StoreError> {
        let began = Instant::now();
        let tip = store.newest_change().await?;
        let now = store.time().await?;
        let heard = Instant::now();
        // Twice: lists that were read a while ago are in use still.
        let since = now.saturating_sub(self.0.lag * 2).unwrap_or(now);
        let targets = store.targets_changed_since(since).await?;
        if tip < self.told() {
            // After a failover the stream may begin again behind what was there.
            self.0.told.store(Arc::new(tip));
        }
        self.read(store, targets).await?;
        let lag = self.0.lag.unsigned_abs();
        if !began
            .checked_sub(lag)
            .is_none_or(|lately| self.is_current_since(lately))
        {
            lost(Lost::Changes);
        }
        if self.0.clock.load().is_none() {
            let clock = Clock {
                at: heard,
                time: now,
            };
            self.0.clock.store(Arc::new(Some(clock)));
        }
        self.is_at(tip);
        self.is_current_at(began);
        Ok(())
    }

    fn is_at(&self, position: Position) {
        self.0.position.store(Arc::new(Some(position)));
        self.tells(position);
        self.0.moved.send_replace(());
    }

    /// One task alone takes changes in.
    fn tells(&self, position: Position) {
        if position > self.told() {
            self.0.told.store(Arc::new(position));
        }
    }

    async fn read(&self, store: &Store, targets: Vec<TargetId>) -> Result<(), StoreError> {
        let reads = targets.into_iter().map(|target| async move {
            match store.target(&target).await {
                // It says nothing of any other target.
                Err(error @ StoreError::Unreadable { .. }) => Ok((target, Err(error))),
                read => read.map(|record| (target, Ok(record))),
            }
        });
        let records = stream::iter(reads).buffer_unordered(READ_AT_ONCE);
        let records: Vec<_> = records.try_collect().await?;
        // Before anybody is answered by them.
        self.tells(store.newest_change().await?);
        for (target, record) in records {
            match record {
                Ok(record) => self.put(&target, &record),
                Err(error) => {
                    metrics().skipped_entry(Loop::Changes);
                    if self.0.damage.is_due(&target.to_string()) {
                        error!(%target, %error, "the broker cannot read this, so it answers nothing about the cluster");
                    }
                    self.change(&target.cluster, |cluster| {
                        cluster.unreadable.insert(target.principal, Arc::new(error));
                    });
                }
            }
        }
        Ok::<_, StoreError>(())
    }

    /// Reads once more what could not be read: somebody may have put it right, without a change that tells of it.
    async fn read_again(&self, store: &Store) {
        let unreadable = {
            let clusters = &self.0.clusters;
            let clusters = clusters.read().unwrap_or_else(PoisonError::into_inner);
            let of = clusters.iter().flat_map(|(cluster, own)| {
                own.unreadable.keys().map(|principal| TargetId {
                    cluster: cluster.clone(),
                    principal: *principal,
                })
            });
            of.collect::<Vec<_>>()
        };
        if !unreadable.is_empty()
            && let Err(error) = self.read(store, unreadable).await
            && !store.has_logged(&error)
        {
            warn!(%error, "what could not be read before cannot be read yet");
        }
    }

    fn change(&self, cluster: &ClusterId, change: impl FnOnce(&mut OwnOfCluster)) {
        let clusters = &self.0.clusters;
        let mut clusters = clusters.write().unwrap_or_else(PoisonError::into_inner);
        let cluster = Arc::make_mut(clusters.entry(cluster.clone()).or_default());
        cluster.version = self.0.versions.fetch_add(1, Ordering::AcqRel) + 1;
        change(cluster);
    }

    fn put(&self, target: &TargetId, record: &TargetRecord) {
        self.change(&target.cluster, |cluster| {
            cluster.put(target.principal, record);
        });
    }

    /// Drops what every list shows by now.
    fn tidy(&self) {
        let Some(now) = self.time_of(Instant::now()) else {
            return;
        };
        let is_old = |effect: &OwnEffect| now.duration_since(effect.changed) >= self.0.keep;
        let clusters = &self.0.clusters;
        let mut clusters = clusters.write().unwrap_or_else(PoisonError::into_inner);
        // A cluster stays, with its version: whoever waits for that would wait for ever.
        for cluster in clusters.values_mut() {
            let mut targets = cluster.targets.values();
            if targets.any(|own| own.effects.is_empty() || own.effects.iter().any(is_old)) {
                let cluster = Arc::make_mut(cluster);
                for own in cluster.targets.values_mut() {
                    own.effects.retain(|effect| !is_old(effect));
                }
                cluster.targets.retain(|_, own| !own.effects.is_empty());
            }
        }
    }
}

impl OwnOfCluster {
    /// Why nothing can be said of the cluster.
    pub(super) fn problem(&self) -> Option<Arc<StoreError>> {
        self.unreadable.values().next().cloned()
    }

    fn put(&mut self, principal: PrincipalId, record: &TargetRecord) {
        self.unreadable.remove(&principal);
        let mut effects: Vec<OwnEffect> =
            record.effects.values().filter_map(OwnEffect::of).collect();
        // What the record has forgotten meanwhile, because no list that is read now can trail it, an older list may.
        if let Some(before) = self.targets.get(&principal) {
            let forgotten =
                |effect: &&OwnEffect| !effect.present && !record.effects.contains_key(&effect.name);
            effects.extend(before.effects.iter().filter(forgotten).cloned());
        }
        let own = OwnOfTarget {
            cluster_uid: record.cluster_uid.clone(),
            effects,
        };
        self.targets.insert(principal, own);
    }
}

#[cfg(test)]
mod tests;
