//! What survives: with a state directory a `kill -9` loses no commit, and a second start goes on with it.

mod support;

use std::path::Path;
use std::process::Stdio;

use azure_emulator::{Cluster, CustomRole, DenyAssignment, Emulator, Options, Scope, Settings};
use reqwest::StatusCode;
use support::{
    ALICE, ARM, Azure, BROKER, CLUSTER, DEVELOPMENT, PRODUCTION, RBAC_READER, assignment, body,
    guid,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;

const NAME: Uuid = Uuid::from_u128(1);
const STATE_DIR: &str = "AZURE_EMULATOR_TEST_STATE_DIR";

fn options(directory: &Path) -> Options {
    Options {
        settings: Settings::immediate(),
        state_dir: Some(directory.to_owned()),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_second_start_goes_on_where_the_first_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = Azure::start(options(directory.path())).await;
    first.put(CLUSTER, NAME, &body(RBAC_READER, ALICE)).await;
    let written = first.get(&assignment(CLUSTER, NAME)).await.json();
    let role = Uuid::from_u128(2);
    let custom = CustomRole {
        id: role,
        name: "Mine".to_owned(),
        description: String::new(),
        assignable_scopes: vec![
            Scope::parse(&format!("/subscriptions/{PRODUCTION}")).expect("a scope"),
        ],
        permissions: Vec::new(),
    };
    first.emulator.add_custom_role(custom).expect("added");
    let cluster = Cluster::healthy(guid(DEVELOPMENT), "rg-new", "aks-new");
    let cluster = first.emulator.put_cluster(cluster).expect("made");
    let legacy = format!(
        "/subscriptions/{DEVELOPMENT}/resourceGroups/rg-legacy/providers/Microsoft.ContainerService/managedClusters/aks-no-entra"
    );
    first.emulator.delete_cluster(&legacy).expect("deleted");
    let denied = DenyAssignment::for_everyone(cluster.id(), "Nobody deletes", &["*/delete"]);
    let denied = first.emulator.put_deny_assignment(denied).expect("made");
    let mut fleet = first.emulator.world().fleets.remove(0);
    fleet.members.remove(0);
    first.emulator.put_fleet(fleet.clone()).expect("changed");
    let (ca, token) = (
        first.emulator.ca_pem().to_owned(),
        first.emulator.token(guid(BROKER), ARM).expect("a token"),
    );
    first.emulator.shutdown().await;

    let second = Azure::start(options(directory.path())).await;
    assert_eq!(
        second.emulator.ca_pem(),
        ca,
        "whoever trusted it goes on doing so"
    );
    assert_eq!(second.get(&assignment(CLUSTER, NAME)).await.json(), written);
    assert_eq!(second.emulator.world().deny_assignments, [denied]);
    assert_eq!(second.emulator.world().fleets, [fleet]);
    let url = format!(
        "{}{}",
        second.emulator.urls().arm,
        assignment(CLUSTER, NAME)
    );
    let old_client = support::client_of(&ca);
    let answer = old_client
        .get(url)
        .bearer_auth(token)
        .send()
        .await
        .expect("trusted");
    assert_eq!(
        answer.status(),
        StatusCode::OK,
        "tokens of the first run are still good"
    );
    let world = second.emulator.world();
    assert!(world.custom_roles.iter().any(|it| it.id == role));
    assert!(
        world.clusters.contains(&cluster)
            && !world.clusters.iter().any(|it| it.name == "aks-no-entra")
    );
    let group =
        format!("/subscriptions/{DEVELOPMENT}/resourceGroups/rg-legacy?api-version=2021-04-01");
    assert_eq!(second.get(&group).await.status, StatusCode::OK);
}

/// Not a test of its own: the process that the next one kills. Without its variable it does nothing.
#[tokio::test]
async fn the_process_to_be_killed() {
    let Ok(directory) = std::env::var(STATE_DIR) else {
        return;
    };
    let emulator = Emulator::start(options(Path::new(&directory)))
        .await
        .expect("an emulator");
    println!("\nURL {}", emulator.urls().arm);
    println!(
        "TOKEN {}",
        emulator.token(guid(BROKER), ARM).expect("a token")
    );
    // Until it is killed.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_kill_loses_no_commit_that_was_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_process_to_be_killed", "--nocapture"])
        .env(STATE_DIR, directory.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut url, mut token) = (None, None);
    while url.is_none() || token.is_none() {
        let line = lines
            .next_line()
            .await
            .expect("readable")
            .expect("more to come");
        url = url.or_else(|| line.strip_prefix("URL ").map(str::to_owned));
        token = token.or_else(|| line.strip_prefix("TOKEN ").map(str::to_owned));
    }
    let (url, token) = (url.expect("an address"), token.expect("a token"));
    let ca = std::fs::read_to_string(directory.path().join("ca.pem")).expect("a certificate");
    let client = support::client_of(&ca);
    for n in 1..=50 {
        let scope = format!("{CLUSTER}/namespaces/n{n}");
        let put = client
            .put(format!("{url}{}", assignment(&scope, Uuid::from_u128(n))))
            .bearer_auth(&token);
        let answer = put
            .json(&body(RBAC_READER, ALICE))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
    // SIGKILL: no destructor runs, nothing is flushed that was not.
    child.kill().await.expect("killed");

    let after = Azure::start(options(directory.path())).await;
    let names: Vec<Uuid> = after
        .emulator
        .role_assignments()
        .iter()
        .map(|it| it.name)
        .collect();
    for n in 1..=50 {
        assert!(names.contains(&Uuid::from_u128(n)), "{n} is lost");
    }
}

#[tokio::test]
async fn a_port_that_is_asked_for_is_taken_and_one_that_is_taken_is_named() {
    let first = Azure::immediate().await;
    let port: u16 = first
        .emulator
        .urls()
        .arm
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a number");
    let mut same = Options::default();
    same.ports.arm = port;
    let error = Emulator::start(same.clone()).await.expect_err("taken");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    first.emulator.shutdown().await;
    let second = Emulator::start(same).await.expect("free again");
    assert!(second.urls().arm.ends_with(&port.to_string()));
    second.shutdown().await;
}
