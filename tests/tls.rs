//! TLS: callers that trust the certificate's authority get in, by a token or by a certificate of their own; files that
//! change are taken, and what cannot be used is not.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "tls/authority.rs"]
mod authority;
#[path = "tls/connecting.rs"]
mod connecting;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, ListClustersRequest, WatchJobRequest};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, permanent};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

use authority::{Authority, Issued};
use connecting::{Connection, connect};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const PORTAL: &str = "spiffe://contoso.example/portal";
const SOON: Duration = Duration::from_secs(30);

struct Bench {
    world: World,
    broker: BrokerProcess,
    log: PathBuf,
    /// Of the broker's own certificate.
    authority: Authority,
    /// Of its callers'.
    of_callers: Authority,
}

impl Bench {
    async fn start() -> Self {
        let world = World::start().await;
        let (authority, of_callers) = (Authority::new(), Authority::new());
        let dir = world.dir.path();
        write(dir, &authority.server());
        fs::write(dir.join("callers.pem"), of_callers.pem()).unwrap();
        let config = world.config_with(
            &Timing::default(),
            &[
                "tls:",
                &format!("  certificate_file: {}/tls.crt", dir.display()),
                &format!("  key_file: {}/tls.key", dir.display()),
                &format!("  client_ca_file: {}/callers.pem", dir.display()),
            ],
        );
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replacen("  allow_plaintext: true\n", "", 1)).unwrap();
        let log = dir.join("log");
        let mut command = BrokerProcess::command(&config);
        command
            .env("AKS_ACCESS_BROKER__LOG__FILTER", "warn")
            .stderr(fs::File::create(&log).unwrap());
        let broker = BrokerProcess::start_unready_as(command).await;
        let bench = Self {
            world,
            broker,
            log,
            authority,
            of_callers,
        };
        bench.connect(None).await.unwrap().until_serving().await;
        bench
    }

    async fn connect(&self, own: Option<&Issued>) -> std::io::Result<Connection> {
        connect(self.broker.address(), &self.authority, own).await
    }

    fn token(&self) -> Option<&str> {
        self.broker.token()
    }
}

/// Puts a certificate where the broker looks for it.
fn write(dir: &Path, issued: &Issued) {
    fs::write(dir.join("tls.key"), &issued.key).unwrap();
    fs::write(dir.join("tls.crt"), &issued.certificate).unwrap();
}

async fn told(client: &mut Client) -> Result<(), (Code, String)> {
    let asked = client.list_clusters(ListClustersRequest::default()).await;
    asked.map(|_| ()).map_err(|status| {
        let refusal = Refusal::of(&status);
        (refusal.code, refusal.reason)
    })
}

fn refused(reason: &str) -> Result<(), (Code, String)> {
    Err((Code::Unauthenticated, reason.to_owned()))
}

/// Waits until something is so.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waits = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, waits).await.expect(what);
}

#[tokio::test]
async fn callers_get_in_by_a_token_or_by_a_certificate() {
    let bench = Bench::start().await;
    let by_token = bench.connect(None).await.unwrap();
    assert_eq!(told(&mut by_token.client(bench.token())).await, Ok(()));
    assert_eq!(
        told(&mut by_token.client(None)).await,
        refused("TOKEN_MISSING")
    );

    let portal = bench.of_callers.client(&[PORTAL]);
    let by_certificate = bench.connect(Some(&portal)).await.unwrap();
    let wish = permanent(
        ALICE,
        &bench.world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    );
    let granted = ask::grant(&mut by_certificate.client(None), wish.clone()).await;
    let requested_by = granted.0.grant.unwrap().requested_by;
    assert_eq!(requested_by, format!("certificate/{PORTAL}"));
    // Where there are both, the token says who calls; and a bad one is not mended by a certificate.
    let granted = ask::grant(&mut by_certificate.client(bench.token()), wish).await;
    assert!(
        granted
            .0
            .grant
            .unwrap()
            .requested_by
            .starts_with("application/")
    );
    let junk = told(&mut by_certificate.client(Some("junk"))).await;
    assert_eq!(junk, refused("TOKEN_INVALID"));
}

