//! What was read, by key, with its age: one call for all who miss the same, renewed before it is too old, and never
//! given to anybody for whom it is.
//!
//! A cache that forgets by time cannot do that: it knows one age for all who ask, and whoever comes first after it has
//! passed waits for Azure.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

/// After a renewal that failed, and was not waited for, the next is not begun before so long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// So many values are expected; more only take a while longer to make room for.
const EXPECTED: usize = 1_000;

/// However long a service says to wait, it is asked again after so long.
const LONGEST_HOLD: Duration = Duration::from_mins(1);

/// How fresh something must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// What is asked for at this moment.
    pub now: Instant,
    /// It must not have been read before.
    pub not_before: Instant,
}

impl Need {
    /// Read no longer ago than this.
    #[must_use]
    pub fn within(age: Duration) -> Self {
        let now = Instant::now();
        Self {
            now,
            // Nothing was read before the machine was on.
            not_before: now.checked_sub(age).unwrap_or(now),
        }
    }
}

/// A value, and since when it is known.
#[derive(Debug)]
pub struct Loaded<V> {
    /// What was read.
    pub value: V,
    /// When reading it began: everything that was so by then is in it.
    pub begun: Instant,
    /// When it may be renewed, in milliseconds from `begun`.
    renewal: AtomicU64,
}

impl<V> Loaded<V> {
    /// A value whose reading began then.
    pub const fn new(value: V, begun: Instant) -> Self {
        Self {
            value,
            begun,
            renewal: AtomicU64::new(0),
        }
    }
}

/// Why there is no value: reading it was not permitted, or failed.
#[derive(Clone, Debug)]
pub enum Unread<P, E> {
    /// Who asks may not begin to read.
    NotPermitted(P),
    /// Reading failed.
    Failed(E),
}

/// A failure that may say how long to wait before the next try.
pub trait Waits {
    /// How long.
    fn wait(&self) -> Option<Duration>;
}

type Loading<V, E> = Shared<BoxFuture<'static, Result<Arc<Loaded<V>>, E>>>;
type Load<K, V, E> =
    dyn Fn(K, Need) -> BoxFuture<'static, Result<Loaded<V>, E>> + Send + Sync + 'static;

struct UnderWay<V, E> {
    since: Instant,
    /// It has failed, and said to wait: it stays here for so long.
    is_held: bool,
    number: u64,
    loading: Loading<V, E>,
}

/// What is under way, and how often something has begun.
struct AllUnderWay<K, V, E> {
    begun: u64,
    /// What began up to then is not remembered: everything was forgotten since.
    forgotten: u64,
    by_key: HashMap<K, UnderWay<V, E>>,
}

/// Values of one kind, each read when somebody needs it. Cheap to clone; clones share what they know.
pub struct Fresh<K, V, E>(Arc<Inner<K, V, E>>);

/// What one value weighs among all that are remembered.
struct Weigh<V>(Arc<dyn Fn(&V) -> u32 + Send + Sync>);

impl<V> Clone for Weigh<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Weighter<K, Arc<Loaded<V>>> for Weigh<V> {
    fn weight(&self, _: &K, loaded: &Arc<Loaded<V>>) -> u64 {
        // What weighs nothing would never be forgotten.
        u64::from((self.0)(&loaded.value)).max(1)
    }
}

struct Inner<K, V, E> {
    known: Cache<K, Arc<Loaded<V>>, Weigh<V>, RandomState>,
    under_way: Mutex<AllUnderWay<K, V, E>>,
    load: Box<Load<K, V, E>>,
    renew_after: Duration,
}

