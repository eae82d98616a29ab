//! Azure in bad weather, drawn from a seed: everything that it may do to a call, and nothing that it may not.

use std::time::Duration;

use azure_emulator::{Fault, FaultEffect, Settings, Throttling};

use super::{Timing, World};

/// The longest that a call takes effect after its sender gave up. The weather's latest commits come a second after
/// their receipt; the rest is for a machine that has much else to do.
pub const SETTLE_TIME: Duration = Duration::from_secs(2);
/// How far Azure's replicas trail.
pub const LAG: Duration = Duration::from_secs(1);

/// What a broker goes by that is out in it.
pub fn timing() -> Timing {
    Timing {
        call_timeout: Duration::from_millis(700),
        lease: Duration::from_secs(2),
        settle_time: SETTLE_TIME,
        lag: LAG,
        ..Timing::default()
    }
}

/// The seed of a run: `KILL_SEED` repeats one.
pub fn seed() -> u64 {
    seed_from("KILL_SEED")
}

/// The seed of a run that this variable repeats.
pub fn seed_from(variable: &str) -> u64 {
    std::env::var(variable).map_or_else(
        |_| rand::random(),
        |seed| {
            let number = seed.parse();
            number.unwrap_or_else(|_| panic!("{variable} is a number, not {seed:?}"))
        },
    )
}

/// A world in it. Whatever comes late comes within [`SETTLE_TIME`] of its receipt, as Azure promises.
pub async fn world(seed: u64) -> World {
    let settings = Settings {
        list_lag: Duration::from_millis(900),
        read_lag: Duration::from_millis(900),
        hash_conflict_probability: 0.02,
        throttling: Throttling {
            enabled: false,
            ..Throttling::default()
        },
        ..Settings::default()
    };
    let world = World::start_with(settings, seed).await;
    for fault in bad_weather() {
        world.emulator.add_fault(fault);
    }
    world
}

fn bad_weather() -> Vec<Fault> {
    let role_assignments = |effect, probability| Fault {
        operation: Some("roleAssignments/*".to_owned()),
        path_contains: None,
        effect,
        times: None,
        probability: Some(probability),
    };
    let status = |status, code: &str| FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "bad weather".to_owned(),
        retry_after: (status == 429).then(|| "1".to_owned()),
    };
    let late = |millis, hang| FaultEffect::CommitLate {
        delay: Duration::from_millis(millis),
        hang,
    };
    vec![
        role_assignments(FaultEffect::CutBeforeCommit, 0.03),
        role_assignments(FaultEffect::CutAfterCommit, 0.04),
        role_assignments(late(300, false), 0.03),
        role_assignments(late(850, false), 0.03),
        role_assignments(late(850, true), 0.01),
        role_assignments(status(500, "InternalServerError"), 0.03),
        role_assignments(status(503, "ServerTimeout"), 0.02),
        role_assignments(status(429, "TooManyRequests"), 0.002),
        role_assignments(FaultEffect::LaggingNoContent { within: Some(LAG) }, 0.04),
        role_assignments(
            FaultEffect::Latency {
                delay: Duration::from_millis(120),
            },
            0.2,
        ),
    ]
}