#[tokio::test]
async fn nobody_gets_in_by_a_certificate_that_names_nobody_or_is_somebody_elses() {
    let bench = Bench::start().await;
    for names in [&[][..], &[PORTAL, "spiffe://contoso.example/other"]] {
        let issued = bench.of_callers.client(names);
        let connection = bench.connect(Some(&issued)).await.unwrap();
        assert_eq!(
            told(&mut connection.client(None)).await,
            refused("CERTIFICATE_INVALID")
        );
        assert_eq!(told(&mut connection.client(bench.token())).await, Ok(()));
    }
    // TLS itself refuses what no authority of ours has issued, and what is for servers.
    for stranger in [
        Authority::new().client(&[PORTAL]),
        bench.authority.client(&[PORTAL]),
        bench.of_callers.expired(PORTAL),
        bench.of_callers.server(),
    ] {
        let connected = bench.connect(Some(&stranger)).await;
        let answered = match connected {
            Ok(connection) => connection.is_alive().await,
            Err(_) => false,
        };
        assert!(!answered);
    }
    // Nobody is understood who speaks in plain text.
    let mut client = bench.broker.client();
    let status = client.list_clusters(ListClustersRequest::default()).await;
    assert_ne!(status.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_one_that_is_no_good_is_not() {
    let bench = Bench::start().await;
    let dir = bench.world.dir.path();
    let before = bench.connect(None).await.unwrap();
    let renewed = bench.authority.server();
    write(dir, &renewed);
    until("the renewed certificate is served", || async {
        bench.connect(None).await.unwrap().certificate == renewed.der
    })
    .await;
    // Whoever is connected stays so.
    assert_eq!(told(&mut before.client(bench.token())).await, Ok(()));

    // Half of a change, and nonsense: what was read before stays in use.
    fs::write(dir.join("tls.crt"), &bench.authority.server().certificate).unwrap();
    fs::write(dir.join("tls.key"), "no key").unwrap();
    until("the operator is told", || async {
        let log = fs::read_to_string(&bench.log).unwrap();
        log.contains("what was read before stays in use") && log.contains("server.tls.key_file")
    })
    .await;
    assert_eq!(bench.connect(None).await.unwrap().certificate, renewed.der);
    let mended = bench.authority.server();
    write(dir, &mended);
    until("the mended certificate is served", || async {
        bench.connect(None).await.unwrap().certificate == mended.der
    })
    .await;
}

#[tokio::test]
async fn whoever_came_by_an_authority_that_counts_no_longer_is_sent_away() {
    let bench = Bench::start().await;
    let portal = bench.of_callers.client(&[PORTAL]);
    let connection = bench.connect(Some(&portal)).await.unwrap();
    assert_eq!(told(&mut connection.client(None)).await, Ok(()));
    let others = Authority::new();
    // As Kubernetes swaps what it has mounted: by renaming a link.
    let dir = bench.world.dir.path();
    fs::write(dir.join("others.pem"), others.pem()).unwrap();
    std::os::unix::fs::symlink(dir.join("others.pem"), dir.join("link")).unwrap();
    fs::rename(dir.join("link"), dir.join("callers.pem")).unwrap();
    until("the connection is ended", || async {
        !connection.is_alive().await
    })
    .await;
    let again = bench.connect(Some(&portal)).await;
    assert!(match again {
        Ok(connection) => !connection.is_alive().await,
        Err(_) => true,
    });
    let newcomer = others.client(&[PORTAL]);
    let connection = bench.connect(Some(&newcomer)).await.unwrap();
    assert_eq!(told(&mut connection.client(None)).await, Ok(()));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let world = World::start().await;
    let dir = world.dir.path();
    let authority = Authority::new();
    write(dir, &authority.server());
    fs::write(dir.join("tls.key"), &authority.server().key).unwrap();
    fs::write(dir.join("empty.pem"), "").unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    for (certificate, key, words) in [
        ("tls.crt", "tls.key", "server.tls.certificate_file"),
        ("empty.pem", "tls.key", "it holds no certificate in PEM"),
        ("tls.crt", "empty.pem", "server.tls.key_file"),
        ("gone.pem", "tls.key", "gone.pem cannot be read"),
    ] {
        let lines = [
            "tls:".to_owned(),
            format!("  certificate_file: {}", file(certificate)),
            format!("  key_file: {}", file(key)),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let config = world.config_with(&Timing::default(), &lines);
        let told = BrokerProcess::start_in_vain(&config).await;
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
}

/// Strangers bring as many as they like; an operator sees why, and not as often.
#[tokio::test]
async fn a_refused_client_certificate_is_logged_as_a_warning_and_not_each_time() {
    let bench = Bench::start().await;
    let strangers = [
        (
            Authority::new().client(&[PORTAL]),
            "no authority in server.tls.client_ca_file has issued it",
        ),
        (bench.of_callers.expired(PORTAL), "it has expired"),
        (
            bench.of_callers.server(),
            "its extended key usage is not that of a client",
        ),
        (bench.of_callers.client(&[]), "nobody is known by it"),
    ];
    for _ in 0..5 {
        for (stranger, _) in &strangers {
            if let Ok(connection) = bench.connect(Some(stranger)).await {
                connection.is_alive().await;
            }
        }
    }
    for (_, why) in &strangers {
        let told = || {
            let log = fs::read_to_string(&bench.log).unwrap();
            let lines = log.lines().filter(|line| line.contains(why));
            let of_this = lines.filter(|line| line.contains("a client certificate is refused"));
            of_this.map(str::to_owned).collect::<Vec<_>>()
        };
        until(why, || async { !told().is_empty() }).await;
        let told = told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("WARN") && told[0].contains("127.0.0.1"),
            "{told:?}"
        );
    }
}

/// A watch goes on for as long as its job does, and not for longer than its caller's certificate.
#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let bench = Bench::start().await;
    let never = FaultEffect::Status {
        status: 503,
        code: "ServerError".to_owned(),
        message: "not now".to_owned(),
        retry_after: None,
    };
    let write = Fault::always(Operation::RoleAssignmentWrite, never);
    bench.world.emulator.add_fault(write);
    let wish = permanent(
        ALICE,
        &bench.world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    );
    let short = bench.of_callers.short(PORTAL, Duration::from_secs(4));
    let connection = bench.connect(Some(&short)).await.unwrap();
    let mut client = connection.client(None);
    let accepted = client.grant(wish).await.unwrap().into_inner();
    let request = WatchJobRequest {
        job_id: accepted.job.unwrap().job_id,
    };
    let mut watched = client.watch_job(request).await.unwrap().into_inner();
    let ends = async {
        loop {
            match watched.message().await {
                Ok(told) => assert!(told.is_some(), "the job is not over"),
                Err(status) => break status,
            }
        }
    };
    let ended = tokio::time::timeout(SOON, ends).await.expect("it ends");
    assert_eq!(
        Refusal::of(&ended).kind(),
        (Code::Unauthenticated, "CERTIFICATE_INVALID")
    );
    assert_eq!(told(&mut client).await, refused("CERTIFICATE_INVALID"));
}
