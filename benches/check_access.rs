//! What `CheckAccess` costs over the wire, beside what the wire costs by itself.
//!
//! A bare tonic server that answers at once is the ceiling: the same client sends it the same requests in the same run,
//! in turns with the broker, and it answers with a message of the same size. The broker is the one that `serve` runs,
//! with a real Redis and the emulator as its Azure, over 100 clusters and 100,000 role assignments; its view is warm
//! and is not renewed meanwhile. Client and server share the machine, so every figure is of both together; the
//! processor time that the server's own threads took a call is told besides.
//!
//! What is judged is the median of the ratios of neighbouring rounds: what else the machine does changes both sides of
//! one ratio, and not the ratio. That the cost does not grow is seen between one cluster and 1,000 of them, with 1,000
//! assignments each; the emulator walks all that is assigned anywhere for each list, so reading a million takes
//! minutes. Strangers attack a small broker while a caller with a role asks it. Memory is what the process has more of when a million assignments are kept as the view keeps them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use aks_access_broker::grpc::proto::{CheckAccessRequest, CheckAccessResponse};
use azure_emulator::Emulator;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

mod support {
    pub(crate) mod azure;
    pub(crate) mod bare;
    #[allow(
        unreachable_pub,
        clippy::expect_used,
        reason = "the tests' own: what they take for granted a benchmark may as well"
    )]
    #[path = "../../tests/support/bearer.rs"]
    pub(crate) mod bearer;
    pub(crate) mod company;
    pub(crate) mod load;
    pub(crate) mod process;
    pub(crate) mod questions;
    #[allow(
        dead_code,
        unreachable_pub,
        clippy::expect_used,
        reason = "the tests' own: what they take for granted a benchmark may as well"
    )]
    #[path = "../../tests/support/redis.rs"]
    pub(crate) mod redis;
    pub(crate) mod report;
    pub(crate) mod service;
    pub(crate) mod snapshots;
    pub(crate) mod strangers;
}

use support::bearer::Bearer;
use support::company::Company;
use support::load::{Load, Round, Side, connected, questions};
use support::report::{AnyError, Row, Verdict, conclude, median, progress};
use support::service::Service;
use support::strangers::Attack;

/// Of each side and each load.
const ROUNDS: usize = 7;
const LOADS: [Load; 2] = [
    Load {
        connections: 4,
        in_flight: 64,
    },
    Load {
        connections: 1,
        in_flight: 64,
    },
];
/// So many questions are asked in turn: all kinds of all clusters, twice.
const QUESTIONS: usize = 24_000;
const CLUSTERS: usize = 100;
const MANY_CLUSTERS: usize = 1_000;

const LEAST_THROUGHPUT: f64 = 0.85;
/// Of the calls a second that the same broker answers where it is sent the same tokens and does not look at them.
const LEAST_WITH_PROOF: f64 = 0.85;
const MOST_P99: f64 = 1.25;
const MOST_GROWTH: f64 = 1.2;
/// Of the latency that a caller has when nobody attacks.
const MOST_UNDER_ATTACK: f64 = 3.0;
/// Bytes an assignment.
const MOST_MEMORY: f64 = 300.0;

fn main() -> Result<ExitCode, AnyError> {
    // Cargo adds words of its own.
    let named: Vec<String> = std::env::args()
        .filter(|word| PARTS.contains(&word.as_str()))
        .collect();
    let is_asked = |part: &str| named.is_empty() || named.iter().any(|named| named == part);
    let mut rows = Vec::new();
    // First, in a process that has freed nothing yet: what is freed stays the process's and would be used again.
    if is_asked("memory") {
        rows.push(memory()?);
    }
    let client = runtime("client")?;
    if is_asked("ceiling") {
        rows.extend(beside_the_ceiling(&client)?);
    }
    if is_asked("growth") {
        rows.extend(growth(&client)?);
    }
    if is_asked("attacked") {
        rows.extend(attacked(&client)?);
    }
    conclude(&rows)
}

