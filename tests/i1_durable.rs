//! I1, accepted means durable: `kill -9` at random moments, under faults, loses nothing.
//!
//! The run is drawn from a seed, which is printed; `KILL_SEED` repeats one.
#![cfg(feature = "dev")]
#![allow(
    clippy::print_stdout,
    reason = "the seed is for whoever has to repeat the run"
)]

mod support;

use std::time::Duration;

use azure_emulator::Operation;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::stream::Stream;
use support::weather;

const KILLS: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_killed_at_any_moment_the_broker_loses_nothing() {
    let seed = weather::seed();
    println!("KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = weather::world(seed).await;
    let timing = weather::timing();
    let stream = Stream::begin(&world, seed);
    for kill in 1..=KILLS {
        let process = world.broker(&timing).await;
        stream.send_to(vec![process.client()]);
        // The moment itself is what is drawn.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        process.kill().await;
        stream.send_to(Vec::new());
        if kill % 20 == 0 {
            println!(
                "{kill} of {KILLS} kills, {} jobs accepted",
                stream.accepted()
            );
        }
    }
    let process = world.broker(&timing).await;
    stream.send_to(vec![process.client()]);
    let account = stream.end().await;
    world.emulator.clear_faults();
    let states = account.all_over(process.client()).await;
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
    assert!(
        world.count(Operation::RoleAssignmentWrite) > 500,
        "the run was too short to mean anything"
    );
}
