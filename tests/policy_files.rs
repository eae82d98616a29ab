//! Policies come and go as files: what is wrong with them is said before they count, and never makes a running broker
//! more or less strict than it was.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, CheckAccessRequest, GetClusterRequest};
use support::ask::{access, lasting, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const SOON: Duration = Duration::from_secs(30);
const CLUSTERS: &str =
    r#"permit (principal, action == AksAccess::Action::"GetCluster", resource);"#;
const ACCESS: &str = r#"permit (principal, action == AksAccess::Action::"CheckAccess", resource);"#;

/// A directory as a `ConfigMap` is mounted: its files are links through `..data`, which is swapped.
struct Mounted {
    dir: PathBuf,
    generation: usize,
}

impl Mounted {
    fn new(dir: PathBuf, text: &str) -> Self {
        fs::create_dir(&dir).unwrap();
        symlink("..data/policy.cedar", dir.join("policy.cedar")).unwrap();
        let mut mounted = Self { dir, generation: 0 };
        mounted.swap(text);
        mounted
    }

    fn swap(&mut self, text: &str) {
        self.generation += 1;
        let next = format!("..{}", self.generation);
        fs::create_dir(self.dir.join(&next)).unwrap();
        fs::write(self.dir.join(&next).join("policy.cedar"), text).unwrap();
        symlink(&next, self.dir.join("..tmp")).unwrap();
        fs::rename(self.dir.join("..tmp"), self.dir.join("..data")).unwrap();
    }
}

/// Whether it may see a cluster, and whether it may ask about access there.
async fn may(client: &mut Client, cluster: &str) -> (bool, bool) {
    let get = GetClusterRequest {
        cluster: cluster.to_owned(),
    };
    let check = CheckAccessRequest {
        principal: Some(user(ALICE)),
        cluster: cluster.to_owned(),
        access: Some(access(AzureRole::RbacReader, &[])),
        ..CheckAccessRequest::default()
    };
    let sees = client.get_cluster(get).await;
    let asks = client.check_access(check).await;
    for refusal in [sees.as_ref().err(), asks.as_ref().err()]
        .into_iter()
        .flatten()
    {
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
    (sees.is_ok(), asks.is_ok())
}

async fn until<T>(mut is_so: impl AsyncFnMut() -> Option<T>, what: &str) -> T {
    let soon = async {
        loop {
            if let Some(found) = is_so().await {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, soon).await.expect(what)
}

#[tokio::test]
async fn what_changes_in_the_directory_counts_and_what_is_wrong_does_not() {
    let world = World::start().await;
    let mut mounted = Mounted::new(world.dir.path().join("mounted"), CLUSTERS);
    let log = world.dir.path().join("log");
    let config = world.config_of_policies(&Timing::default(), Some(&mounted.dir));
    let broker = BrokerProcess::start_with_log(&config, &log).await;
    let (mut client, cluster) = (broker.client(), world.cluster("aks-production"));
    assert_eq!(may(&mut client, &cluster).await, (true, false));

    mounted.swap(ACCESS);
    let changed = async || (may(&mut client, &cluster).await == (false, true)).then_some(());
    until(changed, "the policies have changed").await;

    mounted.swap("permit (principal, action, resource) when { principal.nonsense };");
    let told = async || {
        let log = fs::read_to_string(&log).unwrap();
        log.lines()
            .find(|line| line.contains("policy.cedar:1:"))
            .map(str::to_owned)
    };
    let told = until(told, "what is wrong is told").await;
    assert!(
        told.contains("ERROR") && told.contains("still count"),
        "{told}"
    );
    assert_eq!(may(&mut client, &cluster).await, (false, true));

    fs::remove_file(mounted.dir.join("policy.cedar")).unwrap();
    let told = async || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("has no file *.cedar")
            .then_some(())
    };
    until(told, "that there is none is told").await;
    assert_eq!(may(&mut client, &cluster).await, (false, true));

    // Mended, it is taken.
    symlink("..data/policy.cedar", mounted.dir.join("policy.cedar")).unwrap();
    mounted.swap(&format!("{CLUSTERS}{ACCESS}"));
    let changed = async || (may(&mut client, &cluster).await == (true, true)).then_some(());
    until(changed, "the policies have changed again").await;
}

#[tokio::test]
async fn a_broker_does_not_start_with_policies_that_are_wrong() {
    let world = World::start().await;
    let dir = world.dir.path().join("wrong");
    let config = world.config_of_policies(&Timing::default(), Some(&dir));
    let told = BrokerProcess::start_in_vain(&config).await;
    assert!(
        told.contains("cannot be read") && told.contains("wrong"),
        "{told}"
    );
    fs::create_dir(&dir).unwrap();
    let told = BrokerProcess::start_in_vain(&config).await;
    assert!(told.contains("has no file *.cedar"), "{told}");
    fs::write(dir.join("a.cedar"), "permit (principal, action, resource)").unwrap();
    let told = BrokerProcess::start_in_vain(&config).await;
    assert!(told.contains("a.cedar:"), "{told}");
}

/// A policy that cannot be evaluated is not left out: nobody knows what it would have said.
#[tokio::test]
async fn a_policy_that_fails_refuses_and_the_trail_names_it() {
    let world = World::start().await;
    let dir = world.dir.path().join("failing");
    fs::create_dir(&dir).unwrap();
    let text = r#"permit (principal, action, resource);
        @id("too-long") forbid (principal, action == AksAccess::Action::"Grant", resource)
            when { context has duration_seconds && context.duration_seconds * 9000000000000000000 > 1 };"#;
    fs::write(dir.join("policies.cedar"), text).unwrap();
    let config = world.config_of_policies(&Timing::default(), Some(&dir));
    let broker = BrokerProcess::start(&config).await;
    let wish = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
        Duration::from_hours(1),
    );
    let refusal = Refusal::from(broker.client().grant(wish).await);
    assert_eq!(
        refusal.kind(),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    assert!(!refusal.message.contains("too-long"));
    let trail = world.trail().await;
    let errors = trail[0]["details"]["policy_errors"].as_str().unwrap();
    assert!(errors.starts_with("policy too-long: "), "{errors}");
}

fn policy(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"));
    command.arg("policy").args(arguments);
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn arg(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn policies_are_checked_before_they_count() {
    let shipped = policy(&["default"], "");
    assert!(shipped.status.success());
    let shipped = text(&shipped.stdout);
    let good = directory(&[
        ("default.cedar", shipped.as_str()),
        ("more.cedar", CLUSTERS),
    ]);
    let checked = policy(&["check", arg(good.path())], "");
    assert!(checked.status.success(), "{checked:?}");
    let told = text(&checked.stdout);
    for line in [
        "permit grant\n",
        "forbid never-to-oneself\n",
        "permit more.cedar#1\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let bad = directory(&[
        (
            "one.cedar",
            "permit (principal, action, resource) when { context.nonsense };",
        ),
        ("two.cedar", "permit (principal;"),
    ]);
    let checked = policy(&["check", arg(bad.path())], "");
    assert!(!checked.status.success());
    let told = text(&checked.stderr);
    // All that is wrong, at once.
    assert!(
        told.contains("one.cedar:1:") && told.contains("two.cedar:1:"),
        "{told}"
    );
    let schema = policy(&["schema"], "");
    assert!(text(&schema.stdout).contains("namespace AksAccess"));
}

#[test]
fn a_decision_is_explained_by_the_policies_that_made_it() {
    let document = include_str!("../docs/policies.md");
    let example = document.split("```yaml\n").nth(1).expect("an example");
    let example = example.split("```").next().unwrap();
    let explained = policy(&["explain", "-"], example);
    assert!(!explained.status.success());
    let told = text(&explained.stdout);
    assert!(told.starts_with("REFUSED\n"), "{told}");
    assert!(
        told.contains("cluster-admin-is-short-and-justified"),
        "{told}"
    );

    let allowed = example.replace("justification: \"\"", "justification: INC-4711");
    let explained = policy(&["explain", "-"], &allowed);
    assert!(explained.status.success(), "{explained:?}");
    let told = text(&explained.stdout);
    assert!(
        told.starts_with("ALLOWED\n") && told.contains("@id(\"grant\")"),
        "{told}"
    );

    let by_nobody = example
        .replace("Access.Grant", "Access.Nothing")
        .replace("justification: \"\"", "justification: x");
    let told = text(&policy(&["explain", "-"], &by_nobody).stdout);
    assert!(told.contains("no policy permits it"), "{told}");

    let none = directory(&[("none.cedar", "forbid (principal, action, resource);")]);
    let explained = policy(&["explain", "--policies", arg(none.path()), "-"], &allowed);
    assert!(text(&explained.stdout).contains("forbid"), "{explained:?}");

    for (wrong, word) in [
        (
            example.replace("action: Grant", "action: Destroy"),
            "Destroy",
        ),
        (example.replace("RBAC_CLUSTER_ADMIN", "KING"), "KING"),
        (example.replace("roles:", "rolls:"), "rolls"),
    ] {
        let told = text(&policy(&["explain", "-"], &wrong).stderr);
        assert!(told.contains(word), "{told}");
    }
}

/// A custom role is judged by what it gives, and one of which that is not written down by everything.
#[test]
fn a_decision_about_a_custom_role_is_explained_with_its_power() {
    let document = include_str!("../docs/policies.md");
    let example = document.split("```yaml\n").nth(1).expect("an example");
    let example = example.split("```").next().unwrap();
    let custom = example.replace(
        "azure_role: RBAC_CLUSTER_ADMIN",
        "role_definition_id: 60000000-0000-4000-8000-000000000001",
    );
    let given = |actions: &str| {
        let prefix = "Microsoft.ContainerService/managedClusters";
        let actions = actions.replace('@', prefix);
        custom.replace("grant:", &format!("role_is: {actions}\ngrant:"))
    };
    let all = "reads, writes, secrets, execs, grants_roles, everything";
    for (request, verdict, power) in [
        (custom.clone(), "REFUSED", all),
        (given("{data_actions: ['@/*']}"), "REFUSED", all),
        (
            given("{data_actions: ['@/*/read'], not_data_actions: ['@/secrets/*']}"),
            "ALLOWED",
            "reads",
        ),
        (given("{}"), "ALLOWED", "none"),
        (example.to_owned(), "REFUSED", all),
    ] {
        let explained = policy(&["explain", "-"], &request);
        let told = text(&explained.stdout);
        let expected = format!("{verdict}\nthe role's power: {power}\n");
        assert!(
            told.starts_with(&expected),
            "{request}: {told} {explained:?}"
        );
    }
    let wrong = example.replace("grant:", "role_is: {}\ngrant:");
    let told = text(&policy(&["explain", "-"], &wrong).stderr);
    assert!(told.contains("role_is"), "{told}");
}

#[test]
fn what_the_page_of_policies_shows_is_taken() {
    let document = include_str!("../docs/policies.md");
    let examples = document.split("```cedar\n").skip(1);
    let examples: Vec<&str> = examples.map(|it| it.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    let dir = directory(&[("examples.cedar", &examples.concat())]);
    let checked = policy(&["check", arg(dir.path())], "");
    assert!(checked.status.success(), "{checked:?}");
}