/// What can be asked for by name, as in `cargo bench --bench check_access -- ceiling`; without a name it is all.
const PARTS: [&str; 4] = ["memory", "ceiling", "growth", "attacked"];

fn runtime(name: &str) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .enable_all()
        .build()
}

/// What a million assignments take, as the view keeps them.
#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and rows are far below 2^52"
)]
fn memory() -> Result<Row, AnyError> {
    progress("keeping 1,000,000 assignments");
    let company = Company {
        clusters: MANY_CLUSTERS,
    };
    let roles = support::snapshots::built_in_roles()?;
    let before = support::process::resident()?;
    let kept = support::snapshots::snapshots(company, &roles)?;
    let bytes = support::process::resident()?.saturating_sub(before);
    let rows: usize = (0..company.subscriptions())
        .map(|subscription| company.rows_in(subscription).count())
        .sum();
    let each = bytes as f64 / rows as f64;
    drop(kept);
    Ok(Row {
        what: format!("memory an assignment, of {rows}"),
        figure: format!("{each:.0} bytes"),
        against: "300 bytes".to_owned(),
        verdict: Verdict::AtMost(each / MOST_MEMORY, 1.0),
    })
}

/// A broker with its Azure, each on threads of its own.
struct World {
    service: Option<Service>,
    service_threads: Runtime,
    threads: &'static str,
    company: Company,
    _emulator: Emulator,
    _azure: Runtime,
}

impl World {
    fn start(clusters: usize, threads: &'static str) -> Result<Self, AnyError> {
        let company = Company { clusters };
        let azure = runtime("azure")?;
        let emulator = azure.block_on(support::azure::azure(company))?;
        let service_threads = runtime(threads)?;
        let service = service_threads.block_on(Service::start(company, &emulator))?;
        Ok(Self {
            service: Some(service),
            service_threads,
            threads,
            company,
            _emulator: emulator,
            _azure: azure,
        })
    }

    /// A client's side of it, once everything has been asked once.
    async fn warm(&self) -> Result<(Side, CheckAccessResponse), AnyError> {
        let service = self.service.as_ref().ok_or("it was stopped")?;
        let asked = questions(self.company, QUESTIONS);
        let connections = LOADS[0].connections;
        let nobody = Bearer::new(None);
        let side = connected(service.address, connections, self.threads, asked, nobody).await?;
        let start = Instant::now();
        let answer = side.first_answer().await?;
        side.warm(8).await?;
        progress(&format!(
            "{} clusters are warm after {:.0?}",
            self.company.clusters,
            start.elapsed()
        ));
        Ok((side, answer))
    }

    /// Callers that bring a token: to the broker that does not look at it, and to the one that does.
    async fn with_tokens(&self) -> Result<(Side, Side), AnyError> {
        let service = self.service.as_ref().ok_or("it was stopped")?;
        let (connections, token) = (LOADS[0].connections, Bearer::new(Some(&service.token)));
        let asked = questions(self.company, QUESTIONS);
        let side = |address| {
            let (asked, token) = (Arc::clone(&asked), token.clone());
            connected(address, connections, self.threads, asked, token)
        };
        Ok((
            side(service.address).await?,
            side(service.with_token).await?,
        ))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _inside = self.service_threads.enter();
        drop(self.service.take());
    }
}

