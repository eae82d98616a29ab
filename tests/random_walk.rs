//! A random walk over the API, against a plain model of the contract: every answer agrees with it.
//!
//! The model is written from the comments of the contract alone, and shares nothing with the broker but the
//! generated messages. `WALK_SEED` repeats a walk, as far as the broker lets it: ids and times are its own.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what a test takes for granted, its helpers may as well; how a walk went is for whoever reads its output"
)]

mod support;

#[path = "random_walk/checks.rs"]
mod checks;
#[path = "random_walk/company.rs"]
mod company;
#[path = "random_walk/draw.rs"]
mod draw;
#[path = "random_walk/faults.rs"]
mod faults;
#[path = "random_walk/grant.rs"]
mod grant;
#[path = "random_walk/model.rs"]
mod model;
#[path = "random_walk/pages.rs"]
mod pages;
#[path = "random_walk/plans.rs"]
mod plans;
#[path = "random_walk/questions.rs"]
mod questions;
#[path = "random_walk/rest.rs"]
mod rest;
#[path = "random_walk/revoke.rs"]
mod revoke;
#[path = "random_walk/told.rs"]
mod told;
#[path = "random_walk/variations.rs"]
mod variations;
#[path = "random_walk/walk.rs"]
mod walk;

use std::time::Instant;

use support::weather;
use walk::Walk;

/// How many calls a walk makes, before it looks round for the last time.
const CALLS: usize = 10_000;
/// After so many steps it waits until the world is at rest: what it knows then is certain.
const STRETCH: usize = 250;
/// After so many it looks at everything that has changed.
const STAGE: usize = 4 * STRETCH;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_contract() {
    let seed = weather::seed_from("WALK_SEED");
    println!("WALK_SEED={seed}");
    let begun = Instant::now();
    let mut walk = Walk::begin(seed).await;
    let mut steps = 0;
    while walk.calls < CALLS {
        walk.on().await;
        steps += 1;
        if steps % (2 * STAGE) == 0 {
            walk.past_some_expiries().await;
        }
        if steps % STAGE == 0 {
            walk.look_round(false).await;
            walk.azure_takes_its_time((steps / STAGE) % 2 == 1);
        } else if steps % STRETCH == 0 {
            walk.come_to_rest().await;
        }
    }
    walk.look_round(true).await;
    let (calls, took) = (walk.calls, begun.elapsed());
    println!(
        "{calls} calls, {steps} of them drawn, in {took:?}: {:#?}",
        walk.model.tally
    );
    walk.came_across_everything();
}
