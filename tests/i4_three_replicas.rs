//! I4, one worker per target, with three brokers on one Redis: each is killed, or stands still, again and again.
//!
//! The run is drawn from a seed, which is printed; `KILL_SEED` repeats one. A standstill lasts from a fraction of a
//! second to well past lease and settle time together, so that a broker wakes up in the middle of a pass whose target
//! somebody else has long had.
//!
//! **Whose a call was** the emulator's history tells: each broker signs in as somebody else.
//!
//! **When its lease was good** follows from the protocol (design §5.3), without asking Redis: a call starts only if
//! more than the call's timeout is left of the lease. So the lease is good for at least that long from the look at
//! it, and from the call's receipt for that long less the way there. Only a standstill comes between look and call:
//! of a broker that was stopped, the calls that were received while it stood still, and on a target on which it had
//! no call open the first one just after it woke up, may have been begun under a lease that had ended since. They
//! prove nothing, and the protocol lives with them: what they do is put right, which the end of the run shows. Every
//! other call was made under a good lease, also by a broker that has just woken up and has the rest of its pass
//! before it. No two such calls on one target may be open at once, whichever brokers made them.
//!
//! The one exception to I2 is kept out of the run: a broker that stands still past the settle time and dies after its
//! last call, before it can report on it, leaves what only a sweep finds. So nobody is killed just after it woke up.
#![cfg(feature = "dev")]
#![allow(
    clippy::print_stdout,
    reason = "the seed is for whoever has to repeat the run"
)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "i4_three_replicas/crossings.rs"]
mod crossings;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aks_access_broker::domain::ids::InstanceId;
use azure_emulator::{Fault, FaultEffect};
use crossings::{Made, Names, Standstill, crossings};
use futures::future::join_all;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::replicas::Replica;
use support::stream::{self, Stream};
use support::{Timing, World, weather};
use uuid::Uuid;

/// How long brokers are killed and stopped.
const RUN: Duration = Duration::from_secs(55);
/// How long a broker is left alone after it woke up: for its last call, and its report on it.
const UNDISTURBED: Duration = Duration::from_millis(1_500);
/// What a subscription may be sent, so that no target waits for its lane's budget.
const PLENTY: (u32, u32) = (1_000, 1_000);

/// What is done to a broker.
#[derive(Clone, Copy)]
enum Blow {
    Kill,
    Stop(Duration),
}

/// One broker, and what is done to it.
struct Life {
    n: usize,
    replica: Replica,
    random: StdRng,
    kills: usize,
    stood_still: Vec<Standstill>,
}

impl Life {
    async fn live_until(mut self, end: Instant, stream: &Stream) -> Self {
        while Instant::now() < end {
            // The moment itself is what is drawn.
            let quiet = self.random.random_range(0..1_000);
            tokio::time::sleep(UNDISTURBED + Duration::from_millis(quiet)).await;
            match self.draw() {
                Blow::Kill => self = self.die(stream).await,
                Blow::Stop(how_long) => self.stand_still(how_long).await,
            }
        }
        self
    }

    fn draw(&mut self) -> Blow {
        let millis = match self.random.random_range(0..100) {
            0..40 => return Blow::Kill,
            40..75 => self.random.random_range(100..1_500),
            _ => self.random.random_range(2_000..6_000),
        };
        Blow::Stop(Duration::from_millis(millis))
    }

    async fn die(mut self, stream: &Stream) -> Self {
        self.replica = self.replica.killed_and_started().await;
        stream.send_to_anew(self.n, self.replica.client());
        self.kills += 1;
        self
    }

    /// Ends the broker, and tells when it stood still.
    async fn end(self) -> Vec<Standstill> {
        println!(
            "broker {}: {} kills, {} standstills",
            self.n,
            self.kills,
            self.stood_still.len()
        );
        self.replica.end().await;
        self.stood_still
    }

    async fn stand_still(&mut self, how_long: Duration) {
        let from = Timestamp::now();
        self.replica.process.signal("STOP").await;
        let stopped = Timestamp::now();
        tokio::time::sleep(how_long).await;
        self.replica.process.signal("CONT").await;
        self.stood_still.push(Standstill {
            broker: self.replica.principal,
            from,
            stopped,
            to: Timestamp::now(),
        });
    }
}

/// Every call takes a while, so that whoever is stopped has passes under way.
fn slow() -> Fault {
    Fault {
        operation: Some("roleAssignments/*".to_owned()),
        path_contains: None,
        effect: FaultEffect::Latency {
            delay: Duration::from_millis(150),
        },
        times: None,
        probability: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_three_replicas_never_work_on_one_target_at_once_and_end_where_one_would() {
    let seed = weather::seed();
    println!("KILL_SEED={seed}");
    let world = weather::world(seed).await;
    world.emulator.add_fault(slow());
    let timing = Timing {
        writes: PLENTY,
        deletes: PLENTY,
        ..weather::timing()
    };
    let replicas = Replica::three(&world, &timing).await;
    let stream = Stream::begin(&world, seed);
    stream.send_to(replicas.iter().map(Replica::client).collect());
    let end = Instant::now() + RUN;
    let lives = (1..).zip(replicas).map(|(n, replica)| Life {
        n: n - 1,
        replica,
        random: StdRng::seed_from_u64(seed.rotate_left(u32::try_from(n).unwrap())),
        kills: 0,
        stood_still: Vec::new(),
    });
    let lives = join_all(lives.map(|life| life.live_until(end, &stream))).await;

    let targets = stream.targets().to_vec();
    let account = stream.end().await;
    world.emulator.clear_faults();
    // Whoever woke up last has reported on its last call when it has ended; another puts right what it did.
    let another = world.broker(&timing).await;
    let stood_still = join_all(lives.into_iter().map(Life::end)).await.concat();
    let states = account.all_over(another.client()).await;
    world.at_rest().await;
    world.emulator.quiesce().await;

    let (missing, left) = account.differences(&world).await;
    assert!(
        missing.is_empty() && left.is_empty(),
        "missing {missing:#?}\nleft {left:#?}\nKILL_SEED={seed}"
    );
    assert_eq!(
        states.get("STATE_FAILED"),
        None,
        "nothing in this weather is final"
    );
    let names = names(&world, &targets).await;
    let made = names.made(&world.emulator.calls());
    let crossed = crossings(&made, &stood_still, timing.call_timeout);
    assert!(
        crossed.is_empty(),
        "{crossed:#?}\n{stood_still:#?}\nKILL_SEED={seed}"
    );
    means_something(&made, targets.len());
}

/// A run in which each works on its own, or hardly at all, would prove nothing.
fn means_something(made: &[Made], targets: usize) {
    let mut brokers: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for call in made {
        brokers.entry(&call.target).or_default().insert(call.broker);
    }
    let shared = brokers.values().filter(|by| by.len() >= 3).count();
    println!(
        "{} calls; {shared} targets were worked on by three brokers or more",
        made.len()
    );
    assert!(shared > targets / 2 && made.len() > 1_000);
}

/// The names that these brokers give.
async fn names(world: &World, targets: &[(Uuid, String)]) -> Names {
    let instance = InstanceId::parse(&world.instance().await).expect("an instance id");
    Names::new(instance, targets, &stream::roles(), &stream::NAMESPACES)
}