/// The broker, and a server that does nothing else than the wire asks for.
fn beside_the_ceiling(client: &Runtime) -> Result<Vec<Row>, AnyError> {
    progress("reading 100 clusters with 100,000 assignments");
    let world = World::start(CLUSTERS, "broker")?;
    let (broker, answer) = client.block_on(world.warm())?;
    let asked = questions(world.company, QUESTIONS);
    let mut rows = vec![sizes(&asked, &answer)];
    let bare_threads = runtime("bare")?;
    let listener = bare_threads.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let served = bare_threads.spawn(support::bare::serve(listener, answer));
    let connections = LOADS[0].connections;
    let bare = client.block_on(connected(
        address,
        connections,
        "bare",
        asked,
        Bearer::new(None),
    ))?;
    for load in LOADS {
        let name = format!("{} x {}", load.connections, load.in_flight);
        let (ceiling, own) = client.block_on(in_turn(&bare, &broker, load, &name))?;
        rows.extend(compared(&name, &ceiling, &own));
    }
    served.abort();
    let (unasked, proving) = client.block_on(world.with_tokens())?;
    for load in LOADS {
        let name = format!("{} x {} with tokens", load.connections, load.in_flight);
        let (carried, proven) = client.block_on(in_turn(&unasked, &proving, load, &name))?;
        rows.push(authenticated(&name, &carried, &proven));
    }
    // What the wire takes for them is not the broker's to save: clients such as this one send them whole each time.
    let load = LOADS[0];
    let (without, carried) = client.block_on(in_turn(&broker, &unasked, load, "tokens carried"))?;
    let rate = |round: &Round| round.rate;
    rows.push(Row {
        what: "4 x 64: calls a second, with tokens that nobody looks at".to_owned(),
        figure: format!("{:.1} /s", middle(&carried, rate)),
        against: format!("{:.1} /s without tokens", middle(&without, rate)),
        verdict: Verdict::Ratio(ratio(&carried, &without, rate)),
    });
    Ok(rows)
}

/// What it costs that callers prove who they are.
fn authenticated(load: &str, carried: &[Round], proven: &[Round]) -> Row {
    let rate = |round: &Round| round.rate;
    Row {
        what: format!("{load}: calls a second, authenticated"),
        figure: format!("{:.1} /s", middle(proven, rate)),
        against: format!("{:.1} /s not looked at", middle(carried, rate)),
        verdict: Verdict::AtLeast(ratio(proven, carried, rate), LEAST_WITH_PROOF),
    }
}

/// The broker with much to know beside one with little.
fn growth(client: &Runtime) -> Result<[Row; 3], AnyError> {
    progress("reading 1,000 assignments");
    let small = World::start(1, "small")?;
    let (few, _) = client.block_on(small.warm())?;
    progress("reading 1,000,000 assignments, which takes a while");
    let start = Instant::now();
    let large = World::start(MANY_CLUSTERS, "large")?;
    progress(&format!(
        "the emulator holds them after {:.0?}",
        start.elapsed()
    ));
    let (many, _) = client.block_on(large.warm())?;
    let load = LOADS[0];
    let (few, many) = client.block_on(in_turn(&few, &many, load, "1,000 and 1,000,000"))?;
    let cost = |round: &Round| 1e6 / round.rate;
    let time = |round: &Round| round.server_time;
    let p99 = |round: &Round| round.p99;
    let row = |what: &str, unit: &str, of: fn(&Round) -> f64, judged: bool| Row {
        what: what.to_owned(),
        figure: format!("{:.1} {unit} at 1,000,000", middle(&many, of)),
        against: format!("{:.1} {unit} at 1,000", middle(&few, of)),
        verdict: if judged {
            Verdict::AtMost(ratio(&many, &few, of), MOST_GROWTH)
        } else {
            Verdict::Ratio(ratio(&many, &few, of))
        },
    };
    Ok([
        row("growth: time a call, client and all", "us", cost, true),
        row("growth: p99", "ms", p99, false),
        row(
            "growth: the server's processor time a call",
            "us",
            time,
            false,
        ),
    ])
}

