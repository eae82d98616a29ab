//! One call for many, never too old for anybody, and renewed behind those who ask.

use std::sync::atomic::AtomicUsize;

use futures::future::join_all;
use tokio::sync::Semaphore;

use super::*;

impl Waits for String {
    fn wait(&self) -> Option<Duration> {
        self.contains("wait").then_some(Duration::from_millis(300))
    }
}

const HOUR: Duration = Duration::from_hours(1);

/// Values that count how often they were read; each reading waits for a permit.
struct Reads {
    begun: AtomicUsize,
    may_end: Semaphore,
    fails: AtomicUsize,
    why: &'static str,
}

impl Reads {
    fn new(may_end: usize) -> Arc<Self> {
        Self::that_fail_by("failed", may_end)
    }

    fn that_fail_by(why: &'static str, may_end: usize) -> Arc<Self> {
        Arc::new(Self {
            why,
            begun: AtomicUsize::new(0),
            may_end: Semaphore::new(may_end),
            fails: AtomicUsize::new(0),
        })
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn one(self: Arc<Self>) -> Result<Loaded<usize>, String> {
        let begun = Instant::now();
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.may_end.acquire().await.unwrap().forget();
        if number <= self.fails.load(Ordering::SeqCst) {
            return Err(format!("reading {number} {}", self.why));
        }
        Ok(Loaded::new(number, begun))
    }

    /// Waits until so many readings have begun.
    async fn until(&self, begun: usize) {
        while self.begun() < begun {
            tokio::task::yield_now().await;
        }
    }
}

fn fresh(reads: &Arc<Reads>, renew_after: Duration) -> Fresh<u8, usize, String> {
    let reads = Arc::clone(reads);
    Fresh::new(10, |_| 1, renew_after, move |_, _| Arc::clone(&reads).one())
}

async fn value(fresh: &Fresh<u8, usize, String>, need: Need) -> Result<usize, String> {
    fresh.get(&1, need).await.map(|loaded| loaded.value)
}

#[tokio::test]
async fn a_hundred_who_miss_the_same_wait_for_one_reading() {
    let reads = Reads::new(0);
    let fresh = fresh(&reads, HOUR);
    let waiting = (0..100).map(|_| value(&fresh, Need::within(HOUR)));
    let let_it_end = async {
        reads.until(1).await;
        reads.may_end.add_permits(1);
    };
    let (values, ()) = tokio::join!(join_all(waiting), let_it_end);
    assert!(values.iter().all(|value| *value == Ok(1)));
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    assert_eq!(reads.begun(), 1);
}

#[tokio::test]
async fn whoever_needs_it_newer_than_what_is_under_way_waits_for_the_next() {
    let reads = Reads::new(0);
    let fresh = fresh(&reads, HOUR);
    let early = value(&fresh, Need::within(HOUR));
    let late = async {
        reads.until(1).await;
        let now = Need::within(Duration::ZERO);
        reads.may_end.add_permits(2);
        value(&fresh, now).await
    };
    assert_eq!(tokio::join!(early, late), (Ok(1), Ok(2)));
}

#[tokio::test]
async fn what_does_not_suit_is_read_anew_however_fresh_it_is() {
    let reads = Reads::new(2);
    let fresh = fresh(&reads, HOUR);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    let second = fresh
        .get_if(&1, Need::within(HOUR), |value| *value >= 2)
        .await;
    assert_eq!(second.unwrap().value, 2);
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_not_remembered() {
    let reads = Reads::new(0);
    reads.fails.store(1, Ordering::SeqCst);
    let fresh = fresh(&reads, HOUR);
    let waiting = (0..10).map(|_| value(&fresh, Need::within(HOUR)));
    let let_it_end = async {
        reads.until(1).await;
        reads.may_end.add_permits(2);
    };
    let (values, ()) = tokio::join!(join_all(waiting), let_it_end);
    assert!(
        values
            .iter()
            .all(|value| *value == Err("reading 1 failed".to_owned()))
    );
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(2));
}

#[tokio::test]
async fn who_goes_away_takes_nothing_from_the_others() {
    let reads = Reads::new(0);
    let fresh = fresh(&reads, HOUR);
    let mut first = Box::pin(value(&fresh, Need::within(HOUR)));
    assert!(futures::poll!(&mut first).is_pending());
    reads.until(1).await;
    drop(first);
    reads.may_end.add_permits(1);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    assert_eq!(reads.begun(), 1);
}

#[tokio::test]
async fn what_is_in_use_is_renewed_behind_those_who_ask() {
    let reads = Reads::new(1);
    let fresh = fresh(&reads, Duration::ZERO);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    // It is not quite fresh any more: nobody waits, and one reading begins.
    for _ in 0..10 {
        assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    }
    reads.until(2).await;
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    assert_eq!(reads.begun(), 2);
    reads.may_end.add_permits(1);
    while value(&fresh, Need::within(HOUR)).await == Ok(1) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_what_is_known_and_is_not_tried_again_at_once() {
    let reads = Reads::new(1);
    let fresh = fresh(&reads, Duration::ZERO);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    reads.fails.store(2, Ordering::SeqCst);
    reads.may_end.add_permits(1);
    let began = Instant::now();
    while began.elapsed() < AFTER_FAILURE / 2 {
        assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(reads.begun(), 2);
    // Whoever needs it newer is not put off by that.
    reads.may_end.add_permits(1);
    assert_eq!(value(&fresh, Need::within(Duration::ZERO)).await, Ok(3));
}

#[tokio::test]
async fn a_failure_that_says_to_wait_is_told_to_all_who_ask_meanwhile() {
    let reads = Reads::that_fail_by("has to wait", 2);
    reads.fails.store(1, Ordering::SeqCst);
    let fresh = fresh(&reads, HOUR);
    let began = Instant::now();
    let told = Err("reading 1 has to wait".to_owned());
    for age in [HOUR, Duration::ZERO] {
        assert_eq!(value(&fresh, Need::within(age)).await, told);
    }
    assert_eq!(reads.begun(), 1);
    while value(&fresh, Need::within(HOUR)).await == told {
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(reads.begun(), 2);
}

#[tokio::test]
async fn a_load_that_panics_leaves_its_key_to_the_next() {
    let reads = Reads::that_fail_by("panics", 2);
    reads.fails.store(1, Ordering::SeqCst);
    let of = Arc::clone(&reads);
    let fresh: Fresh<u8, usize, String> = Fresh::new(
        10,
        |_| 1,
        HOUR,
        move |_, _| {
            let of = Arc::clone(&of);
            async move {
                let read = of.one().await;
                assert!(read.is_ok(), "it panics");
                read
            }
        },
    );
    let asking = {
        let fresh = fresh.clone();
        tokio::spawn(async move { value(&fresh, Need::within(HOUR)).await })
    };
    assert!(asking.await.unwrap_err().is_panic());
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(2));
}

#[tokio::test]
async fn a_later_value_is_not_replaced_by_an_earlier_one() {
    let reads = Reads::new(1);
    let fresh = fresh(&reads, HOUR);
    let early = Instant::now();
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    fresh.put(1, 7, early);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    fresh.put(1, 8, Instant::now());
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(8));
}

#[tokio::test]
async fn what_is_forgotten_is_read_again() {
    let reads = Reads::new(3);
    let fresh = fresh(&reads, HOUR);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(1));
    fresh.forget(&1);
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(2));
    fresh.forget_all();
    assert_eq!(value(&fresh, Need::within(HOUR)).await, Ok(3));
}

#[tokio::test]
async fn what_was_being_read_when_everything_began_anew_is_read_once_more() {
    let reads = Reads::new(0);
    let fresh = fresh(&reads, HOUR);
    let need = Need::within(HOUR);
    let begins_anew = async {
        reads.until(1).await;
        fresh.begin_anew();
        reads.may_end.add_permits(1);
    };
    // Whoever asked before is answered as before.
    let (before, ()) = tokio::join!(value(&fresh, need), begins_anew);
    assert_eq!(before, Ok(1));
    reads.may_end.add_permits(1);
    assert_eq!(value(&fresh, need).await, Ok(2));
    assert_eq!(value(&fresh, need).await, Ok(2));
}