impl<K, V, E> Clone for Fresh<K, V, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V, E> Fresh<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Waits + Clone + std::fmt::Display + Send + Sync + 'static,
{
    /// Values that `load` reads, renewed when somebody asks for one that is older than `renew_after`. What is known
    /// weighs at most `most` together, each as `weigh` says; what was not asked for lately goes first.
    pub fn new<F>(
        most: u64,
        weigh: impl Fn(&V) -> u32 + Send + Sync + 'static,
        renew_after: Duration,
        load: impl Fn(K, Need) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            known: Cache::with(
                EXPECTED,
                most,
                Weigh(Arc::new(weigh)),
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            under_way: Mutex::new(AllUnderWay {
                begun: 0,
                forgotten: 0,
                by_key: HashMap::new(),
            }),
            load: Box::new(move |key, need| load(key, need).boxed()),
            renew_after,
        }))
    }

    /// A value that is as fresh as is needed. Whoever misses the same at the same time waits for one call.
    ///
    /// # Errors
    /// What `load` says; an error is remembered only for as long as it says to wait.
    pub async fn get(&self, key: &K, need: Need) -> Result<Arc<Loaded<V>>, E> {
        self.get_if(key, need, |_| true).await
    }

    /// The same, of those values that `suits`: another is read anew, however fresh it is.
    ///
    /// # Errors
    /// What `load` says.
    pub async fn get_if(
        &self,
        key: &K,
        need: Need,
        suits: impl Fn(&V) -> bool,
    ) -> Result<Arc<Loaded<V>>, E> {
        let permitted = || Ok::<(), Infallible>(());
        let got = self.get_permitted(key, need, suits, permitted).await;
        got.map_err(|unread| match unread {
            Unread::Failed(error) => error,
            Unread::NotPermitted(never) => match never {},
        })
    }

    /// The same, where whoever asks needs a permission to begin to read. To wait for what is read already, or to be
    /// given what is known, takes none.
    ///
    /// # Errors
    /// [`Unread`]: what `may_begin` says, or what `load` does.
    pub async fn get_permitted<P>(
        &self,
        key: &K,
        need: Need,
        suits: impl Fn(&V) -> bool,
        may_begin: impl Fn() -> Result<(), P>,
    ) -> Result<Arc<Loaded<V>>, Unread<P, E>> {
        if let Some(known) = self.0.known.get(key)
            && known.begun >= need.not_before
            && suits(&known.value)
        {
            self.renew(key, &known, need.now);
            return Ok(known);
        }
        loop {
            let loading = self.loading(key, need, &may_begin);
            let (loading, since, is_held) = loading.map_err(Unread::NotPermitted)?;
            match loading.await {
                Ok(loaded) if loaded.begun >= need.not_before && suits(&loaded.value) => {
                    return Ok(loaded);
                }
                Err(error) if is_held || since >= need.not_before => {
                    return Err(Unread::Failed(error));
                }
                // It was under way already, for somebody who needed less.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Takes in a value that was read together with others, unless a later one is known.
    pub fn put(&self, key: K, value: V, begun: Instant) {
        let later = |known: &Arc<Loaded<V>>| known.begun >= begun;
        if !self.0.known.get(&key).as_ref().is_some_and(later) {
            self.0
                .known
                .insert(key, Arc::new(Loaded::new(value, begun)));
        }
    }

    /// Forgets one value.
    pub fn forget(&self, key: &K) {
        self.0.known.remove(key);
    }

    /// Forgets everything: what is asked for next is read anew.
    pub fn forget_all(&self) {
        self.0.known.clear();
    }

    /// The same, and what is being read is not remembered either.
    pub fn begin_anew(&self) {
        {
            let mut under_way = self.0.under_way();
            under_way.forgotten = under_way.begun;
            under_way.by_key.clear();
        }
        self.0.known.clear();
    }

    /// Begins to read the value anew if it is no longer quite fresh, and nobody does so yet.
    fn renew(&self, key: &K, known: &Loaded<V>, now: Instant) {
        let age = now.saturating_duration_since(known.begun);
        let wait = Duration::from_millis(known.renewal.load(Ordering::Relaxed));
        if age < self.0.renew_after.max(wait) {
            return;
        }
        // Until it is done, and after a failure a while longer, nobody else begins.
        let next = age + AFTER_FAILURE;
        let next = u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
        known.renewal.store(next, Ordering::Relaxed);
        let not_before = now.checked_sub(self.0.renew_after).unwrap_or(now);
        let begun = self.loading(key, Need { now, not_before }, || Ok::<(), Infallible>(()));
        drop(begun);
    }

    /// What is under way, or is begun now if it may be, and since when; and whether it has failed and is not to be tried
    /// again yet.
    fn loading<P>(
        &self,
        key: &K,
        need: Need,
        may_begin: impl Fn() -> Result<(), P>,
    ) -> Result<(Loading<V, E>, Instant, bool), P> {
        let mut under_way = self.0.under_way();
        if let Some(known) = under_way.by_key.get(key) {
            return Ok((known.loading.clone(), known.since, known.is_held));
        }
        may_begin()?;
        under_way.begun += 1;
        let number = under_way.begun;
        let since = Instant::now();
        let (this, of) = (self.clone(), key.clone());
        let load = (self.0.load)(key.clone(), need);
        // On a task of its own: whoever asked first and went away takes nothing from the others.
        let task = tokio::spawn(async move {
            // Also when the load panics: its key would be lost otherwise.
            let mut over = Over {
                of: &this.0,
                key: &of,
                number,
                is_held: false,
            };
            let loaded = load.await.map(Arc::new);
            match &loaded {
                Ok(loaded) => this.remember(of.clone(), number, loaded),
                Err(error) => {
                    tracing::debug!(%error, "what is known could not be renewed");
                    if let Some(wait) = error.wait() {
                        this.hold(of.clone(), number, wait);
                        over.is_held = true;
                    }
                }
            }
            loaded
        });
        let loading = async move {
            match task.await {
                Ok(loaded) => loaded,
                Err(error) => match error.try_into_panic() {
                    Ok(panicked) => std::panic::resume_unwind(panicked),
                    // The process is ending: nobody is answered any more.
                    Err(_) => std::future::pending().await,
                },
            }
        };
        let loading = loading.boxed().shared();
        let known = UnderWay {
            since,
            is_held: false,
            number,
            loading: loading.clone(),
        };
        under_way.by_key.insert(key.clone(), known);
        Ok((loading, since, false))
    }

    fn remember(&self, key: K, number: u64, loaded: &Arc<Loaded<V>>) {
        // Held meanwhile, so that nothing is forgotten in between.
        let under_way = self.0.under_way();
        if number > under_way.forgotten {
            self.0.known.insert(key, Arc::clone(loaded));
        }
    }

    /// Whoever asks meanwhile is told the same: a service that says to wait is not asked by each of them.
    fn hold(&self, key: K, number: u64, wait: Duration) {
        if let Some(known) = self.0.under_way().by_key.get_mut(&key) {
            known.is_held = true;
        }
        let of = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait.min(LONGEST_HOLD)).await;
            of.0.is_over(&key, number);
        });
    }
}

impl<K: Hash + Eq, V, E> Inner<K, V, E> {
    fn is_over(&self, key: &K, number: u64) {
        let mut under_way = self.under_way();
        let known = under_way.by_key.get(key);
        if known.is_some_and(|it| it.number == number) {
            under_way.by_key.remove(key);
        }
    }

    /// Nothing can panic half-way through a change, so a poisoned lock holds good data.
    fn under_way(&self) -> MutexGuard<'_, AllUnderWay<K, V, E>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a load, however it comes.
struct Over<'l, K: Hash + Eq, V, E> {
    of: &'l Inner<K, V, E>,
    key: &'l K,
    number: u64,
    is_held: bool,
}

impl<K: Hash + Eq, V, E> Drop for Over<'_, K, V, E> {
    fn drop(&mut self) {
        if !self.is_held {
            self.of.is_over(self.key, self.number);
        }
    }
}

#[cfg(test)]
mod tests;