/// What a caller with a role sees of strangers who take what they can. They share the machine with it, so what they
/// spend of the processor counts as well.
fn attacked(client: &Runtime) -> Result<[Row; 2], AnyError> {
    progress("reading 1,000 assignments");
    let world = World::start(1, "attacked")?;
    client.block_on(world.warm())?;
    let service = world.service.as_ref().ok_or("it was stopped")?;
    let (_, known) = client.block_on(world.with_tokens())?;
    let strangers = runtime("strangers")?;
    let load = Load {
        connections: 1,
        in_flight: 8,
    };
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        quiet.push(client.block_on(known.round(load))?);
        let attack = Attack::begin(service.with_token, &service.strangers_token);
        let attack = strangers.block_on(attack)?;
        attacked.push(client.block_on(known.round(load))?);
        progress(&format!(
            "attacked by {} connections, round {}",
            attack.connections(),
            round + 1
        ));
        drop(attack);
    }
    let row = |what: &str, of: fn(&Round) -> f64| Row {
        what: format!("1 x 8 with tokens, while strangers attack: {what}"),
        figure: format!("{:.2} ms", middle(&attacked, of)),
        against: format!("{:.2} ms when they do not", middle(&quiet, of)),
        verdict: Verdict::AtMost(ratio(&attacked, &quiet, of), MOST_UNDER_ATTACK),
    };
    Ok([row("p50", |round| round.p50), row("p99", |round| round.p99)])
}

/// Rounds of two sides, in turns; which is first changes as well.
async fn in_turn(
    one: &Side,
    other: &Side,
    load: Load,
    name: &str,
) -> Result<(Vec<Round>, Vec<Round>), AnyError> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for turn in [round % 2 == 0, round % 2 != 0] {
            if turn {
                ones.push(one.round(load).await?);
            } else {
                others.push(other.round(load).await?);
            }
        }
        if let Some((one, other)) = ones.last().zip(others.last()) {
            progress(&format!(
                "{name}, round {}: {:.0}/s and {:.0}/s, p99 {:.1} ms and {:.1} ms",
                round + 1,
                one.rate,
                other.rate,
                one.p99,
                other.p99
            ));
        }
    }
    Ok((ones, others))
}

fn middle(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(of).collect())
}

/// The median of the ratios of neighbouring rounds.
fn ratio(rounds: &[Round], to: &[Round], of: fn(&Round) -> f64) -> f64 {
    let pairs = rounds.iter().zip(to);
    median(pairs.map(|(round, to)| of(round) / of(to)).collect())
}

fn compared(load: &str, ceiling: &[Round], own: &[Round]) -> [Row; 5] {
    let row = |what: &str, unit: &str, of: fn(&Round) -> f64, verdict: Verdict| Row {
        what: format!("{load}: {what}"),
        figure: format!("{:.1} {unit}", middle(own, of)),
        against: format!("{:.1} {unit} bare", middle(ceiling, of)),
        verdict,
    };
    let rate = |round: &Round| round.rate;
    let p50 = |round: &Round| round.p50;
    let p99 = |round: &Round| round.p99;
    let time = |round: &Round| round.server_time;
    let allowed = |round: &Round| round.allowed;
    let told = |of| Verdict::Ratio(ratio(own, ceiling, of));
    [
        row(
            "calls a second",
            "/s",
            rate,
            Verdict::AtLeast(ratio(own, ceiling, rate), LEAST_THROUGHPUT),
        ),
        row(
            "p99",
            "ms",
            p99,
            Verdict::AtMost(ratio(own, ceiling, p99), MOST_P99),
        ),
        row("p50", "ms", p50, told(p50)),
        row("the server's processor time a call", "us", time, told(time)),
        row("allowed", "%", allowed, Verdict::Told),
    ]
}

fn sizes(asked: &Arc<[CheckAccessRequest]>, answer: &CheckAccessResponse) -> Row {
    let all: usize = asked.iter().map(Message::encoded_len).sum();
    Row {
        what: "messages".to_owned(),
        figure: format!(
            "{} bytes in, {} out",
            all / asked.len(),
            answer.encoded_len()
        ),
        against: "the same".to_owned(),
        verdict: Verdict::Told,
    }
}
